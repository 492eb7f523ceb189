/** Writes a recipe while its layer streams by. */
import { createHash } from 'node:crypto'
import { closeSync, fsync, openSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { constants, crc32, zstdCompress, zstdCompressSync } from 'node:zlib'
import { BLOCK_HEADER, DIGEST, KEEP, LITERAL, MAGIC, PART, RUN, ZEROS, type OperationKind } from './format.ts'
import { outlineOf, type Outline } from './outline.ts'
import type { RecipeBlock } from './read.ts'

export interface RecipeWriter extends Disposable {
  readonly path: string
  /** Bytes of the tar so far. */
  readonly tarBytes: number
  /** When it is finished. */
  readonly outline: Outline
  literal(bytes: Uint8Array): void
  /** `digest` is copied. */
  run(digest: Uint8Array, length: number): void
  zeros(length: number): void
  keep(digest: Uint8Array, length: number): void
  /** A block of another recipe, as it stands there; it stands for so many bytes of the tar. */
  copy(block: RecipeBlock, tarBytes: number): void
  /** The file is complete, and durable when it resolves. */
  finish(): Promise<void>
}

const fsyncLater = promisify(fsync)
/** Headers repeat so much that a higher level wins little: 1.9 ms against 2.5 for 1 MiB at 3. */
const PACKING = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }
const LONGEST_VARINT = 10
/** Bytes of operations in a block. */
const OPERATIONS = 64 * 1024
/** Less is compressed sooner than another thread is asked to. */
const ALONE = 256 * 1024
/** Blocks that other threads compress meanwhile. */
const MOST_PENDING = 2
const compressLater = promisify(zstdCompress)

