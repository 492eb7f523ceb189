/** One line that tells how far a long read has come; on a terminal only, and not before it has taken a second. */
import { humanSize } from '../format.ts'
import { clip } from './text.ts'

export interface ByteProgress {
  readonly observe: (done: number, total: number) => void
  /** Takes the line away. To be called however it ends, before anything else is printed. */
  finish(): void
}

const REDRAW_MS = 100
const PATIENCE_MS = 1000

/** `verb`, e.g. `checking`. */
export function byteProgress(verb: string, stream: NodeJS.WriteStream): ByteProgress {
  const live = stream.isTTY && stream.columns > 0 && process.env['TERM'] !== 'dumb'
  const begun = performance.now()
  let last = begun + PATIENCE_MS - REDRAW_MS
  let drawn = false
  return {
    observe: (done, total) => {
      const now = performance.now()
      if (!live || total === 0 || now - last < REDRAW_MS) return
      last = now
      const speed = humanSize(Math.round((done / (now - begun)) * 1000))
      const text = `${verb}: ${humanSize(done)} of ${humanSize(total)}, ${speed}/s`
      stream.write(`\r\u{1b}[K${clip(text, (stream.columns || 80) - 1)}`)
      drawn = true
    },
    finish: () => {
      if (drawn) stream.write('\r\u{1b}[K')
      drawn = false
    },
  }
}
