/**
 * The `objects` driver: each content is a file, and a layer a directory of empty files that name it (`metadata-tree.ts`), so that overlayfs shows one
 * with the data of the other. For file systems that back no EROFS mount, and kernels without EROFS; Linux 6.15 and later.
 */
import { closeSync } from 'node:fs'
import type { ContentList } from '../contents/list.ts'
import { createObjectWriter } from '../contents/objects.ts'
import { readLayer } from '../layer/read.ts'
import type { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { objectPath, recipePath } from '../store/paths.ts'
import { mergeLayers } from './merge-layers.ts'
import { writeMetadataTree } from './metadata-tree.ts'
import { createTrees } from './trees.ts'
import type { Driver } from './types.ts'

export function createObjectsDriver(context: StoreContext): Driver {
  const { db, paths } = context
  let data: number | undefined
  const merged = new Map<string, Promise<number>>()

  const write = (directory: number, tree: LayerTree, contents: ContentList): Promise<void> =>
    writeMetadataTree(directory, tree, {
      path: (content) =>
        objectPath(paths, contents.digest(content).toString('hex')).slice(paths.objects.length),
      read: (content, offset, into) =>
        context.reader().read(contents.digest(content), contents.location(content), offset, into),
    })
  const trees = createTrees(context, async (diffId, directory) => {
    const lookup = db.columns('SELECT segment, block FROM contents WHERE digest = ?')
    const { tree, contents } = readLayer(recipePath(paths, diffId), (digest) => {
      const row = lookup(digest)
      return row && { segment: Number(row[0]), block: Number(row[1]) }
    })
    await write(directory, tree, contents)
  })
  /** Goes with the process's lease. */
  const merge = async (diffIds: readonly DiffId[]): Promise<number> => {
    const { tree, contents } = mergeLayers(context, diffIds)
    const fd = context.openDirectory(context.workDirectory('merged'))
    try {
      await write(fd, tree, contents)
      return fd
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  return {
    name: 'objects',
    contentWriter: () => createObjectWriter(context),
    index: () => Promise.resolve(undefined),
    lower: async (diffId) => ({ fd: await trees.lower(diffId) }),
    dataLower: () => (data ??= context.openDirectory(paths.objects)),
    merged: async (diffIds) => {
      const key = diffIds.join()
      let fd = merged.get(key)
      if (fd === undefined) {
        fd = merge(diffIds)
        merged.set(key, fd)
        fd.catch(() => merged.delete(key))
      }
      return { fd: await fd }
    },
    [Symbol.dispose]: () => {
      trees[Symbol.dispose]()
      for (const fd of merged.values()) void fd.then(closeSync, () => {})
      merged.clear()
      if (data !== undefined) closeSync(data)
      data = undefined
    },
  }
}
