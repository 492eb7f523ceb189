/** What is recorded, by whom it is needed, and what of a plan may go. */
import { statSync } from 'node:fs'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { Database } from '../store/database.ts'
import { blobPath, type StorePaths } from '../store/paths.ts'

export interface ImageState {
  readonly manifest: BlobDigest
  readonly config: BlobDigest
  readonly names: readonly string[]
  readonly layers: readonly DiffId[]
  /** When it came, or one of its layers was used later. */
  readonly usedAt: number
}

export interface LayerState {
  readonly diffId: DiffId
  readonly storedAt: number
  readonly usedAt: number
  /** File of its index image. */
  readonly image: string | undefined
}

export interface StoreState {
  readonly images: readonly ImageState[]
  readonly layers: ReadonlyMap<DiffId, LayerState>
  readonly blobs: ReadonlySet<BlobDigest>
  /** Of each compressed form the layer. */
  readonly compressed: ReadonlyMap<BlobDigest, DiffId>
  /** Compressed forms that can be had again from where they came. */
  readonly fetchable: ReadonlySet<BlobDigest>
  /** By living processes. */
  readonly leased: ReadonlySet<string>
}

/** What is to go; whoever executes it leaves what has come into use meanwhile. */
export interface Plan {
  readonly images: ReadonlySet<BlobDigest>
  readonly layers: ReadonlySet<DiffId>
  /** If nothing needs them. */
  readonly blobs: ReadonlySet<BlobDigest>
  /** Compressed layers, also of layers that stay. */
  readonly compressed: ReadonlySet<BlobDigest>
}

export interface Gone {
  readonly images: readonly BlobDigest[]
  readonly layers: readonly DiffId[]
  readonly blobs: readonly BlobDigest[]
}

export function readState(db: Database): StoreState {
  const column = <T extends string>(sql: string): T[] =>
    db.all(sql).map((row) => String(Object.values(row)[0]) as T)
  const names = lists(db, 'SELECT manifest, name FROM names ORDER BY name')
  const imageLayers = lists(db, 'SELECT manifest, diff_id FROM image_layers')
  const layers = new Map<DiffId, LayerState>()
  for (const row of db.all('SELECT diff_id, stored_at, used_at, image FROM layers')) {
    const { diff_id, stored_at, used_at, image } = row
    const diffId = String(diff_id) as DiffId
    layers.set(diffId, {
      diffId,
      storedAt: Number(stored_at),
      usedAt: Number(used_at),
      image: typeof image === 'string' ? image : undefined,
    })
  }
  const images = db.all('SELECT manifest, config, stored_at FROM images').map((row) => {
    const manifest = String(row['manifest']) as BlobDigest
    const own = (imageLayers.get(manifest) ?? []) as DiffId[]
    const usedAt = Math.max(Number(row['stored_at']), ...own.map((diffId) => layers.get(diffId)?.usedAt ?? 0))
    return {
      manifest,
      config: String(row['config']) as BlobDigest,
      names: names.get(manifest) ?? [],
      layers: own,
      usedAt,
    }
  })
  const compressed = new Map<BlobDigest, DiffId>()
  for (const row of db.all('SELECT digest, diff_id FROM compressed'))
    compressed.set(String(row['digest']) as BlobDigest, String(row['diff_id']) as DiffId)
  return {
    images,
    layers,
    blobs: new Set(column<BlobDigest>('SELECT digest FROM blobs')),
    compressed,
    fetchable: new Set(column<BlobDigest>('SELECT DISTINCT digest FROM origins')),
    leased: new Set(column('SELECT DISTINCT digest FROM leased')),
  }
}

/** Inside the transaction that takes it away, or for a dry run. */
export function decide(state: StoreState, plan: Plan): Gone {
  const { leased } = state
  const images = state.images.filter(
    ({ manifest, names }) => plan.images.has(manifest) && names.length === 0 && !leased.has(manifest),
  )
  const gone = new Set(images)
  const remaining = state.images.filter((image) => !gone.has(image))
  const inImages = new Set(remaining.flatMap((image) => image.layers))
  const layers = [...plan.layers].filter(
    (diffId) => state.layers.has(diffId) && !leased.has(diffId) && !inImages.has(diffId),
  )
  const needed = neededBlobs(state, remaining, new Set(layers))
  const blobs = [...plan.blobs].filter(
    (digest) => state.blobs.has(digest) && !needed.has(digest) && !plan.compressed.has(digest),
  )
  const compressed = [...plan.compressed].filter((digest) => state.blobs.has(digest) && !leased.has(digest))
  return { images: images.map(({ manifest }) => manifest), layers, blobs: [...blobs, ...compressed] }
}

/** By images, by layers that stay, and by processes. */
export function neededBlobs(
  state: StoreState,
  images: readonly ImageState[],
  goneLayers: ReadonlySet<DiffId>,
): Set<string> {
  const needed = new Set<string>(state.leased)
  for (const { manifest, config } of images) needed.add(manifest).add(config)
  for (const [digest, diffId] of state.compressed)
    if (state.layers.has(diffId) && !goneLayers.has(diffId)) needed.add(digest)
  return needed
}

/** Blobs that are compressed forms of a layer. */
export function compressedOf(state: StoreState, diffId: DiffId): BlobDigest[] {
  return [...state.compressed].flatMap(([digest, of]) =>
    of === diffId && state.blobs.has(digest) ? [digest] : [],
  )
}

/** Blobs have no record of their use: when they were written, in milliseconds since 1970. */
export function blobTime(paths: StorePaths, digest: BlobDigest): number {
  return statSync(blobPath(paths, digest), { throwIfNoEntry: false })?.mtimeMs ?? 0
}

/** Of two columns, the second's values by the first's. */
function lists(db: Database, sql: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const row of db.all(sql)) {
    const [key, value] = Object.values(row).map(String) as [string, string]
    const list = found.get(key)
    if (list === undefined) found.set(key, [value])
    else list.push(value)
  }
  return found
}
