/** Stored layers as one tree, for an index image that stands for all of them. */
import { ContentList } from '../contents/list.ts'
import { locatorOf } from '../contents/lookup.ts'
import { mergeTrees } from '../layer/merge.ts'
import { readLayer } from '../layer/read.ts'
import { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { recipePath } from '../store/paths.ts'

/** Bottom first. The caller holds leases on them. */
export function mergeLayers(
  { db, paths }: StoreContext,
  diffIds: readonly DiffId[],
): { readonly tree: LayerTree; readonly contents: ContentList } {
  const locate = locatorOf(db)
  const layers = diffIds.map((diffId) => readLayer(recipePath(paths, diffId), locate))
  const contents = new ContentList()
  const tree = mergeTrees(
    layers.map((layer) => ({ tree: layer.tree, opaqueRoot: layer.applied.opaqueRoot })),
    (index, content) => {
      const own = layers[index]?.contents
      if (own === undefined) throw new RangeError('no such layer')
      const digest = own.digest(content)
      return contents.find(digest) ?? contents.add(digest, own.size(content), own.location(content))
    },
  )
  // Of the root, a layer that has no entry for it says nothing.
  const root = layers.findLast(({ applied }) => applied.hasRoot)?.tree
  if (root !== undefined) {
    const inode = LayerTree.ROOT
    tree.setAttributes(inode, {
      mode: root.mode(inode),
      uid: root.uid(inode),
      gid: root.gid(inode),
      mtimeNs: BigInt(root.mtimeSeconds(inode)) * 1_000_000_000n + BigInt(root.mtimeNanoseconds(inode)),
      xattrs: root.xattrs(inode),
    })
  }
  return { tree, contents }
}
