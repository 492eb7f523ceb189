/** Images: a manifest, its config, its layers, and names that point at it. */
import { TbuildError } from '../../errors.ts'
import type { BlobDigest, DiffId } from '../oci.ts'
import { assertSameLayers, parseConfig, parseManifest } from '../parse-oci.ts'
import type { Row } from './database.ts'
import type { StoreContext } from './context.ts'
import { changeNames } from './names.ts'
import type { BlobStore, Image, ImageStore } from './types.ts'

export function createImageStore(context: StoreContext, blobs: BlobStore): ImageStore {
  const { db } = context
  const read = (row: Row): Image => {
    const manifestDigest = String(row['manifest']) as BlobDigest
    const id = String(row['config']) as BlobDigest
    return {
      id,
      manifestDigest,
      manifest: parseManifest(blobs.read(manifestDigest)),
      config: parseConfig(blobs.read(id)),
      names: db
        .all('SELECT name FROM names WHERE manifest = ? ORDER BY name', manifestDigest)
        .map((name) => String(name['name'])),
      storedAt: Number(row['stored_at']),
    }
  }
  const one = (row: Row | undefined): Image | undefined => row && read(row)
  const byManifest = (digest: BlobDigest): Image | undefined =>
    one(db.get('SELECT * FROM images WHERE manifest = ?', digest))
  /** Inside a transaction. Whether it was not so before. */
  const point = (name: string, digest: BlobDigest): boolean => {
    if (db.get('SELECT manifest FROM names WHERE name = ?', name)?.['manifest'] === digest) return false
    db.run('INSERT OR REPLACE INTO names VALUES (?, ?)', name, digest)
    return true
  }
  const layerOf = (diffId: DiffId): void => {
    if (db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) !== undefined) return
    throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
  }
  return {
    put: (digest, names) =>
      changeNames(context, () => {
        const manifest = parseManifest(blobs.read(digest))
        const config = parseConfig(blobs.read(manifest.config.digest))
        assertSameLayers(manifest, config)
        const present = byManifest(digest)
        if (present === undefined) {
          for (const diffId of config.rootfs.diff_ids) {
            layerOf(diffId)
            db.run('INSERT OR IGNORE INTO image_layers VALUES (?, ?)', digest, diffId)
          }
          db.run('INSERT INTO images VALUES (?, ?, ?)', digest, manifest.config.digest, Date.now())
        }
        const changed = names.filter((name) => point(name, digest)).length > 0
        const image = byManifest(digest)
        if (image === undefined) throw unknown(digest)
        return { result: image, changed }
      }),
    tag: (name, digest) =>
      changeNames(context, () => {
        if (byManifest(digest) === undefined) throw unknown(digest)
        return { result: undefined, changed: point(name, digest) }
      }),
    untag: (name) =>
      changeNames(context, () => {
        const changed = db.run('DELETE FROM names WHERE name = ?', name) > 0
        return { result: changed, changed }
      }),
    remove: (digest) =>
      changeNames(context, () => {
        const changed = db.run('DELETE FROM names WHERE manifest = ?', digest) > 0
        db.run('DELETE FROM image_layers WHERE manifest = ?', digest)
        db.run('DELETE FROM images WHERE manifest = ?', digest)
        return { result: undefined, changed }
      }),
    byName: (name) =>
      one(db.get('SELECT images.* FROM names JOIN images USING (manifest) WHERE name = ?', name)),
    byManifest,
    byPrefix: (prefix) => {
      const hex = prefix.replace(/^sha256:/, '')
      if (!/^[0-9a-f]{2,64}$/.test(hex)) return []
      const pattern = `sha256:${hex}*`
      // Pulled and built, an image may be there with two manifests: it is one image.
      return db
        .all(
          'SELECT * FROM images WHERE config GLOB ? OR manifest GLOB ? GROUP BY config ORDER BY max(stored_at) DESC',
          pattern,
          pattern,
        )
        .map(read)
    },
    list: () => db.all('SELECT * FROM images ORDER BY stored_at DESC, manifest').map(read),
  }
}

function unknown(digest: BlobDigest): TbuildError {
  return new TbuildError('IMAGE_NOT_FOUND', `The store has no image ${digest}.`)
}
