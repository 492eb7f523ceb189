/** For tests only: a root of static busybox on an overlay, and one call to run a command in it. */
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  readFileSync,
  readdirSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { basename, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { detachedMountsCanBeCloned, mountOverlay, openat2, openLayersDirectory } from '../linux/index.ts'
import { runContainer } from './run.ts'
import type { ContainerSpec, Exit } from './spec.ts'

const BUSYBOX = '/bin/busybox'
// Applets, less those that every shell has built in.
const APPLETS =
  'sh ls cat echo ps id env hostname mount umount mknod sleep kill stat touch mkdir rm mv ln readlink chmod chown ' +
  'dd head tail grep sed awk tr wc sort find tty stty true false nc wget ip ifconfig ping su setpriv mkfifo printf ' +
  'test cut date od df free nproc pwd uname trap timeout usleep setsid nohup seq dmesg truncate'

export interface TestRoot extends Disposable {
  readonly root: number
  readonly lower: string
  readonly upper: string
}

/** `prepare` may change the lower directory before it is mounted. */
export function busyboxRoot(prepare: (lower: string) => void = () => {}): TestRoot {
  if (!existsSync(BUSYBOX))
    throw new Error('These tests need a static busybox: apt-get install busybox-static')
  const base = mkdtempSync(join(tmpdir(), 'tbuild-runtime-'))
  const [lower, upper] = [join(base, 'lower'), join(base, 'upper')]
  for (const folder of [lower, upper, join(lower, 'bin')]) mkdirSync(folder)
  copyFileSync(BUSYBOX, join(lower, 'bin/busybox'))
  for (const applet of APPLETS.split(' ')) symlinkSync('busybox', join(lower, 'bin', applet))
  prepare(lower)
  const mounts = [mountBox(base)]
  const reusable = detachedMountsCanBeCloned(mounts[0] ?? -1)
  let asked = false
  return {
    // Before 6.15 a mount serves one container: whoever asks again gets another one of the same directories.
    get root() {
      if (asked && !reusable) mounts.push(mountBox(base))
      asked = true
      return mounts.at(-1) ?? -1
    },
    lower,
    upper,
    [Symbol.dispose]: () => {
      for (const mount of mounts) closeSync(mount)
      rmSync(base, { recursive: true, force: true })
    },
  }
}

/** The overlay's options name "/lower" or a number, and no path of the host. */
function mountBox(base: string): number {
  // Each with a work directory of its own: a volatile mount makes its own unfit for others.
  const work = basename(mkdtempSync(join(base, 'work-')))
  using opened = new DisposableStack()
  const layers = opened.adopt(openLayersDirectory(base), closeSync)
  const open = (name: string): number =>
    opened.adopt(openat2(layers, name, { flags: constants.O_DIRECTORY }), closeSync)
  return mountOverlay({ lowers: [open('lower')], upper: { upper: open('upper'), work: open(work) } })
}

export function specFor(
  root: number,
  args: readonly string[],
  more: Partial<ContainerSpec> = {},
): ContainerSpec {
  return {
    root,
    args,
    env: ['PATH=/bin'],
    cwd: '/',
    user: '',
    hostname: 'box',
    network: 'none',
    limits: {},
    readonlyEtcFiles: true,
    stdio: { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
    tty: false,
    scope: 'test',
    ...more,
  }
}

export interface Outcome extends Exit {
  readonly stdout: string
  readonly stderr: string
}

/** Run to the end; a string is a command for the shell. */
export async function run(
  root: number,
  command: string | readonly string[],
  more: Partial<ContainerSpec> = {},
  options: { readonly signal?: AbortSignal } = {},
): Promise<Outcome> {
  const args = typeof command === 'string' ? ['/bin/sh', '-c', command] : command
  const container = await runContainer(specFor(root, args, more), options)
  const [exit, stdout, stderr] = await Promise.all([
    container.exited,
    read(container.stdout),
    read(container.stderr),
  ])
  return { ...exit, stdout, stderr }
}

function read(stream: NodeJS.ReadableStream | undefined): Promise<string> {
  return stream === undefined ? Promise.resolve('') : text(stream)
}

/** Processes of the machine whose command line holds this. */
export function processesWith(marker: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(marker)
      } catch {
        return false
      }
    })
    .map(Number)
}

/** Wait for it; 10 s at most. */
export async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; !condition(); tries++) {
    if (tries === 1000) throw new Error('it did not come to pass in 10 s')
    await setTimeout(10)
  }
}
