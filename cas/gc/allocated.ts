/** What things take on the disk: blocks (st_blocks), as du(1) counts them. */
import { lstatSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { walkDisk } from '../ledger/disk.ts'
import { isErrno } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'

/** In bytes; 0 when it is not there. Of a directory with all that is below it. */
export function allocatedBytes(path: string): number {
  let bytes = 0
  walkDisk(path, (file) => {
    bytes += file.allocatedBytes
  })
  return bytes
}

/** What the store takes when this process has closed it, in bytes: SQLite's log is in the index by then, and what the process works with is gone. */
export function storeBytes({ db, paths, scope }: StoreContext): number {
  try {
    // Waits for nobody.
    db.get('PRAGMA wal_checkpoint(PASSIVE)')
  } catch (error) {
    // A full disk.
    if (!isErrno(error, 'ERR_SQLITE_ERROR')) throw error
  }
  const passing = [`${paths.index}-wal`, `${paths.index}-shm`]
  if (scope !== undefined) passing.push(join(paths.leases, scope), join(paths.work, scope))
  return passing.reduce((bytes, path) => bytes - allocatedBytes(path), allocatedBytes(paths.root))
}

/** Of one file, in bytes; 0 when it is not there. */
export function fileBlocks(path: string): number {
  return (lstatSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512
}

/** Removes files and trees of a directory; returns the bytes that they had. */
export function removeAll(directory: string, names: readonly string[]): number {
  let bytes = 0
  for (const name of names) {
    const path = join(directory, name)
    bytes += allocatedBytes(path)
    rmSync(path, { recursive: true, force: true })
  }
  return bytes
}
