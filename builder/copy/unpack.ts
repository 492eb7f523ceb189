/** ADD: a local archive is unpacked, not copied. */
import { closeSync, constants, createReadStream, fstatSync, openSync, readSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import type { Readable, Transform } from 'node:stream'
import { TbuildError } from '../../errors.ts'
import { createUnpacker, show, TarReader, type Store } from '../../cas/index.ts'
import type { Selected } from './select.ts'

type Format = 'tar' | 'gzip' | 'zstd' | 'xz' | 'bzip2'

/** The directory it was unpacked into; `undefined` when it is no archive. */
export async function unpackArchive(store: Store, { tree, path }: Selected): Promise<string | undefined> {
  if (tree.lstat(path)?.isFile() !== true) return undefined
  const fd = tree.open(path)
  try {
    const format = formatOf(fd)
    if (format === undefined || (format !== 'tar' && !(await holdsTar(fd, format)))) return undefined
    const directory = store.workDirectory('add')
    await unpackInto(fd, format, directory, path)
    return directory
  } finally {
    closeSync(fd)
  }
}

async function unpackInto(fd: number, format: Format, directory: string, path: string): Promise<void> {
  const directoryFd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  const unpacker = createUnpacker(directoryFd, { whiteouts: 'none' })
  try {
    const reader = new TarReader(unpacker.handler)
    for await (const chunk of decompress(fd, format)) reader.feed(chunk as Buffer)
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

function formatOf(fd: number): Format | undefined {
  const head = Buffer.alloc(512)
  const length = readSync(fd, head, 0, head.length, 0)
  if (head.readUInt16BE(0) === 0x1f8b) return 'gzip'
  if (head.readUInt32BE(0) === 0x28b52ffd) return 'zstd'
  if (head.toString('latin1', 0, 6) === '\xfd7zXZ\0') return 'xz'
  if (head.toString('latin1', 0, 3) === 'BZh') return 'bzip2'
  return length === 512 && isTarHeader(head) ? 'tar' : undefined
}

/** POSIX: the sum of all bytes, those of the checksum taken as blanks. An empty archive (zeros only) is one too. */
function isTarHeader(block: Buffer): boolean {
  let sum = 8 * 32
  for (const [index, byte] of block.entries()) if (index < 148 || index >= 156) sum += byte
  const said = Number.parseInt(block.toString('latin1', 148, 156).replaceAll('\0', ' ').trim(), 8)
  return said === sum
}

/** A compressed file that is no tar is an ordinary file. */
async function holdsTar(fd: number, format: Format): Promise<boolean> {
  const stream = decompress(fd, format)
  try {
    let head = Buffer.alloc(0)
    for await (const chunk of stream) {
      head = Buffer.concat([head, chunk as Buffer])
      if (head.length >= 512) break
    }
    return head.length >= 512 && isTarHeader(head.subarray(0, 512))
  } catch {
    return false
  } finally {
    stream.destroy()
  }
}

function decompress(fd: number, format: Format): Readable {
  const end = fstatSync(fd).size
  const file = createReadStream('', { fd, autoClose: false, start: 0, ...(end > 0 ? { end: end - 1 } : {}) })
  if (format === 'tar') return file
  if (format === 'gzip') return pipe(file, createGunzip())
  if (format === 'zstd') return pipe(file, createZstdDecompress())
  const child = spawn(format, ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'] })
  child.stdin.on('error', () => {}) // EPIPE: told by how it ends
  file.pipe(child.stdin)
  child.on('error', () => {
    child.stdout.destroy(
      new TbuildError('DECOMPRESSOR_MISSING', `unpacking this archive needs the program ${format}`, {
        hint: `apt-get install ${format === 'xz' ? 'xz-utils' : 'bzip2'}`,
      }),
    )
  })
  child.on('exit', (code) => {
    if (code !== 0 && code !== null) child.stdout.destroy(new Error(`${format} ended with ${code}`))
  })
  return child.stdout
}

function pipe(file: Readable, transform: Transform): Readable {
  file.on('error', (error) => transform.destroy(error))
  return file.pipe(transform)
}
