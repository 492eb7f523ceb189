/** One layer after another, each half of what the one before it has; then an image of all. */
import { type StoredLayer } from '../../../cas/index.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'base', [await ingest(store, tell, files(8, seed, 0))])
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const layers: StoredLayer[] = []
    for (let layer = 1; layer <= 3; layer++) {
      const half = (which: number): ReturnType<typeof files> =>
        files(8, seed, which).slice(which === layer ? 4 : 0, which === layer ? 8 : 4)
      layers.push(await ingest(store, tell, [...half(layer - 1), ...half(layer)]))
    }
    putImage(store, tell, 'layers', layers)
  },
  check,
}
