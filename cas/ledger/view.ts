/**
 * An image's files without a mount: its layers' trees, read from their recipes, seen as overlayfs would show them. Nothing is merged beforehand: a
 * directory is the list of the layers' directories that are merged in it, and names are looked up in those.
 *
 * Paths are byte strings, relative to the root, without a leading `/`; '' is the root.
 */
import { createHash, hash } from 'node:crypto'
import { TbuildError } from '../../errors.ts'
import { ContentList, type Location } from '../contents/list.ts'
import { readLayer, type ReadLayer } from '../layer/read.ts'
import { LayerTree, type Piece } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { recipePath } from '../store/paths.ts'
import { resolveInTree } from '../tree/tree.ts'
import type { FileEntry } from './types.ts'

interface Part {
  readonly layer: ReadLayer
  readonly inode: number
}

/** A name's inode. */
export interface ViewNode extends Part {
  /** Of a directory: what is merged in it, topmost first. */
  readonly parts: readonly Part[]
}

/** Reads layers, each once. */
export type LayerReader = (diffId: DiffId) => ReadLayer

/** Where contents are is asked when they are read: 30,000 look-ups take 0.2 s. */
const LATER: Location = { segment: 0, block: 0 }

/** The layers are leased while the store is open. Throws `LAYER_UNKNOWN`. */
export function createLayerReader(context: StoreContext): LayerReader {
  const { db, paths } = context
  const read = new Map<DiffId, ReadLayer>()
  return (diffId) => {
    let layer = read.get(diffId)
    if (layer === undefined) {
      db.transaction(() => {
        if (db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) === undefined)
          throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
        context.hold([diffId])
      })
      layer = readLayer(recipePath(paths, diffId), () => LATER)
      read.set(diffId, layer)
    }
    return layer
  }
}

export class ImageView {
  readonly root: ViewNode
  /** Whose root's attributes show; `undefined`: those of a new directory. */
  readonly #rootFrom: ReadLayer | undefined
  readonly #context: StoreContext

  /** @param layers bottom first */
  constructor(context: StoreContext, layers: readonly ReadLayer[]) {
    this.#context = context
    const bottom = Math.max(
      0,
      layers.findLastIndex(({ applied }) => applied.opaqueRoot),
    )
    const shown = layers.length === 0 ? [emptyLayer()] : [...new Set(layers.slice(bottom).toReversed())]
    const parts = shown.map((layer) => ({ layer, inode: LayerTree.ROOT }))
    this.root = { ...(parts[0] as Part), parts }
    this.#rootFrom = layers.findLast(({ applied }) => applied.hasRoot)
  }

  children(node: ViewNode): [name: string, node: ViewNode][] {
    const [only, second] = node.parts
    if (only === undefined) return []
    const names = new Set(only.layer.tree.children(only.inode).map(([name]) => name))
    if (second !== undefined) {
      for (const { layer, inode } of node.parts.slice(1)) {
        for (const [name] of layer.tree.children(inode)) names.add(name)
      }
    }
    const sorted = second === undefined ? [...names] : [...names].toSorted((a, b) => (a < b ? -1 : 1))
    return sorted.flatMap((name) => {
      const child = this.lookup(node, name)
      return child === undefined ? [] : [[name, child]]
    })
  }

  lookup(node: ViewNode, name: string): ViewNode | undefined {
    let found: Part | undefined
    const parts: Part[] = []
    for (const { layer, inode: directory } of node.parts) {
      const inode = layer.tree.lookup(directory, name)
      if (inode === undefined) continue
      const part = { layer, inode }
      if (layer.tree.isDirectory(inode)) {
        parts.push(part)
        if (layer.tree.isOpaque(inode)) break
        continue
      }
      // A whiteout, or something that is no directory: nothing below it shows.
      if (parts.length === 0 && layer.tree.type(inode) !== 'whiteout') found = part
      break
    }
    const [top] = parts
    if (top !== undefined) return { ...top, parts }
    return found && { ...found, parts }
  }

  /** By a path without symlinks on it. */
  find(path: string): ViewNode | undefined {
    let node: ViewNode | undefined = this.root
    for (const name of path === '' ? [] : path.split('/')) {
      node = node === undefined ? undefined : this.lookup(node, name)
    }
    return node
  }

  /**
   * As chroot(2) would have it. Throws `PATH_LOOP`, `PATH_NOT_DIRECTORY`.
   * @returns the path without symlinks, and what is there
   */
  resolve(path: string, followLast: boolean): { path: string; node: ViewNode | undefined } {
    const stats = (at: string) => {
      const node = this.find(at)
      const type = node?.layer.tree.type(node.inode)
      return (
        node && { node, isDirectory: () => type === 'directory', isSymbolicLink: () => type === 'symlink' }
      )
    }
    const readlink = (at: string): string => {
      const node = this.find(at)
      return node?.layer.tree.target(node.inode) ?? ''
    }
    const resolved = resolveInTree({ lstat: stats, readlink }, path, { followLast })
    return { path: resolved.path, node: resolved.stats?.node }
  }

  entry(path: string, node: ViewNode): FileEntry {
    const { layer, inode } = this.#attributesOf(node)
    const { tree } = layer
    const type = tree.type(node.inode)
    const target = type === 'symlink' ? tree.target(inode) : ''
    return {
      path,
      type: type === 'whiteout' ? 'char' : type,
      mode: tree.mode(inode),
      uid: tree.uid(inode),
      gid: tree.gid(inode),
      size: type === 'file' ? tree.size(inode) : target.length,
      links: type === 'directory' ? 1 : tree.links(inode),
      mtimeSeconds: tree.mtimeSeconds(inode),
      mtimeNanoseconds: tree.mtimeNanoseconds(inode),
      target,
      device: tree.device(inode),
      xattrs: tree.xattrs(inode),
    }
  }

