/** Reads contents back. */
import { closeSync, openSync, readSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import { objectPath, segmentPath, type StorePaths } from '../store/paths.ts'
import type { Location } from './list.ts'

export const BLOCK = 512

export interface ContentReader extends Disposable {
  /** Fills `into` from `offset` of the content on. Throws `STORE_CORRUPT` when there is less. */
  read(digest: Uint8Array, location: Location, offset: number, into: Uint8Array): void
}

const OPEN_FILES = 64

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
  return {
    read: (digest, { segment, block }, offset, into) => {
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
    },
    [Symbol.dispose]: () => {
      for (const fd of open.values()) closeSync(fd)
      open.clear()
    },
  }
}

/** `STORE_CORRUPT`: it is missing, cut short, or not what its digest says. */
export function damagedContent(digest: Uint8Array): TbuildError {
  const name = Buffer.from(digest).toString('hex')
  return new TbuildError('STORE_CORRUPT', `The content sha256:${name} is missing or damaged.`, {
    hint: 'tbuild fsck tells which images need it; build or pull them again.',
  })
}
