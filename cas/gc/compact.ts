/**
 * Compaction: the contents of segments that hold much more than contents are copied into others, and the old segments go as files.
 *
 * (1) Each content is verified while it is copied, and the copies become durable. (2) Index images of the layers that read the old segments are made over the new
 * places. (3) In one durable transaction contents move, images are switched, the old segments are retired and a new epoch begins. Before it nothing has
 * changed, after it nothing that is recorded names the old segments. (4) When the older ingests have ended, they go, and the old images: a mount of one goes on
 * reading its unlinked files, which is why a retired segment gets no holes.
 *
 * What cannot be moved (a damaged content, a layer whose recipe is damaged) stays where it is, and its segment with it.
 */
import { closeSync, rmSync, statfsSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import type { Location } from '../contents/list.ts'
import { locatorOf } from '../contents/lookup.ts'
import { FULL } from '../contents/segments.ts'
import { placeImage } from '../drivers/place-image.ts'
import type { Driver, IndexImage } from '../drivers/types.ts'
import { readLayer } from '../layer/read.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import { beginEpoch, enterEpoch } from '../store/epoch.ts'
import { recipePath, segmentPath } from '../store/paths.ts'
import { syncDirectory } from '../store/spool.ts'
import { fileBlocks } from './allocated.ts'
import { ContentCopier } from './copy.ts'
import { lockSegment } from './free.ts'
import { readSegments, type SegmentState } from './segments.ts'
import { bumpGeneration } from './unrecord.ts'

/** A layer of more is compacted (the kernel mounts ten thousand in 75 ms, and 2,000 in 22). */
export const MOST_SEGMENTS = 1024
/** A segment whose blocks hold so much that is no content, by share and in bytes, is worth to be copied. */
const WASTE_SHARE = 1 / 4
const LEAST_WASTE = 4 * 1024 * 1024
/** At most so much at once: each layer that reads a segment gets a new image. */
const MOST_BYTES = 4 * FULL
const MOST_CONTENTS = 200_000

/** @param everything also where little is to be won */
export function chooseVictims({ db, paths }: StoreContext, everything: boolean): SegmentState[] {
  const segments = readSegments(db)
  const chosen = new Set<number>()
  for (const segment of segments.values()) {
    if (segment.contents === 0) continue
    // Less than the contents where the file system keeps the file in fewer blocks.
    const waste = fileBlocks(segmentPath(paths, segment.id)) - segment.liveBytes
    const isWorth = everything
      ? waste >= 4096 || segment.isRetired
      : waste >= LEAST_WASTE && waste >= segment.liveBytes * (WASTE_SHARE / (1 - WASTE_SHARE))
    if (isWorth) chosen.add(segment.id)
  }
  for (const id of ofCrowdedLayers(db, segments)) chosen.add(id)
  return withinBounds(
    [...chosen].flatMap((id) => segments.get(id) ?? []),
    freeBytes(paths.root),
  )
}

/** Of layers that read too many segments, the smallest, until half as many are left. */
function ofCrowdedLayers(db: Database, segments: ReadonlyMap<number, SegmentState>): Set<number> {
  const chosen = new Set<number>()
  const crowded = db.all(
    `SELECT diff_id FROM layer_segments GROUP BY diff_id HAVING count(*) > ${MOST_SEGMENTS}`,
  )
  for (const { diff_id } of crowded) {
    const own = db
      .all('SELECT segment FROM layer_segments WHERE diff_id = ?', String(diff_id))
      .flatMap(({ segment }) => segments.get(Number(segment)) ?? [])
      .toSorted((a, b) => a.liveBytes - b.liveBytes)
    for (const { id } of own.slice(0, own.length - MOST_SEGMENTS / 2)) chosen.add(id)
  }
  return chosen
}

function withinBounds(segments: readonly SegmentState[], free: number): SegmentState[] {
  const chosen: SegmentState[] = []
  let bytes = 0
  let contents = 0
  for (const segment of segments) {
    bytes += segment.liveBytes
    contents += segment.contents
    if (bytes > Math.min(MOST_BYTES, free / 2) || (contents > MOST_CONTENTS && chosen.length > 0)) break
    chosen.push(segment)
  }
  return chosen
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path)
  return bavail * bsize
}

export interface Compacted {
  readonly segments: number
  /** What the copies and the new images take on the disk. */
  readonly writtenBytes: number
}

const NOTHING: Compacted = { segments: 0, writtenBytes: 0 }

