/** Store to archive. */
import { createHash } from 'node:crypto'
import {
  MEDIA,
  type BlobDigest,
  type Descriptor,
  type DiffId,
  type Image,
  type Store,
  type StoredLayer,
} from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { familiarReference, parseReference } from '../../registry/index.ts'
import type { TransferObserver } from '../transfer/types.ts'
import { bareLayer, ociManifest } from '../transfer/manifest.ts'
import { tarOf, type ArchiveFile } from './tar-of.ts'

export interface SaveOptions {
  /**
   * `docker` is what docker writes since 25: an OCI layout that has docker's `manifest.json` and `repositories` as well, so that everything loads
   * it. `oci` is the layout alone.
   */
  readonly format: 'docker' | 'oci'
  readonly signal?: AbortSignal | undefined
  readonly observe?: TransferObserver | undefined
}

export interface ImageToSave {
  readonly image: Image
  /** A full reference, which need not be the image's own; one image may be given with several. One by digest is left out, as docker does. */
  readonly name?: string | undefined
}

/**
 * An archive of the images, each layer once. Layers go as the image's manifest names them: bare, or compressed. When compressed bytes were
 * pruned, the image is saved with bare layers under a manifest made for it, and `observe` gets a note. The same images give the same bytes.
 * Throws `STORE_CORRUPT`, `LAYER_UNKNOWN`.
 */
export async function* saveImages(
  store: Store,
  images: readonly ImageToSave[],
  options: SaveOptions,
): AsyncGenerator<Uint8Array> {
  const namesOf = new Map<BlobDigest, { readonly image: Image; readonly names: Set<string> }>()
  for (const { image, name } of images) {
    const entry = namesOf.get(image.manifestDigest) ?? { image, names: new Set() }
    namesOf.set(image.manifestDigest, entry)
    if (name !== undefined) entry.names.add(name)
  }
  const blobs = new Map<string, ArchiveFile>()
  const saved = [...namesOf.values()].map(({ image, names }) =>
    collect(store, image, [...names].toSorted(), blobs, options),
  )
  const files = [...blobs.values()]
  const json = (name: string, value: unknown): void => {
    const bytes = Buffer.from(JSON.stringify(value))
    files.push({ name, size: bytes.length, open: () => [bytes] })
  }
  json('oci-layout', { imageLayoutVersion: '1.0.0' })
  json('index.json', { schemaVersion: 2, mediaType: MEDIA.index, manifests: saved.flatMap(indexEntries) })
  if (options.format === 'docker') {
    json('manifest.json', saved.map(dockerEntry))
    json('repositories', repositories(saved))
  }
  const directories = ['blobs/', 'blobs/sha256/'].map((name) => ({ name, size: 0, open: () => [] }))
  const all = [...directories, ...files].toSorted((a, b) => (a.name < b.name ? -1 : 1))
  yield* tarOf(all, options.signal)
}

/** An image as it stands in the archive. */
interface SavedImage {
  readonly manifest: { readonly mediaType: string; readonly digest: BlobDigest; readonly size: number }
  readonly config: BlobDigest
  readonly layers: readonly Descriptor[]
  readonly names: readonly SavedName[]
}

interface SavedName {
  readonly full: string
  /** `app:latest`, and its two halves. */
  readonly familiar: string
  readonly repository: string
  readonly tag: string
}

