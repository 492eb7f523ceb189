/**
 * An image made of another one, for a layer that differs from that one's by what a few files hold and by times: nothing moves, so nothing needs to be laid out.
 * What cannot be said so is not, and the image is to be made from its layer.
 */
import type { SplitTime } from '../tar/number.ts'
import { bitsToCover, chunkFormat, chunkTableBytes, putIndex } from './chunks.ts'
import { BLOCK, CHUNK_BASED, CHUNK_INDEX, FLAT_INLINE, INODE, MOST_BLOCKS, roundUp, SLOT } from './format.ts'
import { putSize, putTime, readInode } from './inode.ts'
import { decodeSuperblock, encodeSuperblock, superblockEnd } from './superblock.ts'

export interface ImageEdit {
  /** Without a `/` at either end; a byte string. */
  readonly path: string
  readonly mtime: SplitTime
  /** Of a file that is not empty, in one piece. `device` counts from 1. */
  readonly contents?: { readonly size: number; readonly device: number; readonly block: number }
}

export interface ImageEdits {
  readonly uuid: Buffer
  /** How many: those that the image has, and maybe more. Each is as long as what is named of it. */
  readonly devices: number
  readonly edits: readonly ImageEdit[]
}

/**
 * Over `image`, which is then what `writeErofs` would have made of the changed tree. `false`, and the image is of no use any more: it is not one of
 * ours; there are more devices than its table has room for; a name is not there, is a file of several names or pieces, or is of another type.
 */
export function editErofs(image: Buffer, edits: ImageEdits): boolean {
  try {
    return edit(image, edits)
  } catch (error) {
    // A damaged image leads out of itself.
    if (error instanceof RangeError) return false
    throw error
  }
}

function edit(image: Buffer, { uuid, devices, edits }: ImageEdits): boolean {
  const superblock = decodeSuperblock(image)
  if (superblock === undefined || roomFor(devices) !== roomFor(superblock.devices.length)) return false
  const lengths = Array.from({ length: devices }, (_, i) => superblock.devices[i]?.blocks ?? 0)
  for (const { contents } of edits) {
    if (contents === undefined) continue
    const { size, device, block } = contents
    const end = block + Math.ceil(size / BLOCK)
    if (end > MOST_BLOCKS) return false
    lengths[device - 1] = Math.max(lengths[device - 1] ?? 0, end)
  }
  encodeSuperblock({ ...superblock, uuid, devices: lengths.map((blocks) => ({ blocks })) }).copy(image)
  const view = new DataView(image.buffer, image.byteOffset, image.length)
  const find = createLookup(image, view, superblock)
  for (const { path, mtime, contents } of edits) {
    const at = find(path)
    if (at === undefined) return false
    const inode = readInode(view, at)
    if (contents === undefined) {
      if (!inode.isDirectory) return false
    } else {
      const { size, device, block } = contents
      const isWhole =
        inode.layout === CHUNK_BASED &&
        inode.links === 1 &&
        chunkTableBytes(inode.size, inode.union & MOST_BITS) === CHUNK_INDEX &&
        size > 0 &&
        chunkTableBytes(size, bitsToCover(size)) === CHUNK_INDEX
      if (!isWhole) return false
      putSize(view, at, { size, union: chunkFormat(bitsToCover(size)) })
      putIndex(view, roundUp(at + INODE + inode.xattrBytes, CHUNK_INDEX), device, block)
    }
    putTime(view, at, mtime)
  }
  return true
}

/** Of a chunk format: the chunk's size. */
const MOST_BITS = 0x1f
const ENTRY = 12

function roomFor(devices: number): number {
  return Math.ceil(superblockEnd(devices) / BLOCK)
}

/** Where an inode stands, by its path. */
function createLookup(
  image: Buffer,
  view: DataView,
  { metadataBlock, rootNid }: { readonly metadataBlock: number; readonly rootNid: number },
): (path: string) => number | undefined {
  const placeOf = (nid: number): number => metadataBlock * BLOCK + nid * SLOT
  const nidAt = (entry: number): number => view.getUint32(entry, true)
  /** Blocks of a directory's data, in their order: where each begins and ends. */
  const blockOf = (directory: number, index: number): readonly [start: number, end: number] => {
    const { layout, size, union, xattrBytes } = readInode(view, directory)
    const isTail = layout === FLAT_INLINE && index === Math.floor(size / BLOCK)
    const start = isTail ? directory + INODE + xattrBytes : (union + index) * BLOCK
    return [start, start + Math.min(BLOCK, size - index * BLOCK)]
  }
  const childOf = (directory: number, name: Buffer): number | undefined => {
    const { size, isDirectory } = readInode(view, directory)
    if (!isDirectory || size === 0 || size > image.length) return undefined
    let low = 0
    let high = Math.ceil(size / BLOCK) - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      const [start, end] = blockOf(directory, middle)
      if (Buffer.compare(entryName(image, view, start, end, 0), name) <= 0) low = middle
      else high = middle - 1
    }
    const [start, end] = blockOf(directory, low)
    const count = view.getUint16(start + 8, true) / ENTRY
    let first = 0
    for (let last = count - 1; first <= last;) {
      const middle = (first + last) >>> 1
      const order = Buffer.compare(entryName(image, view, start, end, middle), name)
      if (order === 0) return placeOf(nidAt(start + middle * ENTRY))
      if (order < 0) first = middle + 1
      else last = middle - 1
    }
    return undefined
  }
  return (path) => {
    let at: number | undefined = placeOf(rootNid)
    for (const name of path.split('/')) {
      if (at === undefined) return undefined
      at = childOf(at, Buffer.from(name, 'latin1'))
    }
    return at
  }
}

/** Of entry `index` of a directory's block. The last one's ends with the block, or at the first NUL. */
function entryName(image: Buffer, view: DataView, start: number, end: number, index: number): Buffer {
  const entry = start + index * ENTRY
  const count = view.getUint16(start + 8, true) / ENTRY
  const from = start + view.getUint16(entry + 8, true)
  if (index + 1 < count) return image.subarray(from, start + view.getUint16(entry + ENTRY + 8, true))
  const rest = image.subarray(from, end)
  const zero = rest.indexOf(0)
  return zero < 0 ? rest : rest.subarray(0, zero)
}
