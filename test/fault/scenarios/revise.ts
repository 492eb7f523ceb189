/** A layer that is made of the one before it, again and again: blocks of its recipe and its index image taken over, some contents new. */
import { createHash } from 'node:crypto'
import type { FormerLayer, Layer, StoredLayer, TarOutputEntry } from '../../../cas/index.ts'
import { layerKey, STORED } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { entryOf, files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)
/** Which file is another one in each round. */
const CHANGED = [5, 0, 3]

export const scenario: Scenario = {
  prepare: async ({ path }) => {
    await using _ = await open(path)
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    let contents: { readonly entry: TarOutputEntry; readonly bytes: Buffer }[] = files(12, seed)
      .filter(({ bytes }) => bytes.length > 0)
      .map((file) => ({ entry: entryOf(file), bytes: file.bytes }))
    let starts: number[] = []
    const write = (): Promise<Layer> => {
      starts = []
      return store.layers.write((writer) => {
        for (const { entry, bytes } of contents) {
          starts.push(writer.entry(entry))
          writer.data(bytes)
        }
        return Promise.resolve()
      })
    }
    const layers: StoredLayer[] = []
    const told = async (layer: Layer): Promise<FormerLayer> => {
      const { diffId, size, outline = new Uint8Array(0) } = await layer.stored
      tell.done(layerKey(diffId), STORED)
      layers.push({ diffId, size })
      return { diffId, outline }
    }
    let former = await told(await write())
    for (const [round, at] of CHANGED.entries()) {
      const file = { name: `file-${at}`, bytes: Buffer.alloc(700 + round, `round ${round} ${seed}`) }
      // Its contents are in the store already, or it could not be named.
      await ingest(store, tell, [file])
      const entry = {
        ...(contents[at]?.entry ?? entryOf(file)),
        size: file.bytes.length,
        mtimeNs: BigInt(round),
      }
      contents = contents.with(at, { entry, bytes: file.bytes })
      const digest = createHash('sha256').update(file.bytes).digest()
      const revision = {
        start: starts[at] ?? -1,
        mtimeNs: entry.mtimeNs,
        contents: { digest, size: entry.size },
      }
      using intake = store.layers.intake()
      const revised = await store.layers.revise(former, [revision], { intake })
      starts = starts.map((start, i) => start + (i > at ? (revised?.shifts[0] ?? 0) : 0))
      // After a fault the former one was there already, and nobody knows how its recipe is made.
      former = await told(revised?.layer ?? (await write()))
    }
    putImage(store, tell, 'revised', layers)
  },
  check,
}
