/** Store to registry. */
import { createHash } from 'node:crypto'
import {
  MEDIA,
  type BlobDigest,
  type Descriptor,
  type DiffId,
  type Image,
  type Store,
} from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { formatReference, type Reference, type Registry } from '../../registry/index.ts'
import { compressLayer } from './compress-layer.ts'
import { eachLimited } from './each-limited.ts'
import { ociManifest } from './manifest.ts'
import { sequential } from './streams.ts'
import type { TransferObserver } from './types.ts'

export interface PushOptions {
  /** Uploads in requests of so many bytes; by default in one. */
  readonly chunkBytes?: number | undefined
  readonly signal?: AbortSignal | undefined
  readonly observe?: TransferObserver | undefined
  /**
   * Opens a repository (`registry/repository`, as `blobs.origins` has it) from which a blob whose bytes were pruned may be fetched again. The push
   * disposes of it. Without it such a blob must be in the target's registry.
   */
  readonly openOrigin?: ((repository: string) => Promise<Registry>) | undefined
}

/** The manifest that was pushed. */
export interface PushedImage {
  readonly digest: BlobDigest
  readonly mediaType: string
  readonly size: number
}

interface Push {
  readonly store: Store
  readonly registry: Registry
  readonly reference: Reference
  readonly options: PushOptions
  readonly observe: TransferObserver
}

/** A layer: as the image's own manifest has it, and what is in it. */
interface OwnLayer {
  readonly own: Descriptor
  readonly diffId: DiffId
}

const UPLOADS_AT_ONCE = 3

/**
 * Pushes an image to `reference`, on whose repository `registry` is open; the tag is set last. A layer goes in the compressed form that is
 * known for it, else it is compressed, once (gzip). Nothing is sent that is there or can be mounted. When that leaves all
 * descriptors as the image's manifest has them (a pulled image, pushed on), the manifest's own bytes are pushed, so its digest stays.
 *
 * Throws `BLOB_GONE` (the bytes of a compressed layer were pruned and can be had nowhere), `STORE_CORRUPT`, and the registry's errors.
 */
export async function pushImage(
  store: Store,
  registry: Registry,
  reference: Reference,
  image: Image,
  options: PushOptions = {},
): Promise<PushedImage> {
  const push: Push = { store, registry, reference, options, observe: options.observe ?? (() => {}) }
  const chosen = new Map<string, Descriptor>()
  const layers = image.manifest.layers.map((own, i): OwnLayer => {
    const diffId = image.config.rootfs.diff_ids[i]
    if (diffId === undefined)
      throw new TbuildError('CONFIG_INVALID', `the image ${image.id} has fewer diff ids than layers`)
    return { own, diffId }
  })
  const distinct = new Map(layers.map((layer) => [keyOf(layer), layer]))
  await eachLimited([...distinct], UPLOADS_AT_ONCE, options.signal, async ([key, layer], signal) => {
    const descriptor = await describe(push, layer, signal)
    chosen.set(key, descriptor)
    await send(push, descriptor, layer.diffId)
  })
  await send(push, image.manifest.config, undefined)

  const descriptors = layers.map((layer) => chosen.get(keyOf(layer)) ?? layer.own)
  const { bytes, mediaType } = manifestOf(store, image, descriptors)
  const digest = sha256(bytes)
  if (reference.digest !== undefined && reference.digest !== digest) {
    throw new TbuildError(
      'DIGEST_MISMATCH',
      `the manifest to be pushed is ${digest}, but ${formatReference(reference)} names another`,
    )
  }
  options.signal?.throwIfAborted()
  await registry.putManifest(reference.tag ?? digest, bytes, mediaType)
  return { digest, mediaType, size: bytes.length }
}

function keyOf({ own, diffId }: OwnLayer): string {
  return `${own.digest} ${diffId}`
}

/** The image's own manifest, byte for byte, unless a layer goes in another form. */
function manifestOf(
  store: Store,
  image: Image,
  layers: readonly Descriptor[],
): { readonly bytes: Uint8Array; readonly mediaType: string } {
  const { manifest } = image
  if (layers.every((layer, i) => layer.digest === manifest.layers[i]?.digest))
    return { bytes: store.blobs.read(image.manifestDigest), mediaType: manifest.mediaType ?? MEDIA.manifest }
  return { bytes: ociManifest(manifest.config, layers, manifest.annotations), mediaType: MEDIA.manifest }
}

