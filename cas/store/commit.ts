/**
 * Making layers visible, as many at a time as have come up. (1) What was written becomes durable. (2) Meanwhile, where another ingest has stored the same
 * contents, theirs are taken; the driver makes its index image over what now counts, and that becomes durable. (3) In one transaction the files get
 * their names, the directory is synced, and all is recorded; a layer whose contents have moved in between goes back to (2).
 */
import { renameSync, rmSync } from 'node:fs'
import { placeImage } from '../drivers/place-image.ts'
import type { Driver, IndexImage } from '../drivers/types.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from './context.ts'
import type { IncomingLayer } from './ingest.ts'
import { recordMidstates } from './midstates.ts'
import { recipePath } from './paths.ts'
import { syncDirectory } from './spool.ts'
import type { StoredLayer } from './types.ts'

interface Waiting {
  readonly layer: IncomingLayer
  readonly resolve: (stored: StoredLayer) => void
  readonly reject: (error: unknown) => void
}

/** Durable, with its index image. */
interface Prepared {
  readonly one: Waiting
  readonly diffId: DiffId
  readonly wasStored: boolean
  readonly image: IndexImage | undefined
}

/** Resolves when the layer is recorded. */
export function createCommitter(
  context: StoreContext,
  driver: () => Driver,
): (layer: IncomingLayer) => Promise<StoredLayer> {
  const { db, paths } = context
  let waiting: Waiting[] = []
  let running = false

  const isStored = (diffId: DiffId): boolean =>
    db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) !== undefined

  /** Whether it is in the index after it. */
  const record = ({ one: { layer }, diffId, image }: Prepared): boolean => {
    const { size, root, contents, recipe } = layer
    context.hold([diffId])
    const now = Date.now()
    if (isStored(diffId)) {
      db.run('UPDATE layers SET used_at = ? WHERE diff_id = ?', now, diffId)
      if (image !== undefined) rmSync(image.path, { force: true })
      return true
    }
    if (!contents.record()) return false
    renameSync(recipe.path, recipePath(paths, diffId))
    db.run(
      'INSERT INTO layers VALUES (?, ?, NULL, ?, ?, ?, ?)',
      diffId,
      size,
      Number(root.opaqueRoot),
      Number(root.hasRoot),
      now,
      now,
    )
    recordMidstates(db, diffId, layer.midstates?.() ?? new Uint8Array(0))
    placeImage(context, diffId, image)
    return true
  }

  /** An fsync that failed is final: the kernel tells such an error once, and the next one succeeds though the data is lost. */
  const synced = new WeakMap<IncomingLayer, Promise<unknown>>()
  const makeDurable = async (layer: IncomingLayer): Promise<void> => {
    let sync = synced.get(layer)
    if (sync === undefined) {
      sync = whole([layer.recipe.finish(), layer.contents.sync()])
      synced.set(layer, sync)
    }
    await sync
  }

  const prepare = async (one: Waiting): Promise<Prepared> => {
    const { layer } = one
    const { diffId } = layer
    // Nothing is needed of it, unless collection takes it away before this is recorded.
    if (typeof diffId === 'string' && isStored(diffId))
      return { one, diffId, wasStored: true, image: undefined }
    layer.contents.resolve()
    const [, image] = await whole([makeDurable(layer), layer.index(driver())])
    return { one, diffId: await diffId, wasStored: false, image }
  }

  /** Those that are in the index after it. */
  const recordAll = (prepared: readonly Prepared[]): readonly Prepared[] =>
    db.transaction(() => {
      const done = prepared.filter((one) =>
        db.attempt(() => (isStored(one.diffId) || !one.wasStored) && record(one)),
      )
      if (done.length > 0) syncDirectory(paths.layers)
      return done
    })

  const commit = async (batch: readonly Waiting[]): Promise<void> => {
    for (let rest = batch; rest.length > 0;) {
      const prepared: Prepared[] = []
      await Promise.all(
        rest.map((one) =>
          prepare(one).then(
            (ready) => void prepared.push(ready),
            (error: unknown) => one.reject(error),
          ),
        ),
      )
      let recorded: readonly Prepared[]
      try {
        recorded = recordAll(prepared)
      } catch (error) {
        for (const { one } of prepared) one.reject(error)
        return
      }
      for (const { one, diffId } of recorded) {
        one.layer.contents.confirm()
        const { size, recipe } = one.layer
        const isRevisable = driver().revisedIndex !== undefined
        one.resolve({ diffId, size, ...(isRevisable && { outline: recipe.outline }) })
      }
      rest = prepared.filter((one) => !recorded.includes(one)).map(({ one }) => one)
    }
  }

  const run = async (): Promise<void> => {
    running = true
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      await commit(batch)
    }
    running = false
  }
  return (layer) =>
    new Promise((resolve, reject) => {
      waiting.push({ layer, resolve, reject })
      if (!running) void run()
    })
}

/** As `Promise.all`, but fails only when all have ended: what they write to is closed then. */
async function whole<A, B>(work: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(work)
  return await Promise.all(work)
}
