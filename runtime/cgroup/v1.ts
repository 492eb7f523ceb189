/** Separate hierarchies. Only those that are mounted and of use: memory, cpu, cpuacct, pids. */
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
import type { Cgroup, CgroupDriver, CgroupUsage } from './types.ts'

const PERIOD_MICROS = 100_000

/** `roots`: our own cgroup in each hierarchy, by controller. Controllers mounted together share one. */
export function v1Driver(roots: ReadonlyMap<string, string>): CgroupDriver {
  const hierarchies = [...new Set(roots.values())]
  const first = hierarchies[0]
  return {
    version: 1,
    controllers: [...roots.keys()],
    create: (name, limits, parent) => {
      if (parent === undefined || parent === '') return create(name, limits, roots)
      for (const root of hierarchies) makeParent(root, parent)
      return create(`${parent}/${name}`, limits, roots)
    },
    // memory is made first and removed last: what a killed process left is seen there.
    list: () => (first === undefined ? [] : listOurs(first, '')),
    remove: async (name) => {
      for (const root of hierarchies.toReversed())
        await removeDirectory(name.startsWith('/') ? root + name : `${root}/${name}`)
    },
  }
}

function create(name: string, limits: Limits, roots: ReadonlyMap<string, string>): Cgroup {
  const at = (controller: string): string | undefined => {
    const root = roots.get(controller)
    return root === undefined ? undefined : `${root}/${name}`
  }
  const wanted = [...roots.keys()].filter((controller) => controller !== 'cpu' || limits.cpus !== undefined)
  const directories = [...new Set(wanted.map((controller) => `${roots.get(controller)}/${name}`))]
  const made: string[] = []
  let open: number[] = []
  const close = (): void => {
    for (const fd of open.splice(0)) closeSync(fd)
  }
  const remove = async (): Promise<void> => {
    close()
    for (const directory of made.splice(0).toReversed()) await removeDirectory(directory)
  }
  try {
    for (const directory of directories) {
      mkdirSync(directory)
      made.push(directory)
    }
    setLimits(limits, at)
    open = made.map((directory) => openSync(`${directory}/tasks`, constants.O_WRONLY))
  } catch (error) {
    // Nothing is inside: removed before this returns. The first error is the one to tell.
    remove().catch(() => {})
    throw error
  }
  return {
    version: 1,
    descriptors: [...open],
    closeDescriptors: close,
    usage: () => usage(at),
    [Symbol.asyncDispose]: remove,
  }
}

function setLimits(limits: Limits, at: (controller: string) => string | undefined): void {
  const memory = at('memory')
  if (limits.memoryBytes !== undefined) {
    if (memory === undefined) throw unavailable('memory', 'this kernel has no memory controller mounted')
    write(memory, 'memory.limit_in_bytes', limits.memoryBytes)
    // Absent when swap is not accounted.
    if (read(memory, 'memory.memsw.limit_in_bytes') !== undefined) {
      write(memory, 'memory.memsw.limit_in_bytes', limits.memoryBytes)
    }
  }
  if (limits.cpus !== undefined) {
    const cpu = at('cpu')
    if (cpu === undefined) throw unavailable('CPU', 'this kernel has no cpu controller mounted')
    try {
      write(cpu, 'cpu.cfs_period_us', PERIOD_MICROS)
      write(cpu, 'cpu.cfs_quota_us', Math.max(1000, Math.round(limits.cpus * PERIOD_MICROS)))
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'EACCES'))
        throw unavailable('CPU', 'this kernel has no CPU bandwidth control')
      throw error
    }
  }
  if (limits.pids !== undefined) {
    const pids = at('pids')
    if (pids === undefined) throw unavailable('process', 'this kernel has no pids controller mounted')
    write(pids, 'pids.max', limits.pids)
  }
}

function usage(at: (controller: string) => string | undefined): CgroupUsage {
  const memory = at('memory')
  const cpuacct = at('cpuacct')
  const nanoseconds = cpuacct === undefined ? undefined : readNumber(cpuacct, 'cpuacct.usage')
  const peak = memory === undefined ? undefined : readNumber(memory, 'memory.max_usage_in_bytes')
  return {
    ...(nanoseconds === undefined ? {} : { cpuMicros: Math.round(nanoseconds / 1000) }),
    ...(peak === undefined ? {} : { peakMemoryBytes: peak }),
    oomKills: memory === undefined ? 0 : (readKey(memory, 'memory.oom_control', 'oom_kill') ?? 0),
  }
}
