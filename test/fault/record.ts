/**
 * A recording: what a scenario started from, and all that its run did to the disk. It is a directory of its own, so that a failure can be replayed:
 * `base`, a copy of the store before the run, `about.json` and `log`.
 */
import { execFileSync } from 'node:child_process'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { tellInto, type Mark } from './facts.ts'
import { parseLog, type Log } from './log.ts'
import { differencesOf } from './verify.ts'
import { runTraced } from './trace.ts'
import { pathBytes } from './tree.ts'
import { loadScenario } from './scenario.ts'

export interface Recording {
  readonly directory: string
  readonly module: string
  readonly seed: number
  /** The store's path while it was recorded. */
  readonly store: string
  /** Path in the store -> the inode's number; none when the store was not there. */
  readonly inodes: Readonly<Record<string, number>>
  readonly before: readonly Mark[]
  readonly log: Log
}

/** `directory`: a new one. Throws when the scenario fails, for then there is nothing to break, and when something of it was not seen. */
export async function record(module: string, seed: number, directory: string): Promise<Recording> {
  mkdirSync(directory, { recursive: true })
  const store = join(realpathSync(directory), 'store')
  const before = await prepare(module, seed, store)
  const inodes: Record<string, number> = {}
  if (existsSync(store)) {
    copy(store, join(directory, 'base'))
    number(store, '.', inodes)
  }
  const about = { module, seed, store, inodes, before }
  writeFileSync(join(directory, 'about.json'), JSON.stringify(about))
  const { status, stderr, log } = await runTraced(module, { store, log: join(directory, 'log'), seed })
  if (status !== 0) throw new Error(`${module} fails without any fault (status ${status}): ${stderr}`)
  const recording = { directory, ...about, log }
  const differences = differencesOf(recording)
  if (differences.length > 0)
    throw new Error(`${module}: what was recorded is not what happened: ${differences.join('; ')}`)
  return recording
}

export function loadRecording(directory: string): Recording {
  const about = JSON.parse(readFileSync(join(directory, 'about.json'), 'utf8')) as Omit<
    Recording,
    'directory' | 'log'
  >
  return { directory, ...about, log: parseLog(readFileSync(join(directory, 'log'))) }
}

/** What the run starts from, at `store`; nothing when the scenario makes it itself. */
export async function prepare(module: string, seed: number, store: string): Promise<readonly Mark[]> {
  const marks: Mark[] = []
  const scenario = await loadScenario(module)
  await scenario.prepare?.({ path: store, seed, tell: tellInto((mark) => void marks.push(mark)) })
  return marks
}

/** With all attributes; `to` is not there yet. */
export function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true })
  execFileSync('cp', ['-a', '--sparse=auto', '--reflink=auto', from, to])
}

function number(root: string, path: string, into: Record<string, number>): void {
  const stats = lstatSync(pathBytes(root, path))
  into[path] = stats.ino
  if (!stats.isDirectory()) return
  for (const name of readdirSync(pathBytes(root, path), 'latin1'))
    number(root, path === '.' ? name : `${path}/${name}`, into)
}
