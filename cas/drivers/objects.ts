/**
 * The `objects` driver: each content is a file, and a layer a directory of empty files that name it (`tree-writer.ts`), so that overlayfs shows one
 * with the data of the other. For file systems that back no EROFS mount, kernels without EROFS, and ordinary users; Linux 6.15 and later.
 */
import { closeSync, constants, mkdirSync } from 'node:fs'
import { inInitialUserNamespace, isErrno, mountOverlay, openat2 } from '../../linux/index.ts'
import type { ContentList } from '../contents/list.ts'
import { locatorOf } from '../contents/lookup.ts'
import { createObjectWriter } from '../contents/objects.ts'
import { readLayer } from '../layer/read.ts'
import type { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { objectPath, recipePath } from '../store/paths.ts'
import { createLowers } from './lowers.ts'
import { mergeLayers } from './merge-layers.ts'
import { deletingDirectories, writeTree, type TreePart } from './tree-writer.ts'
import { createTrees } from './trees.ts'
import type { Driver, Lower } from './types.ts'

export function createObjectsDriver(context: StoreContext): Driver {
  const { db, paths } = context
  /** See `TreePart`. */
  const isNested = !inInitialUserNamespace()
  let data: number | undefined
  const openData = (): number => (data ??= context.openDirectory(paths.objects))
  const merged = new Map<string, Promise<number>>()
  const shown = createLowers()

  const write = async (directory: number, tree: LayerTree, contents: ContentList): Promise<void> => {
    const writePart = (root: number, part: TreePart): Promise<void> =>
      writeTree(
        root,
        tree,
        {
          path: (content) =>
            objectPath(paths, contents.digest(content).toString('hex')).slice(paths.objects.length),
          read: (content, offset, into) =>
            context.reader().read(contents.digest(content), contents.location(content), offset, into),
        },
        part,
      )
    if (!isNested) return writePart(directory, 'all')
    for (const part of ['contents', 'deletions'] as const) {
      if (part === 'deletions' && deletingDirectories(tree).size === 0) continue
      mkdirSync(`/proc/self/fd/${directory}/${part}`, { mode: 0o700 })
      const root = openDirectory(directory, part)
      try {
        await writePart(root, part)
      } finally {
        closeSync(root)
      }
    }
  }
  const trees = createTrees(context, async (diffId, directory) => {
    const { tree, contents } = readLayer(recipePath(paths, diffId), locatorOf(db))
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
  const show = async (key: string, written: Promise<number>): Promise<Lower> => {
    const directory = await written
    if (!isNested) return { fd: directory }
    const { fd, release } = await shown.use(key, async () => {
      const contents = openDirectory(directory, 'contents')
      try {
        return mountOverlay({ lowers: [contents], data: openData() })
      } finally {
        closeSync(contents)
      }
    })
    const above = openIfThere(directory, 'deletions')
    return {
      fd,
      above,
      release: () => {
        if (above !== undefined) closeSync(above)
        release?.()
      },
    }
  }

  return {
    name: 'objects',
    contentWriter: () => createObjectWriter(context),
    index: () => Promise.resolve(undefined),
    lower: (diffId) => show(diffId, trees.lower(diffId)),
    ...(!isNested && { dataLower: openData }),
    merged: (diffIds) => {
      const key = diffIds.join()
      let fd = merged.get(key)
      if (fd === undefined) {
        fd = merge(diffIds)
        merged.set(key, fd)
        fd.catch(() => merged.delete(key))
      }
      return show(key, fd)
    },
    [Symbol.dispose]: () => {
      shown[Symbol.dispose]()
      trees[Symbol.dispose]()
      for (const fd of merged.values()) void fd.then(closeSync, () => {})
      merged.clear()
      if (data !== undefined) closeSync(data)
      data = undefined
    },
  }
}

function openDirectory(parent: number, name: TreePart): number {
  return openat2(parent, name, { flags: constants.O_RDONLY | constants.O_DIRECTORY })
}

function openIfThere(parent: number, name: TreePart): number | undefined {
  try {
    return openDirectory(parent, name)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}
