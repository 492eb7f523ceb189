/** No cgroups: not root, or none mounted. */
import type { CgroupDriver } from './types.ts'
import { noParent, unavailable } from './files.ts'

export function noDriver(why: string): CgroupDriver {
  return {
    version: 0,
    controllers: [],
    create: (_name, limits, parent) => {
      if (parent !== undefined) throw noParent(parent, why)
      if (limits.memoryBytes !== undefined) throw unavailable('memory', why)
      if (limits.cpus !== undefined) throw unavailable('CPU', why)
      if (limits.pids !== undefined) throw unavailable('process', why)
      return {
        version: 0,
        descriptors: [],
        closeDescriptors: () => {},
        usage: () => ({ oomKills: 0 }),
        [Symbol.asyncDispose]: () => Promise.resolve(),
      }
    },
    list: () => [],
    remove: () => Promise.resolve(),
  }
}
