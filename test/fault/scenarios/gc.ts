/** Garbage collection: images go, what they alone had goes, and what comes anew meanwhile and afterwards stays. */
import { imageKey, layerKey } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const common = await ingest(store, tell, files(4, seed, 'common'))
    for (const name of ['kept', 'gone', 'back']) {
      const own = await ingest(store, tell, [...files(2, seed, 'common'), ...files(6, seed, name).slice(2)])
      putImage(store, tell, name, [common, own])
    }
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    for (const name of ['gone', 'back']) {
      const full = `docker.io/library/${name}`
      const image = store.images.byName(full)
      if (image === undefined) continue
      const [, own] = image.config.rootfs.diff_ids
      if (own !== undefined) tell.begin(layerKey(own), null)
      tell.begin(imageKey(full), null)
      store.images.untag(full)
      tell.durable(imageKey(full), null)
    }
    await store.prune()
    const common = await ingest(store, tell, files(4, seed, 'common'))
    const back = await ingest(store, tell, [...files(2, seed, 'common'), ...files(6, seed, 'back').slice(2)])
    putImage(store, tell, 'back', [common, back])
    await store.prune()
  },
  check,
}
