/** What tells whether a file or directory is unchanged: what stat(2) says of it, packed. Device, inode, size (8 bytes each, little-endian), mtime, ctime (seconds 8, nanoseconds 4). */
import { randomBytes } from 'node:crypto'
import { closeSync, fstatSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Stat } from '../../linux/index.ts'

/** Words of 4 bytes: of the key, and of what of it is device and inode. */
export const KEY_WORDS = 12
export const INODE_WORDS = 4
/** Of the last `encodeKey`. */
export const keyWords: Uint32Array = new Uint32Array(KEY_WORDS)
export const key: Uint8Array = new Uint8Array(keyWords.buffer)
const SETTLED_NS = 2_000_000_000n

export function encodeKey(stats: Stat): void {
  putNumber(0, stats.dev)
  keyWords[2] = stats.inoLow
  keyWords[3] = stats.inoHigh
  putNumber(4, stats.size)
  putNumber(6, stats.mtimeSeconds)
  keyWords[8] = stats.mtimeNanoseconds
  putNumber(9, stats.ctimeSeconds)
  keyWords[11] = stats.ctimeNanoseconds
}

function putNumber(at: number, value: number): void {
  // Each takes what is left of it modulo 2^32.
  keyWords[at] = value
  keyWords[at + 1] = Math.floor(value / 2 ** 32)
}

/** It was changed so long before `now` that another change would have given it another time. */
export function isSettled({ ctimeNs, mtimeNs }: Stat, now: bigint): boolean {
  return ctimeNs <= now - SETTLED_NS && mtimeNs <= now - SETTLED_NS
}

/** What the kernel's clock would give a file that is written now. */
export function fileSystemTime(directory: string): bigint {
  const path = join(directory, `.${randomBytes(8).toString('hex')}`)
  const fd = openSync(path, 'wx', 0o600)
  try {
    return fstatSync(fd, { bigint: true }).ctimeNs
  } finally {
    closeSync(fd)
    rmSync(path)
  }
}
