/**
 * A full disk: the index needs some room to open, and to take things out of it. What is remembered of build contexts is only a cache, and a reserve is kept
 * among it, so that there is always something to give.
 */
import { existsSync, readdirSync, statfsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import type { StorePaths } from '../store/paths.ts'
import { removeAll } from './allocated.ts'

export const RESERVE = 'reserve'
const RESERVE_BYTES = 256 * 1024

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
export function makeRoom({ contexts }: StorePaths): number {
  return existsSync(contexts) ? removeAll(contexts, readdirSync(contexts)) : 0
}

/** Made anew when there is plenty of room again. */
export function keepReserve({ contexts }: StorePaths): void {
  const path = join(contexts, RESERVE)
  if (existsSync(path)) return
  const { bavail, bsize } = statfsSync(contexts)
  if (bavail * bsize < RESERVE_BYTES * 100) return
  try {
    writeFileSync(path, Buffer.alloc(RESERVE_BYTES), { mode: 0o600 })
  } catch (error) {
    if (!isFull(error)) throw error
  }
}
