/**
 * Contents in segments: files that are only appended to, up to 1 GiB and one content more, by one ingest at a time (it holds the file's lock). What lies
 * beyond the length that the index has is nobody's: left by an ingest that died, and cut off by the next.
 */
import { createHash, hash, type Hash } from 'node:crypto'
import { closeSync, constants, fstatSync, fsync, ftruncateSync, openSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import { flock, isErrno } from '../../linux/index.ts'
import type { Database } from '../store/database.ts'
import { segmentPath, sidecarPath, type StorePaths } from '../store/paths.ts'
import { FillBuffer } from './fill.ts'
import { claimContents } from './kind.ts'
import { ContentList, DIGEST_BYTES, type Location } from './list.ts'
import { BLOCK } from './reader.ts'
import { formatRecords, RECORD_BYTES } from './sidecar.ts'
import type { ContentWriter } from './types.ts'

export const FULL: number = 1024 ** 3
/** Small: what is written comes from the processor's cache, and who decompresses is not kept waiting. */
const BUFFER = 256 * 1024
const { O_RDWR, O_CREAT, O_RDONLY, O_DIRECTORY } = constants
const fsyncLater = promisify(fsync)

export interface OpenSegment {
  readonly id: number
  readonly fd: number
  readonly sidecar: number
  readonly isNew: boolean
  /** What the index has: bytes, and records of the sidecar. */
  readonly start: number
  readonly records: number
  /** Where the next content goes. */
  end: number
  /** Contents that were written here, by their numbers. */
  readonly written: number[]
}

/** The last writer's buffer, for the next one. */
let spare: Buffer | undefined

export function createSegmentWriter(paths: StorePaths, db: Database): ContentWriter {
  claimContents(db, 'segments')
  const list = new ContentList()
  const segments: OpenSegment[] = []
  let current: OpenSegment | undefined
  const buffer = new FillBuffer(spare ?? Buffer.allocUnsafeSlow(BUFFER))
  spare = undefined
  /** Where `buffer` begins in the segment; counted from 0 until there is one. */
  let flushed = 0
  let runStart = 0
  /** Between `begin` and what ends it. */
  let isOpen = false
  /** Of a content that is larger than the buffer. */
  let hashing: Hash | undefined
  let generation = generationOf(db)
  const known: number[] = []
  /** Written here, but another was faster, which is where they are now; and known ones that collection has unrecorded meanwhile. */
  const theirs = new Set<number>()
  const duplicates: Place[] = []
  const revived = new Set<number>()
  let hasConflict = false
  let recorded = false
  let confirmed = false

  const acquire = (): OpenSegment => {
    if (current !== undefined) return current
    current = acquireSegment(paths, db)
    segments.push(current)
    // Until now only the present content was written, if any.
    runStart += current.start - flushed
    flushed = current.start
    return current
  }
  const flush = (): void => {
    if (buffer.filled === 0) return
    const { fd } = acquire()
    writeAll(fd, buffer.bytes.subarray(0, buffer.filled), flushed)
    flushed += buffer.filled
    buffer.filled = 0
  }
  const spill = (): void => {
    hashing ??= createHash('sha256')
    hashing.update(buffer.bytes.subarray(Math.max(0, runStart - flushed), buffer.filled))
    flush()
  }
  const digestRun = (): Buffer => {
    isOpen = false
    const rest = buffer.bytes.subarray(Math.max(0, runStart - flushed), buffer.filled)
    return hashing === undefined ? hash('sha256', rest, 'buffer') : hashing.update(rest).digest()
  }
  const rewind = (): void => {
    if (runStart < flushed) {
      flushed = runStart
      buffer.filled = 0
    } else {
      buffer.filled = runStart - flushed
    }
  }
  const { lookup, find, lookUp } = createFinder(db, list, known)
  /** What is to be recorded of a segment. */
  const own = ({ written }: OpenSegment): readonly number[] =>
    theirs.size === 0 ? written : written.filter((number) => !theirs.has(number))
  /** What was appended since `runStart`. */
  const keep = (digest: Uint8Array): number => {
    const size = flushed + buffer.filled - runStart
    const segment = acquire()
    const number = list.add(digest, size, { segment: segment.id, block: runStart / BLOCK })
    segment.written.push(number)
    // Contents begin at multiples of a block, and so does the buffer: there is room.
    const padding = (BLOCK - (size % BLOCK)) % BLOCK
    buffer.bytes.fill(0, buffer.filled, buffer.filled + padding)
    buffer.filled += padding
    segment.end = flushed + buffer.filled
    if (segment.end >= FULL) {
      flush()
      current = undefined
      flushed = 0
    }
    return number
  }

  return {
    list,
    begin: () => {
      isOpen = true
      runStart = flushed + buffer.filled
      hashing = undefined
    },
    append: (bytes) => buffer.append(bytes, spill),
    appendFrom: (fd, position, length) => buffer.appendFrom(fd, position, length, spill),
    drop: () => {
      const digest = digestRun()
      rewind()
      return digest
    },
    end: () => {
      const digest = digestRun()
      const there = find(digest)
      if (there === undefined) return keep(digest)
      rewind()
      return there
    },
    put: (digest, bytes) => {
      const there = find(digest)
      if (there !== undefined) return there
      runStart = flushed + buffer.filled
      buffer.append(bytes, flush)
      return keep(digest)
    },
    find,
    lookUp,
    isOwn: (content) => {
      const { segment, block } = list.location(content)
      return segments.some(({ id, start }) => id === segment && block * BLOCK >= start)
    },
    // Of a content that is not whole yet, what is written must be hashed before.
    flush: () => (isOpen ? spill() : flush()),
    sync: async () => {
      flush()
      await syncSegments(paths, segments, list)
    },
    resolve: () => {
      const now = generationOf(db)
      // That another was faster is seldom, and `record` tells.
      for (const number of hasConflict ? segments.flatMap(own) : []) {
        const place = lookup(list.digest(number))
        if (place === undefined) continue
        duplicates.push({ ...list.location(number), size: list.size(number) })
        list.move(number, place)
        theirs.add(number)
        known.push(number)
      }
      // Another may also have been faster to bring back what collection had unrecorded.
      if (now !== generation || hasConflict) {
        revived.clear()
        for (const number of known) {
          const place = lookup(list.digest(number))
          if (place === undefined) revived.add(number)
          else list.move(number, place)
        }
      }
      generation = now
      hasConflict = false
    },
    record: () => {
      recorded = false
      if (generationOf(db) !== generation) return false
      const isNew = (contents: readonly number[]): boolean => insertContents(db, list, contents)
      if (!segments.every((segment) => isNew(own(segment))) || !isNew([...revived])) {
        hasConflict = true
        return false
      }
      for (const number of revived) {
        const { segment, block } = list.location(number)
        // Collection waits for us before it frees anything.
        db.run('DELETE FROM dead WHERE segment = ? AND block = ?', segment, block)
      }
      for (const { segment, block, size } of duplicates) {
        db.run('INSERT INTO dead VALUES (?, ?, ?)', segment, block, size)
      }
      for (const segment of segments) recordSegment(db, segment)
      recorded = true
      return true
    },
    confirm: () => {
      confirmed = recorded
    },
    [Symbol.dispose]: () => {
      for (const segment of segments) releaseSegment(segment, confirmed)
      segments.length = 0
      spare = buffer.bytes
    },
  }
}

export interface Place extends Location {
  readonly size: number
}

export interface Finder {
  /** Where the store has it. */
  readonly lookup: (digest: Uint8Array) => Place | undefined
  /** Its number in the list, to which it is added when the store has it. */
  readonly find: (digest: Uint8Array) => number | undefined
  /** Adds to the list those that the store has; whether it has all. */
  readonly lookUp: (digests: Buffer) => boolean
}

/** `known` gets the numbers of those that were in the store. */
export function createFinder(db: Database, list: ContentList, known: number[]): Finder {
  const select = db.columns('SELECT segment, block, size FROM contents WHERE digest = ?')
  const lookup = (digest: Uint8Array): Place | undefined => {
    const row = select(digest)
    return row && { segment: Number(row[0]), block: Number(row[1]), size: Number(row[2]) }
  }
  const index = createIndex(db, lookup)
  const find = (digest: Uint8Array): number | undefined => {
    const number = list.find(digest)
    if (number !== undefined) return number
    const place = index(digest)
    if (place === undefined) return undefined
    const added = list.add(digest, place.size, place)
    known.push(added)
    return added
  }
  const lookUp = (digests: Buffer): boolean => {
    const missing = new Set<string>()
    for (let at = 0; at < digests.length; at += DIGEST_BYTES) {
      if (list.find(digests.subarray(at, at + DIGEST_BYTES)) === undefined)
        missing.add(digests.toString('hex', at, at + DIGEST_BYTES))
    }
    if (missing.size === 0) return true
    const found = readSome(db, missing, list)
    known.push(...found)
    return found.length === missing.size
  }
  return { lookup, find, lookUp }
}

/** Looks up one by one (8 us) until reading all at once (0.7 us each) has become the quicker way. */
function createIndex(
  db: Database,
  lookup: (digest: Uint8Array) => Place | undefined,
): (digest: Uint8Array) => Place | undefined {
  let lookups = 0
  let next = 512
  let all: ContentList | undefined
  return (digest) => {
    if (all === undefined && ++lookups === next) {
      const rows = Number(db.get('SELECT count(*) AS count FROM contents')?.['count'])
      if (lookups * ALL_AT_ONCE >= rows) all = readAll(db, rows)
      else next = Math.ceil(rows / ALL_AT_ONCE)
    }
    if (all === undefined) return lookup(digest)
    const number = all.find(digest)
    return number === undefined ? undefined : { ...all.location(number), size: all.size(number) }
  }
}

/** So many can be read in the time of one look-up. */
const ALL_AT_ONCE = 12
/** A digest, and in big-endian order segment, block (4 each), size (8). */
const PACKED_ROW = DIGEST_BYTES + 16
const ROWS_IN_PART = 16_384
const BEYOND_ALL = Buffer.alloc(DIGEST_BYTES + 1, 0xff)

/**
 * What others record after it is missing, which `record` finds out; what is taken away changes the generation. In a few long texts, since a row of its own for
 * each takes three times as long.
 */
function readAll(db: Database, rows: number): ContentList {
  const select = db.columns(`SELECT ${PACKED_ROWS} FROM contents WHERE digest >= ? AND digest < ?`)
  const all = new ContentList(rows)
  const parts = Math.min(256, Math.ceil(rows / ROWS_IN_PART))
  const bound = (part: number): Buffer =>
    part === parts ? BEYOND_ALL : Buffer.of(Math.ceil((part * 256) / parts))
  for (let part = 0; part < parts; part++) addRows(select(bound(part), bound(part + 1)), all)
  return all
}

/** Those of these digests, in hexadecimal, that are there. Their numbers in the list to which they are added. */
function readSome(db: Database, digests: ReadonlySet<string>, list: ContentList): number[] {
  const select = db.columns(
    `SELECT ${PACKED_ROWS} FROM json_each(?) CROSS JOIN contents ON digest = unhex(value)`,
  )
  return addRows(select(JSON.stringify([...digests])), list)
}

const PACKED_ROWS = "group_concat(hex(digest) || printf('%08X%08X%016X', segment, block, size), '')"

function addRows(row: readonly unknown[] | undefined, list: ContentList): number[] {
  const text = row?.[0]
  const packed = Buffer.from(typeof text === 'string' ? text : '', 'hex')
  const numbers: number[] = []
  for (let at = 0; at < packed.length; at += PACKED_ROW) {
    const digestEnd = at + DIGEST_BYTES
    const size = packed.readUInt32BE(digestEnd + 8) * 2 ** 32 + packed.readUInt32BE(digestEnd + 12)
    const place = { segment: packed.readUInt32BE(digestEnd), block: packed.readUInt32BE(digestEnd + 4) }
    numbers.push(list.add(packed.subarray(at, digestEnd), size, place))
  }
  return numbers
}

const ROWS_AT_ONCE = 64
const RECORDS_AT_ONCE = 16_384

/** For `insertContents`: with a fresh buffer for each of a million, the collector falls behind by 100 MB. */
const digestsAtOnce = Array.from({ length: ROWS_AT_ONCE }, () => Buffer.alloc(DIGEST_BYTES))

/** False when one of them is there already. */
export function insertContents(db: Database, list: ContentList, contents: readonly number[]): boolean {
  for (let from = 0; from < contents.length; from += ROWS_AT_ONCE) {
    const values: (Buffer | number)[] = []
    for (const [i, digest] of digestsAtOnce.entries()) {
      const number = contents[from + i]
      if (number === undefined) break
      list.copyDigest(number, digest)
      values.push(digest, list.segment(number), list.block(number), list.size(number))
    }
    const rows = values.length / 4
    const sql = `INSERT OR IGNORE INTO contents VALUES ${'(?, ?, ?, ?), '.repeat(rows).slice(0, -2)}`
    if (db.run(sql, ...values) < rows) return false
  }
  return true
}

/** A disk that is nearly full takes a part, and the rest is an error. */
function writeAll(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
}

/** Counts the transactions that took contents away or moved them. */
export function generationOf(db: Database): number {
  return Number(db.get("SELECT value FROM meta WHERE key = 'generation'")?.['value'] ?? 0)
}

/** One that has room, locked. To be released. */
export function acquireSegment(paths: StorePaths, db: Database): OpenSegment {
  return openFree(paths, db) ?? createNew(paths, db)
}

/** What was written to them, and their sidecars, are durable when it resolves. */
export async function syncSegments(
  paths: StorePaths,
  segments: readonly OpenSegment[],
  list: ContentList,
): Promise<void> {
  const files = segments.flatMap((segment) => {
    if (segment.written.length === 0) return []
    ftruncateSync(segment.fd, segment.end)
    const buffer = Buffer.allocUnsafe(Math.min(segment.written.length, RECORDS_AT_ONCE) * RECORD_BYTES)
    for (let from = 0; from < segment.written.length; from += RECORDS_AT_ONCE) {
      const records = formatRecords(list, segment.written.slice(from, from + RECORDS_AT_ONCE), buffer)
      writeAll(segment.sidecar, records, (segment.records + from) * RECORD_BYTES)
    }
    return [segment.fd, segment.sidecar]
  })
  const directory = segments.some(({ isNew }) => isNew)
    ? [openSync(paths.segments, O_RDONLY | O_DIRECTORY)]
    : []
  try {
    await Promise.all([...files, ...directory].map((fd) => fsyncLater(fd)))
  } finally {
    for (const fd of directory) closeSync(fd)
  }
}

/** Inside a transaction. */
export function recordSegment(db: Database, { id, end, records, written }: OpenSegment): void {
  db.run('UPDATE segments SET length = ?, records = ? WHERE id = ?', end, records + written.length, id)
}

export function releaseSegment(segment: OpenSegment, isRecorded: boolean): void {
  const { fd, sidecar, start, end, records, written } = segment
  // Also of one that counts, a large content may have been written before it was known to be there already.
  ftruncateSync(fd, isRecorded ? end : start)
  ftruncateSync(sidecar, (records + (isRecorded ? written.length : 0)) * RECORD_BYTES)
  closeSync(sidecar)
  closeSync(fd)
}

/** One that has room and that nobody is writing to. */
function openFree(paths: StorePaths, db: Database): OpenSegment | undefined {
  for (const row of db.all('SELECT id FROM segments WHERE length < ? AND retired = 0 ORDER BY id', FULL)) {
    const opened = openSegment(paths, db, Number(row['id']), 0)
    if (opened !== undefined) return opened
  }
  return undefined
}

function createNew(paths: StorePaths, db: Database): OpenSegment {
  for (;;) {
    const id = db.transaction(() => {
      db.run('INSERT INTO segments (length, records) VALUES (0, 0)')
      return Number(db.get('SELECT last_insert_rowid() AS id')?.['id'])
    })
    const opened = openSegment(paths, db, id, O_CREAT)
    if (opened !== undefined) return opened
  }
}

/** Locked, and as long as the index says; `undefined` when somebody has it, or it is gone. */
function openSegment(paths: StorePaths, db: Database, id: number, flags: number): OpenSegment | undefined {
  let fd
  try {
    fd = openSync(segmentPath(paths, id), O_RDWR | flags, 0o600)
  } catch (error) {
    if (flags === 0 && isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  let sidecar
  try {
    const row = flock(fd, 'exclusive')
      ? db.get('SELECT length, records FROM segments WHERE id = ? AND retired = 0', id)
      : undefined
    if (row === undefined) {
      closeSync(fd)
      return undefined
    }
    sidecar = openSync(sidecarPath(paths, id), O_RDWR | O_CREAT, 0o600)
    const [start, records] = [Number(row['length']), Number(row['records'])]
    if (fstatSync(fd).size > start) ftruncateSync(fd, start)
    if (fstatSync(sidecar).size > records * RECORD_BYTES) ftruncateSync(sidecar, records * RECORD_BYTES)
    return { id, fd, sidecar, isNew: start === 0, start, records, end: start, written: [] }
  } catch (error) {
    if (sidecar !== undefined) closeSync(sidecar)
    closeSync(fd)
    throw error
  }
}
