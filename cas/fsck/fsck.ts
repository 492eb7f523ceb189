/**
 * Checks a store, and mends it. Runs beside everything else: what it suspects is looked at again under the lock or the epoch that keeps others from
 * changing it, before it is called wrong. Nothing stays in memory but one layer's tree at a time.
 *
 * Mending goes in rounds: all that was found is mended, in the order in which it was found, and the store is looked at again, quickly, for what that
 * has uncovered (a layer without one of its contents, an image without one of its layers). What is whole is never given up; what cannot be had back is taken
 * out of the index, with what cannot be without it, so that it can come in anew.
 */
import { recipeDigests } from '../recipe/read.ts'
import type { Driver } from '../drivers/types.ts'
import { TbuildError } from '../../errors.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { recipePath } from '../store/paths.ts'
import type { BlobStore, LayerStore } from '../store/types.ts'
import { createTurns } from '../store/turns.ts'
import { checkBlobs } from './blobs.ts'
import { checkContents, checkDead } from './contents.ts'
import { checkImages } from './images.ts'
import { checkLayers } from './layers.ts'
import { checkLeases, findLeftovers } from './leftovers.ts'
import { gatherPlaces } from './places.ts'
import { restoreLayer } from './restore.ts'
import { checkRows, indexDamage, VALID } from './rows.ts'
import { checkSegments, checkSidecars } from './segments.ts'
import type { Finding, FsckOptions, FsckProblem, FsckReport, Pass } from './types.ts'

export interface FsckParts {
  readonly context: StoreContext
  readonly blobs: BlobStore
  readonly layers: LayerStore
  readonly driver: () => Driver
}

/** Each takes a step further: content, layer, image, name. */
const MOST_ROUNDS = 6

export async function fsck(parts: FsckParts, options: FsckOptions = {}): Promise<FsckReport> {
  const { db } = parts.context
  const { quick = false, repair = false, signal, onProgress } = options
  const started = performance.now()
  let done = 0
  let total = 0
  const lost = new Set<string>()
  const breathe = createTurns(signal, () => onProgress?.(Math.min(done, total), total))
  const startPass = (isQuick: boolean): Pass => ({
    context: parts.context,
    driver: parts.driver,
    restore: (diffId) => restoreLayer(parts.context, parts.blobs, parts.layers, diffId),
    quick: isQuick,
    findings: [],
    badContents: new Set(),
    breathe,
    read: (bytes) => (done += bytes),
    lose: (names) => names.forEach((name) => lost.add(name)),
  })

  total = quick || onProgress === undefined ? 0 : bytesToRead(parts)
  const first = startPass(quick)
  await check(first)
  const problems = new Map<string, FsckProblem>()
  const note = ({ findings }: Pass, repaired: boolean): void => {
    const isReadable = !findings.some(({ code }) => code === 'INDEX_DAMAGED')
    const imagesOf = isReadable ? affectedImages(parts.context, findings) : () => []
    for (const finding of findings) {
      const { code, what, where } = finding
      const key = `${code} ${where} ${what}`
      const images = problems.get(key)?.images ?? imagesOf(finding)
      problems.set(key, { code, what, where, images, repair: finding.repair, repaired })
    }
  }
  note(first, repair)
  if (repair) {
    let pass = first
    for (let round = 0; pass.findings.length > 0 && round < MOST_ROUNDS; round++) {
      for (const { mend } of pass.findings) await mend?.()
      pass = startPass(true)
      await check(pass)
      note(pass, true)
    }
    // What is still there after all that was not mended.
    note(pass, false)
  }
  const isReadable = ![...problems.values()].some(({ code }) => code === 'INDEX_DAMAGED')
  const leftovers = isReadable ? await findLeftovers(startPass(true)) : []
  const sum = (sql: string): number => (isReadable ? Number(db.get(sql)?.['n']) : 0)
  const count = (table: string): number => sum(`SELECT count(*) AS n FROM ${table}`)
  return {
    problems: [...problems.values()],
    leftovers,
    lost: [...lost].toSorted(),
    counts: {
      contents: count('contents'),
      bytes: sum(`SELECT total(size) AS n FROM contents WHERE ${VALID.contents.rule}`),
      layers: count('layers'),
      images: count('images'),
      blobs: count('blobs'),
    },
    seconds: (performance.now() - started) / 1000,
  }
}

