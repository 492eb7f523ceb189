/** Archive to store. */
import {
  assertSameLayers,
  MAX_CONFIG_BYTES,
  parseConfig,
  parseIndex,
  parseManifest,
  type BlobDigest,
  type Descriptor,
  type DiffId,
  type Image,
  type Manifest,
  type Store,
} from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { formatReference, parseReference } from '../../registry/index.ts'
import { eachLimited } from '../transfer/each-limited.ts'
import { layerCodec, storeLayer } from '../transfer/layer.ts'
import { bareLayer, ociManifest } from '../transfer/manifest.ts'
import { choosePlatform, hostPlatform, isImageType, isIndexType } from '../transfer/platform.ts'
import { counted } from '../transfer/streams.ts'
import type { TransferObserver } from '../transfer/types.ts'
import { decompress } from './decompress.ts'
import { parseDockerManifest, type DockerEntry } from './docker-manifest.ts'
import { invalid, spoolArchive, type SpooledArchive, type SpooledFile } from './spool.ts'

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined
  readonly observe?: TransferObserver | undefined
}

/** Its `names` are those that the archive gave it. */
export type LoadedImage = Image

const LAYERS_AT_ONCE = 2
const MAX_JSON = 4 * 1024 * 1024
const MAX_NESTING = 3

/**
 * Loads an OCI layout or docker's archive (of any version, of podman, of skopeo), as a tar that may be compressed. All of it is verified before a
 * name changes. An archive that is both is read as an OCI layout, which keeps its digests.
 * Throws `ARCHIVE_INVALID`, `DIGEST_MISMATCH`, `SIZE_MISMATCH`, `MANIFEST_INVALID`, `CONFIG_INVALID`, `PLATFORM_MISSING`, and what
 * `spoolArchive` and `storeLayer` throw.
 */
export async function loadArchive(
  store: Store,
  source: AsyncIterable<Uint8Array>,
  options: LoadOptions = {},
): Promise<readonly LoadedImage[]> {
  await using archive = await spoolArchive(store, source, { signal: options.signal })
  const load: Load = { store, archive, options, observe: options.observe ?? (() => {}) }
  const found = await readImages(load)
  options.signal?.throwIfAborted()
  return found.map(({ manifestDigest, names }) => ({ ...store.images.put(manifestDigest, names), names }))
}

/** What there is to load from. */
export type ArchiveFiles = Omit<SpooledArchive, typeof Symbol.asyncDispose>

/** The image of an OCI layout that `choose` takes, under no name. Throws as `loadArchive`. */
export async function loadOne(
  store: Store,
  archive: ArchiveFiles,
  choose: (manifests: readonly Descriptor[]) => Descriptor,
  options: LoadOptions = {},
): Promise<Image> {
  const load: Load = { store, archive, options, observe: options.observe ?? (() => {}) }
  const { manifests } = parseIndex(archive.read(fileOf(load, 'index.json'), MAX_JSON))
  const { digest } = resolveImage(load, choose(manifests))
  const known = store.images.byManifest(digest)
  if (known !== undefined) return known
  await ociImage(load, digest)
  options.signal?.throwIfAborted()
  return store.images.put(digest, [])
}

interface Load {
  readonly store: Store
  readonly archive: ArchiveFiles
  readonly options: LoadOptions
  readonly observe: TransferObserver
}

/** An image whose blobs and layers are stored. */
interface Prepared {
  readonly manifestDigest: BlobDigest
  readonly names: readonly string[]
}

async function readImages(load: Load): Promise<Prepared[]> {
  const { archive } = load
  const index = archive.find('index.json')
  if (index !== undefined && archive.find('oci-layout') !== undefined) return ociImages(load, index)
  const docker = archive.find('manifest.json')
  if (docker !== undefined) return dockerImages(load, docker)
  throw invalid(
    'it has neither index.json and oci-layout nor manifest.json',
    'a root file system is brought in by: tbuild import',
  )
}

