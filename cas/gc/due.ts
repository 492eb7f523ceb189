/**
 * Automatic collection: when it is due, and what it keeps. The rule is BuildKit's: at most 100 GB or 80% of the disk, less when less than 20% of the disk are
 * free, but never less than 10 GB or 10% of it.
 *
 * The store is not walked to find out: what it took at the end of the last collection is on record, and what the index has more of since.
 */
import { statfsSync, statSync } from 'node:fs'
import type { StoreContext } from '../store/context.ts'
import type { PruneReport } from '../store/types.ts'
import { storeBytes } from './allocated.ts'

/** So that the next one is not due at once. */
const KEPT_SHARE = 0.9
/** What cannot go is not looked for again before the store has grown by so much. */
const GROWTH = 1.05

/** To how many bytes the store is to be brought down; `undefined` when nothing is due. */
export function dueBytes(context: StoreContext, maxBytes: number | undefined): number | undefined {
  const estimate = estimatedBytes(context)
  const most = maxBytes ?? defaultCap(context.paths.root, estimate)
  const last = measured(context)
  const isStuck = last !== undefined && last.allocatedBytes > most && (last.keepBytes ?? most) < most
  return estimate <= (isStuck ? last.allocatedBytes * GROWTH : most)
    ? undefined
    : Math.floor(most * KEPT_SHARE)
}

const GB = 1e9

/** In bytes. `used` is what the store takes. */
export function defaultCap(root: string, used: number): number {
  const { bsize, blocks, bavail } = statfsSync(root)
  return capFor({ disk: bsize * blocks, free: bsize * bavail, used })
}

export function capFor({ disk, free, used }: { disk: number; free: number; used: number }): number {
  const most = Math.min(100 * GB, disk * 0.8)
  const reserved = Math.min(10 * GB, disk * 0.1)
  const missing = disk * 0.2 - free
  return Math.max(reserved, missing > 0 ? Math.min(most, used - missing) : most)
}

interface Measured {
  readonly allocatedBytes: number
  /** What `indexedBytes` said then. */
  readonly indexedBytes: number
  /** The cap, if there was one. */
  readonly keepBytes?: number
}

/** After a collection. */
export function remember<T extends PruneReport>(context: StoreContext, report: T): T {
  const { db } = context
  const now: Measured = {
    allocatedBytes: storeBytes(context),
    indexedBytes: indexedBytes(context),
    ...(report.cap && { keepBytes: report.cap.keepBytes }),
  }
  db.run("INSERT OR REPLACE INTO meta VALUES ('measured', ?)", JSON.stringify(now))
  return report
}

function measured({ db }: StoreContext): Measured | undefined {
  const value = db.get("SELECT value FROM meta WHERE key = 'measured'")?.['value']
  return typeof value === 'string' ? (JSON.parse(value) as Measured) : undefined
}

/** Recipes, index images and lists of contents take so much of the contents. */
const OVERHEAD = 1.03

function estimatedBytes(context: StoreContext): number {
  const last = measured(context) ?? { allocatedBytes: 0, indexedBytes: 0 }
  return last.allocatedBytes + Math.max(0, indexedBytes(context) - last.indexedBytes) * OVERHEAD
}

function indexedBytes({ db, paths }: StoreContext): number {
  const sum = (sql: string): number => Number(Object.values(db.get(sql) ?? {})[0] ?? 0)
  return (
    sum('SELECT sum(length) FROM segments') + sum('SELECT sum(size) FROM blobs') + statSync(paths.index).size
  )
}
