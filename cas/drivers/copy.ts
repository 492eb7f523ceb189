/**
 * The `copy` driver: contents in segments, and a plain directory for each layer, unpacked from it when something first mounts it. For kernels and file
 * systems that mount no EROFS image from a file, and whose overlays take no data from elsewhere. Where no overlay can be mounted at all, a plain directory for
 * all layers of a root.
 */
import { createSegmentWriter } from '../contents/segments.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { createUnpacker, TarReader } from '../tar/index.ts'
import { createTrees } from './trees.ts'
import type { Driver } from './types.ts'
import { createWholeRoots } from './whole-roots.ts'

/**
 * @param tar streams a layer's tar, and verifies it
 * @param overlays can be mounted here
 */
export function createCopyDriver(
  context: StoreContext,
  tar: (diffId: DiffId) => AsyncIterable<Buffer>,
  overlays: boolean,
): Driver {
  const { db, paths } = context
  const trees = createTrees(context, async (diffId, directory) => {
    const unpacker = createUnpacker(directory)
    try {
      const reader = new TarReader(unpacker.handler)
      for await (const chunk of tar(diffId)) reader.feed(chunk)
      reader.finish()
      unpacker.finish()
    } finally {
      unpacker.close()
    }
  })
  const roots = overlays ? undefined : createWholeRoots(context)
  return {
    name: 'copy',
    contentWriter: () => createSegmentWriter(paths, db),
    index: () => Promise.resolve(undefined),
    lower: async (diffId) => ({ fd: await trees.lower(diffId) }),
    ...(roots && { whole: roots.root }),
    [Symbol.dispose]: () => {
      trees[Symbol.dispose]()
      roots?.[Symbol.dispose]()
    },
  }
}