function collect(
  store: Store,
  image: Image,
  names: readonly string[],
  blobs: Map<string, ArchiveFile>,
  options: SaveOptions,
): SavedImage {
  const own = layersOf(image)
  const gone = own.filter(({ layer, diffId }) => !isBare(layer, diffId) && !isStored(store, layer))
  const { manifest } = image
  const mediaType = manifest.mediaType ?? MEDIA.manifest
  const note = (why: string): void =>
    options.observe?.({
      kind: 'note',
      text: `${names[0] ?? image.id}: ${why}, and so with another manifest digest`,
    })
  let layers = manifest.layers
  let bytes = store.blobs.read(image.manifestDigest)
  if (gone.length > 0) {
    note(
      `the compressed bytes of ${gone.length} of its layers are no longer stored; it is saved with uncompressed layers`,
    )
    layers = own.map(({ diffId }) => bareLayer(stored(store, diffId)))
    bytes = ociManifest(manifest.config, layers, manifest.annotations)
  } else if (options.format === 'oci' && mediaType !== MEDIA.manifest) {
    // umoci, for one, refuses docker's in a layout; skopeo converts as well.
    note("docker's manifest is saved as OCI's")
    bytes = ociManifest(manifest.config, layers, manifest.annotations)
  }
  const add = (digest: string, size: number, open: ArchiveFile['open']): void =>
    void blobs.set(digest, { name: blobPath(digest), size, open })

  const config = store.blobs.read(image.manifest.config.digest)
  add(image.manifest.config.digest, config.length, () => [config])
  const digest = sha256(bytes)
  add(digest, bytes.length, () => [bytes])
  for (const [i, layer] of layers.entries()) {
    const diffId = own[i]?.diffId
    if (diffId === undefined) continue
    const bare = isBare(layer, diffId)
    add(layer.digest, layer.size, () => (bare ? store.layers.tar(diffId) : store.blobs.stream(layer.digest)))
  }
  return {
    manifest: {
      mediaType: digest === image.manifestDigest ? mediaType : MEDIA.manifest,
      digest,
      size: bytes.length,
    },
    config: image.manifest.config.digest,
    layers,
    names: names.flatMap(savedName),
  }
}

function stored(store: Store, diffId: DiffId): StoredLayer {
  const layer = store.layers.find(diffId)
  if (layer === undefined) throw new TbuildError('LAYER_UNKNOWN', `the store has no layer ${diffId}`)
  return layer
}

function layersOf(image: Image): { readonly layer: Descriptor; readonly diffId: DiffId }[] {
  return image.manifest.layers.map((layer, i) => {
    const diffId = image.config.rootfs.diff_ids[i]
    if (diffId === undefined)
      throw new TbuildError('CONFIG_INVALID', `the image ${image.id} has fewer diff ids than layers`)
    return { layer, diffId }
  })
}

function isBare(layer: Descriptor, diffId: DiffId): boolean {
  return (layer.digest as string) === diffId
}

function isStored(store: Store, layer: Descriptor): boolean {
  return store.blobs.size(layer.digest) !== undefined
}

function blobPath(digest: string): string {
  return `blobs/sha256/${digest.slice('sha256:'.length)}`
}

function savedName(full: string): SavedName[] {
  const reference = parseReference(full)
  // A name by digest cannot be loaded back: docker leaves them out as well.
  if (reference.tag === undefined || reference.digest !== undefined) return []
  const familiar = familiarReference(reference)
  const { tag } = reference
  return [{ full, familiar, repository: familiar.slice(0, -tag.length - 1), tag }]
}

/** One entry for each name, as docker and containerd write them; without a name, one. */
function indexEntries({ manifest, names }: SavedImage): object[] {
  if (names.length === 0) return [manifest]
  return names.map(({ full, tag }) => ({
    ...manifest,
    annotations: { 'io.containerd.image.name': full, 'org.opencontainers.image.ref.name': tag },
  }))
}

function dockerEntry({ config, layers, names }: SavedImage): object {
  return {
    Config: blobPath(config),
    RepoTags: names.length === 0 ? null : names.map(({ familiar }) => familiar),
    Layers: layers.map(({ digest }) => blobPath(digest)),
  }
}

/** The index of docker before 1.10: repository, tag, top layer. */
function repositories(saved: readonly SavedImage[]): object {
  const all = new Map<string, Record<string, string>>()
  for (const { names, layers } of saved) {
    const top = layers.at(-1)?.digest.slice('sha256:'.length)
    if (top === undefined) continue
    for (const { repository, tag } of names) all.set(repository, { ...all.get(repository), [tag]: top })
  }
  return Object.fromEntries(all)
}

function sha256(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as BlobDigest
}
