/**
 * Roots as plain directories, for where no overlay can be mounted: all layers of one in one directory, with all data, made from their recipes when
 * something first needs it. It goes when nobody has used it for some seconds, and with this process's work directory.
 */
import { closeSync } from 'node:fs'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { discard } from '../store/discard.ts'
import { enterEpoch } from '../store/epoch.ts'
import { createLowers } from './lowers.ts'
import { mergeLayers } from './merge-layers.ts'
import { writeMetadataTree } from './metadata-tree.ts'
import type { Lower } from './types.ts'

export interface WholeRoots extends Disposable {
  /** As `Driver.whole`. */
  readonly root: (diffIds: readonly DiffId[]) => Promise<Lower>
}

export function createWholeRoots(context: StoreContext): WholeRoots {
  const { db, paths } = context
  const pathOf = new Map<string, string>()
  let isClosing = false
  const roots = createLowers((closing) => {
    // In the end they go with the work directory.
    if (isClosing) return
    for (const key of closing.keys()) {
      const path = pathOf.get(key)
      pathOf.delete(key)
      if (path !== undefined) void discard(path)
    }
  })

  const make = async (key: string, diffIds: readonly DiffId[]): Promise<number> => {
    const path = context.workDirectory('root')
    let fd: number | undefined
    try {
      // Contents that a collection moves are also where they were, until this ends.
      using _ = enterEpoch(paths, db)
      const { tree, contents } = mergeLayers(context, diffIds)
      fd = context.openDirectory(path)
      await writeMetadataTree(fd, tree, {
        read: (content, offset, into) =>
          context.reader().read(contents.digest(content), contents.location(content), offset, into),
      })
      pathOf.set(key, path)
      return fd
    } catch (error) {
      if (fd !== undefined) closeSync(fd)
      await discard(path)
      throw error
    }
  }

  return {
    root: (diffIds) => {
      const key = diffIds.join()
      return roots.use(key, () => make(key, diffIds))
    },
    [Symbol.dispose]: () => {
      isClosing = true
      roots[Symbol.dispose]()
    },
  }
}
