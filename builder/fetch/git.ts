/** Files of a git repository, through the system's git. */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { shown } from './http.ts'

export interface GitSource {
  readonly url: string
  /** Branch, tag, full ref or commit; '' is the repository's HEAD. */
  readonly ref: string
  /** Directory in it; '' is all of it. */
  readonly subdirectory: string
}

/** `https://host/repo.git#ref:subdir`, `git@host:repo`, `ssh://`, `git://`; undefined for what names no repository. */
export function parseGitSource(text: string): GitSource | undefined {
  const hash = text.indexOf('#')
  const url = hash < 0 ? text : text.slice(0, hash)
  const isGit =
    /^https?:\/\/.+\.git$/.test(url) ||
    /^(?:git|ssh):\/\/./.test(url) ||
    /^[a-zA-Z0-9_-]+@[^\s/:]+:./.test(url)
  if (!isGit) return undefined
  const fragment = hash < 0 ? '' : text.slice(hash + 1)
  const colon = fragment.indexOf(':')
  return {
    url,
    ref: colon < 0 ? fragment : fragment.slice(0, colon),
    subdirectory: colon < 0 ? '' : fragment.slice(colon + 1),
  }
}

/** The commit that is meant. Throws `GIT_FAILED`, `GIT_REF_NOT_FOUND`, `TOOL_MISSING`. */
export async function resolveCommit({ url, ref }: GitSource, signal: AbortSignal): Promise<string> {
  if (isCommit(ref)) return ref
  const wanted = ref === '' ? 'HEAD' : ref
  const lines = (await git(['ls-remote', '--', url], undefined, url, signal)).split('\n')
  const found = new Map(lines.map((line) => [line.slice(line.indexOf('\t') + 1), line.split('\t')[0]]))
  for (const name of [
    `refs/tags/${wanted}^{}`,
    `refs/tags/${wanted}`,
    `refs/heads/${wanted}`,
    `${wanted}^{}`,
    wanted,
  ]) {
    const commit = found.get(name)
    if (commit !== undefined && isCommit(commit)) return commit
  }
  throw new TbuildError('GIT_REF_NOT_FOUND', `${shown(url)} has no branch or tag ${JSON.stringify(wanted)}`, {
    hint: 'give a branch, a tag, or a whole commit id after #',
  })
}

/** Checks a commit out into an empty directory, submodules too; with `keepGitDir` its .git stays. Throws `GIT_FAILED`, `TOOL_MISSING`. */
export async function checkout(
  { url, ref }: GitSource,
  commit: string,
  directory: string,
  keepGitDir: boolean,
  signal: AbortSignal,
): Promise<void> {
  const run = (...args: string[]): Promise<string> => git(args, directory, url, signal)
  await run('init', '--quiet')
  await run('remote', 'add', 'origin', '--', url)
  try {
    await run('fetch', '--quiet', '--depth=1', 'origin', commit)
  } catch (error) {
    signal.throwIfAborted()
    if (!(error instanceof TbuildError) || error.code !== 'GIT_FAILED') throw error
    // Not every server gives single commits, or shallow ones.
    await run('fetch', '--quiet', '--tags', 'origin', '+refs/heads/*:refs/remotes/origin/*')
    if (ref !== '' && !isCommit(ref)) await run('fetch', '--quiet', 'origin', ref)
  }
  await run('checkout', '--quiet', '--detach', commit)
  if (existsSync(join(directory, '.gitmodules')))
    await run('submodule', '--quiet', 'update', '--init', '--recursive', '--depth=1')
  if (!keepGitDir) {
    rmSync(join(directory, '.git'), { recursive: true, force: true })
  }
}

function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text) || /^[0-9a-f]{64}$/.test(text)
}

// A repository is hostile: no local paths, no helpers named by it, no hooks.
const CONFIG = [
  'protocol.allow=never',
  ...['http', 'https', 'ssh', 'git'].map((name) => `protocol.${name}.allow=always`),
  'core.hooksPath=/dev/null',
  'advice.detachedHead=false',
].flatMap((setting) => ['-c', setting])
const MAX_OUTPUT = 64 * 1024 * 1024

async function git(
  args: readonly string[],
  directory: string | undefined,
  url: string,
  signal: AbortSignal,
): Promise<string> {
  // Only here: it takes 2 ms to load, and every build looks at this file.
  const { spawn } = await import('node:child_process')
  signal.throwIfAborted()
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^GIT_(?:DIR|WORK_TREE|INDEX_FILE)$/.test(name),
  )
  const child = spawn('git', [...CONFIG, ...args], {
    cwd: directory ?? '/',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...Object.fromEntries(inherited), GIT_TERMINAL_PROMPT: '0', LC_ALL: 'C' },
    signal,
    killSignal: 'SIGKILL',
  })
  const out: Buffer[] = []
  let size = 0
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => {
    size += chunk.length
    if (size <= MAX_OUTPUT) out.push(chunk)
    else child.kill('SIGKILL')
  })
  child.stderr.on('data', (chunk: Buffer) => {
    if (said.length < 2000) said += chunk.toString()
  })
  const { promise, resolve, reject } = Promise.withResolvers<number | null>()
  child.on('error', reject)
  child.on('close', (code) => resolve(code))
  let code: number | null
  try {
    code = await promise
  } catch (error) {
    signal.throwIfAborted()
    throw new TbuildError('TOOL_MISSING', `${shown(url)} is a git repository, and git cannot be run here`, {
      hint: 'install it (Debian: apt-get install git)',
      cause: error,
    })
  }
  signal.throwIfAborted()
  if (code === 0 && size <= MAX_OUTPUT) return Buffer.concat(out).toString()
  const why = said
    .replaceAll(url, shown(url))
    .trim()
    .replaceAll(/\p{Cc}+/gu, ' ')
  throw new TbuildError('GIT_FAILED', `git ${args[0] ?? ''} of ${shown(url)} failed: ${why}`, {
    hint: 'git must be able to reach it without asking for a password',
  })
}
