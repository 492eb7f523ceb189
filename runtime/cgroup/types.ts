/**
 * A container's cgroups. Life: `createCgroup` makes them and sets the limits; the launcher's C joins by the descriptors
 * before it executes anything; `usage` is read when all has ended; disposal kills what is left and removes them.
 *
 * Names: `tbuild-SCOPE-N`, SCOPE being the lease of the process that made it. A process that was killed leaves its
 * cgroups (empty: the kernel has killed what was inside); `sweepCgroups` of the next command removes them.
 */
import type { Limits } from '../spec.ts'

export interface CgroupUsage {
  readonly cpuMicros?: number
  readonly peakMemoryBytes?: number
  /** Processes that the kernel killed for memory. */
  readonly oomKills: number
}

export interface Cgroup extends AsyncDisposable {
  readonly version: 0 | 1 | 2
  /** v1: each hierarchy's `tasks` file, for writing. v2: the directory. */
  readonly descriptors: readonly number[]
  /** Idempotent. */
  closeDescriptors(): void
  usage(): CgroupUsage
}

export interface CgroupDriver {
  readonly version: 0 | 1 | 2
  readonly controllers: readonly string[]
  /**
   * `parent`: of `parentPath`; the cgroup is made there instead of in the usual place. @throws TbuildError `LIMITS_UNAVAILABLE` when a limit asked for
   * cannot be set, `CGROUP_PARENT` when the parent cannot be had
   */
  create(name: string, limits: Limits, parent?: string): Cgroup
  /** All cgroups of ours, as `remove` takes them: by name, those below a `parent` by a path that begins with `/`. */
  list(): string[]
  /** Kill what is inside and remove it; no error when it is gone. */
  remove(name: string): Promise<void>
}
