/** What a step takes from elsewhere: its key depends on it, and it must be there when the step runs. */
import type { Step, Taking } from './types.ts'

export function takingsOf(step: Step): readonly Taking[] {
  if (step.kind === 'copy') return [step]
  if (step.kind === 'workdir') return []
  return step.mounts.flatMap((mount) =>
    (mount.kind === 'bind' || mount.kind === 'cache') && mount.taking !== undefined ? [mount.taking] : [],
  )
}
