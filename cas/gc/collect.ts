/**
 * Garbage collection, from the choice to the blocks. One process at a time collects; all others build, pull and run meanwhile, and never wait for more
 * than one short transaction.
 *
 * 1. What nothing needs is chosen and unrecorded (plan.ts, unrecord.ts): images, layers, blobs, cache records; then contents that no layer names.
 * 2. Ingests that began before may still count on such contents, and record them again. They hold their epoch's lock; collection waits for them, or
 *    leaves the rest to the next one.
 * 3. Places of contents that are still unrecorded are freed (free.ts), and files without a record removed (sweep.ts).
 * 4. Segments that hold little else than freed places' rests are compacted (compact.ts), and step 3 is done once more.
 *
 * Before that, directories of RUN --mount=type=cache go that nobody uses; with a cap first only those that were not used for two days, and the others when all
 * else was not enough.
 *
 * A cap may need more than one round: what a choice will free is known to the file system's blocks, not to the byte.
 */
import { isErrno } from '../../linux/index.ts'
import { chooseCaches, removeCaches, type IdleCache } from '../cache-mounts/prune.ts'
import type { Driver } from '../drivers/types.ts'
import type { StoreContext } from '../store/context.ts'
import type { PruneOptions, PruneReport } from '../store/types.ts'
import { storeBytes } from './allocated.ts'
import { chooseVictims, compact } from './compact.ts'
import { remember } from './due.ts'
import { freeDead, wouldFree } from './free.ts'
import { lockCollection, olderIngestsEnded, type Waiting } from './lock.ts'
import { Marks } from './marks.ts'
import { pinsOf, type Leaving } from './pins.ts'
import { makePlan, type Policy } from './plan.ts'
import { isFull, keepReserve, makeRoom } from './room.ts'
import { readState, type Plan } from './state.ts'
import { sweep, wouldSweep } from './sweep.ts'
import { isUnmarked, unrecord, unrecordContents, wouldUnrecord, type Unrecorded } from './unrecord.ts'

export interface CollectOptions extends PruneOptions {
  /** False: what must wait, for ingests or for another collection, is left to the next one. */
  readonly wait: boolean
}

const MOST_ROUNDS = 4

/** @param driver is asked for when a segment is compacted */
export async function collect(
  context: StoreContext,
  driver: () => Driver,
  options: CollectOptions,
): Promise<PruneReport> {
  if (options.dryRun === true) return rehearse(context, options)
  using lock = await lockCollection(context.paths, options)
  if (lock === undefined) return reportOf(context, new Tally(), options)
  const tally = new Tally()
  await withRoom(context, tally, async () => {
    await removeIdle(context, options, tally, IDLE_MS)
    await run(context, driver, options, tally)
    if (options.keepBytes !== undefined) await removeIdle(context, options, tally, 0)
  })
  await shrinkIndex(context)
  keepReserve(context.paths)
  return remember(context, reportOf(context, tally, options))
}

/** With a cap, so much longer than others ask for it is unused before it goes: BuildKit's rule. */
const IDLE_MS = 48 * 3600_000

/** With a cap of so many bytes too many, those that were last used so long ago; without, all. */
function idleCaches(
  { paths }: StoreContext,
  { keepBytes, olderThanMs = 0 }: PruneOptions,
  tooMany: number | undefined,
  idleMs: number,
): IdleCache[] {
  const age = Math.max(olderThanMs, keepBytes === undefined ? 0 : idleMs)
  return chooseCaches(paths, { bytes: tooMany, before: age === 0 ? undefined : Date.now() - age })
}

async function removeIdle(
  context: StoreContext,
  options: PruneOptions,
  tally: Tally,
  idleMs: number,
): Promise<void> {
  const { keepBytes } = options
  const tooMany = keepBytes === undefined ? undefined : storeBytes(context) - keepBytes
  tally.addCaches(await removeCaches(context, idleCaches(context, options, tooMany, idleMs)))
}

async function run(
  context: StoreContext,
  driver: () => Driver,
  options: CollectOptions,
  tally: Tally,
): Promise<void> {
  const { keepBytes } = options
  for (let round = 0; round < MOST_ROUNDS; round++) {
    const bytes = keepBytes === undefined ? undefined : storeBytes(context) - keepBytes
    const plan = makePlan(context, readState(context.db), policyOf(options, bytes))
    const hasPlan = Object.values(plan as unknown as Record<string, ReadonlySet<string>>).some(
      ({ size }) => size > 0,
    )
    if (round > 0 && !hasPlan) return
    tally.add(unrecord(context, plan))
    tally.hasWaited = await settle(context, options, tally)
    if (tally.hasWaited && (await compactSome(context, driver, options, tally)))
      tally.hasWaited = await settle(context, options, tally)
    if (keepBytes === undefined || !tally.hasWaited || storeBytes(context) <= keepBytes) return
  }
}

/** Frees all that is unrecorded; false when some of it has to wait. */
async function settle(context: StoreContext, how: Waiting, tally: Tally): Promise<boolean> {
  const { db, paths } = context
  // Old images may go at any time: who is about to mount one looks again.
  tally.freedBytes += await sweep(context)
  // Also for the beginning of the next epoch.
  if (!(await olderIngestsEnded(paths, db, how))) return false
  if (isUnmarked(db)) {
    const marks = new Marks(context)
    await unrecordContents(context, marks)
    tally.damaged = marks.damaged
    if (isUnmarked(db)) return true
    if (!(await olderIngestsEnded(paths, db, how))) return false
  }
  tally.freedBytes += freeDead(context)
  return true
}

