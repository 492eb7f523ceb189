/**
 * A segment's sidecar: a record of 48 bytes for each content that was written, in their order: digest (32), block (u32), crc32 of the other 44 (u32),
 * size (u64), all little-endian. With it contents are found again when the index is lost; what they are is checked by reading them.
 */
import { readFileSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { isErrno } from '../../linux/index.ts'
import { DIGEST_BYTES, type ContentList } from './list.ts'

export const RECORD_BYTES = 48

export interface SidecarRecord {
  readonly digest: Buffer
  /** Of 512 bytes. */
  readonly block: number
  readonly size: number
}

/** Into `buffer`, when it is given: a fresh one for each of many parts is collected too late. */
export function formatRecords(
  list: ContentList,
  contents: readonly number[],
  buffer: Buffer = Buffer.allocUnsafe(contents.length * RECORD_BYTES),
): Buffer {
  const out = buffer.subarray(0, contents.length * RECORD_BYTES)
  const fields = new DataView(out.buffer, out.byteOffset, out.length)
  for (const [i, content] of contents.entries()) {
    const at = i * RECORD_BYTES
    list.copyDigest(content, out, at)
    fields.setUint32(at + 32, list.block(content), true)
    fields.setBigUint64(at + 40, BigInt(list.size(content)), true)
    fields.setUint32(at + 36, checksum(out, at), true)
  }
  return out
}

/** The records that are whole; none when there is no such file. */
export function readSidecar(path: string): SidecarRecord[] {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
  return parseRecords(bytes)
}

/** Those that are whole. */
export function parseRecords(bytes: Buffer): SidecarRecord[] {
  const records: SidecarRecord[] = []
  for (let at = 0; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) {
    if (bytes.readUInt32LE(at + 36) !== checksum(bytes, at)) continue
    const digest = bytes.subarray(at, at + DIGEST_BYTES)
    records.push({ digest, block: bytes.readUInt32LE(at + 32), size: Number(bytes.readBigUInt64LE(at + 40)) })
  }
  return records
}

function checksum(bytes: Buffer, at: number): number {
  return crc32(bytes.subarray(at + 40, at + 48), crc32(bytes.subarray(at, at + 36)))
}