/** Empties segments. Older ingests must have ended; `freeDead` and `sweep` free what is left when those of this epoch have, too. */
export async function compact(
  context: StoreContext,
  driver: Driver,
  victims: readonly SegmentState[],
): Promise<Compacted> {
  const { db, paths } = context
  await using own = new AsyncDisposableStack()
  // Nothing that is copied is freed meanwhile.
  own.use(enterEpoch(paths, db))
  const copier = own.use(new ContentCopier(paths, db))
  const sources = new Map<number, number>()
  own.defer(() => {
    for (const fd of sources.values()) closeSync(fd)
  })
  for (const { id } of victims) {
    // Somebody may be adding to it.
    const fd = lockSegment(paths, id)
    if (fd !== undefined) sources.set(id, fd)
  }
  const images = new Map<DiffId, IndexImage>()
  own.defer(() => {
    for (const { path } of images.values()) rmSync(path, { force: true })
  })
  let damaged: ReadonlySet<string>
  try {
    await copyAll(db, sources, copier)
    if (copier.list.count === 0) return NOTHING
    damaged = await makeImages(context, driver, sources, copier, images)
  } catch (error) {
    // No room for the copies, or one cannot be read: all is as it was.
    if (isErrno(error, 'ENOSPC', 'EDQUOT', 'EIO')) return NOTHING
    throw error
  }
  const imageBytes = [...images.values()].reduce((bytes, { path }) => bytes + fileBlocks(path), 0)
  db.durably(() => {
    move(db, copier)
    switchImages(context, sources, images, damaged)
    for (const id of sources.keys()) db.run('UPDATE segments SET retired = 1 WHERE id = ?', id)
    bumpGeneration(db)
    beginEpoch(db)
  })
  copier.confirm()
  return { segments: sources.size, writtenBytes: copier.writtenBytes + imageBytes }
}

/** In the order in which they stand there. */
async function copyAll(
  db: Database,
  sources: ReadonlyMap<number, number>,
  copier: ContentCopier,
): Promise<void> {
  const found: { digest: Buffer; segment: number; block: number; size: number }[] = []
  for (const [digest, ...place] of db.scan('SELECT digest, segment, block, size FROM contents')) {
    const [segment, block, size] = place.map(Number) as [number, number, number]
    if (sources.has(segment)) found.push({ digest: Buffer.from(digest as Uint8Array), segment, block, size })
  }
  let last = performance.now()
  for (const { digest, segment, block, size } of found.toSorted(
    (a, b) => a.segment - b.segment || a.block - b.block,
  )) {
    copier.copy(sources.get(segment) ?? -1, digest, size, { segment, block })
    if (performance.now() - last < 20) continue
    await new Promise(setImmediate)
    last = performance.now()
  }
  await copier.sync()
}

/** Of the layers that read these segments. Returns those whose recipes are damaged. */
async function makeImages(
  context: StoreContext,
  driver: Driver,
  sources: ReadonlyMap<number, number>,
  copier: ContentCopier,
  images: Map<DiffId, IndexImage>,
): Promise<ReadonlySet<string>> {
  const { db, paths } = context
  const damaged = new Set<string>()
  const locateOthers = locatorOf(db)
  const locate = (digest: Buffer): Location | undefined => {
    const copied = copier.list.find(digest)
    return copied === undefined ? locateOthers(digest) : copier.list.location(copied)
  }
  for (const diffId of layersOn(db, sources)) {
    try {
      const { tree, contents } = readLayer(recipePath(paths, diffId), locate)
      const image = await driver.index(tree, contents)
      if (image !== undefined) images.set(diffId, image)
    } catch (error) {
      if (!(error instanceof TbuildError) || error.code !== 'STORE_CORRUPT') throw error
      damaged.add(diffId)
    }
    await new Promise(setImmediate)
  }
  return damaged
}

function layersOn(db: Database, segments: ReadonlyMap<number, unknown>): DiffId[] {
  const found = new Set<DiffId>()
  for (const row of db.all('SELECT diff_id, segment FROM layer_segments'))
    if (segments.has(Number(row['segment']))) found.add(String(row['diff_id']) as DiffId)
  return [...found]
}

function move(db: Database, copier: ContentCopier): void {
  const { list } = copier
  const sql = 'UPDATE contents SET segment = ?, block = ? WHERE digest = ?'
  for (let content = 0; content < list.count; content++) {
    const { segment, block } = list.location(content)
    if (db.run(sql, segment, block, list.digest(content)) === 0)
      db.run('INSERT INTO dead VALUES (?, ?, ?)', segment, block, list.size(content))
  }
  copier.record()
}

/** A layer that came meanwhile, or whose driver makes no images, gets one when it is next mounted. */
function switchImages(
  context: StoreContext,
  sources: ReadonlyMap<number, number>,
  images: ReadonlyMap<DiffId, IndexImage>,
  damaged: ReadonlySet<string>,
): void {
  for (const diffId of layersOn(context.db, sources)) {
    if (damaged.has(diffId)) continue
    placeImage(context, diffId, images.get(diffId))
  }
  if (images.size > 0) syncDirectory(context.paths.layers)
}