  #attributesOf(node: ViewNode): Part {
    if (node !== this.root) return node
    return { layer: this.#rootFrom ?? emptyLayer(), inode: LayerTree.ROOT }
  }

  /** Every name, parents before what is in them, in the order of their bytes. `visit` tells whether to go into a directory. */
  walk(node: ViewNode, path: string, visit: (path: string, node: ViewNode) => boolean): void {
    const pending: [string, ViewNode][] = [[path, node]]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const [at, one] = next
      if (!visit(at, one) || one.parts.length === 0) continue
      const children = this.children(one).map(([name, child]): [string, ViewNode] => [
        at === '' ? name : `${at}/${name}`,
        child,
      ])
      pending.push(...children.toReversed())
    }
  }

  /**
   * The bytes of a file, in parts of at most 1 MiB, valid until the next. Each content is verified: small ones before any of their bytes is given,
   * large ones at their end. Throws `STORE_CORRUPT`.
   */
  *read(node: ViewNode): Generator<Buffer, void, undefined> {
    const { layer, inode } = node
    const { tree, contents } = layer
    let position = 0
    for (const { offset, length, content } of tree.pieces(inode)) {
      yield* zerosUpTo(offset - position)
      yield* readContent(this.#context, contents.digest(content), length)
      position = offset + length
    }
    yield* zerosUpTo(tree.size(inode) - position)
  }
}

/** Equal for equal files; of files with holes, or that came in different pieces, it may differ all the same. */
export function contentKey({ layer, inode }: Part): string {
  const { tree, contents } = layer
  const size = tree.size(inode)
  if (size === 0) return ''
  const pieces = tree.pieces(inode)
  const [first] = pieces
  const nameOf = ({ content }: Piece): string => contents.digest(content).toString('hex')
  if (first !== undefined && isWhole(pieces, size)) return nameOf(first)
  const text = pieces.map((piece) => `${piece.offset} ${nameOf(piece)}`).join('\n')
  return `${PIECES}${size} ${hash('sha256', text)}`
}

const PIECES = 'pieces '

/** Is it a key by which other files may have the same contents? Then `digestOf` tells. */
export function isOfPieces(key: string): boolean {
  return key.startsWith(PIECES)
}

/** Whether two files have the same bytes; they are read only when the pieces cannot tell. */
export function sameContents(a: ImageView, nodeA: ViewNode, b: ImageView, nodeB: ViewNode): boolean {
  const [sizeA, sizeB] = [nodeA, nodeB].map(({ layer, inode }) => layer.tree.size(inode))
  if (sizeA !== sizeB) return false
  if (contentKey(nodeA) === contentKey(nodeB)) return true
  const [wholeA, wholeB] = [nodeA, nodeB].map(({ layer, inode }) =>
    isWhole(layer.tree.pieces(inode), layer.tree.size(inode)),
  )
  if (wholeA === true && wholeB === true) return false
  return digestOf(a.read(nodeA)) === digestOf(b.read(nodeB))
}

/** As `contentKey` has it of a file in one piece. */
export function digestOf(parts: Iterable<Buffer>): string {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  return digest.digest('hex')
}

function isWhole(pieces: readonly Piece[], size: number): boolean {
  return pieces.length === 1 && pieces[0]?.offset === 0 && pieces[0].length === size
}

const PART = 1024 * 1024

/** As `ImageView.read`, of one content. */
export function* readContent(
  context: StoreContext,
  digest: Buffer,
  length: number,
): Generator<Buffer, void, undefined> {
  const row = context.db.get('SELECT segment, block, size FROM contents WHERE digest = ?', digest)
  if (row === undefined || Number(row['size']) !== length) throw corrupt(digest)
  const location = { segment: Number(row['segment']), block: Number(row['block']) }
  const digestText = digest.toString('hex')
  const found = createHash('sha256')
  const buffer = Buffer.allocUnsafe(Math.min(PART, length))
  for (let at = 0; at < length;) {
    const part = buffer.subarray(0, Math.min(PART, length - at))
    context.reader().read(digest, location, at, part)
    found.update(part)
    at += part.length
    if (at === length && found.digest('hex') !== digestText) throw corrupt(digest)
    yield part
  }
}

function corrupt(digest: Buffer): TbuildError {
  return new TbuildError(
    'STORE_CORRUPT',
    `The content sha256:${digest.toString('hex')} is missing or damaged.`,
    {
      hint: 'tbuild fsck tells which images need it; build or pull them again.',
    },
  )
}

const zeros = Buffer.alloc(64 * 1024)

function* zerosUpTo(length: number): Generator<Buffer, void, undefined> {
  for (let rest = length; rest > 0; rest -= zeros.length) yield zeros.subarray(0, rest)
}

let empty: ReadLayer | undefined

function emptyLayer(): ReadLayer {
  return (empty ??= {
    tree: new LayerTree(),
    applied: {
      entries: 0,
      whiteouts: 0,
      bytes: 0,
      opaqueRoot: false,
      hasRoot: false,
      skippedEntries: 0,
      skippedXattrs: 0,
    },
    contents: new ContentList(),
  })
}

/** As reports name a path. */
export function absolute(path: string): string {
  return `/${path}`
}
