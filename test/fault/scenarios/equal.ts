/** Equal layers and equal files, ingested at the same time through two handles on one store. */
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path }) => {
    await using _ = await open(path)
  },
  run: async ({ path, seed, tell }) => {
    await using one = await open(path)
    await using two = await open(path)
    const contents = files(5, seed)
    const layers = await Promise.all([
      ingest(one, tell, contents),
      ingest(two, tell, contents),
      ingest(two, tell, contents.toReversed()),
    ])
    putImage(one, tell, 'equal', layers.slice(0, 1))
    putImage(two, tell, 'reversed', layers.slice(2))
  },
  check,
}
