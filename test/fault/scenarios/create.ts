/** A store where there is none, and the first image in it. */
import { openStore } from '../../../cas/index.ts'
import { checkStore } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage } from './make.ts'

export const scenario: Scenario = {
  run: async ({ path, seed, tell }) => {
    await using store = await openStore(path)
    putImage(store, tell, 'first', [await ingest(store, tell, files(2, seed))])
  },
  check: checkStore,
}