/** The form in which a layer is pushed. */
async function describe(push: Push, { own, diffId }: OwnLayer, signal: AbortSignal): Promise<Descriptor> {
  const { store, registry } = push
  // A manifest that names compressed layers is pushed as it is; one of our own names the bare tars.
  if (!isBare(own.digest, diffId)) return own
  const known = store.layers.compressed(diffId)
  const bare = known.find((one) => isBare(one.digest, diffId))
  if (bare !== undefined) return bare
  if (known.length === 0) return compressLayer(store, diffId, push.observe, signal)
  // Any will do; best is one that costs nothing to have.
  const stored = known.find((one) => store.blobs.size(one.digest) !== undefined)
  if (stored !== undefined || known.length === 1) return stored ?? (known[0] as Descriptor)
  for (const one of known) if ((await registry.hasBlob(one.digest)) !== undefined) return one
  return known.find((one) => mountSource(push, one.digest) !== undefined) ?? (known[0] as Descriptor)
}

function isBare(digest: string, diffId: DiffId): boolean {
  return digest === diffId
}

/** `diffId` is absent for the config. */
async function send(push: Push, descriptor: Descriptor, diffId: DiffId | undefined): Promise<void> {
  const { store, registry, reference, options, observe } = push
  const { digest, size } = descriptor
  const mountFrom = mountSource(push, digest)
  const bare = diffId !== undefined && isBare(digest, diffId)
  const isHere = (): boolean => bare || store.blobs.size(digest) !== undefined
  // Before an upload is opened that would come to nothing.
  if (!isHere() && mountFrom === undefined && (await registry.hasBlob(digest)) === undefined)
    await fetchBack(push, descriptor, diffId)
  const bytes = sequential(async function* () {
    observe({ kind: 'layer', digest, size, state: 'started' })
    if (!isHere()) await fetchBack(push, descriptor, diffId)
    yield* bare ? store.layers.tar(diffId) : store.blobs.stream(digest)
  })
  let told = 0
  try {
    const result = await registry.putBlob(descriptor, bytes.open, {
      ...(mountFrom === undefined ? {} : { mountFrom }),
      ...(options.chunkBytes === undefined ? {} : { chunkBytes: options.chunkBytes }),
      onProgress(sent) {
        if (sent >= told && sent < told + 1024 * 1024 && sent !== size) return
        told = sent
        observe({ kind: 'progress', digest, bytes: sent })
      },
    })
    store.blobs.rememberOrigin(digest, `${reference.registry}/${reference.repository}`)
    observe({ kind: 'layer', digest, size, state: result === 'uploaded' ? 'done' : result })
  } finally {
    await bytes.close()
  }
}

/** Another repository of the same registry that has the blob. */
function mountSource({ store, reference }: Push, digest: BlobDigest): string | undefined {
  const prefix = `${reference.registry}/`
  const repositories = store.blobs
    .origins(digest)
    .filter((name) => name.startsWith(prefix))
    .map((name) => name.slice(prefix.length))
  // It was here once: `putBlob` looks first.
  return repositories.find((name) => name !== reference.repository)
}

/**
 * Brings a pruned blob back: from where it came, or, if it came from nowhere, by compressing the layer again, which counts only when it
 * gives the very same bytes. Another form is never pushed silently, for its digest would be a new one.
 */
async function fetchBack(push: Push, descriptor: Descriptor, diffId: DiffId | undefined): Promise<void> {
  const { store, options } = push
  const { digest } = descriptor
  const origins = store.blobs.origins(digest)
  let cause: unknown
  for (const origin of options.openOrigin === undefined ? [] : origins) {
    try {
      await using source = await options.openOrigin?.(origin)
      if (source === undefined) continue
      await store.blobs.ingest(source.getBlob(descriptor), descriptor)
      return
    } catch (error) {
      options.signal?.throwIfAborted()
      cause = error
    }
  }
  if (origins.length === 0 && diffId !== undefined && store.layers.find(diffId) !== undefined) {
    const again = await compressLayer(store, diffId, push.observe, options.signal)
    if (again.digest === digest) return
  }
  const from = origins.length === 0 ? '' : `; it came from ${origins.slice(0, 3).join(', ')}`
  throw new TbuildError(
    'BLOB_GONE',
    `the compressed layer ${digest} is no longer stored, and ${push.reference.registry} does not have it${from}`,
    { hint: 'pull the base image again', cause },
  )
}

function sha256(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as BlobDigest
}
