/** ADD: a local archive is unpacked, not copied. */
import { closeSync, constants, openSync, read, readSync } from 'node:fs'
import { promisify } from 'node:util'
import { TbuildError } from '../../errors.ts'
import { createUnpacker, show, TarReader, type Store } from '../../cas/index.ts'
import { decompress, detectCodec } from '../archive/decompress.ts'
import type { Found } from './found.ts'

/** Bytes of a tar's header. */
const BLOCK = 512
const PART = 256 * 1024
const readLater = promisify(read)

/** The directory it was unpacked into; `undefined` when it is no archive. Throws `SOURCE_CHANGED`, and what `decompress` and `TarReader` throw. */
export async function unpackArchive(store: Store, file: Found | undefined): Promise<string | undefined> {
  if (file?.type !== 'file') return undefined
  const fd = file.open()
  try {
    if (!(await isArchive(fd, file.path))) return undefined
    const directory = store.workDirectory('add')
    await unpackInto(fd, directory, file.path)
    file.check(fd)
    return directory
  } finally {
    closeSync(fd)
  }
}

async function unpackInto(fd: number, directory: string, path: string): Promise<void> {
  const directoryFd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  const unpacker = createUnpacker(directoryFd, { whiteouts: 'none' })
  try {
    const reader = new TarReader(unpacker.handler)
    for await (const chunk of contentOf(fd, path)) reader.feed(chunk)
    reader.finish()
    unpacker.finish()
  } catch (error) {
    if (error instanceof TbuildError) throw error
    const why = error instanceof Error ? error.message : String(error)
    throw new TbuildError('ARCHIVE_INVALID', `${show(path)} cannot be unpacked: ${why}`, { cause: error })
  } finally {
    unpacker.close()
    closeSync(directoryFd)
  }
}

/** A tar, compressed or not. A compressed file that is no tar, or cannot be decompressed, is an ordinary file. */
async function isArchive(fd: number, path: string): Promise<boolean> {
  let head = Buffer.alloc(BLOCK)
  const length = readSync(fd, head, 0, BLOCK, 0)
  if (detectCodec(head.subarray(0, length)) === 'none') return length === BLOCK && isTarHeader(head)
  head = Buffer.alloc(0)
  try {
    for await (const chunk of contentOf(fd, path)) {
      head = Buffer.concat([head, chunk])
      if (head.length >= BLOCK) return isTarHeader(head.subarray(0, BLOCK))
    }
    return false
  } catch (error) {
    if (error instanceof TbuildError && error.code === 'COMPRESSION_INVALID') return false
    throw error
  }
}

/** POSIX: the sum of all bytes, those of the checksum taken as blanks. An empty archive (zeros only) is one too. */
function isTarHeader(block: Buffer): boolean {
  let sum = 8 * 32
  for (const [index, byte] of block.entries()) if (index < 148 || index >= 156) sum += byte
  const said = Number.parseInt(block.toString('latin1', 148, 156).replaceAll('\0', ' ').trim(), 8)
  return said === sum
}

function contentOf(fd: number, path: string): AsyncIterable<Buffer> {
  return decompress(partsOf(fd), { accept: ['none', 'gzip', 'zstd', 'xz', 'bzip2'], what: show(path) })
}

/** No stream of Node's: who stops reading one destroys it, and that closes the descriptor. */
async function* partsOf(fd: number): AsyncGenerator<Buffer> {
  for (let at = 0; ;) {
    const { bytesRead, buffer } = await readLater(fd, Buffer.allocUnsafe(PART), 0, PART, at)
    if (bytesRead === 0) return
    yield buffer.subarray(0, bytesRead)
    at += bytesRead
  }
}
