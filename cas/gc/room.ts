/**
 * A full disk: the index needs some room to open, and to take things out of it. What is remembered of build contexts is only a cache, and a reserve is kept
 * among it, so that there is always something to give.
 */
import { existsSync, readdirSync, rmSync, statfsSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import type { StorePaths } from '../store/paths.ts'
import { removeAll } from './allocated.ts'

export const RESERVE = 'reserve'
const RESERVE_BYTES = 256 * 1024
/** It is no use to fill a disk with it. */
const LEAST_FREE = 8

// Extended result codes of SQLite: SQLITE_FULL, and SQLITE_IOERR with _WRITE and _SHMSIZE, which is how it says so of the log and its index.
const FULL = 13
const WRITE = 778
const SHMSIZE = 4874

export function isFull(error: unknown): boolean {
  if (isErrno(error, 'ENOSPC', 'EDQUOT')) return true
  return (
    typeof error === 'object' &&
    error !== null &&
    'errcode' in error &&
    [FULL, WRITE, SHMSIZE].includes(Number(error.errcode))
  )
}

/** Bytes that were freed; 0 when there was nothing to give. */
export function giveReserve({ contexts }: StorePaths): number {
  return removeAll(contexts, [RESERVE])
}

/** The same, of all that is remembered of build contexts, the reserve included. */
export function makeRoom({ contexts }: StorePaths): number {
  return existsSync(contexts) ? removeAll(contexts, readdirSync(contexts)) : 0
}

/**
 * Made when there is none, and room for it.
 * @param wasGiven so that the store could be opened: before others take the room
 */
export function keepReserve({ contexts }: StorePaths, { wasGiven = false } = {}): void {
  const path = join(contexts, RESERVE)
  // Smaller: whoever wrote it was killed.
  if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) >= RESERVE_BYTES) return
  try {
    const { bavail, bsize } = statfsSync(contexts)
    if (bavail * bsize < RESERVE_BYTES * (wasGiven ? 1 : LEAST_FREE)) return
    writeFileSync(path, Buffer.alloc(RESERVE_BYTES), { mode: 0o600 })
  } catch (error) {
    // ENOENT: nor is the store there any more.
    if (!isFull(error) && !isErrno(error, 'ENOENT', 'EROFS', 'EACCES', 'EPERM')) throw error
    // Part of it would be taken for all.
    if (isFull(error)) rmSync(path, { force: true })
  }
}
