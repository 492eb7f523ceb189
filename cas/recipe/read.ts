/** Reads a recipe, block by block. Whatever is wrong with it is `STORE_CORRUPT`. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { crc32, zstdDecompressSync } from 'node:zlib'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import { BLOCK_HEADER, DIGEST, KEEP, LITERAL, MAGIC, RUN, ZEROS } from './format.ts'

export type Operation =
  | { readonly kind: 'literal'; readonly bytes: Buffer }
  /** `digest` and `bytes` are views, valid until the next operation is asked for. */
  | { readonly kind: 'run' | 'keep'; readonly digest: Buffer; readonly length: number }
  | { readonly kind: 'zeros'; readonly length: number }

/** Whole, as its checksum says; what is packed in it has not been looked at. */
export interface RecipeBlock {
  /** As it stands in the file, and parts of it. */
  readonly bytes: Buffer
  readonly digests: Buffer
  readonly packed: Buffer
  /** Of the operations and the literals when unpacked. */
  readonly operationBytes: number
  readonly literalBytes: number
}

/** A literal of 1 MiB and what else a block holds; more is no block of ours. */
const MOST_BYTES = 64 * 1024 * 1024
const NOTHING = Buffer.alloc(BLOCK_HEADER)
const SPARE = 64
/** Bytes of the tar's length, behind it. */
const END = 8

export function* readRecipe(path: string): Generator<Operation, void, undefined> {
  let total = 0
  const end = yield* eachBlock(path, function* (block) {
    for (const operation of operationsOf(path, block)) {
      if (operation.kind === 'literal') total += operation.bytes.length
      else if (operation.kind !== 'keep') total += operation.length
      yield operation
    }
  })
  if (end !== total) throw corrupt(path)
}

/** The digests of all its contents, repeated as they are; nothing is unpacked. Each is a view, valid until the next. */
export function* recipeDigests(path: string): Generator<Buffer, void, undefined> {
  yield* eachBlock(path, function* ({ digests }) {
    for (let at = 0; at < digests.length; at += DIGEST) yield digests.subarray(at, at + DIGEST)
  })
}

/** All blocks, at once. */
export function recipeBlocks(path: string): RecipeBlock[] {
  const fd = open(path)
  let file: Buffer
  try {
    file = readFileSync(fd)
  } finally {
    closeSync(fd)
  }
  const blocks: RecipeBlock[] = []
  for (let at = MAGIC.length; at + BLOCK_HEADER + END <= file.length;) {
    const length = lengthOf(path, file.subarray(at, at + BLOCK_HEADER))
    if (length === 0) return blocks
    blocks.push(blockOf(path, file.subarray(at, at + length)))
    at += length
  }
  throw corrupt(path)
}

/** Returns the tar's length that the end block names. */
function* eachBlock<T>(
  path: string,
  visit: (block: RecipeBlock) => Generator<T, void, undefined>,
): Generator<T, number, undefined> {
  const fd = open(path)
  try {
    if (!read(path, fd, MAGIC.length).equals(MAGIC)) throw corrupt(path)
    for (;;) {
      const head = read(path, fd, BLOCK_HEADER)
      const length = lengthOf(path, head)
      if (length === 0) break
      yield* visit(blockOf(path, Buffer.concat([head, read(path, fd, length - BLOCK_HEADER)])))
    }
    const length = Number(read(path, fd, END).readBigUInt64LE())
    if (readSync(fd, Buffer.alloc(1), 0, 1, null) > 0) throw corrupt(path)
    return length
  } finally {
    closeSync(fd)
  }
}

/** Of a block, by its head; 0: it is the end. */
function lengthOf(path: string, head: Buffer): number {
  const packedBytes = head.readUInt32LE(0)
  if (packedBytes === 0 && !head.equals(NOTHING)) throw corrupt(path)
  if (packedBytes === 0) return 0
  const digestBytes = head.readUInt32LE(4) * DIGEST
  const sizes = [packedBytes, digestBytes, head.readUInt32LE(8), head.readUInt32LE(12)]
  if (Math.max(...sizes) > MOST_BYTES) throw corrupt(path)
  return BLOCK_HEADER + digestBytes + packedBytes
}

function blockOf(path: string, bytes: Buffer): RecipeBlock {
  const packedAt = BLOCK_HEADER + bytes.readUInt32LE(4) * DIGEST
  if (crc32(bytes.subarray(BLOCK_HEADER)) !== bytes.readUInt32LE(16)) throw corrupt(path)
  return {
    bytes,
    digests: bytes.subarray(BLOCK_HEADER, packedAt),
    packed: bytes.subarray(packedAt),
    operationBytes: bytes.readUInt32LE(8),
    literalBytes: bytes.readUInt32LE(12),
  }
}

/** What a block says. */
export function* operationsOf(path: string, block: RecipeBlock): Generator<Operation, void, undefined> {
  const { operationBytes, literalBytes, digests } = block
  const unpacked = unpack(path, block.packed, operationBytes + literalBytes)
  let literalAt = operationBytes
  let run = 0
  for (let at = 0; at < operationBytes;) {
    let value = 0
    let factor = 1
    let byte
    do {
      byte = unpacked[at++] ?? 0
      value += (byte % 128) * factor
      factor *= 128
    } while (byte >= 128 && at < operationBytes)
    const length = Math.floor(value / 4)
    switch (value % 4) {
      case LITERAL:
        yield { kind: 'literal', bytes: unpacked.subarray(literalAt, literalAt + length) }
        literalAt += length
        break
      case ZEROS:
        yield { kind: 'zeros', length }
        break
      case RUN:
      case KEEP: {
        const digest = digests.subarray(run * DIGEST, (run + 1) * DIGEST)
        run++
        yield { kind: value % 4 === RUN ? 'run' : 'keep', digest, length }
        break
      }
    }
  }
  if (literalAt !== unpacked.length || run * DIGEST !== digests.length) throw corrupt(path)
}

function unpack(path: string, packed: Buffer, length: number): Buffer {
  try {
    // Room for all of it at once, and a little for zstd to see that this is the end: a fifth of the time.
    const chunkSize = length + SPARE
    const unpacked = zstdDecompressSync(packed, { chunkSize, maxOutputLength: Math.max(1, length) })
    if (unpacked.length === length) return unpacked
  } catch {
    // Said below.
  }
  throw corrupt(path)
}

function open(path: string): number {
  try {
    return openSync(path, 'r')
  } catch (error) {
    throw isErrno(error, 'ENOENT') ? corrupt(path) : error
  }
}

function read(path: string, fd: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let at = 0; at < length;) {
    const count = readSync(fd, bytes, at, length - at, null)
    if (count === 0) throw corrupt(path)
    at += count
  }
  return bytes
}

function corrupt(path: string): TbuildError {
  return new TbuildError('STORE_CORRUPT', `The recipe ${path} is missing or damaged.`, {
    hint: 'tbuild fsck tells which images need it; build or pull them again.',
  })
}
