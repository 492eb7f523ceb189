/** Segments and their sidecars: as long as the index says, and listing what the index has in them. */
import {
  closeSync,
  constants,
  fsyncSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { flockWait, isErrno } from '../../linux/index.ts'
import { ContentList } from '../contents/list.ts'
import {
  formatRecords,
  parseRecords,
  readSidecar,
  RECORD_BYTES,
  type SidecarRecord,
} from '../contents/sidecar.ts'
import { segmentPath, sidecarPath } from '../store/paths.ts'
import { syncDirectory } from '../store/spool.ts'
import { currentPlace, eachPlace, END, isSame, placeOf, type Place } from './places.ts'
import { VALID } from './rows.ts'
import type { Pass } from './types.ts'

/** Returns where each file ends. */
export async function checkSegments(pass: Pass): Promise<ReadonlyMap<number, number>> {
  const { context, findings } = pass
  const { db, paths } = context
  const ends = new Map<number, number>()
  const sizeOf = (id: number): number | undefined =>
    statSync(segmentPath(paths, id), { throwIfNoEntry: false })?.size
  for (const row of db.all(
    `SELECT segment, max(${END}) * 512 AS needed FROM temp.places WHERE segment > 0 GROUP BY segment`,
  )) {
    const id = Number(row['segment'])
    ends.set(id, sizeOf(id) ?? 0)
    checkLength(pass, id, Number(row['needed']))
  }
  for (const row of db.all(`SELECT id FROM segments WHERE ${VALID.segments.rule} ORDER BY id`)) {
    await pass.breathe()
    const id = Number(row['id'])
    /** What is wrong, with the index and the file as they are in this moment. */
    const look = (): { length: number; size: number | undefined } | undefined => {
      const found = db.get('SELECT length FROM segments WHERE id = ?', id)
      const length = Number(found?.['length'] ?? 0)
      const size = sizeOf(id)
      return (size ?? 0) < length ? { length, size } : undefined
    }
    const wrong = look() && db.transaction(look)
    if (wrong !== undefined) {
      findings.push({
        code: wrong.size === undefined ? 'SEGMENT_MISSING' : 'SEGMENT_SHORT',
        what:
          wrong.size === undefined
            ? `A segment of ${wrong.length} bytes is not there.`
            : `A segment has ${wrong.size} bytes; ${wrong.length} were stored.`,
        where: `segments/${id}`,
        repair: 'make it as long as it was; the contents that are lost are named for themselves',
        affects: {},
        mend: () => lengthen(pass, id),
      })
    }
  }
  return ends
}

/** Last of all: what the index has lost is found by them, so they are not made to agree with it before it is mended. */
export async function checkSidecars(pass: Pass): Promise<void> {
  for (const row of pass.context.db.all(`SELECT id FROM segments WHERE ${VALID.segments.rule} ORDER BY id`)) {
    await pass.breathe()
    checkSidecar(pass, Number(row['id']))
  }
}

/** The next ingest cuts off what is beyond the recorded length. */
function checkLength(pass: Pass, id: number, needed: number): void {
  const { db } = pass.context
  const lengthOf = (): number | undefined => {
    const row = db.get(`SELECT length FROM segments WHERE id = ? AND ${VALID.segments.rule}`, id)
    return row && Number(row['length'])
  }
  if ((lengthOf() ?? 0) >= needed) return
  // A collection may have emptied and removed it.
  const isNeeded = db.transaction(
    () =>
      (lengthOf() ?? 0) < needed &&
      db.get(
        `SELECT 1 AS one FROM contents WHERE segment = ? AND (${END}) * 512 > ? LIMIT 1`,
        id,
        lengthOf() ?? 0,
      ),
  )
  if (!isNeeded) return
  const length = lengthOf()
  pass.findings.push({
    code: 'SEGMENT_LENGTH_WRONG',
    what:
      length === undefined
        ? 'The index has contents in a segment that it does not know.'
        : `The index has contents beyond the ${length} bytes that it says are in a segment.`,
    where: `index.db: segments ${id}`,
    repair: 'record how long it is',
    affects: {},
    mend: () =>
      withSegment(pass, id, () => {
        const end = Number(
          db.get(`SELECT max(${END}) * 512 AS end FROM contents WHERE segment = ?`, id)?.['end'] ?? 0,
        )
        const records = Number(db.get('SELECT records FROM segments WHERE id = ?', id)?.['records'] ?? 0)
        db.run('INSERT OR REPLACE INTO segments (id, length, records) VALUES (?, ?, ?)', id, end, records)
      }),
  })
}

function checkSidecar(pass: Pass, id: number): void {
  const { db, paths } = pass.context
  const path = sidecarPath(paths, id)
  const look = (): string | undefined => {
    // The index first: the file is never shorter than what it says.
    const row = db.get('SELECT records FROM segments WHERE id = ?', id)
    if (row === undefined) return undefined
    const records = Number(row['records'])
    const bytes = readIfThere(path)
    if (bytes === undefined) return records > 0 ? 'is not there' : undefined
    if (bytes.length < records * RECORD_BYTES) return 'is too short'
    const whole = parseRecords(bytes.subarray(0, records * RECORD_BYTES))
    if (whole.length < records) return 'has records that are damaged'
    whole.sort((a, b) => a.block - b.block)
    let at = 0
    for (const page of eachPlace(db, id)) {
      for (const place of page) {
        while (at < whole.length && (whole[at]?.block ?? 0) < place.block) at++
        let record = whole[at]
        for (let i = at; record?.block === place.block && !isOf(record, place); i++) record = whole[i + 1]
        if (record !== undefined && isOf(record, place)) continue
        if (isSame(place, currentPlace(db, place.digest))) {
          return `does not list the content sha256:${place.digest.toString('hex')}`
        }
      }
    }
    return undefined
  }
  const wrong = look() && db.transaction(look)
  if (wrong === undefined) return
  pass.findings.push({
    code: 'SIDECAR_DAMAGED',
    what: `The list of what is in a segment ${wrong}.`,
    where: `segments/${id}.list`,
    repair: 'write it anew from the index',
    affects: {},
    mend: () => withSegment(pass, id, () => rewriteSidecar(pass, id)),
  })
}

function isOf({ digest, block, size }: SidecarRecord, place: Place): boolean {
  return block === place.block && size === place.size && digest.equals(place.digest)
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EIO')) return undefined
    throw error
  }
}

