/** Sources of ADD that are no files of the context: an http(s) address, or a git repository. */
import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { bytesOf, openTree, resolveInTree, type Store } from '../../cas/index.ts'
import type { Selected } from '../copy/select.ts'
import { keyOf } from '../solve/keys.ts'
import { checkout, parseGitSource, resolveCommit, type GitSource } from './git.ts'
import { fetchFile, shown } from './http.ts'

export type Remote =
  | {
      readonly kind: 'http'
      readonly url: string
      /** What the file is called in a directory. */
      readonly name: string
      /** `sha256:...` */
      readonly checksum: string | undefined
    }
  | {
      readonly kind: 'git'
      readonly source: GitSource
      readonly keepGitDir: boolean
      /** What the commit's id begins with. */
      readonly checksum: string | undefined
    }

export interface RemoteOptions {
  readonly checksum: string | undefined
  readonly keepGitDir: boolean
}

/** `undefined` for a name in the context. Throws `CHECKSUM_INVALID`. */
export function parseRemote(text: string, { checksum, keepGitDir }: RemoteOptions): Remote | undefined {
  const source = parseGitSource(text)
  if (source !== undefined) {
    if (checksum !== undefined && !/^[0-9a-f]{7,64}$/.test(checksum))
      throw invalidChecksum(checksum, 'of a git source it is a commit id')
    return { kind: 'git', source, keepGitDir, checksum }
  }
  if (!/^https?:\/\//.test(text)) return undefined
  if (checksum !== undefined && !/^sha256:[0-9a-f]{64}$/.test(checksum))
    throw invalidChecksum(checksum, 'write sha256: and 64 digits in lower case')
  return { kind: 'http', url: text, name: nameOf(text), checksum }
}

function invalidChecksum(checksum: string, hint: string): TbuildError {
  return new TbuildError('CHECKSUM_INVALID', `${JSON.stringify(checksum)} is not a checksum`, { hint })
}

/** As BuildKit: the last part of the address's path, which the server has no say in. */
function nameOf(url: string): string {
  let path = ''
  try {
    path = decodeURIComponent(new URL(url).pathname)
  } catch {
    // No name can be read from it.
  }
  const name = path.replace(/\/+$/, '').split('/').at(-1) ?? ''
  return name === '' || name === '.' || name === '..' || name.includes('\0') ? '__unnamed__' : name
}

/** What a remote source is at this moment; fetched at most once in a build. */
export interface Fetch extends Disposable {
  /** Names its contents without fetching them, if that can be told. */
  identity(): Promise<string | undefined>
  selected(): Promise<Selected>
}

export function createFetch(store: Store, remote: Remote, signal: AbortSignal): Fetch {
  const own = new DisposableStack()
  let selected: Promise<Selected> | undefined
  const open = (directory: string, path: string, name: string): Selected => {
    const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
    own.defer(() => closeSync(fd))
    const tree = own.use(openTree(fd))
    const found = resolveInTree(tree, bytesOf(path))
    if (found.stats === undefined)
      throw new TbuildError('COPY_NOT_FOUND', `the repository has no ${JSON.stringify(path)}`)
    return { tree, path: found.path, name: bytesOf(name), isRemote: true }
  }
  const dispose = (): void => own.dispose()
  if (remote.kind === 'git') {
    let commit: Promise<string> | undefined
    const resolve = (): Promise<string> => (commit ??= checkedCommit(remote.source, remote.checksum, signal))
    const fetchAll = async (): Promise<Selected> => {
      const directory = store.workDirectory('git')
      await checkout(remote.source, await resolve(), directory, remote.keepGitDir, signal)
      return open(directory, remote.source.subdirectory, '')
    }
    return {
      selected: () => (selected ??= fetchAll()),
      identity: async () =>
        JSON.stringify([
          'git',
          remote.source.url,
          await resolve(),
          remote.source.subdirectory,
          remote.keepGitDir,
        ]),
      [Symbol.dispose]: dispose,
    }
  }
  const { url, name, checksum } = remote
  const etagKey = keyOf([['ETag of', url]])
  const get = async (etag?: string): Promise<Selected | undefined> => {
    const directory = store.workDirectory('http')
    const fetched = await fetchFile(url, join(directory, 'file'), { etag, signal })
    if (fetched === undefined) return undefined
    if (checksum !== undefined && fetched.digest !== checksum)
      throw new TbuildError(
        'CHECKSUM_MISMATCH',
        `${shown(url)} has the checksum ${fetched.digest}, not ${checksum}`,
        {
          hint: 'it is another file than when the checksum was written down; see why before you change it',
        },
      )
    store.steps.alias(etagKey, fetched.etag ?? '')
    return open(directory, 'file', name)
  }
  const fetchAll = async (): Promise<Selected> => {
    const fetched = await get()
    if (fetched === undefined) throw new Error('an unconditional request was answered with "unchanged"')
    return fetched
  }
  return {
    selected: () => (selected ??= fetchAll()),
    identity: async () => {
      if (checksum !== undefined) return JSON.stringify(['http', name, checksum])
      const etag = store.steps.resolve(etagKey)
      if (selected === undefined && etag) {
        const fetched = await get(etag)
        if (fetched !== undefined) selected = Promise.resolve(fetched)
        else return JSON.stringify(['http', name, url, etag])
      }
      await (selected ??= fetchAll())
      const now = store.steps.resolve(etagKey)
      return now ? JSON.stringify(['http', name, url, now]) : undefined
    },
    [Symbol.dispose]: dispose,
  }
}

async function checkedCommit(
  source: GitSource,
  checksum: string | undefined,
  signal: AbortSignal,
): Promise<string> {
  const commit = await resolveCommit(source, signal)
  if (checksum === undefined || commit.startsWith(checksum)) return commit
  throw new TbuildError('CHECKSUM_MISMATCH', `${shown(source.url)} is at commit ${commit}, not ${checksum}`, {
    hint: 'the branch or tag has moved; see why before you change the checksum',
  })
}
