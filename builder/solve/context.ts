/** What the steps of one build share. */
import type { Image, StatCache, Store } from '../../cas/index.ts'
import type { Dockerfile } from '../../dockerfile-parser/index.ts'
import type { ContextDirectory } from '../contexts.ts'
import type { BuildContext } from '../copy/context.ts'
import type { BuildRequest } from '../types.ts'
import type { Progress } from './observer.ts'

export interface SolveContext {
  readonly request: BuildRequest
  readonly tree: Dockerfile
  readonly store: Store
  readonly progress: Progress
  /** The build context, or a named one that is a directory. Opened when a step first needs it. */
  context(named?: ContextDirectory): BuildContext
  /** Of that context's files; `undefined` with `--no-stat-cache`. */
  statCache(named?: ContextDirectory): StatCache | undefined
  /** A tag in the store was taken as it stands: nobody asked its registry. */
  isLocalTag(image: Image): boolean
  /** Aborts when a step fails, or the request's own signal does. */
  readonly signal: AbortSignal
  /** Stops what runs beside; the first reason is the build's error. */
  abort(reason: unknown): void
  /** Is done when the build has ended, however: what serves the next one only is not to take the last room of a disk from this one. */
  atEnd(work: () => void): void
  /** Nanoseconds since 1970: SOURCE_DATE_EPOCH, or when the build began. */
  readonly nowNs: bigint
}

/** RFC 3339, as configs have it. */
export function timestamp(request: BuildRequest): string {
  const { sourceDateEpoch } = request
  return new Date(sourceDateEpoch === undefined ? Date.now() : sourceDateEpoch * 1000).toISOString()
}
