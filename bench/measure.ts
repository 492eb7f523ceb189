/** What every benchmark does: a scratch directory with a base image in tbuild's store and in buildah's, timing, a table. */
import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const TBUILD = join(import.meta.dirname, '../bin/tbuild')
/** Debian's crun refuses a machine with v1 and an empty v2 tree, and machines without CAP_SYS_RESOURCE refuse raised limits. */
const BUILDAH_BUILD = [
  '--runtime',
  'runc',
  '--ulimit',
  'nofile=512:512',
  '--ulimit',
  'nproc=512:512',
  '--network',
  'host',
]

export interface Bench {
  readonly directory: string
  /** tbuild's store, and buildah's. */
  readonly store: string
  readonly buildahStore: string
  /** Begins with stores that hold the base image only. */
  fresh(): void
  /** What the command says on standard output. */
  tbuildSays(...args: readonly string[]): string
  /** How often the command and its children called fsync or fdatasync: in a run of its own, slowed down by strace. */
  countSyncs(...args: readonly string[]): number
  readonly hasBuildah: boolean
  tbuild(...args: readonly string[]): void
  /** `buildah bud --layers`, with storage of its own. */
  buildahBuild(...args: readonly string[]): void
  buildah(...args: readonly string[]): void
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

/** Gives `work` a scratch directory with the image `base` (static busybox) in both stores, and removes it afterwards. */
export async function withBench(work: (bench: Bench) => void | Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'tbuild-bench-'))
  const env = { ...process.env, TBUILD_STORE: join(directory, 'store') }
  const roots = ['--root', join(directory, 'buildah'), '--runroot', join(directory, 'buildah-run')]
  const quietly = (program: string, args: readonly string[]): void => {
    const { status, stderr, error } = spawnSync(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] })
    if (error !== undefined) throw error
    if (status !== 0)
      throw new Error(`${program} ${args.join(' ')} ended with ${status}:\n${stderr.toString()}`)
  }
  const emptyBuildah = (): void => {
    if (!existsSync(bench.buildahStore)) return
    spawnSync('buildah', [...roots, 'rm', '--all'], { stdio: 'ignore' })
    rmSync(bench.buildahStore, { recursive: true, force: true })
  }
  const bench: Bench = {
    directory,
    store: join(directory, 'store'),
    buildahStore: join(directory, 'buildah'),
    fresh: () => {
      emptyBuildah()
      rmSync(bench.store, { recursive: true, force: true })
      bench.tbuild('import', '--change', 'CMD ["true"]', join(directory, 'base.tar'), 'localhost/base')
      if (!bench.hasBuildah) return
      const archive = join(directory, 'base-image.tar')
      bench.tbuild('save', '-o', archive, 'localhost/base')
      bench.buildah('pull', '--quiet', `docker-archive:${archive}`)
    },
    tbuildSays: (...args) => execFileSync(TBUILD, args, { env, encoding: 'utf8' }),
    countSyncs: (...args) => {
      const trace = join(directory, 'trace')
      quietly('strace', ['-f', '--seccomp-bpf', '-o', trace, '-e', 'trace=fsync,fdatasync', TBUILD, ...args])
      return readFileSync(trace, 'utf8')
        .split('\n')
        .filter((line) => /f(data)?sync\(/.test(line)).length
    },
    hasBuildah: existsSync('/usr/bin/buildah') && existsSync('/usr/sbin/runc'),
    tbuild: (...args) => quietly(TBUILD, args),
    buildah: (...args) => quietly('buildah', [...roots, ...args]),
    buildahBuild: (...args) => quietly('buildah', [...roots, 'bud', '--layers', ...BUILDAH_BUILD, ...args]),
  }
  try {
    makeBase(directory)
    bench.fresh()
    if (!bench.hasBuildah) console.log('(buildah and runc are not here: no peer)')
    await work(bench)
  } finally {
    emptyBuildah()
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
