/** Numbers the steps of a build, and counts them. */
import type { BuildObserver } from '../types.ts'

export interface Progress {
  start(title: string): StepProgress
  /** About the Dockerfile, not about a step. */
  warning(message: string, frame?: string): void
  readonly total: number
  readonly cached: number
}

export interface StepProgress {
  cached(): void
  done(): void
  failed(error: unknown): void
  /** Another step failed, or the build was interrupted. */
  canceled(): void
  output(chunk: Buffer): void
  note(text: string): void
}

export function createProgress(observe: BuildObserver): Progress {
  let total = 0
  let cached = 0
  return {
    get total() {
      return total
    },
    get cached() {
      return cached
    },
    warning: (message, frame) =>
      observe({ kind: 'warning', message, ...(frame === undefined ? {} : { frame }) }),
    start: (title) => {
      const id = ++total
      observe({ kind: 'started', id, title })
      return {
        cached: () => {
          cached++
          observe({ kind: 'cached', id })
        },
        done: () => observe({ kind: 'done', id }),
        failed: (error) => observe({ kind: 'failed', id, message: firstLine(error) }),
        canceled: () => observe({ kind: 'canceled', id }),
        output: (chunk) => observe({ kind: 'output', id, chunk }),
        note: (text) => observe({ kind: 'note', id, text }),
      }
    },
  }
}

/** What follows is the output of the command, which was shown already. */
function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.split('\n')[0] ?? message
}
