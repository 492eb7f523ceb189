/** Build contexts that are no directory yet: a git repository, an archive or a Dockerfile from an address or a stream. */
import { closeSync, constants, openSync, renameSync, statSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { bytesOf, openTree, resolveInTree, show, type Store } from '../../cas/index.ts'
import { find } from '../copy/found.ts'
import { unpackArchive } from '../copy/unpack.ts'
import type { Progress } from '../solve/observer.ts'
import type { BuildRequest } from '../types.ts'
import { contextAddress } from './address.ts'
import { checkout, parseGitSource, resolveCommit, type GitSource } from './git.ts'
import { fetchFile, shown } from './http.ts'

/** A Dockerfile is written by people. */
const MAX_DOCKERFILE_BYTES = 16 * 1024 * 1024
const MAX_STREAM_BYTES = 64 * 1024 ** 3

/** What a context and its Dockerfile are asked by. */
export type ContextRequest = Pick<
  BuildRequest,
  'context' | 'contextStream' | 'dockerfile' | 'dockerfileStream' | 'noStatCache' | 'signal'
>

/**
 * The same request, on a directory of this process's which goes with its lease. What is no archive is a Dockerfile, and the context is empty.
 * Throws `CONTEXT_INVALID`, `DOCKERFILE_NOT_FOUND`, and what fetching and unpacking throw.
 */
export async function fetchContext<Request extends ContextRequest>(
  given: Request,
  store: Store,
  progress?: Progress,
): Promise<Request> {
  const signal = given.signal ?? new AbortController().signal
  const request = given.dockerfileStream === undefined ? given : await spoolDockerfile(given, store, signal)
  const address = request.context === '-' ? undefined : contextAddress(request.context)
  if (address === undefined && request.context !== '-') return request
  const directory = store.workDirectory('context')
  const git = address === undefined ? undefined : parseGitSource(address)
  if (git !== undefined) {
    await shownAs(progress, `[internal] load git source ${shown(address ?? '')}`, signal, () =>
      fetchGit(git, directory, signal),
    )
    return inDirectory(request, directory, git.subdirectory)
  }
  const file = join(directory, 'file')
  if (address === undefined) await spool(request.contextStream, file, MAX_STREAM_BYTES, signal)
  else
    await shownAs(progress, `[internal] load remote build context ${shown(address)}`, signal, () =>
      fetchFile(address, file, { signal }),
    )
  const unpacked = await unpackFile(store, directory)
  if (unpacked !== undefined) return inDirectory(request, unpacked, '')
  if (given.dockerfileStream !== undefined)
    throw invalid('it is no archive, and the Dockerfile is another one', 'leave -f out, or give an archive')
  const size = statSync(file).size
  if (size === 0 || size > MAX_DOCKERFILE_BYTES)
    throw invalid(
      size === 0 ? 'it is empty' : 'it is no archive, and larger than a Dockerfile may be',
      'give a tar, compressed or not, or a Dockerfile',
    )
  const beside = join(store.workDirectory('dockerfile'), 'Dockerfile')
  renameSync(file, beside)
  // The directory is empty now.
  return { ...request, context: directory, dockerfile: beside, noStatCache: true }
}

/** The files of a commit, without its .git, in an empty directory. */
export async function fetchGit(git: GitSource, directory: string, signal: AbortSignal): Promise<void> {
  await checkout(git, await resolveCommit(git, signal), directory, false, signal)
}

/** What takes its time is a step of the build. */
export async function shownAs<T>(
  progress: Progress | undefined,
  title: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const step = progress?.start(title)
  try {
    const result = await work()
    step?.done()
    return result
  } catch (error) {
    if (signal?.aborted === true) step?.canceled()
    else step?.failed(error)
    throw error
  }
}

async function spoolDockerfile<Request extends ContextRequest>(
  request: Request,
  store: Store,
  signal: AbortSignal,
): Promise<Request> {
  const dockerfile = join(store.workDirectory('dockerfile'), 'Dockerfile')
  await spool(request.dockerfileStream, dockerfile, MAX_DOCKERFILE_BYTES, signal)
  return { ...request, dockerfile, dockerfileStream: undefined }
}

async function spool(
  stream: AsyncIterable<Uint8Array> | undefined,
  path: string,
  limit: number,
  signal: AbortSignal,
): Promise<void> {
  if (stream === undefined) throw invalid('there is no stream to read it from')
  const fd = openSync(path, 'wx', 0o600)
  try {
    let size = 0
    for await (const chunk of stream) {
      signal.throwIfAborted()
      size += chunk.length
      if (size > limit) throw invalid(`what is read from the stream has more than ${limit / 1024 ** 2} MiB`)
      for (let done = 0; done < chunk.length;) done += writeSync(fd, chunk, done)
    }
  } finally {
    closeSync(fd)
  }
}

async function unpackFile(store: Store, directory: string): Promise<string | undefined> {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    using tree = openTree(fd)
    return await unpackArchive(store, find(tree, 'file'))
  } finally {
    closeSync(fd)
  }
}

/** Who wrote the context also wrote its symlinks: none of them may make a file of this machine its Dockerfile or ignore file. */
function inDirectory<Request extends ContextRequest>(
  request: Request,
  directory: string,
  subdirectory: string,
): Request {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    using tree = openTree(fd)
    const top = resolveInTree(tree, bytesOf(subdirectory))
    if (top.stats?.isDirectory() !== true)
      throw invalid(`it has no directory ${JSON.stringify(subdirectory)}`)
    const below = (name: string): string => (top.path === '' ? name : `${top.path}/${name}`)
    const isOutside = request.dockerfile.startsWith('/')
    const found = isOutside ? undefined : resolveInTree(tree, below(bytesOf(request.dockerfile)))
    if (found !== undefined && found.stats?.isFile() !== true)
      throw new TbuildError(
        'DOCKERFILE_NOT_FOUND',
        `The build context has no file ${JSON.stringify(request.dockerfile)}.`,
        { hint: 'Name it with -f; the name is relative to the context.' },
      )
    const ignoreFiles = [
      below('.dockerignore'),
      ...(found === undefined ? [] : [`${found.path}.dockerignore`]),
    ]
    for (const path of ignoreFiles)
      if (tree.lstat(path)?.isSymbolicLink() === true) throw invalid(`${show(path)} is a symlink`)
    return {
      ...request,
      context: join(directory, show(top.path)),
      dockerfile: found === undefined ? request.dockerfile : join(directory, show(found.path)),
      noStatCache: true,
    }
  } finally {
    closeSync(fd)
  }
}

function invalid(why: string, hint?: string): TbuildError {
  return new TbuildError('CONTEXT_INVALID', `The build context cannot be used: ${why}.`, { hint })
}
