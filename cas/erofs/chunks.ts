/**
 * A file's contents as chunks of one size, a power of two: an index of 8 bytes for each says on which device and at which block it begins, or that it is a
 * hole. A file in one piece is one chunk, larger than the file; the kernel reads no further than the file's size.
 */
import type { LayerTree, Piece } from '../layer/tree.ts'
import { layerError } from './errors.ts'
import { BLOCK, BLOCK_BITS, CHUNK_INDEX, HOLE, MOST_BLOCKS, MOST_CHUNK_BITS } from './format.ts'
import type { ImageOutput } from './output.ts'

const MOST_TABLE_BYTES = 64 * 1024 * 1024
const WITH_INDEXES = 0x20
const TWO_32 = 2 ** 32

export type Locate = (content: number) => { readonly device: number; readonly block: number }

/** Chunk size as a power of two of blocks. `size` is not 0. Throws `LAYER_SPARSE` where no such chunks, or too many, would be needed. */
export function chunkBits(tree: LayerTree, inode: number, size: number, pieces: readonly Piece[]): number {
  let bits = Math.min(bitsToCover(size), MOST_CHUNK_BITS)
  let end = 0
  for (const { offset, length } of pieces) {
    if (length === 0) continue
    if (offset < end || offset + length > size) {
      throw new Error(
        `piece at ${offset} + ${length} of a file of ${size} bytes, the one before ends at ${end}`,
      )
    }
    end = offset + length
    bits = Math.min(bits, alignment(offset), end === size ? bits : alignment(end))
  }
  if (bits < 0) {
    throw layerError(
      'LAYER_SPARSE',
      tree,
      inode,
      'data and holes of a sparse file must begin at multiples of 512 bytes',
    )
  }
  if (chunkCount(size, bits) * CHUNK_INDEX > MOST_TABLE_BYTES) {
    throw layerError(
      'LAYER_SPARSE',
      tree,
      inode,
      `its ${size} bytes would need ${chunkCount(size, bits)} chunks`,
    )
  }
  return bits
}

/** Of a file in one piece. */
export function bitsToCover(size: number): number {
  const blocks = Math.ceil(size / BLOCK)
  return blocks <= 1 ? 0 : blocks <= TWO_32 ? 32 - Math.clz32(blocks - 1) : MOST_CHUNK_BITS
}

/** Bytes of the table of a file that is not empty. */
export function chunkTableBytes(size: number, bits: number): number {
  return chunkCount(size, bits) * CHUNK_INDEX
}

/** What the inode says of it. */
export function chunkFormat(bits: number): number {
  return WITH_INDEXES | bits
}

export function writeChunkTable(
  out: ImageOutput,
  size: number,
  bits: number,
  pieces: readonly Piece[],
  locate: Locate,
  devices: number,
): void {
  const blocks = 2 ** bits
  let chunk = 0
  for (const { offset, length, content } of pieces) {
    if (length === 0) continue
    const { device, block } = locate(content)
    if (!(device >= 1 && device <= devices))
      throw new Error(`content ${content} is on device ${device} of ${devices}`)
    if (!(block >= 0 && block + Math.ceil(length / BLOCK) <= MOST_BLOCKS)) {
      throw new Error(`content ${content} of ${length} bytes at block ${block}`)
    }
    const first = offset / BLOCK / blocks
    for (; chunk < first; chunk++) writeIndex(out, 0, HOLE)
    const end = chunkCount(offset + length, bits)
    for (; chunk < end; chunk++) writeIndex(out, device, block + (chunk - first) * blocks)
  }
  const end = chunkCount(size, bits)
  for (; chunk < end; chunk++) writeIndex(out, 0, HOLE)
}

function writeIndex(out: ImageOutput, device: number, block: number): void {
  putIndex(out.view, out.reserve(CHUNK_INDEX), device, block)
}

/** Into eight bytes of zeros, or over another one. */
export function putIndex(view: DataView, at: number, device: number, block: number): void {
  // Later kernels have the block's upper 16 bits in the first two bytes, for images that say so; zeros for a hole suit all.
  view.setUint16(at + 2, device, true)
  view.setUint32(at + 4, block, true)
}

function chunkCount(size: number, bits: number): number {
  return Math.ceil(size / (BLOCK * 2 ** bits))
}

/** The largest chunk that begins or ends there; negative: none does. */
function alignment(offset: number): number {
  const low = offset % TWO_32
  if (low !== 0) return 31 - Math.clz32(low & -low) - BLOCK_BITS
  return offset === 0 ? MOST_CHUNK_BITS : 32 - BLOCK_BITS + lowestBit(offset / TWO_32)
}

function lowestBit(value: number): number {
  return 31 - Math.clz32(value & -value)
}
