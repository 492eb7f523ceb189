/**
 * Midstates of the digests of layers (cas/hashing/midstates.ts), in the index: a row a layer. What is not whole, or another layer's, is as if it were not
 * there, for a wrong one would make a wrong DiffId.
 */
import { crc32 } from 'node:zlib'
import type { DiffId } from '../oci.ts'
import type { Database } from './database.ts'

const CRC_BYTES = 4
/** A crc32 begins so: earlier rows, which had another form, are none. */
const FORM = 3
/** The latest: what a new layer begins like is likely to be among them. */
const MOST_LAYERS = 64

/** Of the latest layers, packed. */
export function readMidstates(db: Database): Uint8Array {
  const rows = db.all(`SELECT diff_id, packed FROM midstates ORDER BY rowid DESC LIMIT ${MOST_LAYERS}`)
  return Buffer.concat(rows.flatMap((row) => whole(String(row['diff_id']), row['packed'])))
}

/** Of this one. */
export function midstatesOf(db: Database, diffId: DiffId): Uint8Array {
  const row = db.get('SELECT packed FROM midstates WHERE diff_id = ?', diffId)
  return Buffer.concat(whole(diffId, row?.['packed']))
}

/** Inside a transaction. */
export function recordMidstates(db: Database, diffId: DiffId, packed: Uint8Array): void {
  if (packed.length === 0) return
  const crc = Buffer.alloc(CRC_BYTES)
  crc.writeUInt32LE(crcOf(diffId, packed))
  db.run('INSERT OR REPLACE INTO midstates VALUES (?, ?)', diffId, Buffer.concat([packed, crc]))
}

function whole(diffId: string, bytes: unknown): Uint8Array[] {
  if (!(bytes instanceof Uint8Array) || bytes.length < CRC_BYTES) return []
  const packed = bytes.subarray(0, -CRC_BYTES)
  const crc = new DataView(bytes.buffer, bytes.byteOffset + packed.length).getUint32(0, true)
  return crc === crcOf(diffId, packed) ? [packed] : []
}

function crcOf(diffId: string, packed: Uint8Array): number {
  return crc32(packed, crc32(diffId, FORM))
}
