/**
 * From its first look at what the store has until it has recorded what it brings, an ingest holds the present epoch's lock, shared. Collection first
 * unrecords, in one transaction with the beginning of a new epoch; when it then gets the old epoch's lock alone, no ingest is left that may rely on
 * what was unrecorded, unless it has recorded it again.
 */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { flock } from '../../linux/index.ts'
import type { Database } from './database.ts'
import type { StorePaths } from './paths.ts'

/** Two take turns. */
export type Epoch = 0 | 1

export function currentEpoch(db: Database): Epoch {
  return Number(db.get("SELECT value FROM meta WHERE key = 'epoch'")?.['value'] ?? 0) === 1 ? 1 : 0
}

/** Inside a transaction. Returns the epoch that ends. The other one must be over: ingests of two are told apart, not of three. */
export function beginEpoch(db: Database): Epoch {
  const old = currentEpoch(db)
  db.run("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", 1 - old)
  return old
}

export function enterEpoch(paths: StorePaths, db: Database): Disposable {
  for (;;) {
    const epoch = currentEpoch(db)
    const fd = openLock(paths, epoch)
    // While it is held alone, no longer than a moment, a new epoch has begun.
    if (flock(fd, 'shared') && currentEpoch(db) === epoch) {
      return { [Symbol.dispose]: () => closeSync(fd) }
    }
    closeSync(fd)
  }
}

/** Has every ingest of that epoch ended? */
export function isOver(paths: StorePaths, epoch: Epoch): boolean {
  const fd = openLock(paths, epoch)
  try {
    return flock(fd, 'exclusive')
  } finally {
    closeSync(fd)
  }
}

function openLock(paths: StorePaths, epoch: Epoch): number {
  return openSync(join(paths.locks, `epoch-${epoch}`), 'a', 0o600)
}
