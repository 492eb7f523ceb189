/** A root file system as an image of one layer. */
import type { Image, ImageConfig, Platform, Store } from '../../cas/index.ts'
import { hostPlatform } from '../transfer/platform.ts'
import { bareLayer, ociManifest } from '../transfer/manifest.ts'
import { applyChanges } from './changes.ts'
import { decompress } from './decompress.ts'

export interface ImportOptions {
  /** Full references. */
  readonly names?: readonly string[] | undefined
  /** Dockerfile instructions that set the config: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR. */
  readonly changes?: readonly string[] | undefined
  /** The history's comment; default `Imported from -`, as docker has it. */
  readonly message?: string | undefined
  /** What the files were made for; default this machine's. */
  readonly platform?: Platform | undefined
  /** Seconds since 1970, as the image's date. Without it the image is dated now, and is another one each time. */
  readonly sourceDateEpoch?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/**
 * Makes an image of a tar: bare, or compressed with gzip or zstd, or (by the system's tools) xz or bzip2. Its bytes become the layer as they
 * are. Throws `CHANGE_INVALID` (before anything is read), `TOOL_MISSING`, `LAYER_BOMB`, `COMPRESSION_*`, and what `ingestTar` throws.
 */
export async function importTar(
  store: Store,
  source: AsyncIterable<Uint8Array>,
  options: ImportOptions = {},
): Promise<Image> {
  const config = applyChanges({}, options.changes ?? [])
  const tar = decompress(source, {
    dropsZeros: true,
    accept: ['none', 'gzip', 'zstd', 'xz', 'bzip2'],
    what: 'the archive',
    signal: options.signal,
  })
  const layer = await store.layers.ingestTar(tar, { signal: options.signal })
  const { os, architecture, variant } = options.platform ?? hostPlatform()
  const epoch = options.sourceDateEpoch
  const created = (epoch === undefined ? new Date() : new Date(epoch * 1000)).toISOString()
  const image: ImageConfig = {
    created,
    architecture,
    ...(variant === undefined ? {} : { variant }),
    os,
    config,
    rootfs: { type: 'layers', diff_ids: [layer.diffId] },
    history: [{ created, comment: options.message ?? 'Imported from -' }],
  }
  const bytes = Buffer.from(JSON.stringify(image))
  const digest = store.blobs.write(bytes)
  const manifest = store.blobs.write(ociManifest({ digest, size: bytes.length }, [bareLayer(layer)]))
  return store.images.put(manifest, options.names ?? [])
}
