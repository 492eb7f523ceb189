/** Files of what is remembered of build contexts: a magic of 16 bytes, what it is, its crc32. Not synced: what is lost is only made anew, and what is torn is told by its checksum. */
import { hash, randomBytes } from 'node:crypto'
import { closeSync, openSync, readFileSync, renameSync, rmSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { isErrno } from '../../linux/index.ts'
import type { Notes } from '../store/types.ts'

const CRC_BYTES = 4

/** `undefined` when the file is missing or not whole. */
export function readNote(path: string, magic: Buffer): Buffer | undefined {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  const end = bytes.length - CRC_BYTES
  const note = bytes.subarray(magic.length, end)
  const isWhole =
    end >= magic.length &&
    bytes.subarray(0, magic.length).equals(magic) &&
    crc32(note) === bytes.readUInt32LE(end)
  return isWhole ? note : undefined
}

export function writeNote(path: string, magic: Buffer, parts: readonly Uint8Array[]): void {
  const temporary = join(dirname(path), `.${randomBytes(8).toString('hex')}`)
  const crc = Buffer.alloc(CRC_BYTES)
  crc.writeUInt32LE(parts.reduce((sum, part) => crc32(part, sum), 0))
  try {
    writeParts(temporary, [magic, ...parts, crc])
    renameSync(temporary, path)
  } catch (error) {
    rmSync(temporary, { force: true })
    // No room for a cache is no reason to fail.
    if (!isErrno(error, 'ENOSPC', 'EDQUOT', 'EFBIG')) throw error
  }
}

function writeParts(path: string, parts: readonly Uint8Array[]): void {
  const fd = openSync(path, 'wx', 0o600)
  try {
    for (const part of parts) for (let at = 0; at < part.length;) at += writeSync(fd, part, at)
  } finally {
    closeSync(fd)
  }
}

const NOTE = Buffer.from('tbuild note 1\n\0\0')

export function openNotes(directory: string): Notes {
  const pathOf = (key: string): string => join(directory, `${hash('sha256', key).slice(0, 32)}.note`)
  return {
    read: (key) => readNote(pathOf(key), NOTE),
    write: (key, parts) => writeNote(pathOf(key), NOTE, parts),
  }
}
