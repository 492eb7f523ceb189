/** What a step takes from elsewhere: its key depends on it, and it must be there when the step runs. */
import type { RunMount, Step, Taking } from './types.ts'

export function takingsOf(step: Step): readonly Taking[] {
  if (step.kind === 'copy') return [step]
  return step.kind === 'exec' ? step.mounts.flatMap(takingsOfMount) : []
}

/** One at most. */
export function takingsOfMount(mount: RunMount): readonly Taking[] {
  const taking = mount.kind === 'bind' || mount.kind === 'cache' ? mount.taking : undefined
  return taking === undefined ? [] : [taking]
}
