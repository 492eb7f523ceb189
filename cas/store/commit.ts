/**
 * Making layers visible, as many at a time as have come up. (1) What was written becomes durable. (2) Where another ingest has stored the same contents
 * meanwhile, theirs are taken; the driver makes its index image over what now counts, and that becomes durable. (3) In one transaction the files get
 * their names, the directory is synced, and all is recorded; a layer whose contents have moved in between goes back to (2).
 */
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import type { Driver, IndexImage } from '../drivers/types.ts'
import type { StoreContext } from './context.ts'
import type { IncomingLayer } from './ingest.ts'
import { recipePath } from './paths.ts'
import { syncDirectory } from './spool.ts'
import type { StoredLayer } from './types.ts'

interface Waiting {
  readonly layer: IncomingLayer
  readonly resolve: (stored: StoredLayer) => void
  readonly reject: (error: unknown) => void
}

/** Resolves when the layer is recorded. */
export function createCommitter(
  context: StoreContext,
  driver: () => Driver,
): (layer: IncomingLayer) => Promise<StoredLayer> {
  const { db, paths } = context
  let waiting: Waiting[] = []
  let running = false

  const isStored = ({ diffId }: IncomingLayer): boolean =>
    db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) !== undefined

  /** Whether it is in the index after it. */
  const record = (layer: IncomingLayer, image: IndexImage | undefined): boolean => {
    const { diffId, size, applied, contents, recipe } = layer
    context.hold([diffId])
    const now = Date.now()
    if (isStored(layer)) {
      db.run('UPDATE layers SET used_at = ? WHERE diff_id = ?', now, diffId)
      return true
    }
    if (!contents.record()) return false
    renameSync(recipe.path, recipePath(paths, diffId))
    if (image !== undefined) renameSync(image.path, join(paths.layers, image.name))
    db.run(
      'INSERT INTO layers VALUES (?, ?, ?, ?, ?, ?, ?)',
      diffId,
      size,
      image?.name ?? null,
      Number(applied.opaqueRoot),
      Number(applied.hasRoot),
      now,
      now,
    )
    for (const [i, segment] of (image?.segments ?? []).entries()) {
      db.run('INSERT INTO layer_segments VALUES (?, ?, ?)', diffId, i + 1, segment)
    }
    return true
  }

  const commit = async (layers: readonly IncomingLayer[]): Promise<void> => {
    for (let rest = layers; rest.length > 0;) {
      // Of a layer that is stored already nothing is needed, unless collection takes it away before this is recorded.
      const stored = new Set(rest.filter(isStored))
      const fresh = rest.filter((layer) => !stored.has(layer))
      await Promise.all(fresh.flatMap(({ recipe, contents }) => [recipe.finish(), contents.sync()]))
      const images = await Promise.all(
        rest.map(async (layer) => {
          if (stored.has(layer)) return undefined
          layer.contents.resolve()
          return await driver().index(layer.diffId, layer.tree, layer.contents.list)
        }),
      )
      const recorded = db.transaction(() => {
        const done = rest.filter((layer, i) =>
          db.attempt(() => (isStored(layer) || !stored.has(layer)) && record(layer, images[i])),
        )
        if (done.length > 0) syncDirectory(paths.layers)
        return done
      })
      for (const { contents } of recorded) contents.confirm()
      rest = rest.filter((layer) => !recorded.includes(layer))
    }
  }

  const run = async (): Promise<void> => {
    running = true
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        await commit(batch.map(({ layer }) => layer))
        for (const { layer, resolve } of batch) resolve({ diffId: layer.diffId, size: layer.size })
      } catch {
        // Whose fault it is, each finds out alone.
        for (const { layer, resolve, reject } of batch) {
          await commit([layer]).then(() => resolve({ diffId: layer.diffId, size: layer.size }), reject)
        }
      }
    }
    running = false
  }
  return (layer) =>
    new Promise((resolve, reject) => {
      waiting.push({ layer, resolve, reject })
      if (!running) void run()
    })
}
