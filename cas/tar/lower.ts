/** Is what overlayfs copied up still what the lower layers have? */
import { closeSync, constants, readSync } from 'node:fs'
import {
  isErrno,
  O_PATH,
  openat2,
  readlinkat,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  type Stat,
} from '../../linux/index.ts'
import { readAttributes, sameAttributes } from './attributes.ts'
import type { TreeCopy } from './copy-tree.ts'
import { inDirectory, pathOf } from './names.ts'
import { isWhiteoutDevice, lstatAt, openFile } from './tree.ts'

const { O_DIRECTORY, O_NOFOLLOW } = constants

/** The merged lower layers: a descriptor of their root (a read-only mount, or the directory of a single layer). */
export interface LowerLookup {
  readonly rootFd: number
  /** What is packed is no upper but began as this copy of the lower: what is not in it was deleted. */
  readonly copy?: TreeCopy | undefined
}

/** A directory of the lower layers by its real path, to be closed; `undefined` when there is none. */
export function openLower(rootFd: number, path: string): number | undefined {
  try {
    return openat2(rootFd, path === '' ? '.' : pathOf(path), {
      flags: O_PATH | O_DIRECTORY | O_NOFOLLOW,
      resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    })
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined
    throw error
  }
}

/** lstat in the lower directory; a whiteout (in the directory of a single layer) is nothing. */
export function lstatLower(lowerFd: number | undefined, name: string): Stat | undefined {
  const stats = lowerFd === undefined ? undefined : lstatAt(lowerFd, name)
  return stats === undefined || isWhiteoutDevice(stats) ? undefined : stats
}

/** Type, mode, owner, attributes, and device numbers; not times. */
export function sameMetadata(
  upper: Stat,
  lower: Stat,
  attributes: ReadonlyMap<string, Buffer>,
  lowerPath: string | Buffer,
): boolean {
  return (
    upper.type === lower.type &&
    upper.mode === lower.mode &&
    upper.uid === lower.uid &&
    upper.gid === lower.gid &&
    upper.major === lower.major &&
    upper.minor === lower.minor &&
    sameAttributes(attributes, readAttributes(lowerPath).layer)
  )
}

/** As `sameMetadata`, and size, time and contents; contents are read only when all else is equal. */
export function isUnchanged(
  upperFd: number,
  name: string,
  upper: Stat,
  attributes: ReadonlyMap<string, Buffer>,
  lowerFd: number | undefined,
): boolean {
  const lower = lstatLower(lowerFd, name)
  if (lowerFd === undefined || lower === undefined) return false
  if (upper.mtimeNs !== lower.mtimeNs || upper.size !== lower.size) return false
  if (!sameMetadata(upper, lower, attributes, inDirectory(lowerFd, name))) return false
  if (upper.isSymbolicLink()) {
    return readlinkat(upperFd, pathOf(name)).equals(readlinkat(lowerFd, pathOf(name)))
  }
  return !upper.isFile() || sameContents(upperFd, lowerFd, name)
}

const PART = 256 * 1024
let parts: readonly [Buffer, Buffer] | undefined

function sameContents(upperFd: number, lowerFd: number, name: string): boolean {
  const [a, b] = (parts ??= [Buffer.allocUnsafeSlow(PART), Buffer.allocUnsafeSlow(PART)])
  const upper = openFile(upperFd, name)
  try {
    const lower = openFile(lowerFd, name)
    try {
      for (let position = 0; ;) {
        const length = readPart(upper, a, position)
        if (readPart(lower, b, position) !== length) return false
        if (length === 0) return true
        if (a.compare(b, 0, length, 0, length) !== 0) return false
        position += length
      }
    } finally {
      closeSync(lower)
    }
  } finally {
    closeSync(upper)
  }
}

function readPart(fd: number, buffer: Buffer, position: number): number {
  let filled = 0
  while (filled < buffer.length) {
    const length = readSync(fd, buffer, filled, buffer.length - filled, position + filled)
    if (length === 0) break
    filled += length
  }
  return filled
}
