/** Reading contents to hash or to verify them. */
import { createHash } from 'node:crypto'
import { damagedContent, MOST_AHEAD, type AheadReader, type ContentReader } from '../contents/reader.ts'
import type { Location } from '../contents/list.ts'

const PART = 1024 * 1024
let buffer: Buffer | undefined

export interface ReadContentOptions {
  /** Whoever made it has seen that it is right. */
  readonly isRight?: boolean
  /** Takes it in parts, each valid during the call. */
  readonly take?: (part: Buffer) => void
}

/** All of a content. Throws `STORE_CORRUPT` when it is not there, or not what its digest says. */
export function readContent(
  reader: ContentReader,
  ahead: AheadReader,
  digest: Uint8Array,
  location: Location,
  size: number,
  { isRight = false, take }: ReadContentOptions = {},
): void {
  if (size <= MOST_AHEAD) {
    const bytes = ahead.read(digest, location, size, isRight)
    take?.(bytes)
    return
  }
  const found = isRight ? undefined : createHash('sha256')
  for (const part of partsOf(reader, digest, location, size)) {
    found?.update(part)
    take?.(part)
  }
  if (found?.digest().equals(digest) === false) throw damagedContent(digest)
}

/** One after another into the same buffer. */
export function* partsOf(
  reader: ContentReader,
  digest: Uint8Array,
  location: Location,
  size: number,
): Generator<Buffer, void, undefined> {
  for (let done = 0; done < size; done += PART) {
    const part = (buffer ??= Buffer.allocUnsafeSlow(PART)).subarray(0, Math.min(PART, size - done))
    reader.read(digest, location, done, part)
    yield part
  }
}
