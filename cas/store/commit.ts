/**
 * Making layers visible, as many at a time as have come up: their files get their names, the directory is synced once, and one
 * transaction records them all. Off the main thread but for the renames and the inserts (50 us each).
 */
import { fsync, openSync, closeSync } from 'node:fs'
import { promisify } from 'node:util'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from './context.ts'
import { recordDirectory, type DirectoryDetails } from './directories.ts'
import { blobPath } from './paths.ts'
import type { Spool } from './spool.ts'
import type { StoredLayer } from './types.ts'

export interface FinishedLayer {
  /** Durable under its temporary name. */
  readonly spool: Spool
  readonly diffId: DiffId
  /** `chain`: see the index's schema. */
  readonly directory?: { readonly chain: string; readonly details: DirectoryDetails } | undefined
}

const fsyncLater = promisify(fsync)

/** Resolves when the layer is recorded. */
export function createCommitter(context: StoreContext): (layer: FinishedLayer) => Promise<StoredLayer> {
  const { db, paths } = context
  let waiting: {
    layer: FinishedLayer
    resolve: (stored: StoredLayer) => void
    reject: (error: unknown) => void
  }[] = []
  let running = false

  const record = ({ spool, diffId, directory }: FinishedLayer): void => {
    context.hold([diffId])
    db.run('INSERT OR IGNORE INTO layers VALUES (?, ?)', diffId, spool.size)
    if (directory !== undefined) recordDirectory(context, diffId, directory.chain, directory.details)
  }
  const commit = async (layers: readonly FinishedLayer[]): Promise<void> => {
    for (const { spool, diffId } of layers) spool.moveTo(blobPath(paths, diffId))
    const fd = openSync(paths.blobs, 'r')
    try {
      await fsyncLater(fd)
    } finally {
      closeSync(fd)
    }
    db.transaction(() => {
      for (const layer of layers) record(layer)
    })
  }
  const run = async (): Promise<void> => {
    running = true
    while (waiting.length > 0) {
      const batch = waiting
      waiting = []
      try {
        await commit(batch.map(({ layer }) => layer))
        for (const { layer, resolve } of batch) resolve({ diffId: layer.diffId, size: layer.spool.size })
      } catch (error) {
        for (const { reject } of batch) reject(error)
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
