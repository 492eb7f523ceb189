/** An image from an OCI layout that is a directory, as other tools write them and `--build-context NAME=oci-layout://` names them. */
import { createHash, hash } from 'node:crypto'
import { createReadStream, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Descriptor, Digest, Image, Store } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { loadOne, type ArchiveFiles, type LoadOptions } from './load.ts'
import { invalid, type SpooledFile } from './spool.ts'

/**
 * `text`: PATH[:TAG][@DIGEST]; without a digest the image of that tag (`latest` unless given), or the only one. It gets no name. Throws
 * `CONTEXT_INVALID`, and what loading throws.
 */
export async function loadLayout(store: Store, text: string, options: LoadOptions): Promise<Image> {
  const [place, digest] = split(text, '@')
  const [path, tag] = split(place, ':')
  if (statSync(join(path, 'index.json'), { throwIfNoEntry: false }) === undefined || path === '')
    throw new TbuildError('CONTEXT_INVALID', `There is no OCI layout in ${JSON.stringify(path)}.`, {
      hint: 'write oci-layout://DIRECTORY[:TAG], where DIRECTORY holds index.json and blobs; an archive is brought in by: tbuild load',
    })
  return loadOne(store, layoutFiles(path), (manifests) => choose(manifests, tag, digest), options)
}

function split(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)]
}

function choose(
  manifests: readonly Descriptor[],
  tag: string | undefined,
  digest: string | undefined,
): Descriptor {
  if (digest !== undefined) {
    const found = manifests.find((one) => one.digest === digest)
    if (found !== undefined) return found
    throw invalid(`index.json does not name ${digest}`, tags(manifests))
  }
  const wanted = tag ?? 'latest'
  const found = manifests.find((one) => refName(one) === wanted || refName(one)?.endsWith(`:${wanted}`))
  if (found !== undefined) return found
  const [only] = manifests
  if (only !== undefined && manifests.length === 1 && tag === undefined) return only
  throw invalid(`index.json names no image ${JSON.stringify(wanted)}`, tags(manifests))
}

function refName({ annotations }: Descriptor): string | undefined {
  return annotations?.['org.opencontainers.image.ref.name']
}

function tags(manifests: readonly Descriptor[]): string {
  const names = manifests.map((one) => refName(one) ?? one.digest)
  return names.length === 0 ? 'it is empty' : `it has ${names.join(', ')}`
}

/** Nothing is copied: a blob is believed to be what its name says until it has been read. */
function layoutFiles(directory: string): ArchiveFiles {
  const pathOf = (name: string): string => join(directory, name)
  return {
    find(name) {
      const hex = /^blobs\/sha256\/([0-9a-f]{64})$/.exec(name)?.[1]
      if (hex === undefined && name !== 'index.json' && name !== 'oci-layout') return undefined
      const info = statSync(pathOf(name), { throwIfNoEntry: false })
      if (info?.isFile() !== true) return undefined
      return { name, at: 0, size: info.size, digest: `sha256:${hex ?? ''}` as Digest }
    },
    read(file, limit) {
      if (file.size > limit)
        throw invalid(`${JSON.stringify(file.name)} has ${file.size} bytes, at most ${limit} are read`)
      const bytes = readFileSync(pathOf(file.name))
      if (file.digest !== 'sha256:') check(file, `sha256:${hash('sha256', bytes)}`)
      return bytes
    },
    async *stream(file) {
      const sum = createHash('sha256')
      for await (const chunk of createReadStream(pathOf(file.name), { highWaterMark: 1024 * 1024 })) {
        sum.update(chunk as Buffer)
        yield chunk as Buffer
      }
      check(file, `sha256:${sum.digest('hex')}`)
    },
  }
}

function check(file: SpooledFile, found: string): void {
  if (found === file.digest) return
  throw new TbuildError('DIGEST_MISMATCH', `the layout's blob ${file.digest} has the digest ${found}`)
}
