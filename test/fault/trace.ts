/** The tracer (tracer.c), built when it is first needed, and a scenario's child process under it. */
import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseLog, type Log } from './log.ts'

export interface Injection {
  /** Instead of the `at`-th call: a SIGKILL, or this error; with `stays` instead of every later one, too. ENOSPC counts those calls only that need room. */
  readonly fault: 'kill' | 'ENOSPC' | 'EIO'
  readonly stays?: boolean
  /** From 1. */
  readonly at: number
}

export interface Traced {
  /** Exit status, or 128 and the signal's number. */
  readonly status: number
  readonly stderr: string
  readonly log: Log
  readonly timedOut: boolean
}

/** An environment in which Node starts in a third of the time: it keeps what it makes of our sources. */
export function fastStart(): NodeJS.ProcessEnv {
  return { ...process.env, NODE_COMPILE_CACHE: join(scratch(), 'cache') }
}

const ERRNO = { ENOSPC: '28', EIO: '5', kill: 'kill' } as const
/** A run takes half a second. */
const MOST_MS = 60_000

/** `store`: absolute and real (no symlinks in it), as the kernel names it. `log`: a file to be made. */
export async function runTraced(
  module: string,
  { store, log, seed }: { readonly store: string; readonly log: string; readonly seed: number },
  injection?: Injection,
): Promise<Traced> {
  const fault =
    injection === undefined ? 'none' : `${ERRNO[injection.fault]}${injection.stays === true ? '+' : ''}`
  const command = [process.execPath, join(import.meta.dirname, 'run.ts'), module, store, String(seed)]
  const child = spawn(tracer(), [store, log, fault, String(injection?.at ?? 0), '--', ...command], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: fastStart(),
  })
  let stderr = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  let timedOut = false
  const timer = setTimeout(() => {
    timedOut = true
    // The tracer's end is that of all that it traces.
    child.kill('SIGKILL')
  }, MOST_MS)
  const status = await new Promise<number>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 128))
  })
  clearTimeout(timer)
  if (status === 125) throw new Error(`the tracer failed: ${stderr}`)
  return { status, stderr, log: parseLog(readFileSync(log)), timedOut }
}

let built: string | undefined
function tracer(): string {
  if (built !== undefined) return built
  const source = join(import.meta.dirname, 'tracer.c')
  const digest = createHash('sha256').update(readFileSync(source)).digest('hex')
  const directory = scratch()
  const program = join(directory, digest.slice(0, 16))
  if (!existsSync(program)) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const fresh = `${program}.${process.pid}`
    execFileSync('cc', ['-std=c11', '-O2', '-Wall', '-Wextra', '-o', fresh, source])
    renameSync(fresh, program)
  }
  return (built = program)
}

function scratch(): string {
  return join(tmpdir(), `tbuild-tracer-${process.getuid?.() ?? 0}`)
}