/** `path` must be free. Disposing it closes the file, and leaves it. */
export function createRecipe(path: string): RecipeWriter {
  let fd: number | undefined = openSync(path, 'wx', 0o600)
  const operations = Buffer.allocUnsafe(OPERATIONS)
  let operationBytes = 0
  /** Literals, and before them room for the operations. */
  let block = Buffer.allocUnsafeSlow(OPERATIONS + 64 * 1024)
  let literalBytes = 0
  /** Blocks that nobody compresses any more. */
  const spare: Buffer<ArrayBuffer>[] = []
  let digests = Buffer.allocUnsafe(256 * DIGEST)
  let runs = 0
  /** Literal bytes that have no operation yet. */
  let pending = 0
  let tarBytes = 0
  /** Where each block begins in the tar, and what tells these blocks from others. */
  const starts: number[] = []
  const identity = createHash('sha256')
  /** The present block, in the tar. */
  let blockStart = 0
  let blockEnd = 0
  /** Blocks are written in their order. */
  let written: Promise<void> | undefined
  let unwritten = 0

  const write = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length;) at += writeSync(fd ?? -1, bytes, at, bytes.length - at)
  }
  write(MAGIC)

  const put = (kind: OperationKind, length: number): void => {
    if (kind !== KEEP) blockEnd += length
    let value = length * 4 + kind
    while (value >= 128) {
      operations[operationBytes++] = (value % 128) + 128
      value = Math.floor(value / 128)
    }
    operations[operationBytes++] = value
  }
  const endLiteral = (): void => {
    if (pending > 0) put(LITERAL, pending)
    pending = 0
  }
  const flush = (): void => {
    endLiteral()
    if (operationBytes === 0) return
    const from = OPERATIONS - operationBytes
    operations.copy(block, from, 0, operationBytes)
    const plain = block.subarray(from, OPERATIONS + literalBytes)
    const head = Buffer.alloc(BLOCK_HEADER)
    head.writeUInt32LE(runs, 4)
    head.writeUInt32LE(operationBytes, 8)
    head.writeUInt32LE(literalBytes, 12)
    const digestPart = Buffer.from(digests.subarray(0, runs * DIGEST))
    operationBytes = 0
    literalBytes = 0
    runs = 0
    endBlock()
    const isSmall = plain.length < ALONE || unwritten === MOST_PENDING
    add(
      isSmall
        ? wholeBlock(head, digestPart, zstdCompressSync(plain, PACKING))
        : packLater(plain, block).then((packed) => wholeBlock(head, digestPart, packed)),
    )
  }
  const endBlock = (): void => {
    starts.push(blockStart)
    blockStart = blockEnd
  }
  const packLater = async (plain: Buffer, its: Buffer<ArrayBuffer>): Promise<Buffer> => {
    block = spare.pop() ?? Buffer.allocUnsafeSlow(its.length)
    const packed = await compressLater(plain, PACKING)
    spare.push(its)
    return packed
  }
  const writeBlock = (bytes: Buffer): void => {
    identity.update(bytes.subarray(0, BLOCK_HEADER))
    write(bytes)
  }
  const add = (bytes: Buffer | Promise<Buffer>): void => {
    if (bytes instanceof Buffer && unwritten === 0) {
      writeBlock(bytes)
      return
    }
    const before = written
    unwritten++
    written = (async () => {
      const whole = await bytes
      await before
      // Disposed meanwhile, its number may be another file's by now.
      if (fd !== undefined) writeBlock(whole)
      unwritten--
    })()
    // Told by `finish`.
    written.catch(() => {})
  }
  const makeRoom = (): void => {
    if (operationBytes + 2 * LONGEST_VARINT > operations.length) flush()
  }
  const operation = (kind: OperationKind, length: number): void => {
    makeRoom()
    endLiteral()
    put(kind, length)
    if (kind !== KEEP) tarBytes += length
  }
  const addDigest = (digest: Uint8Array): void => {
    if ((runs + 1) * DIGEST > digests.length) digests = enlarged(digests, digests.length + DIGEST)
    digests.set(digest, runs++ * DIGEST)
  }

  return {
    path,
    get tarBytes() {
      return tarBytes
    },
    get outline() {
      return outlineOf(starts, identity.copy().digest())
    },
    literal: (bytes) => {
      for (let at = 0; at < bytes.length;) {
        if (literalBytes === PART) flush()
        makeRoom()
        const part = bytes.subarray(at, at + PART - literalBytes)
        const end = OPERATIONS + literalBytes
        if (end + part.length > block.length) block = enlarged(block, end + part.length)
        block.set(part, end)
        literalBytes += part.length
        pending += part.length
        at += part.length
      }
      tarBytes += bytes.length
    },
    run: (digest, length) => {
      operation(RUN, length)
      addDigest(digest)
    },
    zeros: (length) => {
      if (length > 0) operation(ZEROS, length)
    },
    keep: (digest, length) => {
      operation(KEEP, length)
      addDigest(digest)
    },
    copy: (copied, length) => {
      flush()
      blockEnd += length
      tarBytes += length
      endBlock()
      add(copied.bytes)
    },
    finish: async () => {
      if (fd === undefined) return
      flush()
      await written
      const end = Buffer.alloc(BLOCK_HEADER + 8)
      end.writeBigUInt64LE(BigInt(tarBytes), BLOCK_HEADER)
      write(end)
      await fsyncLater(fd)
      closeSync(fd)
      fd = undefined
    },
    [Symbol.dispose]: () => {
      if (fd !== undefined) closeSync(fd)
      fd = undefined
    },
  }
}

function wholeBlock(head: Buffer, digests: Buffer, packed: Buffer): Buffer {
  head.writeUInt32LE(packed.length, 0)
  head.writeUInt32LE(crc32(packed, crc32(digests)), 16)
  return Buffer.concat([head, digests, packed])
}

function enlarged(buffer: Buffer, least: number): Buffer<ArrayBuffer> {
  const larger = Buffer.allocUnsafe(Math.max(least, buffer.length * 2))
  buffer.copy(larger)
  return larger
}
