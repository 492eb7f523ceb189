/** Words about the runtime, for messages and `tbuild info`. */
import { readFileSync } from 'node:fs'
import { cgroupDriver } from './cgroup/index.ts'
import { launcherPath } from './launch.ts'

/** E.g. "exceeded its memory limit of 64 MiB". */
export function memoryLimitMessage(bytes: number): string {
  return `exceeded its memory limit of ${formatBytes(bytes)}`
}

function formatBytes(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  let value = bytes
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`
}

export interface RuntimeDescription {
  readonly cgroupVersion: 0 | 1 | 2
  /** Those a limit can be set with. */
  readonly controllers: readonly string[]
  /** Does this kernel filter system calls? */
  readonly seccomp: boolean
  /** The launcher's path, or why there is none. */
  readonly launcher: string
}

export function describeRuntime(): RuntimeDescription {
  const driver = cgroupDriver()
  return {
    cgroupVersion: driver.version,
    controllers: driver.controllers,
    seccomp: /^Seccomp:/m.test(readFileSync('/proc/self/status', 'utf8')),
    launcher: findLauncher(),
  }
}

function findLauncher(): string {
  try {
    return launcherPath()
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}