async function lengthen(pass: Pass, id: number): Promise<void> {
  const { db } = pass.context
  await withSegment(pass, id, (fd) => {
    const length = Number(db.get('SELECT length FROM segments WHERE id = ?', id)?.['length'] ?? 0)
    if (fstatSync(fd).size < length) ftruncateSync(fd, length)
    fsyncSync(fd)
  })
}

/** With the lock that ingests take, in a transaction. */
async function withSegment(pass: Pass, id: number, work: (fd: number) => void): Promise<void> {
  const { db, paths } = pass.context
  const fd = openSync(segmentPath(paths, id), constants.O_RDWR | constants.O_CREAT, 0o600)
  try {
    await flockWait(fd, 'exclusive')
    db.durably(() => work(fd))
    syncDirectory(paths.segments)
  } finally {
    closeSync(fd)
  }
}

/** Lists what the index has there, and what the list had that the index has nowhere: it may be of use yet. */
function rewriteSidecar({ context: { db, paths, workPath } }: Pass, id: number): void {
  const list = new ContentList()
  for (const row of db.all(
    'SELECT segment, block, digest, size FROM contents WHERE segment = ? ORDER BY block',
    id,
  )) {
    const place = placeOf(row)
    list.add(place.digest, place.size, place)
  }
  for (const { digest, block, size } of readSidecar(sidecarPath(paths, id))) {
    if (list.find(digest) === undefined && currentPlace(db, digest) === undefined) {
      list.add(digest, size, { segment: id, block })
    }
  }
  const fresh = workPath('sidecar')
  const fd = openSync(fresh, 'wx', 0o600)
  try {
    writeFileSync(
      fd,
      formatRecords(
        list,
        Array.from({ length: list.count }, (_, i) => i),
      ),
    )
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  renameSync(fresh, sidecarPath(paths, id))
  db.run('UPDATE segments SET records = ? WHERE id = ?', list.count, id)
}
