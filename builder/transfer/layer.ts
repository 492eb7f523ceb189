/** A layer that comes from outside, as a manifest names it: which form it has, and its way into the store. */
import { createHash } from 'node:crypto'
import { MEDIA, type Descriptor, type DiffId, type Store } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { decompress, type Codec } from '../archive/decompress.ts'
import { toBoth } from './streams.ts'

const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar'
const DOCKER_LAYER_ZSTD = 'application/vnd.docker.image.rootfs.diff.tar.zstd'

/** The codec and OCI's own name of each form of a layer. */
const FORMS: Readonly<Record<string, { readonly codec: Codec; readonly oci: string }>> = {
  [MEDIA.layer]: { codec: 'none', oci: MEDIA.layer },
  [MEDIA.layerGzip]: { codec: 'gzip', oci: MEDIA.layerGzip },
  [MEDIA.layerZstd]: { codec: 'zstd', oci: MEDIA.layerZstd },
  [DOCKER_LAYER]: { codec: 'none', oci: MEDIA.layer },
  [MEDIA.dockerLayerGzip]: { codec: 'gzip', oci: MEDIA.layerGzip },
  [DOCKER_LAYER_ZSTD]: { codec: 'zstd', oci: MEDIA.layerZstd },
}

/** Layers that a registry need not hold; their bytes would come from addresses in the manifest. */
const FOREIGN = /^application\/vnd\.(docker\.image\.rootfs\.foreign\.|oci\.image\.layer\.nondistributable\.)/

/** How a manifest says that a layer is compressed. Throws `LAYER_FOREIGN`, `LAYER_UNSUPPORTED`. */
export function layerCodec(descriptor: Descriptor): Codec {
  const { mediaType, digest, urls } = descriptor
  if (FOREIGN.test(mediaType) || (urls?.length ?? 0) > 0) {
    throw new TbuildError(
      'LAYER_FOREIGN',
      `the layer ${digest} is foreign: its bytes are not in the registry, and addresses in a manifest are not followed`,
      { hint: 'use an image without foreign layers (those of Windows have them)' },
    )
  }
  const form = Object.hasOwn(FORMS, mediaType) ? FORMS[mediaType] : undefined
  if (form !== undefined) return form.codec
  throw new TbuildError(
    'LAYER_UNSUPPORTED',
    `the layer ${digest} is of the type ${JSON.stringify(mediaType)}, which is not known here`,
    {
      hint: mediaType.includes('+encrypted')
        ? 'encrypted layers are not supported'
        : 'it may be an artifact, not an image',
    },
  )
}

/** A descriptor as an OCI manifest may hold it: docker's media types become OCI's for the same bytes. */
export function ociLayer(descriptor: Descriptor): Descriptor {
  const { mediaType, digest, size, annotations } = descriptor
  const form = Object.hasOwn(FORMS, mediaType) ? FORMS[mediaType] : undefined
  return {
    mediaType: form?.oci ?? mediaType,
    digest,
    size,
    ...(annotations === undefined ? {} : { annotations }),
  }
}

export interface IncomingLayer {
  readonly descriptor: Descriptor
  readonly diffId: DiffId
  /** Its bytes as the descriptor has them: their size and digest are verified before the stream ends. */
  open(): AsyncIterable<Uint8Array>
}

export interface StoreLayerOptions {
  readonly signal?: AbortSignal | undefined
  /** Fetch the compressed form when it is gone, though the layer itself is there. */
  readonly refetchBlobs?: boolean | undefined
  /** From a registry: a bare layer is what was published, and is to be pushed as such. Elsewhere it is merely not compressed yet. */
  readonly published?: boolean | undefined
}

/**
 * Brings a layer into the store in one pass: its compressed bytes (kept as a blob) and its contents, both digests verified. What is there
 * is not read again. That a blob *is* a layer's compressed form is remembered only when it has been seen to be: else a manifest that pairs
 * the wrong two would later make us push an image that nobody can pull. Durable when it resolves.
 * Throws `DIGEST_MISMATCH`, `LAYER_BOMB`, `COMPRESSION_*`, `LAYER_FOREIGN`, `LAYER_UNSUPPORTED`, and what the tar reader throws.
 */
export async function storeLayer(
  store: Store,
  layer: IncomingLayer,
  options: StoreLayerOptions = {},
): Promise<'exists' | 'stored'> {
  const { descriptor, diffId } = layer
  const codec = layerCodec(descriptor)
  const present = store.layers.find(diffId) !== undefined
  const kept = codec === 'none' || store.blobs.size(descriptor.digest) !== undefined
  if (present && (kept || options.refetchBlobs !== true)) return 'exists'
  const ingest = async (bytes: AsyncIterable<Uint8Array>): Promise<void> => {
    const what = `the layer ${descriptor.digest}`
    const tar = decompress(bytes, { accept: [codec], what, dropsZeros: true, signal: options.signal })
    if (present) await checkDiffId(tar, diffId, what)
    else await store.layers.ingestTar(tar, { expected: diffId, signal: options.signal })
  }
  if (codec === 'none') await ingest(layer.open())
  else if (kept) await ingest(store.blobs.stream(descriptor.digest))
  else {
    let ingested: Promise<void> | undefined
    await toBoth(
      layer.open(),
      // Of a layer that is refused no blob stays.
      (bytes) => store.blobs.ingest(bytes, descriptor, () => ingested),
      (bytes) => (ingested = ingest(bytes)),
    )
  }
  if (codec !== 'none' || options.published === true) store.layers.rememberCompressed(diffId, descriptor)
  return 'stored'
}

async function checkDiffId(tar: AsyncIterable<Buffer>, expected: DiffId, what: string): Promise<void> {
  const hash = createHash('sha256')
  for await (const chunk of tar) hash.update(chunk)
  const found = `sha256:${hash.digest('hex')}`
  if (found === expected) return
  throw new TbuildError('DIGEST_MISMATCH', `${what} holds ${found}, but the config says ${expected}`)
}
