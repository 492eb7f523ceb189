/** As a pull does: compressed layers and what is in them, several at a time, and an image that names the compressed ones. */
import { gzipSync } from 'node:zlib'
import { MEDIA, type Descriptor } from '../../../cas/index.ts'
import { blobKey, STORED } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { digestOf, files, ingest, putImage, storeOf, stream, tarOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path }) => {
    await using _ = await open(path)
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const pulled = await Promise.all(
      [0, 1, 2].map(async (which) => {
        const contents = [...files(2, seed, 'common'), ...files(6, seed, which).slice(2)]
        const bytes = gzipSync(await tarOf(contents))
        const descriptor: Descriptor = {
          mediaType: MEDIA.layerGzip,
          digest: digestOf(bytes),
          size: bytes.length,
        }
        const [layer] = await Promise.all([
          ingest(store, tell, contents),
          store.blobs.ingest(stream(bytes), descriptor),
        ])
        tell.done(blobKey(descriptor.digest), STORED)
        store.layers.rememberCompressed(layer.diffId, descriptor)
        store.blobs.rememberOrigin(descriptor.digest, 'registry.example/app')
        return { layer, descriptor }
      }),
    )
    const layers = pulled.map(({ layer }) => layer)
    putImage(
      store,
      tell,
      'pulled',
      layers,
      pulled.map(({ descriptor }) => descriptor),
    )
  },
  check,
}
