/**
 * Garbage collection, in two transactions. (1) What nothing needs is unrecorded: from then on nothing new can come to rely on it. (2) Files without a
 * record are taken out of sight, under the same write lock under which a file is recorded: so none is taken that another process is
 * just putting there. What was taken away is deleted after that. A kill -9 leaves files without a record, which the next prune finds.
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
      const freedBytes = unnamedFiles(context).reduce((sum, path) => sum + allocated(path), 0)
      return { ...gone, freedBytes }
    })
  }
  const gone = db.transaction(() => unrecord(context))
  const trash = context.workDirectory('trash')
  db.transaction(() => {
    for (const [index, path] of unnamedFiles(context).entries()) renameSync(path, join(trash, String(index)))
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

/** Files and directories that the index does not name. */
function unnamedFiles({ db, paths }: StoreContext): string[] {
  const named = new Set(
    db
      .all('SELECT digest AS name FROM blobs UNION SELECT diff_id FROM layers')
      .map((row) => String(row['name']).slice('sha256:'.length)),
  )
  for (const row of db.all('SELECT name FROM directories')) named.add(String(row['name']))
  return [paths.blobs, paths.layers].flatMap((directory) =>
    readdirSync(directory)
      .filter((name) => !named.has(name))
      .map((name) => join(directory, name)),
  )
}

/** Bytes on disk (st_blocks) of a file, or of a tree. */
function allocated(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return 0
  let bytes = stats.blocks * 512
  if (stats.isDirectory()) for (const name of readdirSync(path)) bytes += allocated(join(path, name))
  return bytes
}
