/** What is in the segments: which have nothing, and which hold more blocks than contents. */
import { statSync } from 'node:fs'
import { BLOCK } from '../contents/reader.ts'
import type { Database } from '../store/database.ts'
import type { StorePaths } from '../store/paths.ts'

export interface SegmentState {
  readonly id: number
  /** What the index has. */
  readonly length: number
  readonly records: number
  /** Its contents have been copied elsewhere; old mounts may still read it. Nothing is added to it, and no hole is punched. */
  readonly isRetired: boolean
  contents: number
  /** Of its contents, each rounded up to 512. */
  liveBytes: number
}

/** Reads the whole content table: 0.3 s for a million. */
export function readSegments(db: Database): Map<number, SegmentState> {
  const segments = new Map<number, SegmentState>()
  for (const { id, length, records, retired } of db.all(
    'SELECT id, length, records, retired FROM segments ORDER BY id',
  )) {
    segments.set(Number(id), {
      id: Number(id),
      length: Number(length),
      records: Number(records),
      isRetired: retired === 1,
      contents: 0,
      liveBytes: 0,
    })
  }
  const sums = db.all(`
    SELECT segment, count(*) AS contents, sum((size + ${BLOCK - 1}) / ${BLOCK}) AS blocks FROM contents
    WHERE segment > 0 GROUP BY segment`)
  for (const row of sums) {
    const segment = segments.get(Number(row['segment']))
    if (segment === undefined) continue
    segment.contents = Number(row['contents'])
    segment.liveBytes = Number(row['blocks']) * BLOCK
  }
  return segments
}

/** Segments that a layer's index image reads. */
export function mountableSegments(db: Database): Set<number> {
  return new Set(db.all('SELECT DISTINCT segment FROM layer_segments').map((row) => Number(row['segment'])))
}

/** Bytes of the file system's blocks, by which holes are punched. */
export function granuleOf(paths: StorePaths): number {
  return Math.max(4096, statSync(paths.segments).blksize)
}
