/** Segments of which half is gone are copied together; contents move while images and layers need them. */
import { imageKey, layerKey } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    for (const name of ['a', 'gone', 'b', 'gone-too']) {
      putImage(store, tell, name, [
        await ingest(store, tell, [...files(2, seed, 'common'), ...files(9, seed, name).slice(2)]),
      ])
    }
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    for (const name of ['gone', 'gone-too']) {
      const full = `docker.io/library/${name}`
      const image = store.images.byName(full)
      if (image === undefined) continue
      for (const diffId of image.config.rootfs.diff_ids) tell.begin(layerKey(diffId), null)
      tell.begin(imageKey(full), null)
      store.images.untag(full)
      tell.durable(imageKey(full), null)
    }
    await store.prune({ compact: true })
    // Of what has just moved, and of what has just gone.
    const mixed = ['a', 'gone', 'b'].flatMap((name) =>
      files(9, seed, name)
        .slice(2, 5)
        .map((file) => ({ ...file, name: `${name}-${file.name}` })),
    )
    putImage(store, tell, 'mixed', [await ingest(store, tell, mixed)])
    await store.prune({ compact: true })
  },
  check,
}