async function ociImages(load: Load, index: SpooledFile): Promise<Prepared[]> {
  const { manifests } = parseIndex(load.archive.read(index, MAX_JSON))
  if (manifests.length === 0) throw invalid('index.json names no images')
  const images = new Map<BlobDigest, Set<string>>()
  for (const one of manifests) {
    const { digest } = resolveImage(load, one)
    const names = images.get(digest) ?? new Set()
    images.set(digest, names)
    const name = nameOf(one)
    if (name !== undefined) names.add(name)
  }
  const prepared: Prepared[] = []
  for (const [digest, names] of images) {
    await ociImage(load, digest)
    prepared.push({ manifestDigest: digest, names: [...names].toSorted() })
  }
  return prepared
}

/** The image for this machine where the layout names an index. Of an index an archive often holds one platform only. */
function resolveImage(load: Load, named: Descriptor): Descriptor {
  let descriptor = named
  for (let depth = 0; isIndexType(descriptor.mediaType); depth++) {
    if (depth > MAX_NESTING) throw invalid('its indexes are nested too deeply')
    const index = parseIndex(readBlob(load, descriptor, MAX_JSON))
    const there = index.manifests.filter((one) => load.archive.find(blobPath(one.digest)) !== undefined)
    descriptor = choosePlatform({ ...index, manifests: there }, hostPlatform(), 'the archive')
  }
  if (isImageType(descriptor.mediaType)) {
    blobFile(load, descriptor)
    return descriptor
  }
  throw invalid(
    `${descriptor.digest} is of the type ${JSON.stringify(descriptor.mediaType)}, which is not an image`,
  )
}

async function ociImage(load: Load, digest: BlobDigest): Promise<void> {
  const { store } = load
  const manifestBytes = readBlob(load, { digest }, MAX_JSON)
  const manifest = parseManifest(manifestBytes)
  const configBytes = readBlob(load, manifest.config, MAX_CONFIG_BYTES)
  const config = parseConfig(configBytes)
  assertSameLayers(manifest, config)
  // All are looked at before the first is stored.
  const layers = distinctLayers(manifest, config.rootfs.diff_ids).map(({ descriptor, diffId }) => {
    layerCodec(descriptor)
    const present = store.layers.find(diffId) !== undefined
    return { descriptor, diffId, file: present ? undefined : blobFile(load, descriptor) }
  })
  await eachLimited(layers, LAYERS_AT_ONCE, load.options.signal, async (layer, signal) => {
    const { descriptor, diffId } = layer
    const open = (): AsyncIterable<Uint8Array> =>
      watched(load, layer.file ?? blobFile(load, descriptor), descriptor.digest, signal)
    const result = await storeLayer(store, { descriptor, diffId, open }, { signal })
    done(load, descriptor, result)
  })
  store.blobs.write(configBytes)
  store.blobs.write(manifestBytes)
}

function distinctLayers(
  manifest: Manifest,
  diffIds: readonly DiffId[],
): { readonly descriptor: Descriptor; readonly diffId: DiffId }[] {
  const layers = new Map<string, { readonly descriptor: Descriptor; readonly diffId: DiffId }>()
  for (const [i, descriptor] of manifest.layers.entries()) {
    const diffId = diffIds[i]
    if (diffId !== undefined) layers.set(`${descriptor.digest} ${diffId}`, { descriptor, diffId })
  }
  return [...layers.values()]
}

/** containerd's annotation holds the whole name; the standard's own may be one (podman) or a tag alone (docker, skopeo). */
function nameOf({ annotations = {} }: Descriptor): string | undefined {
  const own = (key: string): string | undefined =>
    Object.hasOwn(annotations, key) ? annotations[key] : undefined
  const refName = own('org.opencontainers.image.ref.name')
  const text = own('io.containerd.image.name') ?? (refName?.includes(':') === true ? refName : undefined)
  return text === undefined ? undefined : formatReference(parseReference(text))
}

