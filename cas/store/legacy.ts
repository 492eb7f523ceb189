/** Layers of format 1, whose tars are blobs, become layers of this format: each is ingested, then its tar is removed. A kill -9 loses nothing of it. */
import { closeSync, openSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { flockWait } from '../../linux/index.ts'
import type { DiffId } from '../oci.ts'
import { streamVerified } from './blobs.ts'
import type { StoreContext } from './context.ts'
import type { Database } from './database.ts'
import { blobPath } from './paths.ts'
import type { LayerStore } from './types.ts'

/** A tar that is not what it should be is lost, as it was before; `fsck` names the images that miss it. */
export async function convertLegacy(context: StoreContext, layers: LayerStore): Promise<void> {
  const { db, paths } = context
  if (!isLegacy(db)) return
  const lock = openSync(join(paths.root, 'migration'), 'a', 0o600)
  try {
    await flockWait(lock, 'exclusive')
    if (!isLegacy(db)) return
    for (const row of db.all('SELECT diff_id FROM legacy ORDER BY diff_id')) {
      const diffId = String(row['diff_id']) as DiffId
      const tar = blobPath(paths, diffId)
      if (layers.find(diffId) === undefined) {
        try {
          await layers.ingestTar(streamVerified(tar, diffId), { expected: diffId })
        } catch (error) {
          // Damage may make it no tar before it is seen to have another digest.
          if (!(error instanceof TbuildError)) throw error
        }
      }
      db.durably(() => db.run('DELETE FROM legacy WHERE diff_id = ?', diffId))
      // An uncompressed layer may also be a blob in its own right.
      if (db.get('SELECT 1 AS one FROM blobs WHERE digest = ?', diffId) === undefined)
        rmSync(tar, { force: true })
    }
    db.durably(() => db.run('DROP TABLE legacy'))
    rmSync(join(paths.root, 'migration'), { force: true })
  } finally {
    closeSync(lock)
  }
}

/** Some layers are still to be converted. */
export function isLegacy(db: Database): boolean {
  return db.get("SELECT 1 AS one FROM sqlite_master WHERE type = 'table' AND name = 'legacy'") !== undefined
}
