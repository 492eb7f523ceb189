/** The unified hierarchy. */
import { closeSync, constants, mkdirSync, openSync } from 'node:fs'
import { isErrno } from '../../linux/index.ts'
import type { Limits } from '../spec.ts'
import {
  listOurs,
  makeParent,
  read,
  readKey,
  readNumber,
  removeDirectory,
  unavailable,
  write,
} from './files.ts'
import type { Cgroup, CgroupDriver } from './types.ts'

const PERIOD_MICROS = 100_000
const WANTED = ['memory', 'cpu', 'pids']

/** `usual`: a path below `root`, of a directory of ours that holds no processes; `controllers`: what its children have. */
export function v2Driver(root: string, usual: string): CgroupDriver {
  enableControllers(`${root}/${usual}`)
  const controllers = given(`${root}/${usual}`)
  return {
    version: 2,
    controllers,
    create: (name, limits, parent) => {
      if (parent === undefined) return create(`${root}/${usual}/${name}`, limits, controllers)
      const directory = parent === '' ? root : `${root}/${parent}`
      makeParent(root, parent)
      // Each level gives them to the next.
      for (const [index] of parent.split('/').entries())
        enableControllers([root, ...parent.split('/').slice(0, index)].join('/'))
      enableControllers(directory)
      return create(`${directory}/${name}`, limits, given(directory))
    },
    list: () => listOurs(root, `/${usual}`),
    remove: (name) => removeDirectory(name.startsWith('/') ? root + name : `${root}/${usual}/${name}`),
  }
}

/** What children of it have. */
function given(directory: string): string[] {
  return read(directory, 'cgroup.subtree_control')?.split(' ').filter(Boolean) ?? []
}

/** Those of WANTED that this cgroup has from its parent. */
export function controllersOf(directory: string): string[] {
  const available = read(directory, 'cgroup.controllers')?.split(' ') ?? []
  return WANTED.filter((name) => available.includes(name))
}

/**
 * Controllers are given to children one level at a time, and each needs all above it to have given it. Refused (EBUSY)
 * where the cgroup holds processes itself.
 */
export function enableControllers(parent: string): void {
  for (const controller of controllersOf(parent)) {
    try {
      write(parent, 'cgroup.subtree_control', `+${controller}`)
    } catch (error) {
      if (!isErrno(error, 'EACCES', 'EPERM', 'EBUSY', 'ENOENT', 'EROFS', 'EOPNOTSUPP')) throw error
    }
  }
}

function create(directory: string, limits: Limits, controllers: readonly string[]): Cgroup {
  mkdirSync(directory)
  let open: number[] = []
  const close = (): void => {
    for (const fd of open.splice(0)) closeSync(fd)
  }
  const remove = async (): Promise<void> => {
    close()
    await removeDirectory(directory)
  }
  try {
    setLimits(directory, limits, controllers)
    open = [openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)]
  } catch (error) {
    // Nothing is inside: removed before this returns. The first error is the one to tell.
    remove().catch(() => {})
    throw error
  }
  return {
    version: 2,
    descriptors: [...open],
    closeDescriptors: close,
    usage: () => {
      const cpuMicros = readKey(directory, 'cpu.stat', 'usage_usec')
      const peakMemoryBytes = readNumber(directory, 'memory.peak')
      return {
        ...(cpuMicros === undefined ? {} : { cpuMicros }),
        ...(peakMemoryBytes === undefined ? {} : { peakMemoryBytes }),
        oomKills: readKey(directory, 'memory.events', 'oom_kill') ?? 0,
      }
    },
    [Symbol.asyncDispose]: remove,
  }
}

function setLimits(directory: string, limits: Limits, controllers: readonly string[]): void {
  const need = (controller: string, limit: string): void => {
    if (controllers.includes(controller)) return
    throw unavailable(limit, `the ${controller} controller is not enabled for ${directory}`)
  }
  if (limits.memoryBytes !== undefined) {
    need('memory', 'memory')
    write(directory, 'memory.max', limits.memoryBytes)
    // Absent when swap is not accounted. v2 counts swap apart: none keeps both within the limit.
    if (read(directory, 'memory.swap.max') !== undefined) write(directory, 'memory.swap.max', 0)
    // A step is one unit: half of it killed would only fail in a stranger way.
    write(directory, 'memory.oom.group', 1)
  }
  if (limits.cpus !== undefined) {
    need('cpu', 'CPU')
    write(directory, 'cpu.max', `${Math.max(1000, Math.round(limits.cpus * PERIOD_MICROS))} ${PERIOD_MICROS}`)
  }
  if (limits.pids !== undefined) {
    need('pids', 'process')
    write(directory, 'pids.max', limits.pids)
  }
}
