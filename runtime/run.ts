/** A container's life: mount points, cgroups, launcher; and back again. */
import { closeSync } from 'node:fs'
import type { ChildProcess } from 'node:child_process'
import type { Duplex } from 'node:stream'
import { constants } from 'node:os'
import { TbuildError } from '../errors.ts'
import { isErrno, openTree } from '../linux/index.ts'
import { createCgroup, type Cgroup, type CgroupUsage } from './cgroup/index.ts'
import { etcFiles } from './etc-files.ts'
import { checkSpec, encodeSpec, launcherProgram } from './launch.ts'
import { makeMountPoints } from './mount-points.ts'
import { openMounts } from './mounts.ts'
import { launchError, readRecords, type Ended } from './records.ts'
import { defaultFilter } from './seccomp/index.ts'
import type { Container, ContainerSpec, Exit } from './spec.ts'
import { openStdio, type StdioEnds } from './stdio.ts'
import { resolveUser } from './user.ts'

// An abort is orderly (the launcher kills, waits and reports); should it not answer, the kernel does it.
const ABORT_GRACE_MS = 2000

/**
 * Start `spec.args` in a container of its own. Resolves when the command has been executed.
 *
 * Abort kills everything in the container at once. A call that has not resolved yet then rejects with the signal's
 * reason; `exited` of one that has resolves as for SIGKILL.
 *
 * @throws TbuildError `COMMAND_NOT_FOUND` (a shell's 127), `COMMAND_NOT_EXECUTABLE` (126), `CWD_MISSING`,
 *   `USER_UNKNOWN`, `ROOT_INVALID`, `MOUNT_TARGET`, `SPEC_INVALID`, `LIMITS_UNAVAILABLE`, `LAUNCHER_MISSING`, `LAUNCH_FAILED` (names the
 *   step and the errno, e.g. `pivot_root: EINVAL`)
 */
