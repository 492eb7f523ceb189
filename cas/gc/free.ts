/**
 * Frees what nothing can read any more. Called when the ingests have ended that began before the present epoch, so that nobody brings a dead content back.
 *
 * - A segment without contents goes as a file: what has it mounted goes on reading it. Its lock is taken first, for an ingest may be about to append.
 * - In others, holes are punched where contents were. A mounted reader would see zeros there; but what is mounted is leased, what is leased stays
 *   recorded, and what a recorded layer names is not dead. Old places of contents that were moved are in retired segments, which get no holes.
 * - Objects that a killed process put there and did not record go.
 * - What an ingest left behind the end of a segment that nobody has locked is cut off.
 *
 * Each step can be repeated: a place is forgotten only when its blocks are durably free, a file removed only when its row is durably gone.
 */
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
} from 'node:fs'
import { join } from 'node:path'
import { flock, isErrno, punchHole } from '../../linux/index.ts'
import { BLOCK } from '../contents/reader.ts'
import { RECORD_BYTES } from '../contents/sidecar.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import { objectPath, segmentPath, sidecarPath, type StorePaths } from '../store/paths.ts'
import { fileBlocks, removeAll } from './allocated.ts'
import { regionsOf, type DeadPlace, type Region } from './dead.ts'
import { removeOrphans } from './orphans.ts'
import { granuleOf, mountableSegments, readSegments, type SegmentState } from './segments.ts'

/** Returns the bytes that were freed, by the blocks that the files had before and have after. */
export function freeDead(context: StoreContext): number {
  const { db, paths } = context
  let freed = freeObjects(context)
  const segments = segmentsToLookAt(db)
  if (segments !== undefined) {
    const dead = deadPlaces(db)
    freed += removeEmpty(context, segments)
    const granule = granuleOf(paths)
    for (const [id, places] of dead) {
      const segment = segments.get(id)
      if (segment === undefined) db.run('DELETE FROM dead WHERE segment = ?', id)
      else if (segment.contents > 0 && !segment.isRetired)
        freed += punch(context, id, regionsOf(places, granule))
    }
  }
  return freed + removeOrphans(context) + cutTails(context) + removeUnknown(context)
}

/** The same in advance: `taken` are the contents that are still recorded, and would not be. */
export function wouldFree(
  context: StoreContext,
  taken: Iterable<{ readonly segment: number; readonly block: number; readonly size: number }>,
  objects: Iterable<string>,
): number {
  const { db, paths } = context
  let freed = 0
  for (const hex of objects) freed += fileBlocks(objectPath(paths, hex))
  const segments = readSegments(db)
  const dead = deadPlaces(db)
  for (const { segment, block, size } of taken) {
    const state = segments.get(segment)
    if (state === undefined) continue
    state.contents--
    const places = dead.get(segment) ?? []
    places.push({ block, blocks: Math.ceil(size / BLOCK) })
    dead.set(segment, places)
  }
  const mountable = mountableSegments(db)
  const granule = granuleOf(paths)
  for (const [id, places] of dead) {
    const segment = segments.get(id)
    if (segment === undefined || segment.isRetired || segment.contents === 0) continue
    const sorted = places.toSorted((a, b) => a.block - b.block)
    freed += regionsOf(sorted, granule).reduce((sum, { from, to }) => sum + to - from, 0)
  }
  for (const { id, contents, isRetired } of segments.values()) {
    if (contents > 0 || (isRetired && mountable.has(id)) || !isUnlocked(paths, id)) continue
    freed += fileBlocks(segmentPath(paths, id)) + fileBlocks(sidecarPath(paths, id))
  }
  for (const id of unknown(context))
    if (isUnlocked(paths, id))
      freed += fileBlocks(segmentPath(paths, id)) + fileBlocks(sidecarPath(paths, id))
  return freed + wouldCut(context, granule)
}

