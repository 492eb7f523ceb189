/** Every content: is it where the index has it, is it what its digest says, is its place its own? And what was taken away. */
import type { Database } from '../store/database.ts'
import { generationOf } from '../contents/segments.ts'
import { readSidecar } from '../contents/sidecar.ts'
import { enterEpoch } from '../store/epoch.ts'
import { objectPath, sidecarPath } from '../store/paths.ts'
import { createContentVerifier, type ContentVerifier } from './bytes.ts'
import { currentPlace, eachPlace, END, isSame, placeOf, type Place } from './places.ts'
import type { Pass } from './types.ts'
import { VALID } from './rows.ts'

/** While an epoch is held, no place that a content had in it is freed; collection waits for as much as this. */
const EPOCH_BYTES = 256 * 1024 * 1024

/** @param ends of the segments' files, in bytes: what is beyond is not there */
export async function checkContents(pass: Pass, ends: ReadonlyMap<number, number>): Promise<void> {
  const { context, quick } = pass
  const { db, paths } = context
  using verifier = createContentVerifier(paths, () => pass.breathe(), pass.read)
  let epoch = enterEpoch(paths, db)
  try {
    let bytes = 0
    for (const page of eachPlace(db)) {
      for (const place of page) {
        const isThere =
          place.segment === 0 || place.block * 512 + place.size <= (ends.get(place.segment) ?? 0)
        if (isThere && quick && place.segment > 0) continue
        const verdict = isThere
          ? await verifier.verify(place.digest, place, place.size)
          : ('missing' as const)
        if (verdict !== 'whole') await suspect(pass, verifier, place)
        bytes += place.size
      }
      if (bytes < EPOCH_BYTES) continue
      bytes = 0
      epoch[Symbol.dispose]()
      epoch = enterEpoch(paths, db)
      verifier.forget()
    }
  } finally {
    epoch[Symbol.dispose]()
  }
  checkOverlaps(pass)
}

/** Looks where it is now; what is still wrong there, while this epoch is held, is wrong. */
async function suspect(pass: Pass, verifier: ContentVerifier, seen: Place): Promise<void> {
  const { db } = pass.context
  for (;;) {
    const place = currentPlace(db, seen.digest)
    if (place === undefined) return
    verifier.forget()
    const verdict = await verifier.verify(place.digest, place, place.size)
    if (verdict === 'whole') return
    if (!isSame(place, currentPlace(db, seen.digest))) continue
    report(pass, place, verdict)
    return
  }
}

function report(pass: Pass, place: Place, verdict: 'damaged' | 'missing'): void {
  const hex = place.digest.toString('hex')
  if (pass.badContents.has(hex)) return
  pass.badContents.add(hex)
  pass.findings.push({
    code: verdict === 'missing' ? 'CONTENT_MISSING' : 'CONTENT_DAMAGED',
    what:
      verdict === 'missing'
        ? `The content sha256:${hex} (${place.size} bytes) is not all there.`
        : `The ${place.size} bytes of the content sha256:${hex} are others than were stored.`,
    where: whereOf(pass, place),
    repair:
      'look for it elsewhere in the segments; else drop it, and get its layers again from their compressed form',
    affects: { content: hex },
    mend: () => mendContent(pass, place.digest),
  })
}

function whereOf({ context: { paths } }: Pass, { segment, block, digest }: Place): string {
  if (segment === 0) return objectPath(paths, digest.toString('hex')).slice(paths.root.length + 1)
  return `segments/${segment} at ${block * 512}`
}

/** Takes it from another place that the segments' sidecars name, or out of the index. */
export async function mendContent(pass: Pass, digest: Buffer): Promise<void> {
  const { context } = pass
  const { db, paths } = context
  using _ = enterEpoch(paths, db)
  using verifier = createContentVerifier(paths, () => pass.breathe(), pass.read)
  const present = currentPlace(db, digest)
  if (present !== undefined && (await verifier.verify(digest, present, present.size)) === 'whole') return
  for (const place of placesInSidecars(pass, digest)) {
    verifier.forget()
    if ((await verifier.verify(digest, place, place.size)) !== 'whole') continue
    const moved = db.transaction(() => {
      if (isDead(db, place)) return false
      db.run(
        'INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)',
        digest,
        place.segment,
        place.block,
        place.size,
      )
      countGeneration(db)
      return true
    })
    if (moved) return
  }
  if (present === undefined) return
  db.transaction(() => {
    if (!isSame(present, currentPlace(db, digest))) return
    db.run('DELETE FROM contents WHERE digest = ?', digest)
    // Its place is not said to be dead: an ingest may have looked it up a moment ago. Compaction sees that it is nobody's.
    countGeneration(db)
  })
}

/** Who knows a place by heart looks again. */
export function countGeneration(db: Database): void {
  db.run("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", generationOf(db) + 1)
}

