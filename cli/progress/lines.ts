/** A step's output comes in chunks that end anywhere; it is shown by lines. */

export interface LineSplitter {
  /** The lines that this chunk completes, without their line breaks. */
  push(chunk: Buffer): Buffer[]
  /** What is left without a line break, if anything. */
  end(): Buffer | undefined
}

// A line longer than this is shown in pieces: a RUN may write gigabytes without a line break.
const MOST_BYTES = 64 * 1024
const NEWLINE = 10

export function splitLines(): LineSplitter {
  let pending: Buffer[] = []
  let length = 0
  const take = (): Buffer => {
    const line = pending.length === 1 ? pending[0]! : Buffer.concat(pending)
    pending = []
    length = 0
    return line
  }
  const add = (part: Buffer): void => {
    pending.push(part)
    length += part.length
  }
  return {
    push(chunk) {
      const lines: Buffer[] = []
      let start = 0
      for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, start)) {
        add(chunk.subarray(start, at))
        lines.push(take())
        start = at + 1
      }
      if (start < chunk.length) {
        // A copy: the chunk's memory may be the sender's to use again.
        add(Buffer.from(chunk.subarray(start)))
        if (length > MOST_BYTES) lines.push(take())
      }
      return lines
    },
    end: () => (length === 0 ? undefined : take()),
  }
}
