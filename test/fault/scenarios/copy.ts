/** As COPY does: layers of our own making, two at once, some of their files equal. */
import { layerKey, STORED } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { entryOf, files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'base', [await ingest(store, tell, files(3, seed, 'base'))])
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const common = files(3, seed, 'common')
    const write = async (which: string): Promise<Awaited<ReturnType<typeof ingest>>> => {
      const layer = await store.layers.write(async (writer) => {
        for (const file of [
          ...common,
          ...files(5, seed, which).map(({ name, bytes }) => ({ name: `own-${name}`, bytes })),
        ]) {
          writer.entry(entryOf(file))
          writer.data(file.bytes)
          await writer.breathe()
        }
      })
      const stored = await layer.stored
      tell.done(layerKey(stored.diffId), STORED)
      return stored
    }
    const layers = await Promise.all(['a', 'b'].map(write))
    putImage(store, tell, 'copied', layers)
  },
  check,
}
