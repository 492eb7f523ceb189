/**
 * Where everything stands in an image:
 *
 *     0      nothing (room for boot code)
 *     1024   superblock, device table
 *            shared extended attributes
 *            inodes, each with its attributes, then its chunk table or the end of its data
 *            data of directories and symlinks that does not fit there, in full blocks
 *
 * Inodes are known by their place, and a directory's data holds the places of its children; so all places are given first, and the image is then written
 * from start to end. What is kept for that are columns of numbers, 24 bytes an inode.
 */
import { TbuildError } from '../../errors.ts'
import { LayerTree } from '../layer/tree.ts'
import { chunkBits, chunkTableBytes } from './chunks.ts'
import { directorySize, entriesOf, type Entries } from './directory.ts'
import { layerError } from './errors.ts'
import { BLOCK, CHUNK_INDEX, INODE, MOST_BLOCKS, MOST_NAME, MOST_TARGET, roundUp, SLOT } from './format.ts'
import { superblockEnd } from './superblock.ts'
import { XattrTable } from './xattrs.ts'

/** Entries of directories are made once where there are no more inodes than that, 100 bytes each, and else whenever they are needed. */
const MOST_KEPT = 65_536
/** A large directory's end is not worth to sort it once more; half a block is lost. */
const MOST_INLINE = 32 * BLOCK

export interface Layout {
  /** Inodes in their order in the image. */
  readonly order: Uint32Array
  /** By inode: its slot, counted from the metadata block on. */
  readonly nid: Uint32Array
  /** Of directories, by inode. */
  readonly subdirectories: Uint32Array
  /** Bytes of data, of directories. */
  readonly directorySize: Uint32Array
  /** Of a directory. */
  readonly entries: (directory: number) => Entries
  readonly xattrs: XattrTable
  /** Areas, in blocks. */
  readonly xattrBlock: number
  readonly metadataBlock: number
  readonly dataBlock: number
  readonly blocks: number
}

export function layOut(tree: LayerTree, devices: number): Layout {
  const walked = walk(tree)
  const { order, nid, xattrs } = walked
  const xattrBlock = Math.ceil(superblockEnd(devices) / BLOCK)
  // The root's number has 16 bits, so it is counted from a block near it; one block before, for 0 is no inode's number.
  const metadataBlock = xattrBlock + Math.ceil(xattrs.share() / BLOCK) - 1
  const base = metadataBlock * BLOCK
  let position = base + BLOCK
  let dataBlocks = 0
  for (const inode of order) {
    const size = dataSize(tree, walked.directorySize, inode)
    const head = INODE + xattrs.body(inode).length
    position = placeFor(position, head, size)
    nid[inode] = (position - base) / SLOT
    dataBlocks += blocksOf(position + head, size)
    const end = position + head + (isInline(position + head, size) ? size % BLOCK : 0)
    position = roundUp(end + tableBytes(tree, inode, end), SLOT)
  }
  const dataBlock = Math.ceil(position / BLOCK)
  const blocks = dataBlock + dataBlocks
  if (blocks > MOST_BLOCKS || (position - base) / SLOT > 0xffff_ffff) {
    throw new TbuildError('LAYER_TOO_LARGE', `a layer's metadata would have ${blocks * BLOCK} bytes`)
  }
  return { ...walked, xattrBlock, metadataBlock, dataBlock, blocks }
}