/** Where the index cannot be read, what it says of the rest cannot be checked. */
async function check(pass: Pass): Promise<void> {
  try {
    await checkAll(pass)
  } catch (error) {
    const why = indexError(error)
    if (why === undefined) throw error
    const isKnown = pass.findings.some(({ code }) => code === 'INDEX_DAMAGED')
    if (!isKnown) pass.findings.push(indexDamage(why))
  }
}

/** SQLITE_ERROR: no such table or column. */
const SQLITE_ERROR = 1

function indexError(error: unknown): string | undefined {
  if (error instanceof TbuildError) return error.code === 'STORE_CORRUPT' ? error.message : undefined
  if (typeof error !== 'object' || error === null || !('errcode' in error) || !('message' in error))
    return undefined
  return error.errcode === SQLITE_ERROR ? `The index cannot be asked: ${String(error.message)}.` : undefined
}

async function checkAll(pass: Pass): Promise<void> {
  checkRows(pass)
  gatherPlaces(pass.context.db, VALID.contents.rule)
  const ends = await checkSegments(pass)
  await checkContents(pass, ends)
  checkDead(pass)
  await checkBlobs(pass)
  await checkLayers(pass)
  await checkImages(pass)
  await checkSidecars(pass)
  checkLeases(pass)
}

/** Contents once for themselves, once for each layer that has them; and blobs. */
function bytesToRead({ context: { db } }: FsckParts): number {
  const sum = (table: 'contents' | 'layers' | 'blobs'): number =>
    Number(db.get(`SELECT total(size) AS n FROM ${table} WHERE ${VALID[table].rule}`)?.['n'])
  return sum('contents') + sum('layers') + sum('blobs')
}

/** Names of the images that need what a finding is about. */
function affectedImages(context: StoreContext, findings: readonly Finding[]): (finding: Finding) => string[] {
  const { db } = context
  const layersOf = layersOfContents(
    context,
    new Set(findings.flatMap(({ affects }) => affects.content ?? [])),
  )
  const column = (sql: string, value: string): string[] =>
    db.all(sql, value).map((row) => String(Object.values(row)[0]))
  const imagesOfLayer = (diffId: DiffId): string[] =>
    column('SELECT manifest FROM image_layers WHERE diff_id = ?', diffId)
  return ({ affects: { content, layer, blob, manifest } }) => {
    const images = new Set<string>(manifest === undefined ? [] : [manifest])
    for (const diffId of [
      ...(content === undefined ? [] : (layersOf.get(content) ?? [])),
      ...(layer === undefined ? [] : [layer]),
    ])
      for (const image of imagesOfLayer(diffId)) images.add(image)
    if (blob !== undefined) {
      for (const image of column('SELECT manifest FROM images WHERE manifest = ?1 OR config = ?1', blob))
        images.add(image)
      for (const diffId of column('SELECT diff_id FROM compressed WHERE digest = ?', blob))
        for (const image of imagesOfLayer(diffId as DiffId)) images.add(image)
    }
    const names = [...images].flatMap((image) => {
      const found = column('SELECT name FROM names WHERE manifest = ?', image)
      return found.length === 0 ? [image] : found
    })
    return names.toSorted()
  }
}

/** @param wanted contents, in hex */
function layersOfContents(
  { db, paths }: StoreContext,
  wanted: ReadonlySet<string>,
): ReadonlyMap<string, Set<DiffId>> {
  const found = new Map<string, Set<DiffId>>()
  if (wanted.size === 0) return found
  // Also layers that only an image names: they were taken out of the index a moment ago.
  for (const row of db.all('SELECT diff_id FROM layers UNION SELECT diff_id FROM image_layers')) {
    const diffId = String(row['diff_id']) as DiffId
    try {
      for (const digest of recipeDigests(recipePath(paths, diffId))) {
        const hex = digest.toString('hex')
        if (!wanted.has(hex)) continue
        const layers = found.get(hex) ?? new Set()
        found.set(hex, layers.add(diffId))
      }
    } catch (error) {
      // Its recipe is damaged: that is a problem of its own.
      if (!(error instanceof TbuildError)) throw error
    }
  }
  return found
}
