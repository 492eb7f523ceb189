import { MEDIA, type BlobDigest, type Manifest, type StoredLayer } from '../../cas/index.ts'

/** A manifest over uncompressed layers: what an image has that was not pulled. The same bytes for the same image. */
export function bareManifest(
  config: { readonly digest: BlobDigest; readonly size: number },
  layers: readonly StoredLayer[],
  annotations?: Manifest['annotations'],
): Buffer {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: config.digest, size: config.size },
    // Nothing is done to the tar, so the digest of its bytes is its DiffId.
    layers: layers.map(({ diffId, size }) => ({
      mediaType: MEDIA.layer,
      digest: diffId as string as BlobDigest,
      size,
    })),
    ...(annotations === undefined ? {} : { annotations }),
  }
  return Buffer.from(JSON.stringify(manifest))
}
