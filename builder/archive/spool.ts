/**
 * An archive from outside, taken in whole before anything is believed: the contents of its files one after the other in one file of ours, and
 * a table of their names. Names never become paths on this machine.
 */
import { createHash, type Hash } from 'node:crypto'
import { closeSync, createReadStream, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { posix } from 'node:path'
import { TarReader, type Digest, type Store, type TarEntry, type TarHandler } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { decompress, partsOf } from './decompress.ts'

/** A file of the archive. */
export interface SpooledFile {
  readonly name: string
  /** Where its contents begin in the spool. */
  readonly at: number
  readonly size: number
  /** Of its contents. */
  readonly digest: Digest
}

export interface SpooledArchive extends AsyncDisposable {
  /** By name; symlinks and hard links inside the archive are followed. */
  find(name: string): SpooledFile | undefined
  /** The whole file. Throws `ARCHIVE_INVALID` when it is larger than `limit` bytes. */
  read(file: SpooledFile, limit: number): Buffer
  stream(file: SpooledFile): AsyncIterable<Uint8Array>
}

/** Images have some hundred files in an archive. */
const MAX_ENTRIES = 100_000
const MAX_LINKS = 16

export interface SpoolOptions {
  readonly signal?: AbortSignal | undefined
}

/**
 * Reads a tar, compressed or not, to its end. Throws `ARCHIVE_INVALID` (a name with `..`, a device, a sparse file, too many entries),
 * `LAYER_BOMB`, `COMPRESSION_*`, and what `TarReader` throws. Dispose the result to remove the spool.
 */
export async function spoolArchive(
  store: Store,
  source: AsyncIterable<Uint8Array>,
  options: SpoolOptions = {},
): Promise<SpooledArchive> {
  const directory = store.workDirectory('load')
  const path = join(directory, 'contents')
  const fd = openSync(path, 'wx+', 0o600)
  const dispose = async (): Promise<void> => {
    closeSync(fd)
    await rm(directory, { recursive: true, force: true })
  }
  const table = new Table(fd)
  try {
    const reader = new TarReader(table)
    const how = { what: 'the archive', dropsZeros: true, signal: options.signal }
    for await (const chunk of decompress(source, how)) reader.feed(chunk)
    reader.finish()
    table.finish()
  } catch (error) {
    await dispose()
    throw error
  }
  return {
    find: (name) => table.find(name),
    read(file, limit) {
      if (file.size > limit)
        throw invalid(`${JSON.stringify(file.name)} has ${file.size} bytes, at most ${limit} are read`)
      const bytes = Buffer.alloc(file.size)
      for (let done = 0; done < file.size;) {
        const count = readSync(fd, bytes, done, file.size - done, file.at + done)
        if (count === 0) throw new Error('the spool is shorter than what was written to it')
        done += count
      }
      return bytes
    },
    async *stream(file) {
      if (file.size === 0) return
      const range = { start: file.at, end: file.at + file.size - 1, highWaterMark: 1024 * 1024 }
      for await (const chunk of createReadStream(path, range)) yield chunk as Buffer
    },
    [Symbol.asyncDispose]: dispose,
  }
}

export function invalid(why: string, hint?: string): TbuildError {
  return new TbuildError('ARCHIVE_INVALID', `the archive cannot be loaded: ${why}`, { hint })
}

class Table implements TarHandler {
  readonly #fd: number
  readonly #files = new Map<string, SpooledFile>()
  /** Where a link leads, as a name in the archive. */
  readonly #links = new Map<string, string>()
  #end = 0
  #count = 0
  #current: { readonly name: string; readonly size: number; readonly hash: Hash } | undefined

  constructor(fd: number) {
    this.#fd = fd
  }

  entry(entry: TarEntry): void {
    const name = entry.path.toString()
    if (++this.#count > MAX_ENTRIES) throw invalid(`it has more than ${MAX_ENTRIES} entries`)
    if (name.split('/').includes('..')) throw invalid(`the name ${JSON.stringify(name)} leads outside of it`)
    const { type } = entry
    if (type === 'symlink') this.#links.set(name, posix.join(posix.dirname(name), text(entry.link)))
    else if (type === 'hardlink') this.#links.set(name, text(entry.link))
    else if (type === 'file') {
      // Holes cost nothing in the archive and would be hashed for ever.
      if (entry.sparse !== undefined) throw invalid(`${JSON.stringify(name)} is a sparse file`)
      this.#current = { name, size: entry.size, hash: createHash('sha256') }
    } else if (type !== 'directory') throw invalid(`${JSON.stringify(name)} is a special file`)
  }

  data(chunk: Buffer, offset: number): void {
    this.#current?.hash.update(chunk)
    for (const { at, length, isZero } of partsOf(chunk)) {
      if (isZero) continue
      for (let done = 0; done < length;)
        done += writeSync(this.#fd, chunk, at + done, length - done, this.#end + offset + at + done)
    }
  }

  /** Where zeros were not written, they are read. */
  finish(): void {
    ftruncateSync(this.#fd, this.#end)
  }

  end(): void {
    if (this.#current === undefined) return
    const { name, size, hash } = this.#current
    // As when it is unpacked: the last of a name wins.
    this.#links.delete(name)
    const digest = `sha256:${hash.digest('hex')}` as Digest
    this.#files.set(name, { name, at: this.#end, size, digest })
    this.#end += size
    this.#current = undefined
  }

  find(name: string): SpooledFile | undefined {
    let at = posix.normalize(name)
    for (let hops = 0; hops < MAX_LINKS; hops++) {
      const next = this.#links.get(at)
      if (next === undefined) return this.#files.get(at)
      at = posix.normalize(next)
    }
    return undefined
  }
}

function text(bytes: Buffer | undefined): string {
  return bytes?.toString() ?? ''
}
