/** Equal layers and equal files, ingested at the same time through two handles on one store. */
import { openStore } from '../../../cas/index.ts'
import { checkStore } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage } from './make.ts'

export const scenario: Scenario = {
  prepare: async ({ path }) => {
    await using _ = await openStore(path)
  },
  run: async ({ path, seed, tell }) => {
    await using one = await openStore(path)
    await using two = await openStore(path)
    const contents = files(5, seed)
    const layers = await Promise.all([
      ingest(one, tell, contents),
      ingest(two, tell, contents),
      ingest(two, tell, contents.toReversed()),
    ])
    putImage(one, tell, 'equal', layers.slice(0, 1))
    putImage(two, tell, 'reversed', layers.slice(2))
  },
  check: checkStore,
}
