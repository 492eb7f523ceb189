/** Reads a recipe, block by block. Whatever is wrong with it is `STORE_CORRUPT`. */
import { closeSync, openSync, readSync } from 'node:fs'
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

/** Block by block. Each stays as it is. */
export function* recipeBlocks(path: string): Generator<RecipeBlock, void, undefined> {
  yield* eachBlock(path, function* (block) {
    yield block
  })
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
      const packedBytes = head.readUInt32LE(0)
      if (packedBytes === 0) {
        if (!head.equals(NOTHING)) throw corrupt(path)
        break
      }
      const digestBytes = head.readUInt32LE(4) * DIGEST
      const sizes = [packedBytes, digestBytes, head.readUInt32LE(8), head.readUInt32LE(12)]
      if (Math.max(...sizes) > MOST_BYTES) throw corrupt(path)
      const bytes = Buffer.concat([head, read(path, fd, digestBytes + packedBytes)])
      if (crc32(bytes.subarray(BLOCK_HEADER)) !== head.readUInt32LE(16)) throw corrupt(path)
      yield* visit(blockOf(bytes))
    }
    const length = Number(read(path, fd, 8).readBigUInt64LE())
    if (readSync(fd, Buffer.alloc(1), 0, 1, null) > 0) throw corrupt(path)
    return length
  } finally {
    closeSync(fd)
  }
}

/** From the bytes of one. */
export function blockOf(bytes: Buffer): RecipeBlock {
  const packedAt = BLOCK_HEADER + bytes.readUInt32LE(4) * DIGEST
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
    const unpacked = zstdDecompressSync(packed, { maxOutputLength: Math.max(1, length) })
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
