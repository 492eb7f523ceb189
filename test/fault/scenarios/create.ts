/** A store where there is none, and the first image in it. */
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'first', [await ingest(store, tell, files(2, seed))])
  },
  check,
}
