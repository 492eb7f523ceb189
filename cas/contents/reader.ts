/** Reads contents back. */
import { hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import { objectPath, segmentPath, type StorePaths } from '../store/paths.ts'
import { DIGEST_BYTES, type Location } from './list.ts'

export const BLOCK = 512

export interface ContentReader extends Disposable {
  /** Fills `into` from `offset` of the content on. Throws `STORE_CORRUPT` when there is less. */
  read(digest: Uint8Array, location: Location, offset: number, into: Uint8Array): void
  /** For contents one after another: reads ahead, since what came together stands together (3 us for 10 KB, where a call for each takes 25). */
  ahead(): AheadReader
}

export interface AheadReader {
  /**
   * All of a content of at most `MOST_AHEAD` bytes: a view, valid until the next call. Throws `STORE_CORRUPT` when it is not what its digest says; who knows
   * that it is, since before this reader was made or last forgot, says `isRight`.
   */
  read(digest: Uint8Array, location: Location, size: number, isRight?: boolean): Buffer
  /** What it has read ahead may be older than what comes now. */
  forget(): void
}

const OPEN_FILES = 64
const AHEAD = 1024 * 1024
/** Larger ones are read alone. */
export const MOST_AHEAD: number = AHEAD / 2

export function createContentReader(paths: StorePaths): ContentReader {
  const open = new Map<string, number>()
  const fdOf = (path: string): number => {
    const known = open.get(path)
    if (known !== undefined) {
      // Most recently used last.
      open.delete(path)
      open.set(path, known)
      return known
    }
    const fd = openSync(path, 'r')
    open.set(path, fd)
    if (open.size > OPEN_FILES) {
      const [oldest, oldestFd] = open.entries().next().value ?? ['', -1]
      open.delete(oldest)
      closeSync(oldestFd)
    }
    return fd
  }
  const readAt: ContentReader['read'] = (digest, { segment, block }, offset, into) => {
    const path =
      segment === 0 ? objectPath(paths, Buffer.from(digest).toString('hex')) : segmentPath(paths, segment)
    let fd
    try {
      fd = fdOf(path)
    } catch (error) {
      throw isErrno(error, 'ENOENT') ? damagedContent(digest) : error
    }
    for (let at = 0; at < into.length;) {
      const count = readSync(fd, into, at, into.length - at, block * BLOCK + offset + at)
      if (count === 0) throw damagedContent(digest)
      at += count
    }
  }
  return {
    read: readAt,
    ahead: () => {
      const buffer = createReadAhead(fdOf, paths)
      return {
        read: (digest, location, size, isKnownRight = false) => {
          const seen = buffer.at(location, size)
          if (seen !== undefined && (isKnownRight || isRight(seen, digest))) return seen
          return readVerified(readAt, digest, location, size)
        },
        forget: () => buffer.forget(),
      }
    },
    [Symbol.dispose]: () => {
      for (const fd of open.values()) closeSync(fd)
      open.clear()
    },
  }
}

/** What it gives may be older than the call, and from before a content was written whole: only a digest tells. */
function createReadAhead(fdOf: (path: string) => number, paths: StorePaths) {
  let buffer: Buffer | undefined
  let from = 0
  let length = 0
  let current = 0
  return {
    at: ({ segment, block }: Location, size: number): Buffer | undefined => {
      if (segment === 0) return undefined
      buffer ??= Buffer.allocUnsafeSlow(AHEAD)
      const position = block * BLOCK
      if (segment !== current || position < from || position + size > from + length) {
        length = 0
        current = segment
        from = position
        try {
          length = readSync(fdOf(segmentPath(paths, segment)), buffer, 0, AHEAD, position)
        } catch (error) {
          if (!isErrno(error, 'ENOENT')) throw error
        }
      }
      return position + size > from + length
        ? undefined
        : buffer.subarray(position - from, position - from + size)
    },
    forget: (): void => {
      length = 0
    },
  }
}

/** All of a content, by itself. */
export function readVerified(
  read: ContentReader['read'],
  digest: Uint8Array,
  location: Location,
  size: number,
): Buffer {
  const bytes = Buffer.allocUnsafe(size)
  read(digest, location, 0, bytes)
  if (!isRight(bytes, digest)) throw damagedContent(digest)
  return bytes
}

function isRight(bytes: Buffer, digest: Uint8Array): boolean {
  // Text is made sooner than a buffer.
  const found = hash('sha256', bytes, 'binary')
  for (let i = 0; i < DIGEST_BYTES; i++) if (found.charCodeAt(i) !== digest[i]) return false
  return true
}

/** `STORE_CORRUPT`: it is missing, cut short, or not what its digest says. */
export function damagedContent(digest: Uint8Array): TbuildError {
  const name = Buffer.from(digest).toString('hex')
  return new TbuildError('STORE_CORRUPT', `The content sha256:${name} is missing or damaged.`, {
    hint: 'tbuild fsck tells which images need it; build or pull them again.',
  })
}
