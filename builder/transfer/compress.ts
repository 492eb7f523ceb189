/**
 * gzip as pigz writes it: blocks of 1 MiB deflated side by side on libuv's threads, each with the 32 KiB before it as dictionary and
 * ended on a byte boundary, joined into one plain gzip member. The same input gives the same bytes in every run of one Node version; block
 * size, level and zlib are part of what makes them, so a compressed digest is remembered and never promised.
 */
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { constants, crc32, deflateRaw } from 'node:zlib'

const BLOCK = 1024 * 1024
const DICTIONARY = 32 * 1024
const LEVEL = 6
/** Readers (ours too) refuse as a bomb what grows more than a thousandfold; a block of zeros would grow by 1032. */
const MIN_BLOCK = Math.ceil(BLOCK / 900)
/** A stored block of no bytes: what pads a block that became too small. */
const EMPTY_BLOCK = Buffer.from([0, 0, 0, 0xff, 0xff])
/** RFC 1952: deflate, no name, no time, no extra flags, "unknown" system. */
const HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])

const deflate = promisify(
  deflateRaw as (
    block: Uint8Array,
    options: Parameters<typeof deflateRaw>[1] & object,
    callback: (error: Error | null, result: Buffer) => void,
  ) => void,
)

/** The gzip member that holds `source`. Blocks in flight: one more than there are cores, at most 5. */
export async function* gzip(source: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const flying: Promise<Buffer>[] = []
  const most = Math.min(availableParallelism() + 1, 5)
  let checksum = 0
  let length = 0
  let before: Buffer | undefined
  yield HEADER
  for await (const { block, last } of blocks(source)) {
    checksum = crc32(block, checksum)
    length += block.length
    const work = deflateBlock(block, before, last)
    // It is awaited in its turn; when the reader stops first, nobody waits.
    work.catch(() => {})
    flying.push(work)
    before = block
    while (flying.length >= (last ? 1 : most)) yield (await flying.shift()) ?? EMPTY_BLOCK
  }
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(checksum, 0)
  trailer.writeUInt32LE(length % 2 ** 32, 4)
  yield trailer
}

async function deflateBlock(block: Buffer, before: Buffer | undefined, last: boolean): Promise<Buffer> {
  const packed = await deflate(block, {
    level: LEVEL,
    // One trip to the thread pool for nearly every block.
    chunkSize: BLOCK,
    finishFlush: last ? constants.Z_FINISH : constants.Z_SYNC_FLUSH,
    ...(before === undefined ? {} : { dictionary: before.subarray(-DICTIONARY) }),
  })
  if (last || packed.length >= MIN_BLOCK) return packed
  const padding = Math.ceil((MIN_BLOCK - packed.length) / EMPTY_BLOCK.length)
  return Buffer.concat([packed, ...Array.from({ length: padding }, () => EMPTY_BLOCK)])
}

/** At least one, and all but the last of exactly `BLOCK` bytes, however the source was cut. */
async function* blocks(
  source: AsyncIterable<Uint8Array>,
): AsyncGenerator<{ readonly block: Buffer; readonly last: boolean }> {
  let block = Buffer.allocUnsafe(BLOCK)
  let filled = 0
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length;) {
      // Only when more comes is it known that a full block was not the last.
      if (filled === BLOCK) {
        yield { block, last: false }
        block = Buffer.allocUnsafe(BLOCK)
        filled = 0
      }
      const length = Math.min(BLOCK - filled, chunk.length - at)
      block.set(chunk.subarray(at, at + length), filled)
      filled += length
      at += length
    }
  }
  yield { block: block.subarray(0, filled), last: true }
}
