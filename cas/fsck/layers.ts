/** Every layer: its recipe, the contents that it names, the tar that comes out, the index image that is mounted. */
import { readdirSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { bootId } from '../drivers/trees.ts'
import { layoutOf } from '../drivers/erofs.ts'
import { rebuildImage } from '../drivers/rebuild.ts'
import { locatorOf } from '../contents/lookup.ts'
import { generationOf } from '../contents/segments.ts'
import { createComparison, type Comparison } from '../hashing/midstates.ts'
import { canContinue } from '../hashing/sha256.ts'
import { readLayer, type ReadLayer } from '../layer/read.ts'
import type { DiffId } from '../oci.ts'
import { readRecipe } from '../recipe/read.ts'
import type { Row } from '../store/database.ts'
import { enterEpoch } from '../store/epoch.ts'
import { streamLayer } from '../store/layer-tar.ts'
import { midstatesOf } from '../store/midstates.ts'
import { recipePath } from '../store/paths.ts'
import { mendContent } from './contents.ts'
import { compareImage } from './index-image.ts'
import { VALID, wrongMidstates } from './rows.ts'
import type { Pass, ProblemCode } from './types.ts'

const PAGE = 64

export async function checkLayers(pass: Pass): Promise<void> {
  const { db } = pass.context
  let after = ''
  for (;;) {
    const page = db.all(
      `SELECT diff_id FROM layers WHERE diff_id > ? AND ${VALID.layers.rule} ORDER BY diff_id LIMIT ${PAGE}`,
      after,
    )
    for (const row of page) await checkLayer(pass, String(row['diff_id']) as DiffId)
    if (page.length < PAGE) break
    after = String(page.at(-1)?.['diff_id'])
  }
  checkSegmentRows(pass)
  checkTrees(pass)
}

interface Wrong {
  readonly code: ProblemCode
  readonly what: string
  readonly missing?: readonly Buffer[]
  /** What the row should say. */
  readonly row?: { readonly size: number; readonly opaqueRoot: number; readonly hasRoot: number }
}

async function checkLayer(pass: Pass, diffId: DiffId): Promise<void> {
  const { db, paths } = pass.context
  const read = (): Row | undefined => db.get('SELECT * FROM layers WHERE diff_id = ?', diffId)
  for (let attempt = 0; ; attempt++) {
    using _ = enterEpoch(paths, db)
    const row = read()
    if (row === undefined) return
    const generation = generationOf(db)
    const wrong = await examineLayer(pass, diffId, row)
    if (wrong.length === 0) return
    // It may have been taken away, or its contents moved, while it was looked at.
    const isSame = db.transaction(() => generationOf(db) === generation && read()?.['image'] === row['image'])
    if (!isSame && attempt < 10) continue
    for (const one of wrong) {
      if (one.code === 'ROW_INVALID') pass.findings.push(wrongMidstates(db, diffId))
      else report(pass, diffId, row, one)
    }
    return
  }
}

/** What is wrong with it. Holds for the index as it was at the beginning. */
async function examineLayer(pass: Pass, diffId: DiffId, row: Row): Promise<Wrong[]> {
  const { db, paths } = pass.context
  const recipe = recipePath(paths, diffId)
  const missing: Buffer[] = []
  const sizes: number[] = []
  const lookup = db.columns('SELECT segment, block, size FROM contents WHERE digest = ?')
  let layer: ReadLayer
  let tarBytes = 0
  try {
    layer = readLayer(recipe, (digest) => {
      const found = lookup(digest)
      sizes.push(Number(found?.[2] ?? -1))
      if (found === undefined) missing.push(Buffer.from(digest))
      return { segment: Number(found?.[0] ?? 0), block: Number(found?.[1] ?? 0) }
    })
    if (pass.quick) tarBytes = bytesOf(recipe)
  } catch (error) {
    return [{ code: 'LAYER_RECIPE_DAMAGED', what: `The recipe of a layer cannot be read: ${reason(error)}` }]
  }
  await pass.breathe()
  if (missing.length > 0) {
    const first = missing[0]?.toString('hex') ?? ''
    const rest = missing.length === 1 ? '' : ` and ${missing.length - 1} more contents`
    return [
      {
        code: 'LAYER_CONTENT_MISSING',
        what: `A layer needs the content sha256:${first}${rest}, which the index does not have.`,
        missing,
      },
    ]
  }
  const wrong: Wrong[] = []
  const other = sizes.findIndex((size, i) => size !== layer.contents.size(i))
  if (other >= 0) {
    const digest = Buffer.from(layer.contents.digest(other))
    const what = `A layer needs ${layer.contents.size(other)} bytes of the content sha256:${digest.toString('hex')}; the index says that it has ${sizes[other]}.`
    return [{ code: 'LAYER_CONTENT_MISSING', what, missing: [digest] }]
  }
  if (!pass.quick) {
    try {
      const midstates = midstatesOf(db, diffId)
      const comparison = midstates.length > 0 && canContinue() ? createComparison(midstates) : undefined
      tarBytes = await streamThrough(pass, diffId, comparison)
      if (comparison?.isSame === false) wrong.push({ code: 'ROW_INVALID', what: 'its midstates' })
    } catch (error) {
      return [{ code: 'LAYER_DAMAGED', what: `The tar of a layer cannot be made: ${reason(error)}` }]
    }
  }
  const { opaqueRoot, hasRoot } = layer.applied
  const should = { size: tarBytes, opaqueRoot: Number(opaqueRoot), hasRoot: Number(hasRoot) }
  if (
    row['size'] !== should.size ||
    row['opaque_root'] !== should.opaqueRoot ||
    row['has_root'] !== should.hasRoot
  ) {
    const what =
      'What the index says of a layer is not what its recipe says (bytes of the tar, or what it has of the root).'
    wrong.push({ code: 'LAYER_ROW_WRONG', what, row: should })
  }
  const image = row['image'] === null ? undefined : examineImage(pass, diffId, String(row['image']), layer)
  if (image !== undefined) wrong.push(image)
  return wrong
}

/** Of the tar, as the recipe has it. */
function bytesOf(recipe: string): number {
  let bytes = 0
  for (const operation of readRecipe(recipe)) {
    if (operation.kind !== 'keep')
      bytes += operation.kind === 'literal' ? operation.bytes.length : operation.length
  }
  return bytes
}

/** What an export does: throws when the tar is not the layer's. */
async function streamThrough(pass: Pass, diffId: DiffId, hash?: Comparison): Promise<number> {
  let bytes = 0
  for await (const part of streamLayer(pass.context, diffId, hash)) {
    bytes += part.length
    pass.read(part.length)
    await pass.breathe()
  }
  return bytes
}

function examineImage(pass: Pass, diffId: DiffId, name: string, layer: ReadLayer): Wrong | undefined {
  const { db, paths } = pass.context
  const segments = db
    .all(
      `SELECT segment FROM layer_segments WHERE diff_id = ? AND ${VALID.layer_segments.rule} ORDER BY device`,
      diffId,
    )
    .map((row) => Number(row['segment']))
  const endOf = (segment: number): number =>
    Number(
      db.get(`SELECT length FROM segments WHERE id = ? AND ${VALID.segments.rule}`, segment)?.['length'] ?? 0,
    )
  const isNamedForIt = name.startsWith(`${diffId.slice('sha256:'.length)}.`) && !name.includes('/')
  const found = isNamedForIt
    ? compareImage(join(paths.layers, name), name, layer, segments, endOf)
    : 'missing'
  if (found === 'same') return undefined
  return found === 'missing'
    ? { code: 'LAYER_IMAGE_MISSING', what: 'The index image of a layer is not there.' }
    : { code: 'LAYER_IMAGE_DAMAGED', what: 'The index image of a layer is not what its recipe makes.' }
}

/** Ours, the system's, or the database's; anything else is a bug of this check. */
function reason(error: unknown): string {
  if (error instanceof TbuildError) return error.message
  if (typeof error === 'object' && error !== null && 'code' in error && 'message' in error) {
    if ('errno' in error || error.code === 'ERR_OUT_OF_RANGE') return `${String(error.message)}.`
  }
  throw error
}

function report(pass: Pass, diffId: DiffId, row: Row, wrong: Wrong): void {
  const { context, findings, badContents } = pass
  const hex = diffId.slice('sha256:'.length)
  const isImage = wrong.code === 'LAYER_IMAGE_DAMAGED' || wrong.code === 'LAYER_IMAGE_MISSING'
  for (const digest of wrong.missing ?? []) badContents.add(digest.toString('hex'))
  findings.push({
    code: wrong.code,
    what: wrong.what,
    where:
      wrong.code === 'LAYER_ROW_WRONG'
        ? `index.db: layers ${diffId}`
        : `layers/${isImage ? String(row['image']) : `${hex}.recipe`}`,
    repair: isImage
      ? 'make it anew from the recipe'
      : wrong.row !== undefined
        ? 'record what the recipe says'
        : 'get the layer again from its compressed form, if the store has it; else it is lost, and the images of it',
    affects: { layer: diffId },
    mend: async () => {
      const { db } = context
      const { row: should } = wrong
      if (should !== undefined) {
        const sql = 'UPDATE layers SET size = ?, opaque_root = ?, has_root = ? WHERE diff_id = ?'
        db.run(sql, should.size, should.opaqueRoot, should.hasRoot, diffId)
      } else if (isImage) await mendImage(pass, diffId)
      else await mendLayer(pass, diffId, wrong.missing ?? [])
    },
  })
}

async function mendImage(pass: Pass, diffId: DiffId): Promise<void> {
  const { context, driver } = pass
  const { db, paths } = context
  const row = db.get('SELECT * FROM layers WHERE diff_id = ?', diffId)
  if (row === undefined) return
  // What was mended before may have been what was wrong.
  const wrong = await examineLayer({ ...pass, quick: true }, diffId, row)
  if (!wrong.some(({ code }) => code === 'LAYER_IMAGE_DAMAGED' || code === 'LAYER_IMAGE_MISSING')) return
  db.transaction(() => {
    context.hold([diffId])
    db.run('UPDATE layers SET image = NULL WHERE diff_id = ?', diffId)
    db.run('DELETE FROM layer_segments WHERE diff_id = ?', diffId)
    const name = String(row['image'])
    if (/^[0-9a-f.]+\.erofs$/.test(name)) rmSync(join(paths.layers, name), { force: true })
  })
  await rebuildImage(context, driver(), diffId)
}

async function mendLayer(pass: Pass, diffId: DiffId, missing: readonly Buffer[]): Promise<void> {
  const { db, paths } = pass.context
  for (const digest of missing) await mendContent(pass, digest)
  const row = db.get('SELECT * FROM layers WHERE diff_id = ?', diffId)
  if (row === undefined) return
  const wrong = await examineLayer({ ...pass, quick: false }, diffId, row)
  const worst = wrong.find(
    ({ code }) =>
      code === 'LAYER_RECIPE_DAMAGED' || code === 'LAYER_CONTENT_MISSING' || code === 'LAYER_DAMAGED',
  )
  if (worst === undefined) return
  dropLayer(pass, diffId)
  if (worst.code !== 'LAYER_CONTENT_MISSING')
    rmSync(recipePath(paths, diffId), { force: true, recursive: true })
  await pass.restore(diffId)
}

/** Images that have it are judged for themselves, when it has not come back. */
function dropLayer({ context: { db } }: Pass, diffId: DiffId): void {
  db.transaction(() => {
    db.run('DELETE FROM layers WHERE diff_id = ?', diffId)
    db.run('DELETE FROM layer_segments WHERE diff_id = ?', diffId)
    db.run('DELETE FROM trees WHERE diff_id = ?', diffId)
    // For collection: contents that only it needed.
    db.run("INSERT OR REPLACE INTO meta VALUES ('unmarked', 1)")
  })
}

/** Puts a layer into the index whose recipe and contents are there. False when they are not. */
export async function adoptLayer(pass: Pass, diffId: DiffId): Promise<boolean> {
  const { context } = pass
  const { db, paths } = context
  using _ = enterEpoch(paths, db)
  const now = Date.now()
  const row = { size: -1, opaque_root: 0, has_root: 0, image: null }
  const whole = { ...pass, quick: false }
  for (let attempt = 0; attempt < 2; attempt++) {
    const wrong = await examineLayer(whole, diffId, row)
    const lacking = wrong.find(({ missing }) => missing !== undefined)?.missing
    if (lacking !== undefined && attempt === 0) {
      for (const digest of lacking) await mendContent(pass, digest)
      continue
    }
    const should = wrong.find(({ code }) => code === 'LAYER_ROW_WRONG')?.row
    if (should === undefined) return false
    db.transaction(() => {
      const sql = 'INSERT OR IGNORE INTO layers VALUES (?, ?, NULL, ?, ?, ?, ?)'
      db.run(sql, diffId, should.size, should.opaqueRoot, should.hasRoot, now, now)
      context.hold([diffId])
    })
    adoptImage(pass, diffId)
    return true
  }
  return false
}

/** An index image of it that is what its recipe makes; else one is made when the layer is mounted. */
function adoptImage({ context: { db, paths } }: Pass, diffId: DiffId): void {
  const prefix = `${diffId.slice('sha256:'.length)}.`
  const names = readdirSync(paths.layers).filter((name) => name.startsWith(prefix) && name.endsWith('.erofs'))
  if (names.length === 0) return
  db.transaction(() => {
    const layer = readLayer(recipePath(paths, diffId), locatorOf(db))
    const { segments } = layoutOf(layer.contents)
    const name = names.find(
      (one) => compareImage(join(paths.layers, one), one, layer, segments, () => 0) === 'same',
    )
    if (name === undefined) return
    db.run('UPDATE layers SET image = ? WHERE diff_id = ?', name, diffId)
    for (const [i, segment] of segments.entries()) {
      db.run('INSERT OR REPLACE INTO layer_segments VALUES (?, ?, ?)', diffId, i + 1, segment)
    }
  })
}

/** Rows of devices that no image has. */
function checkSegmentRows(pass: Pass): void {
  const { db } = pass.context
  const of = 'SELECT diff_id FROM layers WHERE image IS NOT NULL'
  for (const row of db.all(`SELECT DISTINCT diff_id FROM layer_segments WHERE diff_id NOT IN (${of})`)) {
    const diffId = String(row['diff_id']) as DiffId
    pass.findings.push({
      code: 'LAYER_SEGMENTS_WRONG',
      what: 'The index names segments for an index image that no layer has.',
      where: `index.db: layer_segments ${diffId}`,
      repair: 'remove the rows',
      affects: { layer: diffId },
      mend: () =>
        void db.run(`DELETE FROM layer_segments WHERE diff_id = ? AND diff_id NOT IN (${of})`, diffId),
    })
  }
}

/** Directories that the `copy` driver made, and would open. What is in them nobody has promised. */
function checkTrees(pass: Pass): void {
  const { db, paths } = pass.context
  const look = (): Row[] =>
    db
      .all(`SELECT diff_id, name FROM trees WHERE boot = ? AND ${VALID.trees.rule}`, bootId())
      .filter(
        (row) =>
          statSync(join(paths.trees, String(row['name'])), { throwIfNoEntry: false })?.isDirectory() !== true,
      )
  if (look().length === 0) return
  for (const row of db.transaction(look)) {
    const diffId = String(row['diff_id']) as DiffId
    pass.findings.push({
      code: 'LAYER_TREE_MISSING',
      what: 'The directory of a layer is not there.',
      where: `trees/${String(row['name'])}`,
      repair: 'forget it: it is made anew when it is needed',
      affects: { layer: diffId },
      mend: () =>
        void db.run('DELETE FROM trees WHERE diff_id = ? AND name = ?', diffId, row['name'] ?? null),
    })
  }
}
