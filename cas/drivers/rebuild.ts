/** An index image made anew from the layer's recipe: where there is none, or where contents have moved. */
import { rmSync } from 'node:fs'
import { locatorOf } from '../contents/lookup.ts'
import { generationOf } from '../contents/segments.ts'
import { readLayer } from '../layer/read.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { recipePath } from '../store/paths.ts'
import { syncDirectory } from '../store/spool.ts'
import { placeImage } from './place-image.ts'
import type { Driver } from './types.ts'

/** The caller holds a lease on the layer. The old image's file is left for the next collection: somebody may be about to mount it. */
export async function rebuildImage(context: StoreContext, driver: Driver, diffId: DiffId): Promise<void> {
  const { db, paths } = context
  for (;;) {
    const generation = generationOf(db)
    const { tree, contents } = readLayer(recipePath(paths, diffId), locatorOf(db))
    const image = await driver.index(tree, contents)
    if (image === undefined) return
    const recorded = db.transaction(() => {
      if (generationOf(db) !== generation) return false
      placeImage(context, diffId, image)
      syncDirectory(paths.layers)
      return true
    })
    if (recorded) return
    rmSync(image.path, { force: true })
  }
}
