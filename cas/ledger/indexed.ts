/** What the index says of layers, images and their contents: read once, before the store is closed and counted. */
import type { BlobDigest, Descriptor, DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import { recipePath } from '../store/paths.ts'
import type { ImageStore } from '../store/types.ts'
import { readHoldings, type Holdings } from './holdings.ts'

export interface IndexedLayer {
  readonly diffId: DiffId
  readonly tarBytes: number
  readonly compressed: readonly Descriptor[]
}

export interface IndexedImage {
  readonly id: BlobDigest
  readonly manifestDigest: BlobDigest
  readonly names: readonly string[]
  /** Bottom first, as in the config. */
  readonly layers: readonly DiffId[]
}

export interface Indexed {
  /** Oldest first; numbered so in `holdings`. */
  readonly layers: readonly IndexedLayer[]
  /** Newest first. */
  readonly images: readonly IndexedImage[]
  readonly holdings: Holdings
}

export function readIndex({ db, paths }: StoreContext, store: ImageStore): Indexed {
  const compressed = compressedForms(db)
  const layers = db
    .all('SELECT diff_id, size FROM layers ORDER BY stored_at, diff_id')
    .map((row): IndexedLayer => {
      const diffId = String(row['diff_id']) as DiffId
      return { diffId, tarBytes: Number(row['size']), compressed: compressed.get(diffId) ?? [] }
    })
  const holdings = readHoldings(
    db,
    layers.map(({ diffId }) => recipePath(paths, diffId)),
  )
  return { layers, images: readImages(db, store), holdings }
}

/** As lists and reports name an image: by its names, else by its manifest's digest. */
export function labelsOf({ names, manifestDigest }: IndexedImage): readonly string[] {
  return names.length === 0 ? [manifestDigest] : names
}

function readImages(db: Database, store: ImageStore): IndexedImage[] {
  return db.all('SELECT manifest, config FROM images ORDER BY stored_at DESC, manifest').map((row) => {
    const manifestDigest = String(row['manifest']) as BlobDigest
    const names = db
      .all('SELECT name FROM names WHERE manifest = ? ORDER BY name', manifestDigest)
      .map((name) => String(name['name']))
    const layers = chainOf(db, store, manifestDigest)
    return { id: String(row['config']) as BlobDigest, manifestDigest, names, layers }
  })
}

/** In the index the layers have no order; but the config may be damaged, and the ledger is still wanted then. */
function chainOf(db: Database, store: ImageStore, manifest: BlobDigest): readonly DiffId[] {
  try {
    const image = store.byManifest(manifest)
    if (image !== undefined) return image.config.rootfs.diff_ids
  } catch {
    // Below.
  }
  return db
    .all('SELECT diff_id FROM image_layers WHERE manifest = ? ORDER BY diff_id', manifest)
    .map((row) => String(row['diff_id']) as DiffId)
}

function compressedForms(db: Database): Map<string, Descriptor[]> {
  const forms = new Map<string, Descriptor[]>()
  for (const row of db.all('SELECT diff_id, descriptor FROM compressed ORDER BY diff_id, digest')) {
    const diffId = String(row['diff_id'])
    const known = forms.get(diffId) ?? []
    known.push(JSON.parse(String(row['descriptor'])) as Descriptor)
    forms.set(diffId, known)
  }
  return forms
}
