/** Reads stored bytes and compares them with their digest: small contents from one large read, large ones in slices. */
import { createHash, hash } from 'node:crypto'
import { closeSync, openSync, readSync } from 'node:fs'
import { isErrno } from '../../linux/index.ts'
import type { Location } from '../contents/list.ts'
import { BLOCK } from '../contents/reader.ts'
import { objectPath, segmentPath, type StorePaths } from '../store/paths.ts'

const WINDOW = 4 * 1024 * 1024

export type Verdict = 'whole' | 'damaged' | 'missing'

export interface ContentVerifier extends Disposable {
  /** Quickest when contents of a segment come in the order of their places. */
  verify(digest: Uint8Array, location: Location, size: number): Promise<Verdict>
  /** Reads anew what it has read before. */
  forget(): void
}

let spare: Buffer | undefined

/** @param read is told of bytes that were read, and may stop it all by throwing */
export function createContentVerifier(
  paths: StorePaths,
  breathe: () => Promise<void> | undefined,
  read: (bytes: number) => void,
): ContentVerifier {
  const window = spare ?? Buffer.allocUnsafeSlow(WINDOW)
  spare = undefined
  let path: string | undefined
  let fd: number | undefined
  let start = 0
  let length = 0

  const forget = (): void => {
    if (fd !== undefined) closeSync(fd)
    fd = undefined
    path = undefined
    length = 0
  }
  /** False when there is no such file. */
  const open = (wanted: string): boolean => {
    if (wanted === path) return true
    forget()
    try {
      fd = openSync(wanted, 'r')
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return false
      throw error
    }
    path = wanted
    return true
  }
  /** Up to the window's size. Bytes that cannot be read are as good as not there. */
  const fill = (from: number): void => {
    start = from
    length = 0
    try {
      for (let count = -1; length < WINDOW && count !== 0; length += count) {
        count = readSync(fd ?? -1, window, length, WINDOW - length, from + length)
      }
    } catch (error) {
      if (!isErrno(error, 'EIO')) throw error
    }
    read(length)
  }
  const holds = (from: number, size: number): boolean => from >= start && from + size <= start + length
  return {
    forget,
    verify: async (digest, { segment, block }, size) => {
      await breathe()
      const wanted =
        segment === 0 ? objectPath(paths, Buffer.from(digest).toString('hex')) : segmentPath(paths, segment)
      if (!open(wanted)) return 'missing'
      const from = block * BLOCK
      if (size <= WINDOW) {
        if (!holds(from, size)) fill(from)
        if (!holds(from, size)) return 'missing'
        const found = hash('sha256', window.subarray(from - start, from - start + size), 'buffer')
        return found.equals(digest) ? 'whole' : 'damaged'
      }
      const hashing = createHash('sha256')
      for (let at = 0; at < size; at += length) {
        fill(from + at)
        if (length === 0) return 'missing'
        hashing.update(window.subarray(0, Math.min(length, size - at)))
        await breathe()
      }
      return hashing.digest().equals(digest) ? 'whole' : 'damaged'
    },
    [Symbol.dispose]: () => {
      forget()
      spare = window
    },
  }
}

/** The digest of a file, as `sha256:...`, and its length; `undefined` when it is not there or cannot be read. */
export async function digestOfFile(
  path: string,
  breathe: () => Promise<void> | undefined,
  read: (bytes: number) => void,
): Promise<{ readonly digest: string; readonly size: number } | undefined> {
  const buffer = spare ?? Buffer.allocUnsafeSlow(WINDOW)
  spare = undefined
  let fd
  try {
    fd = openSync(path, 'r')
    const hashing = createHash('sha256')
    let size = 0
    for (;;) {
      const count = readSync(fd, buffer, 0, WINDOW, size)
      if (count === 0) break
      hashing.update(buffer.subarray(0, count))
      size += count
      read(count)
      await breathe()
    }
    return { digest: `sha256:${hashing.digest('hex')}`, size }
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EIO', 'EISDIR')) return undefined
    throw error
  } finally {
    if (fd !== undefined) closeSync(fd)
    spare = buffer
  }
}
