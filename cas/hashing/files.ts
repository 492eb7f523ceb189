/** Small files, many at a time: read, digested, closed. On any thread. */
import { hash } from 'node:crypto'
import { closeSync, readSync } from 'node:fs'
import { DIGEST_BYTES } from '../contents/list.ts'

export interface OpenFile {
  readonly fd: number
  /** Bytes, as it is thought to be. */
  readonly size: number
}

/** What was read stands in the buffer one file after the other, each at the place that its size gives it. */
export interface DigestedFiles {
  /** What was there: less than its size where a file has become shorter. */
  readonly lengths: Float64Array
  /** 1: it has an aligned span of `HOLE` zeros. */
  readonly holes: Uint8Array
  readonly digests: Uint8Array
}

/** Aligned spans of so many zeros are holes, however they come: so that one file is always the same runs. */
export const HOLE: number = 64 * 1024
const zeros = Buffer.alloc(HOLE)

export function isZero(bytes: Uint8Array): boolean {
  return bytes[0] === 0 && zeros.subarray(0, bytes.length).equals(bytes)
}

/** All are closed, also when one cannot be read, which is thrown. */
export function digestFiles(files: readonly OpenFile[], buffer: Uint8Array): DigestedFiles {
  const lengths = new Float64Array(files.length)
  const holes = new Uint8Array(files.length)
  const digests = new Uint8Array(files.length * DIGEST_BYTES)
  let at = 0
  let closed = 0
  try {
    for (const [i, { fd, size }] of files.entries()) {
      let length = 0
      while (length < size) {
        const count = readSync(fd, buffer, at + length, size - length, length)
        if (count === 0) break
        length += count
      }
      closed++
      closeSync(fd)
      const bytes = buffer.subarray(at, at + length)
      lengths[i] = length
      for (let block = 0; block + HOLE <= length; block += HOLE)
        if (isZero(bytes.subarray(block, block + HOLE))) holes[i] = 1
      digests.set(hash('sha256', bytes, 'buffer'), i * DIGEST_BYTES)
      at += size
    }
  } finally {
    for (const { fd } of files.slice(closed)) closeSync(fd)
  }
  return { lengths, holes, digests }
}
