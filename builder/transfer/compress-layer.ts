import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { MEDIA, type BlobDigest, type Descriptor, type DiffId, type Store } from '../../cas/index.ts'
import { gzip } from './compress.ts'
import type { TransferObserver } from './types.ts'

/** Compresses a stored layer and keeps the result: as a blob, and as a form of that layer. Throws `LAYER_UNKNOWN`, `STORE_CORRUPT`. */
export async function compressLayer(
  store: Store,
  diffId: DiffId,
  observe: TransferObserver,
  signal: AbortSignal | undefined,
): Promise<Descriptor> {
  observe({
    kind: 'layer',
    digest: diffId,
    size: store.layers.find(diffId)?.size ?? 0,
    state: 'compressing',
  })
  const directory = store.workDirectory('compress')
  try {
    const path = join(directory, 'layer')
    const hash = createHash('sha256')
    let size = 0
    await using file = await open(path, 'wx', 0o600)
    for await (const chunk of gzip(store.layers.tar(diffId))) {
      signal?.throwIfAborted()
      hash.update(chunk)
      size += chunk.length
      await file.writeFile(chunk)
    }
    const digest = `sha256:${hash.digest('hex')}` as BlobDigest
    const descriptor = { mediaType: MEDIA.layerGzip, digest, size }
    // The store wants the digest beforehand, and it is known only now: a second write of the small form is cheap.
    await store.blobs.ingest(createReadStream(path, { highWaterMark: 1024 * 1024 }), descriptor)
    store.layers.rememberCompressed(diffId, descriptor)
    return descriptor
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