/** Goes through the tree, a directory's children together, and takes down what the layout depends on. */
function walk(tree: LayerTree): Omit<Layout, 'xattrBlock' | 'metadataBlock' | 'dataBlock' | 'blocks'> {
  const order = new Uint32Array(tree.inodes)
  const nid = new Uint32Array(tree.inodes)
  const parent = new Uint32Array(tree.inodes)
  const subdirectories = new Uint32Array(tree.inodes)
  const sizes = new Uint32Array(tree.inodes)
  const xattrs = new XattrTable(tree)
  const kept = new Map<number, Entries>()
  const entries = (directory: number): Entries =>
    kept.get(directory) ?? entriesOf(tree, directory, parent[directory] ?? LayerTree.ROOT)
  let count = 0
  const add = (inode: number): void => {
    // A mark only, for a second name of the same file.
    nid[inode] = 1
    order[count++] = inode
    xattrs.count(inode)
    checkInode(tree, inode)
  }
  add(LayerTree.ROOT)
  parent[LayerTree.ROOT] = LayerTree.ROOT
  const pending: number[] = [LayerTree.ROOT]
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    const all = entries(directory)
    if (tree.inodes <= MOST_KEPT) kept.set(directory, all)
    sizes[directory] = directorySize(all)
    const before = pending.length
    for (const [name, inode] of all) {
      checkName(tree, directory, name)
      if (nid[inode] !== 0) continue
      add(inode)
      if (!tree.isDirectory(inode)) continue
      parent[inode] = directory
      subdirectories[directory] = (subdirectories[directory] ?? 0) + 1
      pending.push(inode)
    }
    // The first subdirectory is to come off first.
    const children = pending.splice(before).toReversed()
    for (const child of children) pending.push(child)
  }
  return { order: order.subarray(0, count), nid, subdirectories, directorySize: sizes, entries, xattrs }
}

function checkName(tree: LayerTree, directory: number, name: string): void {
  if (name.length < 1 || name.length > MOST_NAME || name.includes('/') || name.includes('\0')) {
    throw layerError('LAYER_NAME', tree, directory, `no file can have the name ${JSON.stringify(name)}`)
  }
}

function checkInode(tree: LayerTree, inode: number): void {
  const type = tree.type(inode)
  if (type === 'symlink') {
    const { length } = tree.target(inode)
    if (length < 1 || length > MOST_TARGET) {
      throw layerError('LAYER_SYMLINK', tree, inode, `no symlink can have a target of ${length} bytes`)
    }
  } else if (type === 'char' || type === 'block') {
    const [major, minor] = tree.device(inode)
    if (!(major >= 0 && major <= 0xfff && minor >= 0 && minor <= 0xf_ffff)) {
      throw layerError('LAYER_DEVICE', tree, inode, `no device can have the number ${major}:${minor}`)
    }
  }
}

/** Bytes of what a directory or a symlink holds; other types have no data in the image. */
export function dataSize(tree: LayerTree, directorySizes: Uint32Array, inode: number): number {
  const type = tree.type(inode)
  if (type === 'directory') return directorySizes[inode] ?? 0
  return type === 'symlink' ? tree.target(inode).length : 0
}

/** Whether the data's end, less than a block, stands behind its inode: there it must not cross a block. */
export function isInline(behindInode: number, size: number): boolean {
  const tail = size % BLOCK
  return tail !== 0 && size < MOST_INLINE && (behindInode % BLOCK) + tail <= BLOCK
}

/** Blocks of data elsewhere. */
export function blocksOf(behindInode: number, size: number): number {
  return isInline(behindInode, size) ? Math.floor(size / BLOCK) : Math.ceil(size / BLOCK)
}

/** Moves an inode on, so that the data's end fits behind it, where that costs less than a block of its own. */
function placeFor(position: number, head: number, size: number): number {
  const tail = size % BLOCK
  if (tail === 0 || isInline(position + head, size)) return position
  const moved = roundUp(roundUp(position + head, BLOCK) - head, SLOT)
  return isInline(moved + head, size) && moved + tail < position + BLOCK ? moved : position
}

/** Of the chunk table and what stands before it to align it. */
function tableBytes(tree: LayerTree, inode: number, behindInode: number): number {
  const size = tree.type(inode) === 'file' ? tree.size(inode) : 0
  if (size === 0) return 0
  const bits = chunkBits(tree, inode, size, tree.pieces(inode))
  return roundUp(behindInode, CHUNK_INDEX) - behindInode + chunkTableBytes(size, bits)
}