async function compactSome(
  context: StoreContext,
  driver: () => Driver,
  { compact: everything }: CollectOptions,
  tally: Tally,
): Promise<boolean> {
  const victims = chooseVictims(context, everything === true)
  if (victims.length === 0) return false
  const { segments, writtenBytes } = await compact(context, driver(), victims)
  if (segments === 0) return false
  tally.compactedSegments += segments
  tally.freedBytes -= writtenBytes
  return true
}

class Tally {
  images: PruneReport['images'] = []
  layers: PruneReport['layers'] = []
  blobs: PruneReport['blobs'] = []
  steps = 0
  cacheMounts: PruneReport['cacheMounts'] = []
  freedBytes = 0
  compactedSegments = 0
  damaged: PruneReport['damaged'] = []
  hasWaited = true

  add({ images, layers, blobs, steps }: Unrecorded): void {
    this.images = [...this.images, ...images]
    this.layers = [...this.layers, ...layers]
    this.blobs = [...this.blobs, ...blobs]
    this.steps += steps
  }

  addCaches(caches: readonly IdleCache[]): void {
    this.cacheMounts = [...this.cacheMounts, ...caches.map(({ name }) => name)]
    for (const { bytes } of caches) this.freedBytes += bytes
  }
}

function policyOf({ all = false, olderThanMs }: PruneOptions, bytes: number | undefined): Policy {
  return { all, bytes, before: olderThanMs === undefined ? undefined : Date.now() - olderThanMs }
}

function reportOf(context: StoreContext, tally: Tally, { keepBytes }: PruneOptions): PruneReport {
  const { images, layers, blobs, steps, cacheMounts, freedBytes, compactedSegments, damaged } = tally
  return {
    images,
    layers,
    blobs,
    steps,
    cacheMounts,
    freedBytes,
    compactedSegments,
    waitingBytes: tally.hasWaited ? 0 : waitingBytes(context),
    damaged,
    ...(keepBytes === undefined ? {} : { cap: capOf(context, keepBytes, storeBytes(context)) }),
  }
}

/** @param gone what would be, in a rehearsal */
function capOf(
  context: StoreContext,
  keepBytes: number,
  allocated: number,
  gone?: Leaving,
): NonNullable<PruneReport['cap']> {
  const isKept = allocated <= keepBytes
  return { keepBytes, allocatedBytes: allocated, isKept, pins: isKept ? [] : pinsOf(context, gone) }
}

function waitingBytes({ db }: StoreContext): number {
  return Number(db.get('SELECT sum(size) AS bytes FROM dead')?.['bytes'] ?? 0)
}

function rehearse(context: StoreContext, options: CollectOptions): PruneReport {
  const { db } = context
  const allocated = options.keepBytes === undefined ? 0 : storeBytes(context)
  const tooMany = (): number | undefined =>
    options.keepBytes === undefined ? undefined : allocated - options.keepBytes - tally.freedBytes
  const tally = new Tally()
  const caches = idleCaches(context, options, tooMany(), IDLE_MS)
  tally.addCaches(caches)
  let cacheBytes = bytesOf(caches)
  const plan: Plan = makePlan(context, readState(db), policyOf(options, tooMany()))
  const gone = wouldUnrecord(db, plan)
  tally.add(gone)
  const taken: { segment: number; block: number; size: number }[] = []
  const objects: string[] = []
  if (gone.layers.length > 0 || isUnmarked(db)) {
    const marks = new Marks(context, new Set(gone.layers))
    tally.damaged = marks.damaged
    const { contents } = marks
    for (const content of marks.damaged.length > 0 ? [] : marks.unneeded()) {
      if (contents.segment(content) === 0) objects.push(contents.digest(content).toString('hex'))
      else taken.push({ ...contents.location(content), size: contents.size(content) })
    }
  }
  tally.freedBytes += wouldFree(context, taken, objects) + wouldSweep(context, gone)
  if (options.keepBytes !== undefined) {
    // Those that are chosen already are chosen once more: they are the first.
    const idle = idleCaches(context, options, (tooMany() ?? 0) + bytesOf(caches), 0)
    tally.addCaches(idle.slice(caches.length))
    cacheBytes = Math.max(cacheBytes, bytesOf(idle))
  }
  const { keepBytes, ...rest } = options
  const report = reportOf(context, tally, rest)
  return keepBytes === undefined
    ? report
    : { ...report, cap: capOf(context, keepBytes, allocated - tally.freedBytes, { ...gone, cacheBytes }) }
}

function bytesOf(caches: readonly IdleCache[]): number {
  return caches.reduce((sum, { bytes }) => sum + bytes, 0)
}

/** On a full disk, what is remembered of build contexts goes first. */
async function withRoom(context: StoreContext, tally: Tally, work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    const freed = isFull(error) ? makeRoom(context.paths) : 0
    if (freed === 0) throw error
    tally.freedBytes += freed
    await work()
  }
}

const LEAST_SHRINK = 1024 * 1024

/** Gives the pages back that the index has too many of. */
async function shrinkIndex({ db }: StoreContext): Promise<void> {
  const pragma = (name: string): number => Number(Object.values(db.get(`PRAGMA ${name}`) ?? {})[0])
  const free = pragma('freelist_count') * pragma('page_size')
  if (free < LEAST_SHRINK || free * 4 < pragma('page_count') * pragma('page_size')) return
  try {
    db.run('VACUUM')
    db.get('PRAGMA wal_checkpoint(TRUNCATE)')
  } catch (error) {
    // No room for it, or somebody reads: next time.
    if (!isErrno(error, 'ERR_SQLITE_ERROR')) throw error
  }
}
