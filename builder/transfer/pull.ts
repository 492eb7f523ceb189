/** Registry to store. */
import {
  assertSameLayers,
  MAX_CONFIG_BYTES,
  MEDIA,
  parseConfig,
  parseIndex,
  parseManifest,
  type Descriptor,
  type Image,
  type ImageConfig,
  type Manifest,
  type Platform,
  type Store,
} from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { formatReference, type FetchedManifest, type Reference, type Registry } from '../../registry/index.ts'
import { eachLimited } from './each-limited.ts'
import { layerCodec, storeLayer, type IncomingLayer } from './layer.ts'
import {
  choosePlatform,
  formatPlatform,
  hostPlatform,
  isImageType,
  isIndexType,
  isPlatform,
} from './platform.ts'
import { counted } from './streams.ts'
import type { TransferObserver } from './types.ts'

export interface PullOptions {
  /** Default: this machine's. An image made for another one is refused when this is given, and else comes with a note. */
  readonly platform?: Platform | undefined
  readonly signal?: AbortSignal | undefined
  readonly observe?: TransferObserver | undefined
  /** Fetch compressed layers whose bytes were pruned, too, so that the image can be pushed elsewhere. */
  readonly refetchBlobs?: boolean | undefined
}

const LAYERS_AT_ONCE = 3
/** An index may name an index; nobody nests deeper. */
const MAX_NESTING = 3
/** Docker's, OCI's, and what some old clients sent for docker's. */
const CONFIG_TYPES: readonly string[] = [MEDIA.config, MEDIA.dockerConfig, 'application/octet-stream']

/**
 * Brings an image into the store under `formatReference(reference)`. `registry` is open on the reference's repository. Of a layer that is
 * stored nothing is fetched. All is verified and durable before the name changes.
 *
 * Throws `PLATFORM_MISSING`, `MANIFEST_INVALID`, `CONFIG_INVALID`, what `storeLayer` throws, and the registry's errors.
 */
export async function pullImage(
  store: Store,
  registry: Registry,
  reference: Reference,
  options: PullOptions = {},
): Promise<Image> {
  const name = formatReference(reference)
  const wanted = options.platform ?? hostPlatform()
  const fetched = await fetchManifest(registry, reference, wanted)
  const manifest = parseManifest(fetched.bytes)
  // All are looked at before the first byte is fetched.
  for (const layer of manifest.layers) layerCodec(layer)
  const configBytes = await fetchConfig(store, registry, manifest.config)
  const config = parseConfig(configBytes)
  assertSameLayers(manifest, config)
  checkPlatform(config, wanted, name, options)

  for (let attempt = 0; ; attempt++) {
    await fetchLayers(store, registry, manifest, config, options)
    options.signal?.throwIfAborted()
    store.blobs.write(configBytes)
    store.blobs.write(fetched.bytes)
    const repository = `${reference.registry}/${reference.repository}`
    for (const { digest } of [fetched, manifest.config, ...manifest.layers])
      store.blobs.rememberOrigin(digest, repository)
    try {
      return store.images.put(fetched.digest, [name])
    } catch (error) {
      // A layer that was there, and so was skipped, may have been pruned meanwhile.
      if (attempt > 0 || !(error instanceof TbuildError) || error.code !== 'LAYER_UNKNOWN') throw error
    }
  }
}

async function fetchManifest(
  registry: Registry,
  reference: Reference,
  wanted: Platform,
): Promise<FetchedManifest> {
  const name = formatReference(reference)
  let fetched = await registry.getManifest(reference.digest ?? reference.tag ?? 'latest')
  for (let depth = 1; isIndexType(fetched.mediaType); depth++) {
    if (depth > MAX_NESTING)
      throw new TbuildError('MANIFEST_INVALID', `${name}: its indexes are nested too deeply`)
    const chosen = choosePlatform(parseIndex(fetched.bytes), wanted, name)
    fetched = await registry.getManifest(chosen.digest)
  }
  if (isImageType(fetched.mediaType)) return fetched
  const old = /distribution\.manifest\.v1\+/.test(fetched.mediaType)
  throw new TbuildError(
    'MANIFEST_INVALID',
    `${name} is of the type ${JSON.stringify(fetched.mediaType)}, not an image`,
    old ? { hint: "docker's schema 1 is not supported: push the image again with a current client" } : {},
  )
}

async function fetchConfig(store: Store, registry: Registry, descriptor: Descriptor): Promise<Uint8Array> {
  const { mediaType, digest, size } = descriptor
  if (!CONFIG_TYPES.includes(mediaType)) {
    throw new TbuildError(
      'MANIFEST_INVALID',
      `the image manifest: config.mediaType is ${JSON.stringify(mediaType)}: an artifact, not a container image`,
    )
  }
  if (size > MAX_CONFIG_BYTES) {
    throw new TbuildError(
      'CONFIG_INVALID',
      `the image config: it has ${size} bytes, at most ${MAX_CONFIG_BYTES} are read`,
    )
  }
  if (store.blobs.size(digest) === size) return store.blobs.read(digest)
  const chunks: Uint8Array[] = []
  for await (const chunk of registry.getBlob(descriptor)) chunks.push(chunk)
  return Buffer.concat(chunks)
}

function checkPlatform(config: ImageConfig, wanted: Platform, name: string, options: PullOptions): void {
  if (isPlatform(config, wanted)) return
  const text = `${name} is made for ${formatPlatform(config)}, not for ${formatPlatform(wanted)}`
  if (options.platform !== undefined) throw new TbuildError('PLATFORM_MISSING', text)
  options.observe?.({ kind: 'note', text })
}

async function fetchLayers(
  store: Store,
  registry: Registry,
  manifest: Manifest,
  config: ImageConfig,
  options: PullOptions,
): Promise<void> {
  // An image may have the same layer several times, e.g. empty ones.
  const layers = new Map<string, Pick<IncomingLayer, 'descriptor' | 'diffId'>>()
  for (const [i, descriptor] of manifest.layers.entries()) {
    const diffId = config.rootfs.diff_ids[i]
    if (diffId !== undefined) layers.set(`${descriptor.digest} ${diffId}`, { descriptor, diffId })
  }
  const observe = options.observe ?? (() => {})
  await eachLimited(
    [...layers.values()],
    LAYERS_AT_ONCE,
    options.signal,
    async ({ descriptor, diffId }, signal) => {
      const { digest, size } = descriptor
      const open = (): AsyncIterable<Uint8Array> => {
        observe({ kind: 'layer', digest, size, state: 'started' })
        const bytes = registry.getBlob(descriptor)
        return counted(bytes, (sofar) => observe({ kind: 'progress', digest, bytes: sofar }), signal)
      }
      const how = { signal, refetchBlobs: options.refetchBlobs, published: true }
      const result = await storeLayer(store, { descriptor, diffId, open }, how)
      observe({ kind: 'layer', digest, size, state: result === 'exists' ? 'exists' : 'done' })
    },
  )
}
