/** What every benchmark does: a scratch directory with a base image in a store of tbuild's, timing, a table. */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const TBUILD = join(import.meta.dirname, '../bin/tbuild')

export interface Bench {
  readonly directory: string
  readonly store: string
  /** Begins with a store that holds the base image only. */
  fresh(): void
  /** What the command says on standard output. */
  tbuildSays(...args: readonly string[]): string
  /** How often the command and its children called fsync or fdatasync: in a run of its own, slowed down by strace. */
  countSyncs(...args: readonly string[]): number
  tbuild(...args: readonly string[]): void
}

/** Milliseconds. */
export interface Timing {
  readonly least: number
  readonly median: number
}

export interface Row {
  readonly what: string
  readonly time: Timing
}

/** Gives `work` a scratch directory with a store that has `localhost/base` (static busybox, `base.tar` there), and removes it afterwards. */
export async function withBench(work: (bench: Bench) => void | Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'tbuild-bench-'))
  const env = { ...process.env, TBUILD_STORE: join(directory, 'store') }
  const bench: Bench = {
    directory,
    store: join(directory, 'store'),
    fresh: () => {
      rmSync(bench.store, { recursive: true, force: true })
      bench.tbuild('import', '--change', 'CMD ["true"]', join(directory, 'base.tar'), 'localhost/base')
    },
    tbuildSays: (...args) => execFileSync(TBUILD, args, { env, encoding: 'utf8' }),
    countSyncs: (...args) => {
      const trace = join(directory, 'trace')
      const strace = ['-f', '--seccomp-bpf', '-o', trace, '-e', 'trace=fsync,fdatasync']
      quietly('strace', [...strace, TBUILD, ...args], env)
      return readFileSync(trace, 'utf8')
        .split('\n')
        .filter((line) => /f(data)?sync\(/.test(line)).length
    },
    tbuild: (...args) => quietly(TBUILD, args, env),
  }
  try {
    makeBase(directory)
    bench.fresh()
    await work(bench)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** As `base.tar`. */
function makeBase(directory: string): void {
  const root = join(directory, 'base')
  for (const folder of ['bin', 'etc', 'tmp']) mkdirSync(join(root, folder), { recursive: true })
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet))
  execFileSync('tar', ['-C', root, '--numeric-owner', '-cf', join(directory, 'base.tar'), '.'])
}

/** A program's run. What it says is heard only when it fails. */
export function quietly(program: string, args: readonly string[], env = process.env): void {
  const { status, stderr, error } = spawnSync(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
  if (error !== undefined) throw error
  if (status !== 0)
    throw new Error(`${program} ${args.join(' ')} ended with ${status}:\n${stderr.toString()}`)
}

/** Runs `work` and tells the least and the median time. `before` is not timed. */
export function time(runs: number, work: () => void, before: () => void = () => {}): Timing {
  const times: number[] = []
  for (let count = 0; count < runs; count++) {
    before()
    const start = performance.now()
    work()
    times.push(performance.now() - start)
  }
  times.sort((a, b) => a - b)
  return { least: times[0] ?? Number.NaN, median: times[times.length >> 1] ?? Number.NaN }
}

/** Bytes on disk of all that is below a directory. */
export function allocated(directory: string): number {
  return Number.parseInt(execFileSync('du', ['-s', '--block-size=1', directory], { encoding: 'utf8' }), 10)
}

/** Prints figures that are no times. */
export function facts(title: string, rows: readonly (readonly [what: string, figure: string])[]): void {
  console.log(`\n${title}`)
  for (const [what, figure] of rows) console.log(`${what.padEnd(64)}${figure.padStart(14)}`)
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}

/** A program's run, its output thrown away. */
export function run(program: string, ...args: readonly string[]): void {
  const { status, error } = spawnSync(program, args, { stdio: 'ignore' })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`${program} ended with ${status}`)
}

/** Prints each row with its ratio to the last one, the bound. */
export function table(title: string, rows: readonly Row[]): void {
  const bound = rows.at(-1)
  console.log(`\n${title}`)
  console.log(`${'ms'.padEnd(44)}${'least'.padStart(10)}${'median'.padStart(10)}${'x bound'.padStart(10)}`)
  for (const { what, time: taken } of rows) {
    const ratio = bound === undefined ? '' : (taken.least / bound.time.least).toFixed(2)
    console.log(
      `${what.padEnd(44)}${taken.least.toFixed(1).padStart(10)}${taken.median.toFixed(1).padStart(10)}${ratio.padStart(10)}`,
    )
  }
}
