/**
 * A container: an ordinary process with blinders on. It is handed a root as a mount's descriptor and a spec, and knows
 * nothing of images or builds. Namespaces decide what the process sees, cgroups what it may use, capabilities and a
 * seccomp filter what it may do; `launcher/` (C) is the only code that enters a namespace.
 *
 * May import `linux` (and `errors.ts`) only.
 */
export { checkContainersAllowed } from './allowed.ts'
export { runContainer } from './run.ts'
export type {
  Container,
  ContainerMount,
  ContainerSpec,
  Exit,
  Limits,
  Stdio,
  Ulimit,
  UlimitName,
} from './spec.ts'
export { resolveUser, type ResolvedUser } from './user.ts'
export { sweepCgroups } from './cgroup/index.ts'
export { launcherPath } from './launch.ts'
export { describeRuntime, memoryLimitMessage, type RuntimeDescription } from './describe.ts'
