/**
 * Where in its tar each block of a recipe begins, which no block says, for whoever wants to copy some of them. Packed: the sha256 of the blocks' heads, by which it is
 * told whether a recipe is the one that this is of, then a number for each as float64, little-endian.
 */
import { hash } from 'node:crypto'
import { BLOCK_HEADER, DIGEST } from './format.ts'
import type { RecipeBlock } from './read.ts'

/** Packed. */
export type Outline = Uint8Array

/** `identity`: sha256 of the heads. */
export function outlineOf(starts: readonly number[], identity: Buffer): Outline {
  const packed = Buffer.alloc(DIGEST + starts.length * 8)
  packed.set(identity)
  for (const [i, start] of starts.entries()) packed.writeDoubleLE(start, DIGEST + i * 8)
  return packed
}

/** Where they begin, when it is the outline of these blocks. */
export function startsOf(outline: Outline, blocks: readonly RecipeBlock[]): number[] | undefined {
  const packed = Buffer.from(outline.buffer, outline.byteOffset, outline.length)
  const heads = Buffer.concat(blocks.map(({ bytes }) => bytes.subarray(0, BLOCK_HEADER)))
  const isOfThese =
    packed.length === DIGEST + blocks.length * 8 &&
    packed.subarray(0, DIGEST).equals(hash('sha256', heads, 'buffer'))
  return isOfThese ? blocks.map((_, i) => packed.readDoubleLE(DIGEST + i * 8)) : undefined
}
