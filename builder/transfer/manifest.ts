/** Manifests of our own making: OCI's, the same bytes for the same image. */
import { MEDIA, type BlobDigest, type Descriptor, type Manifest, type StoredLayer } from '../../cas/index.ts'
import { ociLayer } from './layer.ts'

/** Of docker's media types each becomes OCI's for the same bytes. */
export function ociManifest(
  config: { readonly digest: BlobDigest; readonly size: number },
  layers: readonly Descriptor[],
  annotations?: Manifest['annotations'],
): Buffer {
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: config.digest, size: config.size },
    layers: layers.map(ociLayer),
    ...(annotations === undefined ? {} : { annotations }),
  }
  return Buffer.from(JSON.stringify(manifest))
}

/** A layer as an image has it that was not pulled: nothing is done to its tar, so the digest of its bytes is its DiffId. */
export function bareLayer({ diffId, size }: StoredLayer): Descriptor {
  return { mediaType: MEDIA.layer, digest: diffId as string as BlobDigest, size }
}