/** Contents that are wanted are looked for in all sidecars at once. */
function placesInSidecars(pass: Pass, digest: Buffer): Place[] {
  const hex = digest.toString('hex')
  pass.badContents.add(hex)
  let found = searches.get(pass)
  if (found === undefined || !found.wanted.has(hex)) {
    found = searchSidecars(pass, new Set(pass.badContents))
    searches.set(pass, found)
  }
  return found.places.get(hex) ?? []
}

interface Search {
  readonly wanted: ReadonlySet<string>
  readonly places: ReadonlyMap<string, Place[]>
}

const searches = new WeakMap<Pass, Search>()

function searchSidecars({ context: { db, paths } }: Pass, wanted: ReadonlySet<string>): Search {
  const places = new Map<string, Place[]>()
  for (const row of db.all(`SELECT id FROM segments WHERE ${VALID.segments.rule} ORDER BY id`)) {
    const segment = Number(row['id'])
    for (const { digest, block, size } of readSidecar(sidecarPath(paths, segment))) {
      const hex = digest.toString('hex')
      if (wanted.has(hex)) places.set(hex, [...(places.get(hex) ?? []), { segment, block, digest, size }])
    }
  }
  return { wanted, places }
}

/** A place that collection may be freeing just now. */
function isDead(db: Database, { segment, block, size }: Place): boolean {
  const sql = `SELECT 1 AS one FROM dead WHERE segment = ? AND block < ? AND ${END} > ? LIMIT 1`
  return db.get(sql, segment, block + Math.ceil(size / 512), block) !== undefined
}

/** Two contents in one place: what is done to the one, when it is collected, would be done to the other. */
function checkOverlaps(pass: Pass): void {
  const { db } = pass.context
  const sql = `
    SELECT segment, block, digest, size FROM (
      SELECT *, max(${END}) OVER (
        PARTITION BY segment ORDER BY block, digest ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
      FROM temp.places WHERE segment > 0)
    WHERE before > block LIMIT 1000`
  for (const row of db.all(sql)) {
    const place = placeOf(row)
    const hex = place.digest.toString('hex')
    // Its bytes were found wrong: that is the same damage.
    if (pass.badContents.has(hex) || !isSame(place, currentPlace(db, place.digest))) continue
    pass.findings.push({
      code: 'CONTENTS_OVERLAP',
      what: `The content sha256:${hex} is recorded in a place that another content has, too.`,
      where: whereOf(pass, place),
      repair:
        'look for it elsewhere in the segments; else drop it, and get its layers again from their compressed form',
      affects: { content: hex },
      mend: async () => {
        db.transaction(() => {
          if (!isSame(place, currentPlace(db, place.digest))) return
          db.run('DELETE FROM contents WHERE digest = ?', place.digest)
          countGeneration(db)
        })
        await mendContent(pass, place.digest)
      },
    })
  }
}

/** After the contents: places to be freed must be in a segment, and nobody's. */
export function checkDead(pass: Pass): void {
  const { db } = pass.context
  const { rule } = VALID.dead
  const outside = `
    SELECT d.segment, d.block FROM dead AS d LEFT JOIN segments AS s ON s.id = d.segment
      WHERE (${rule.replaceAll(/\b(segment|block|size)\b/g, 'd.$1')})
        AND d.segment > 0 AND (s.id IS NULL OR (d.block * 512 + d.size) > s.length)`
  // Of the places that begin before its end, the last one also ends last.
  const taken = `
    SELECT d.segment, d.block, p.digest FROM dead AS d JOIN temp.places AS p ON p.segment = d.segment
      AND p.block = (SELECT max(block) FROM temp.places WHERE segment = d.segment AND block < d.block + (d.size + 511) / 512)
    WHERE d.segment > 0 AND p.block + (p.size + 511) / 512 > d.block`
  const found = (segment: number, block: number, what: string, content?: string): void => {
    pass.findings.push({
      code: 'DEAD_WRONG',
      what,
      where: `index.db: dead ${segment} ${block}`,
      repair: 'forget that the place is to be freed',
      affects: content === undefined ? {} : { content },
      mend: () => void db.run('DELETE FROM dead WHERE segment = ? AND block = ?', segment, block),
    })
  }
  for (const row of db.all(outside)) {
    found(Number(row['segment']), Number(row['block']), 'A place that is to be freed is not in a segment.')
  }
  for (const row of db.all(taken)) {
    const [segment, block, digest] = [
      Number(row['segment']),
      Number(row['block']),
      row['digest'] as Uint8Array,
    ]
    const hex = Buffer.from(digest).toString('hex')
    // Both were looked at one after the other: it may have been collected, or revived, in between.
    const isSo = db.rehearsal(() => {
      const place = currentPlace(db, digest)
      return place !== undefined && isDead(db, place)
    })
    if (isSo) found(segment, block, `The place of the content sha256:${hex} is to be freed.`, hex)
  }
}
