/** Checking and mending a store: `store.fsck`, and what goes before where the store cannot even be opened. Loaded when it is first asked for. */
import type { IndexRepair } from './rebuild.ts'
import type { FsckOptions } from './types.ts'

export type { FsckOptions, FsckProblem, FsckReport, Leftover, ProblemCode } from './types.ts'
export type { IndexRepair } from './rebuild.ts'

/** See `cas/fsck/rebuild.ts`. */
export async function repairStore(
  path: string,
  options?: Pick<FsckOptions, 'signal' | 'onProgress'>,
): Promise<IndexRepair | undefined> {
  return (await import('./rebuild.ts')).repairStore(path, options)
}
