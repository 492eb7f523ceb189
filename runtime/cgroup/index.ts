/**
 * Memory, CPU and process limits, and what was used, behind one interface (types.ts) for cgroup v1, v2 and none. Only
 * runtime's own files import this.
 */
import type { Limits } from '../spec.ts'
import { cgroupDriver } from './detect.ts'
import { PREFIX, parentPath } from './files.ts'
import type { Cgroup } from './types.ts'

export type { Cgroup, CgroupDriver, CgroupUsage } from './types.ts'
export { cgroupDriver, useCgroupDriver, v1Here, v2Here } from './detect.ts'

let count = 0

/** @throws TbuildError `LIMITS_UNAVAILABLE`, `CGROUP_PARENT` */
export function createCgroup(scope: string, limits: Limits, parent?: string): Cgroup {
  const name = `${PREFIX}${scope}-${process.pid}-${count++}`
  return cgroupDriver().create(name, limits, parent === undefined ? undefined : parentPath(parent))
}

/**
 * Remove the cgroups of dead processes: kill what is inside, then remove. They may lie anywhere (`cgroupParent`): all of the hierarchy is gone
 * through, which is for when a process is known to have died.
 * @param isAlive is this scope's lease still held?
 */
export async function sweepCgroups(isAlive: (scope: string) => boolean): Promise<void> {
  const driver = cgroupDriver()
  const answers = new Map<string, boolean>()
  for (const name of driver.list()) {
    const scope = /(?:^|\/)tbuild-([^/]*)-\d+-\d+$/.exec(name)?.[1]
    if (scope === undefined) continue
    const alive = answers.get(scope) ?? isAlive(scope)
    answers.set(scope, alive)
    if (!alive) await driver.remove(name)
  }
}