/** Reading the content table is not needed when nothing is dead. */
function segmentsToLookAt(db: Database): Map<number, SegmentState> | undefined {
  const isAny = (sql: string): boolean => db.get(sql) !== undefined
  return isAny('SELECT 1 AS one FROM dead LIMIT 1') ||
    isAny('SELECT 1 AS one FROM segments WHERE retired OR length = 0')
    ? readSegments(db)
    : undefined
}

function deadPlaces(db: Database): Map<number, DeadPlace[]> {
  const dead = new Map<number, DeadPlace[]>()
  for (const row of db.all('SELECT segment, block, size FROM dead ORDER BY segment, block')) {
    const segment = Number(row['segment'])
    const place = { block: Number(row['block']), blocks: Math.ceil(Number(row['size']) / BLOCK) }
    const places = dead.get(segment)
    if (places === undefined) dead.set(segment, [place])
    else places.push(place)
  }
  return dead
}

function removeEmpty(context: StoreContext, segments: ReadonlyMap<number, SegmentState>): number {
  const { db, paths } = context
  const locked = new Map<number, number>()
  try {
    for (const segment of segments.values()) {
      if (segment.contents > 0) continue
      // Made if it is not there, or an ingest could make and lock it a moment later.
      const fd = lockSegment(paths, segment.id, constants.O_CREAT)
      if (fd !== undefined) locked.set(segment.id, fd)
    }
    if (locked.size === 0) return 0
    const gone = db.durably(() => {
      const mountable = mountableSegments(db)
      return [...locked.keys()].filter((id) => {
        const row = db.get('SELECT length FROM segments WHERE id = ?', id)
        // An ingest may have added something before we had the lock.
        if (row?.['length'] !== segments.get(id)?.length || mountable.has(id)) return false
        db.run('DELETE FROM segments WHERE id = ?', id)
        db.run('DELETE FROM dead WHERE segment = ?', id)
        return true
      })
    })
    return gone.reduce((freed, id) => freed + removeFiles(paths, id), 0)
  } finally {
    for (const fd of locked.values()) closeSync(fd)
  }
}

function removeFiles(paths: StorePaths, id: number): number {
  return removeAll(paths.segments, [String(id), `${id}.list`])
}

