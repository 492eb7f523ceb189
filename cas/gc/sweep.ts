/**
 * Files that the index does not name: what was unrecorded, old index images, what a killed process left, and what is not ours. A file gets its name and its record under the
 * index's write lock, so what has no record while it is held is nobody's.
 *
 * They are looked for twice. First in a transaction that is durable: what nothing names then, no power cut makes anything name again. Then those that are still
 * unnamed are taken out of sight, and removed when the lock is free again; a kill -9 leaves them to the sweep of the work directory.
 */
import { readdirSync, renameSync, rmSync, statSync, type Dirent } from 'node:fs'
import { join } from 'node:path'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import type { StorePaths } from '../store/paths.ts'
import { thisBoot } from '../drivers/trees.ts'
import { allocatedBytes, removeAll } from './allocated.ts'
import { isObjectDirectory } from './orphans.ts'
import { RESERVE } from './room.ts'
import type { Gone } from './state.ts'

/** Returns the bytes that were freed. */
export async function sweep(context: StoreContext): Promise<number> {
  const { db, paths } = context
  const found = db.durably(() => {
    const files = unnamed(db, paths)
    if (files.length > 0) db.run("INSERT OR REPLACE INTO meta VALUES ('swept', ?)", Date.now())
    return files
  })
  let freed = removeOldCaches(paths)
  if (found.length === 0) return freed
  const trash = context.workDirectory('trash')
  db.transaction(() => {
    const still = new Set(unnamed(db, paths))
    for (const [i, path] of found.entries()) if (still.has(path)) renameSync(path, join(trash, String(i)))
    forgetMounts(db)
  })
  for (const name of readdirSync(trash)) {
    freed += removeAll(trash, [name])
    await new Promise(setImmediate)
  }
  rmSync(trash, { recursive: true, force: true })
  return freed
}

/** Bytes that `sweep` would free after `gone` has been unrecorded. */
export function wouldSweep({ db, paths }: StoreContext, gone: Gone): number {
  const { recipes, blobs } = namesOf(db)
  for (const digest of gone.blobs) blobs.delete(hex(digest))
  const layers = new Set(gone.layers.map(hex))
  for (const name of layers) recipes.delete(`${name}.recipe`)
  const images = db
    .all('SELECT diff_id, image FROM layers')
    .filter((row) => !layers.has(hex(String(row['diff_id']))))
  const trees = db
    .all('SELECT diff_id, name FROM trees WHERE boot LIKE ?', `${thisBoot()}%`)
    .filter((row) => !layers.has(hex(String(row['diff_id']))))
  const left = [
    ...filesWithout(paths.layers, new Set([...recipes, ...images.map((row) => String(row['image']))])),
    ...filesWithout(paths.blobs, blobs),
    ...filesWithout(paths.trees, new Set(trees.map((row) => String(row['name'])))),
    ...strays(paths),
    ...oldCaches(paths),
  ]
  return left.reduce((sum, path) => sum + allocatedBytes(path), 0)
}

function unnamed(db: Database, paths: StorePaths): string[] {
  // Of an earlier boot: they were not synced, and are made anew. What another kind of user has made may be mounted.
  db.run('DELETE FROM trees WHERE boot NOT LIKE ?', `${thisBoot()}%`)
  const { recipes, images, blobs, trees } = namesOf(db)
  return [
    ...filesWithout(paths.layers, new Set([...recipes, ...images])),
    ...filesWithout(paths.blobs, blobs),
    ...filesWithout(paths.trees, trees),
    ...strays(paths),
  ]
}

/** What no process of ours ever makes there. */
function strays(paths: StorePaths): string[] {
  return [
    ...entriesWithout(paths.segments, (entry) => entry.isFile()),
    ...entriesWithout(paths.leases, (entry) => entry.isFile()),
    ...entriesWithout(paths.cacheMounts, (entry) => entry.isDirectory()),
    ...entriesWithout(paths.objects, isObjectDirectory),
  ]
}

function entriesWithout(directory: string, isOurs: (entry: Dirent) => boolean): string[] {
  return readdirSync(directory, { withFileTypes: true }).flatMap((entry) =>
    isOurs(entry) ? [] : [join(directory, entry.name)],
  )
}

function namesOf(db: Database) {
  const column = (sql: string): string[] => db.all(sql).map((row) => String(Object.values(row)[0]))
  const layers = column('SELECT diff_id FROM layers')
  const blobs = new Set(column('SELECT digest FROM blobs').map(hex))
  // Tars of format 1 that are still to be converted.
  if (db.get("SELECT 1 AS one FROM sqlite_master WHERE name = 'legacy'") !== undefined)
    for (const diffId of column('SELECT diff_id FROM legacy')) blobs.add(hex(diffId))
  return {
    recipes: new Set(layers.map((diffId) => `${hex(diffId)}.recipe`)),
    images: new Set(column('SELECT image FROM layers WHERE image IS NOT NULL')),
    blobs,
    trees: new Set(column('SELECT name FROM trees')),
  }
}

function filesWithout(directory: string, names: ReadonlySet<string>): string[] {
  return readdirSync(directory).flatMap((name) => (names.has(name) ? [] : [join(directory, name)]))
}

function hex(digest: string): string {
  return digest.slice('sha256:'.length)
}

/** Processes that died without saying so, and images that are no more. */
function forgetMounts(db: Database): void {
  const uuids = new Set(
    db.all('SELECT image FROM layers').map((row) => String(row['image']).split('.')[1] ?? ''),
  )
  for (const { image } of db.all('SELECT DISTINCT image FROM mounts'))
    if (!uuids.has(String(image))) db.run('DELETE FROM mounts WHERE image = ?', String(image))
}

/** What is remembered of a directory that was not built from for so long; and files of caches that were being written. */
const CACHE_MS = 60 * 24 * 3600_000
const UNFINISHED_MS = 3600_000

function oldCaches(paths: StorePaths): string[] {
  const now = Date.now()
  return readdirSync(paths.contexts).flatMap((name) => {
    if (name === RESERVE) return []
    const path = join(paths.contexts, name)
    const written = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? now
    return now - written > (name.startsWith('.') ? UNFINISHED_MS : CACHE_MS) ? [path] : []
  })
}

function removeOldCaches(paths: StorePaths): number {
  return oldCaches(paths).reduce((freed, path) => {
    const bytes = allocatedBytes(path)
    rmSync(path, { force: true })
    return freed + bytes
  }, 0)
}
