/** An index image that becomes its layer's: by name and in the index. */
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { IndexImage } from './types.ts'

/** In a transaction that records the layer, or has found it recorded. The layers' directory is the caller's to sync. `undefined`: it has none from now on. */
export function placeImage({ db, paths }: StoreContext, diffId: DiffId, image: IndexImage | undefined): void {
  // Named for its layer and its own UUID, which a mount of it tells.
  const name = image && `${diffId.slice('sha256:'.length)}.${image.uuid.toString('hex')}.erofs`
  if (image !== undefined && name !== undefined) renameSync(image.path, join(paths.layers, name))
  db.run('UPDATE layers SET image = ? WHERE diff_id = ?', name ?? null, diffId)
  db.run('DELETE FROM layer_segments WHERE diff_id = ?', diffId)
  for (const [i, segment] of (image?.segments ?? []).entries())
    db.run('INSERT INTO layer_segments VALUES (?, ?, ?)', diffId, i + 1, segment)
}

export function uuidOf(imageName: string): Buffer {
  return Buffer.from(imageName.split('.')[1] ?? '', 'hex')
}