export async function runContainer(
  spec: ContainerSpec,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<Container> {
  const { spawn } = await import('node:child_process')
  options.signal?.throwIfAborted()
  checkSpec(spec)
  const user = resolveUser(spec.root, spec.user)
  const cleanup = new AsyncDisposableStack()
  const pipes = new DisposableStack()
  try {
    const mounts = pipes.use(openMounts(spec.mounts ?? []))
    const mountPoints = cleanup.use(makeMountPoints(spec.root, mounts.list))
    const root = pipes.use(cloneRoot(spec.root))
    const cgroup = cleanup.use(createCgroup(spec.scope, spec.limits, spec.cgroupParent))
    const stdio = pipes.use(openStdio(spec.stdio))

    // The descriptors' numbers in the launcher: 0 to 2 stdio, 3 the control socket, then these.
    const joins = cgroup.descriptors.map((_, index) => 5 + index)
    const firstMount = 5 + joins.length
    const message = encodeSpec(spec, user, {
      root: 4,
      cgroup: cgroup.version === 2 ? (joins[0] ?? -1) : -1,
      tasks: cgroup.version === 1 ? joins : [],
      etc: etcFiles(spec, mountPoints),
      mounts: mounts.list.map(({ path, attributes }, index) => ({
        fd: firstMount + index,
        path,
        target: mountPoints.targets[index] ?? '',
        attributes,
      })),
      filter: defaultFilter(),
    })
    const child = spawn(launcherProgram(), [], {
      argv0: 'tbuild-launcher',
      cwd: '/',
      env: {},
      stdio: [
        ...stdio.child,
        'pipe',
        root.fd,
        ...cgroup.descriptors,
        ...mounts.list.map(({ fd }) => fd),
        ...(spec.inheritFds ?? []),
      ],
    })
    stdio.closeChildEnds()
    root[Symbol.dispose]()
    mounts[Symbol.dispose]()
    cgroup.closeDescriptors()
    return await follow(child, message, { spec, cgroup, stdio, cleanup, signal: options.signal })
  } catch (error) {
    pipes.dispose()
    await cleanup.disposeAsync()
    throw error
  }
}

/**
 * The launcher attaches the mount it gets, once and for good; a clone keeps the caller's as it is. Before kernel 6.15
 * a detached mount cannot be cloned: there a root serves one container.
 */
function cloneRoot(root: number): Disposable & { readonly fd: number } {
  let clone: number | undefined
  try {
    clone = openTree(root, '', { clone: true })
  } catch (error) {
    if (!isErrno(error, 'EINVAL')) throw error
  }
  return {
    fd: clone ?? root,
    [Symbol.dispose]: () => {
      if (clone !== undefined) closeSync(clone)
      clone = undefined
    },
  }
}

interface Context {
  readonly spec: ContainerSpec
  readonly cgroup: Cgroup
  readonly stdio: StdioEnds
  readonly cleanup: AsyncDisposableStack
  readonly signal: AbortSignal | undefined
}

async function follow(child: ChildProcess, message: Buffer, context: Context): Promise<Container> {
  const { spec, cgroup, signal } = context
  const control = child.stdio[3] as Duplex
  const started = Promise.withResolvers<void>()
  const closed = Promise.withResolvers<void>()
  let ended: Ended | undefined
  let failure: Error | undefined

  readRecords(control, (record) => {
    if (record.kind === 'started') started.resolve()
    else if (record.kind === 'failed') failure = launchError(record, spec)
    else ended = record
  })
  child.on('error', (error) => {
    failure ??= new TbuildError('LAUNCH_FAILED', `The launcher: ${error.message}`, { cause: error })
    control.destroy()
    closed.resolve()
  })
  // 'close' and not 'exit': by then the last record has been read.
  child.on('close', () => closed.resolve())
  control.write(message)

  let killer: NodeJS.Timeout | undefined
  const abort = (): void => {
    control.destroy()
    killer = setTimeout(() => child.kill('SIGKILL'), ABORT_GRACE_MS)
  }
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted === true) abort()
  const resize = (): void => void child.kill('SIGWINCH')
  if (spec.tty) process.on('SIGWINCH', resize)

  const finish = async (): Promise<Exit> => {
    await closed.promise
    clearTimeout(killer)
    signal?.removeEventListener('abort', abort)
    process.removeListener('SIGWINCH', resize)
    const usage = cgroup.usage()
    await context.cleanup.disposeAsync()
    return describeExit(ended, usage)
  }
  const exited = finish()
  exited.catch(() => {}) // reported to whoever awaits it; a failed launch is reported below

  const first = await Promise.race([started.promise, exited])
  if (first !== undefined || failure !== undefined) {
    await exited
    if (signal?.aborted === true) throw signal.reason
    if (failure !== undefined) throw failure
    if (ended === undefined) throw new TbuildError('LAUNCH_FAILED', 'The launcher ended without a word.')
  }
  return {
    pid: child.pid ?? -1,
    ...context.stdio.own,
    kill: (name) => {
      if (name === 'SIGKILL') control.write('K')
      else child.kill(name)
    },
    exited,
  }
}

/** `ended` is absent when the launcher was killed: then so was everything in the container. */
function describeExit(ended: Ended | undefined, usage: CgroupUsage): Exit {
  const status = ended?.status ?? 9
  const number = status & 0x7f
  const exitCode = number === 0 ? (status >> 8) & 0xff : 128 + number
  const cpuMicros = usage.cpuMicros ?? ended?.cpuMicros
  const peakMemoryBytes = usage.peakMemoryBytes ?? ended?.peakMemoryBytes
  return {
    exitCode,
    ...(number === 0 ? {} : { signal: signalName(number) }),
    oomKilled: exitCode !== 0 && usage.oomKills > 0,
    usage: {
      ...(cpuMicros === undefined ? {} : { cpuMicros }),
      ...(peakMemoryBytes === undefined ? {} : { peakMemoryBytes }),
    },
  }
}

function signalName(number: number): string {
  const found = Object.entries(constants.signals).find(([, value]) => value === number)
  return found?.[0] ?? `SIG${number}`
}
