/** What the store's parts share: the index, the paths, and this process's lease, taken when something first needs it. */
import { mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import type { Digest } from '../oci.ts'
import type { Database } from './database.ts'
import { takeLease, type Lease } from './lease.ts'
import { blobPath, type StorePaths } from './paths.ts'
import { createSpool, syncDirectory, type Spool } from './spool.ts'

export interface StoreContext {
  readonly paths: StorePaths
  readonly db: Database
  lease(): Lease
  /** The lease's name, if one was taken. */
  readonly scope: string | undefined
  /** A path in this process's work directory, where nothing is yet. */
  workPath(prefix: string): string
  workDirectory(prefix: string): string
  spool(): Spool
  /** Keep these from being pruned while this process lives. Inside a transaction. */
  hold(digests: readonly Digest[]): void
  release(): void
}

export function createContext(paths: StorePaths, db: Database): StoreContext {
  let lease: Lease | undefined
  let count = 0
  const taken = (): Lease => (lease ??= takeLease(paths, db))
  const workPath = (prefix: string): string => join(taken().workDirectory, `${prefix}-${++count}`)
  return {
    paths,
    db,
    lease: taken,
    get scope() {
      return lease?.scope
    },
    workPath,
    workDirectory: (prefix) => {
      const path = workPath(prefix)
      mkdirSync(path, { mode: 0o700 })
      return path
    },
    spool: () => createSpool(workPath('spool')),
    hold: (digests) => {
      const { scope } = taken()
      for (const digest of digests) db.run('INSERT OR IGNORE INTO leased VALUES (?, ?)', scope, digest)
    },
    release: () => {
      lease?.release()
      lease = undefined
    },
  }
}

/** Gives a finished spool its name. Inside a transaction; the caller records it there. */
export function moveIntoPlace(context: StoreContext, spool: Spool, digest: Digest): void {
  renameSync(spool.path, blobPath(context.paths, digest))
  syncDirectory(context.paths.blobs)
}
