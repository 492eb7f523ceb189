/**
 * Garbage collection, in two transactions. (1) What nothing needs is unrecorded: from then on nothing new can come to rely on it. (2) Files without a
 * record are taken out of sight; a blob that is just being put there is told by its change time. What was taken away is deleted after that. A
 * kill -9 leaves files without a record, which a later prune finds.
 */
import { lstatSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { StoreContext } from './context.ts'
import type { Row } from './database.ts'
import type { PruneReport } from './types.ts'

type Unrecorded = Omit<PruneReport, 'freedBytes'>

export function prune(context: StoreContext, { dryRun = false } = {}): PruneReport {
  const { db } = context
  if (dryRun) {
    return db.rehearsal(() => {
      const gone = unrecord(context)
      const freedBytes = unnamedFiles(context, gone, Date.now()).reduce(
        (sum, path) => sum + allocated(path),
        0,
      )
      return { ...gone, freedBytes }
    })
  }
  const since = Date.now()
  const gone = db.durably(() => unrecord(context))
  const trash = context.workDirectory('trash')
  db.transaction(() => {
    for (const [index, path] of unnamedFiles(context, gone, since).entries())
      renameSync(path, join(trash, String(index)))
  })
  const freedBytes = readdirSync(trash).reduce((sum, name) => sum + allocated(join(trash, name)), 0)
  rmSync(trash, { recursive: true, force: true })
  return { ...gone, freedBytes }
}

function unrecord({ db }: StoreContext): Unrecorded {
  const images = db.all(
    'DELETE FROM images WHERE manifest NOT IN (SELECT manifest FROM names) RETURNING manifest',
  )
  db.run('DELETE FROM image_layers WHERE manifest NOT IN (SELECT manifest FROM images)')
  const layers = db.all(`
    DELETE FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)
      AND diff_id NOT IN (SELECT digest FROM leased) RETURNING diff_id`)
  db.run('DELETE FROM directories WHERE diff_id NOT IN (SELECT diff_id FROM layers)')
  const blobs = db.all(`
    DELETE FROM blobs WHERE digest NOT IN (SELECT digest FROM leased)
      AND digest NOT IN (SELECT manifest FROM images) AND digest NOT IN (SELECT config FROM images)
      AND digest NOT IN (SELECT digest FROM compressed JOIN layers USING (diff_id)) RETURNING digest`)
  const steps = db.run('DELETE FROM steps WHERE diff_id NOT IN (SELECT diff_id FROM layers)')
  // What a key stands for is a component of some step.
  db.run('DELETE FROM aliases WHERE NOT EXISTS (SELECT 1 FROM steps WHERE instr(components, aliases.value))')
  db.run('DELETE FROM builds WHERE manifest NOT IN (SELECT manifest FROM images)')
  return {
    images: column<BlobDigest>(images, 'manifest'),
    layers: column<DiffId>(layers, 'diff_id'),
    blobs: column<BlobDigest>(blobs, 'digest'),
    steps,
  }
}

function column<T extends string>(rows: readonly Row[], name: string): T[] {
  return rows.map((row) => String(row[name]) as T)
}

/** A file gets its name a moment before it is recorded (its change time is that of the rename); older ones are nobody's. */
const ON_ITS_WAY_MS = 3600_000

/**
 * Files and directories that the index does not name: those of what has just been unrecorded, unless somebody has put them there anew since,
 * and those that a process left which died before it recorded them.
 */
function unnamedFiles({ db, paths }: StoreContext, gone: Unrecorded, since: number): string[] {
  const unrecorded = new Set([...gone.layers, ...gone.blobs].map((digest) => digest.slice('sha256:'.length)))
  const named = new Set(
    db
      .all(
        'SELECT digest AS name FROM blobs UNION SELECT diff_id FROM layers UNION SELECT name FROM directories',
      )
      .map((row) => String(row['name']).replace('sha256:', '')),
  )
  const isLeft = (path: string, name: string): boolean => {
    if (named.has(name)) return false
    const changed = lstatSync(path, { throwIfNoEntry: false })?.ctimeMs ?? Number.POSITIVE_INFINITY
    return changed < (unrecorded.has(name) ? since : since - ON_ITS_WAY_MS)
  }
  const blobs = readdirSync(paths.blobs).filter((name) => isLeft(join(paths.blobs, name), name))
  // Directories are moved and recorded under one lock: what has no record now will get none.
  const layers = readdirSync(paths.layers).filter((name) => !named.has(name))
  return [...blobs.map((name) => join(paths.blobs, name)), ...layers.map((name) => join(paths.layers, name))]
}

/** Bytes on disk (st_blocks) of a file, or of a tree. */
function allocated(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return 0
  let bytes = stats.blocks * 512
  if (stats.isDirectory()) for (const name of readdirSync(path)) bytes += allocated(join(path, name))
  return bytes
}
