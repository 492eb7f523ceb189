/**
 * A build as it is shown: `plain` prints lines as they come, in BuildKit's form, for logs and pipes; `terminal` redraws what
 * is running; `quiet` shows nothing (the error of a failed step has the end of its output). All go to stderr.
 */
import type { BuildObserver } from '../../builder/index.ts'
import { plainProgress } from './plain.ts'

export const PROGRESS_MODES = ['auto', 'plain', 'quiet'] as const
export type ProgressMode = (typeof PROGRESS_MODES)[number]

export interface Progress {
  readonly observe: BuildObserver
  /** Shows the last state. To be called however the build ends, before anything else is printed. */
  finish(): void
}

/** `auto` is the live display on a terminal, and plain elsewhere. */
export async function createProgress(mode: ProgressMode, stream: NodeJS.WriteStream): Promise<Progress> {
  if (mode === 'quiet') return { observe: () => {}, finish: () => {} }
  // A terminal without a size (`script`, some CI) cannot be drawn on.
  const drawable = stream.isTTY && stream.columns > 0 && process.env['TERM'] !== 'dumb'
  if (mode === 'plain' || !drawable) return plainProgress(stream)
  const { terminalProgress } = await import('./terminal.ts')
  return terminalProgress(stream)
}
