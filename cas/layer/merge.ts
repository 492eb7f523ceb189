/**
 * Several layers as one, for chains longer than overlayfs takes. Mounted in the place of the layers it shows what overlayfs shows of them, whatever is
 * below and above:
 * - of one name in several layers the topmost counts; directories merge down to the first that is opaque or has something else under it, and the
 *   topmost one's attributes are shown, even where its layer has no entry for it;
 * - a whiteout stays, and a directory becomes opaque, where layers below the merged ones could have something under that name. Below an opaque
 *   directory nothing of them is seen: no marks are kept there;
 * - a hard link joins names of one layer; a file of an upper layer replaces one name and leaves the others.
 */
import { LayerTree, type NewInode } from './tree.ts'

export interface MergeLayer {
  readonly tree: LayerTree
  /** It hides all layers below, see `AppliedLayer`. */
  readonly opaqueRoot: boolean
}

/**
 * `layers` from the bottom up; at least one. `contentOf` gives the number that a layer's content (`layer` is an index of `layers`) has in the result.
 * The result's root is opaque when a layer's root is.
 */
export function mergeTrees(
  layers: readonly MergeLayer[],
  contentOf: (layer: number, content: number) => number,
): LayerTree {
  const merge = new Merge(layers, contentOf)
  merge.run()
  return merge.result
}

/** A directory in one layer. */
interface Source {
  readonly layer: number
  readonly inode: number
}

interface Pending {
  /** In the result. */
  readonly directory: number
  /** Topmost first. */
  readonly sources: readonly Source[]
  /** Nothing of the layers below is seen here. */
  readonly isHidden: boolean
}

class Merge {
  readonly result = new LayerTree()
  readonly #layers: readonly MergeLayer[]
  readonly #contentOf: (layer: number, content: number) => number
  /** For each layer, of inodes with several names: their numbers in the result. */
  readonly #links: readonly Map<number, number>[]

  constructor(layers: readonly MergeLayer[], contentOf: (layer: number, content: number) => number) {
    this.#layers = layers
    this.#contentOf = contentOf
    this.#links = layers.map(() => new Map())
  }

  /** No recursion: a tree may be 2,000 directories deep. */
  run(): void {
    const root = this.#root()
    const pending: Pending[] = [root]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      // A name that was seen further up is hidden, even if it left nothing here.
      const seen = next.sources.length > 1 ? new Set<string>() : undefined
      for (const [place, source] of next.sources.entries()) {
        for (const [name, inode] of this.#tree(source.layer).children(source.inode)) {
          if (seen?.has(name) === true) continue
          seen?.add(name)
          if (this.#tree(source.layer).isDirectory(inode)) {
            const top = { layer: source.layer, inode }
            pending.push(this.#directory(next, name, top, next.sources.slice(place + 1)))
          } else {
            this.#other(next, name, source.layer, inode)
          }
        }
      }
    }
  }

  #root(): Pending {
    const lowest = Math.max(
      0,
      this.#layers.findLastIndex(({ opaqueRoot }) => opaqueRoot),
    )
    const sources = this.#layers.map((_, layer) => ({ layer, inode: LayerTree.ROOT })).slice(lowest)
    const top = sources.at(-1)
    if (top !== undefined) {
      this.result.setAttributes(LayerTree.ROOT, inodeOf(this.#tree(top.layer), top.inode))
      this.#copyExplicit(LayerTree.ROOT, top)
    }
    const isHidden = this.#layers[lowest]?.opaqueRoot === true
    if (isHidden) this.result.setOpaque(LayerTree.ROOT)
    return { directory: LayerTree.ROOT, sources: sources.toReversed(), isHidden }
  }

  /** `below`: the parent's sources under the one that has `top`. */
  #directory(parent: Pending, name: string, top: Source, below: readonly Source[]): Pending {
    const sources = [top]
    let isOpaque = this.#tree(top.layer).isOpaque(top.inode)
    for (const { layer, inode: directory } of below) {
      if (isOpaque) break
      const tree = this.#tree(layer)
      const inode = tree.lookup(directory, name)
      if (inode === undefined) continue
      // A file or a whiteout below a directory ends the merge as an opaque mark does.
      isOpaque = !tree.isDirectory(inode) || tree.isOpaque(inode)
      if (tree.isDirectory(inode)) sources.push({ layer, inode })
    }
    const directory = this.result.create(inodeOf(this.#tree(top.layer), top.inode))
    this.result.link(parent.directory, name, directory)
    this.#copyExplicit(directory, top)
    if (isOpaque && !parent.isHidden) this.result.setOpaque(directory)
    return { directory, sources, isHidden: parent.isHidden || isOpaque }
  }

  #other(parent: Pending, name: string, layer: number, inode: number): void {
    const tree = this.#tree(layer)
    if (tree.type(inode) === 'whiteout' && parent.isHidden) return
    const links = this.#links[layer]
    const known = links?.get(inode)
    if (known !== undefined) {
      this.result.link(parent.directory, name, known)
      return
    }
    const made = this.result.create(inodeOf(tree, inode))
    this.result.link(parent.directory, name, made)
    if (tree.links(inode) > 1) links?.set(inode, made)
    if (tree.type(inode) !== 'file') return
    this.result.setSize(made, tree.size(inode))
    for (const { offset, length, content } of tree.pieces(inode)) {
      this.result.addPiece(made, offset, length, this.#contentOf(layer, content))
    }
  }

  #copyExplicit(directory: number, { layer, inode }: Source): void {
    if (this.#tree(layer).isExplicit(inode)) this.result.setExplicit(directory)
  }

  #tree(layer: number): LayerTree {
    const tree = this.#layers[layer]?.tree
    if (tree === undefined) throw new Error(`there is no layer ${layer}`)
    return tree
  }
}

function inodeOf(tree: LayerTree, inode: number): NewInode {
  const type = tree.type(inode)
  const [major, minor] = tree.device(inode)
  return {
    type,
    mode: tree.mode(inode),
    uid: tree.uid(inode),
    gid: tree.gid(inode),
    mtimeNs: BigInt(tree.mtimeSeconds(inode)) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds(inode)),
    xattrs: tree.xattrs(inode),
    major,
    minor,
    ...(type === 'symlink' ? { target: tree.target(inode) } : undefined),
  }
}
