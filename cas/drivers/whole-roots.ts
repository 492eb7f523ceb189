/**
 * Roots as plain directories, for where no overlay can be mounted: all layers of one in one directory, with all data, made from their recipes when
 * something first needs it. It goes when nobody has used it for some seconds, and with this process's work directory.
 */
import { closeSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import type { ContentList } from '../contents/list.ts'
import { locatorOf } from '../contents/lookup.ts'
import { readLayer } from '../layer/read.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { discard } from '../store/discard.ts'
import { enterEpoch } from '../store/epoch.ts'
import { recipePath } from '../store/paths.ts'
import { createLowers } from './lowers.ts'
import { mergeLayers } from './merge-layers.ts'
import { applyLayer, writeTree, type TreeData } from './tree-writer.ts'
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

  const locate = locatorOf(db)
  const readerOf =
    (contents: ContentList): TreeData['read'] =>
    (content, offset, into) =>
      context.reader().read(contents.digest(content), contents.location(content), offset, into)

  /** A root of the lower ones of these layers that nobody uses any more: an instruction after another needs no whole one of its own. */
  const takeLower = (diffIds: readonly DiffId[]): Begun | undefined => {
    for (let count = diffIds.length - 1; count > 0; count--) {
      const key = keyOf(diffIds.slice(0, count))
      const fd = roots.take(key)
      const path = pathOf.get(key)
      if (fd === undefined || path === undefined) continue
      pathOf.delete(key)
      return { fd, path, layers: count }
    }
    return undefined
  }
  const begin = (): Begun => {
    const path = context.workDirectory('root')
    return { fd: context.openDirectory(path), path, layers: 0 }
  }
  const make = async (diffIds: readonly DiffId[]): Promise<number> => {
    const { fd, path, layers } = takeLower(diffIds) ?? begin()
    try {
      // Contents that a collection moves are also where they were, until this ends.
      using _ = enterEpoch(paths, db)
      if (layers === 0) {
        const { tree, contents } = mergeLayers(context, diffIds)
        await writeTree(fd, tree, { read: readerOf(contents) }, 'whole')
      }
      for (const diffId of layers === 0 ? [] : diffIds.slice(layers)) {
        const layer = readLayer(recipePath(paths, diffId), locate)
        await applyLayer(fd, layer, readerOf(layer.contents))
      }
      pathOf.set(keyOf(diffIds), path)
      return fd
    } catch (error) {
      closeSync(fd)
      await discard(path)
      throw isErrno(error, 'EPERM') ? denied(error) : error
    }
  }

  return {
    root: (diffIds) => roots.use(keyOf(diffIds), () => make(diffIds)),
    [Symbol.dispose]: () => {
      isClosing = true
      roots[Symbol.dispose]()
    },
  }
}

/** A directory in which the lowest of the layers are. */
interface Begun {
  readonly fd: number
  readonly path: string
  readonly layers: number
}

/** Nothing of an image is left out: it would be missing where a COPY --from takes it. */
function denied(cause: unknown): TbuildError {
  const why = cause instanceof Error ? cause.message : String(cause)
  return new TbuildError('FILES_DENIED', `The files of an image cannot be made here: ${why}.`, {
    hint: 'Where no overlay can be mounted, COPY and RUN need CAP_CHOWN, CAP_FOWNER, CAP_DAC_OVERRIDE, CAP_FSETID; of images with devices CAP_MKNOD, with file capabilities CAP_SETFCAP.',
    cause,
  })
}

function keyOf(diffIds: readonly DiffId[]): string {
  return diffIds.join()
}
