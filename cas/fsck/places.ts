/**
 * Where contents are, in the order of their places: a temporary table, so that millions of them take no memory, and so that no long statement keeps the
 * index's log from being folded in. It is the index as it was when the check began: what is suspected by it is looked up again.
 */
import type { Database, Row } from '../store/database.ts'

/** A place's end, in blocks. */
export const END = 'block + (size + 511) / 512'

export function gatherPlaces(db: Database, valid: string): void {
  db.run(`
    CREATE TEMP TABLE IF NOT EXISTS places (
      segment INTEGER NOT NULL, block INTEGER NOT NULL, digest BLOB NOT NULL, size INTEGER NOT NULL,
      PRIMARY KEY (segment, block, digest)) WITHOUT ROWID`)
  db.run('DELETE FROM temp.places')
  db.run(`INSERT INTO temp.places SELECT segment, block, digest, size FROM main.contents WHERE ${valid}`)
}

export interface Place {
  readonly segment: number
  readonly block: number
  readonly digest: Buffer
  readonly size: number
}

const PAGE = 512

/** All, or those of one segment. */
export function* eachPlace(db: Database, segment?: number): Generator<Place[], void, undefined> {
  const last = segment ?? Number.MAX_SAFE_INTEGER
  let after: Place = { segment: segment ?? 0, block: -1, digest: Buffer.alloc(0), size: 0 }
  for (;;) {
    const page = db
      .all(
        `SELECT segment, block, digest, size FROM temp.places
          WHERE (segment, block, digest) > (?, ?, ?) AND segment <= ? ORDER BY segment, block, digest LIMIT ${PAGE}`,
        after.segment,
        after.block,
        after.digest,
        last,
      )
      .map(placeOf)
    const end = page.at(-1)
    if (end === undefined) return
    yield page
    after = end
  }
}

export function placeOf(row: Row): Place {
  const digest = row['digest'] as Uint8Array
  return {
    segment: Number(row['segment']),
    block: Number(row['block']),
    digest: Buffer.from(digest.buffer, digest.byteOffset, digest.length),
    size: Number(row['size']),
  }
}

/** The place as the index has it now. */
export function currentPlace(db: Database, digest: Uint8Array): Place | undefined {
  const row = db.get('SELECT segment, block, digest, size FROM contents WHERE digest = ?', digest)
  return row && placeOf(row)
}

export function isSame(a: Place, b: Place | undefined): boolean {
  return b !== undefined && a.segment === b.segment && a.block === b.block && a.size === b.size
}
