/** Names of images: given, taken over, taken away; and images themselves. */
import { imageKey } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const NAME = 'docker.io/library/'
const key = (name: string): string => imageKey(NAME + name)

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const layer = await ingest(store, tell, files(2, seed))
    putImage(store, tell, 'one', [layer])
    putImage(store, tell, 'kept', [layer])
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const digest = putImage(store, tell, 'two', [await ingest(store, tell, files(3, seed, 'two'))])
    for (const name of ['one', 'three', 'four']) {
      tell.begin(key(name), digest)
      store.images.tag(NAME + name, digest)
      tell.durable(key(name), digest)
    }
    for (const name of ['two', 'three']) {
      tell.begin(key(name), null)
      store.images.untag(NAME + name)
      tell.durable(key(name), null)
    }
    for (const name of ['one', 'four']) tell.begin(key(name), null)
    store.images.remove(digest)
    for (const name of ['one', 'four']) tell.durable(key(name), null)
  },
  check,
}