async function dockerImages(load: Load, file: SpooledFile): Promise<Prepared[]> {
  const entries = parseDockerManifest(load.archive.read(file, MAX_JSON))
  if (entries.length === 0) throw invalid('manifest.json names no images')
  const prepared: Prepared[] = []
  for (const entry of entries) prepared.push(await dockerImage(load, entry))
  return prepared
}

async function dockerImage(load: Load, entry: DockerEntry): Promise<Prepared> {
  const { store } = load
  const names = entry.repoTags.map((tag) => formatReference(parseReference(tag)))
  const configBytes = load.archive.read(fileOf(load, entry.config), MAX_CONFIG_BYTES)
  const config = parseConfig(configBytes)
  const diffIds = config.rootfs.diff_ids
  if (diffIds.length !== entry.layers.length)
    throw invalid(
      `manifest.json names ${entry.layers.length} layers of ${entry.config}, whose config has ${diffIds.length}`,
    )
  // Those that are missing here; all are looked for before the first is stored.
  const files = new Map<DiffId, SpooledFile | undefined>()
  for (const [i, diffId] of diffIds.entries()) {
    const present = store.layers.find(diffId) !== undefined
    files.set(diffId, present ? undefined : fileOf(load, entry.layers[i] ?? ''))
  }
  await eachLimited([...files], LAYERS_AT_ONCE, load.options.signal, async ([diffId, layer], signal) => {
    if (layer !== undefined) {
      const bytes = watched(load, layer, diffId, signal)
      const tar = decompress(bytes, {
        what: `the layer ${JSON.stringify(layer.name)}`,
        dropsZeros: true,
        signal,
      })
      await store.layers.ingestTar(tar, { expected: diffId, signal })
    }
    const size = store.layers.find(diffId)?.size ?? 0
    done(load, { digest: diffId, size }, layer === undefined ? 'exists' : 'stored')
  })
  const layers = diffIds.map((diffId) => {
    const stored = store.layers.find(diffId)
    if (stored === undefined) throw new TbuildError('LAYER_UNKNOWN', `the store has no layer ${diffId}`)
    return bareLayer(stored)
  })
  const configDigest = store.blobs.write(configBytes)
  const manifest = ociManifest({ digest: configDigest, size: configBytes.length }, layers)
  return { manifestDigest: store.blobs.write(manifest), names }
}

function fileOf(load: Load, name: string): SpooledFile {
  const file = load.archive.find(name)
  if (file === undefined) throw invalid(`it names ${JSON.stringify(name)}, which is not in it`)
  return file
}

function blobPath(digest: string): string {
  return `blobs/sha256/${digest.slice('sha256:'.length)}`
}

/** The file of a blob, whose digest and size have been seen to be right. */
function blobFile(load: Load, wanted: { readonly digest: string; readonly size?: number }): SpooledFile {
  const file = fileOf(load, blobPath(wanted.digest))
  if (wanted.size !== undefined && file.size !== wanted.size)
    throw new TbuildError(
      'SIZE_MISMATCH',
      `the archive's blob ${wanted.digest} should have ${wanted.size} bytes, but has ${file.size}`,
    )
  if (file.digest !== wanted.digest)
    throw new TbuildError(
      'DIGEST_MISMATCH',
      `the archive's blob ${wanted.digest} has the digest ${file.digest}`,
    )
  return file
}

function readBlob(
  load: Load,
  wanted: { readonly digest: string; readonly size?: number },
  limit: number,
): Buffer {
  return load.archive.read(blobFile(load, wanted), limit)
}

function watched(
  load: Load,
  file: SpooledFile,
  digest: BlobDigest | DiffId,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  load.observe({ kind: 'layer', digest, size: file.size, state: 'started' })
  return counted(
    load.archive.stream(file),
    (bytes) => load.observe({ kind: 'progress', digest, bytes }),
    signal,
  )
}

function done(
  load: Load,
  layer: { readonly digest: BlobDigest | DiffId; readonly size: number },
  result: 'exists' | 'stored',
): void {
  const { digest, size } = layer
  load.observe({ kind: 'layer', digest, size, state: result === 'exists' ? 'exists' : 'done' })
}