/** `undefined`: somebody is writing to it, or there is no such file. The caller closes it. */
export function lockSegment(paths: StorePaths, id: number, flags = 0): number | undefined {
  let fd
  try {
    fd = openSync(segmentPath(paths, id), constants.O_RDWR | flags, 0o600)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  if (flock(fd, 'exclusive')) return fd
  closeSync(fd)
  return undefined
}

/** Nobody adds to the segment now. */
export function isUnlocked(paths: StorePaths, id: number): boolean {
  let fd
  try {
    fd = openSync(segmentPath(paths, id), 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true
    throw error
  }
  try {
    return flock(fd, 'exclusive')
  } finally {
    closeSync(fd)
  }
}

function punch({ db, paths }: StoreContext, id: number, regions: readonly Region[]): number {
  const useful = regions.filter(({ from, to, records }) => to > from || records.length > 1)
  if (useful.length === 0) return 0
  const fd = openSync(segmentPath(paths, id), 'r+')
  try {
    const before = fstatSync(fd).blocks
    for (const { from, to } of useful) if (to > from) punchHole(fd, from, to - from)
    fsyncSync(fd)
    const freed = (before - fstatSync(fd).blocks) * 512
    db.transaction(() => {
      for (const { records, rest } of useful) {
        for (const block of records) db.run('DELETE FROM dead WHERE segment = ? AND block = ?', id, block)
        for (const { block, blocks } of rest)
          db.run('INSERT OR REPLACE INTO dead VALUES (?, ?, ?)', id, block, blocks * BLOCK)
      }
    })
    return freed
  } catch (error) {
    // A file system without holes: the places stay dead until compaction.
    if (isErrno(error, 'EOPNOTSUPP', 'ENOSYS')) return 0
    throw error
  } finally {
    closeSync(fd)
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0
}

interface Tail {
  readonly id: number
  readonly length: number
  readonly records: number
}

/** Segments whose files are longer than the index says. */
function tails({ db, paths }: StoreContext): Tail[] {
  return db.all('SELECT id, length, records FROM segments').flatMap((row) => {
    const [id, length, records] = [Number(row['id']), Number(row['length']), Number(row['records'])]
    const isLonger =
      sizeOf(segmentPath(paths, id)) > length || sizeOf(sidecarPath(paths, id)) > records * RECORD_BYTES
    return isLonger ? [{ id, length, records }] : []
  })
}

function cutTails(context: StoreContext): number {
  const { db, paths } = context
  let freed = 0
  for (const { id } of tails(context)) {
    const fd = lockSegment(paths, id)
    if (fd === undefined) continue
    try {
      const now = db.get('SELECT length, records FROM segments WHERE id = ?', id)
      if (now === undefined) continue
      freed += cut(segmentPath(paths, id), Number(now['length']))
      freed += cut(sidecarPath(paths, id), Number(now['records']) * RECORD_BYTES)
    } finally {
      closeSync(fd)
    }
  }
  return freed
}

function cut(path: string, length: number): number {
  const before = fileBlocks(path)
  if (sizeOf(path) > length) truncateSync(path, length)
  return before - fileBlocks(path)
}

function wouldCut(context: StoreContext, granule: number): number {
  const { paths } = context
  const beyond = (path: string, length: number): number =>
    Math.max(0, Math.ceil(sizeOf(path) / granule) - Math.ceil(length / granule)) * granule
  return tails(context)
    .filter(({ id }) => isUnlocked(paths, id))
    .reduce((sum, { id, length, records }) => {
      return (
        sum + beyond(segmentPath(paths, id), length) + beyond(sidecarPath(paths, id), records * RECORD_BYTES)
      )
    }, 0)
}

/** Files of segments that the index does not have: rows are made before their files, and go before them. */
function unknown({ db, paths }: StoreContext): number[] {
  const ids = readdirSync(paths.segments, { withFileTypes: true }).flatMap((entry) =>
    entry.isFile() && /^\d+(?:\.list)?$/.test(entry.name) ? [Number.parseInt(entry.name, 10)] : [],
  )
  return [...new Set(ids)].filter((id) => !isKnown(db, id))
}

function isKnown(db: Database, id: number): boolean {
  return db.get('SELECT 1 AS one FROM segments WHERE id = ?', id) !== undefined
}

function removeUnknown(context: StoreContext): number {
  const { db, paths } = context
  let freed = 0
  for (const id of unknown(context)) {
    const fd = lockSegment(paths, id, constants.O_CREAT)
    if (fd === undefined) continue
    if (!isKnown(db, id)) freed += removeFiles(paths, id)
    closeSync(fd)
  }
  return freed
}

const OBJECTS_AT_ONCE = 1000

/** Contents that are files of their own: a file is put there and recorded, or unrecorded and taken out of sight, under the index's write lock. */
function freeObjects(context: StoreContext): number {
  const { db, paths } = context
  let freed = 0
  for (;;) {
    const rows = db.all('SELECT digest FROM dead_objects LIMIT ?', OBJECTS_AT_ONCE)
    if (rows.length === 0) return freed
    const trash = context.workDirectory('trash')
    db.transaction(() => {
      for (const { digest } of rows) {
        db.run('DELETE FROM dead_objects WHERE digest = ?', digest as Uint8Array)
        if (db.get('SELECT 1 AS one FROM contents WHERE digest = ? AND segment = 0', digest as Uint8Array))
          continue
        const hex = Buffer.from(digest as Uint8Array).toString('hex')
        moveIfThere(objectPath(paths, hex), join(trash, hex))
      }
    })
    freed += removeAll(trash, readdirSync(trash))
    rmSync(trash, { recursive: true })
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to)
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}
