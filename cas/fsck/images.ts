/** Images and names: do they name what is there? */
import { hash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import type { BlobDigest, DiffId, ImageConfig, Manifest } from '../oci.ts'
import { assertSameLayers, MAX_CONFIG_BYTES, parseConfig, parseManifest } from '../parse-oci.ts'
import type { Database } from '../store/database.ts'
import { blobPath, type StorePaths } from '../store/paths.ts'
import { changeNames, namesSequence, readNames, rewriteNames } from '../store/names.ts'
import { adoptLayer } from './layers.ts'
import { VALID } from './rows.ts'
import type { Finding, Pass } from './types.ts'

export async function checkImages(pass: Pass): Promise<void> {
  const { db } = pass.context
  // First: what else is mended may take names away.
  checkNames(pass)
  for (const row of db.all(`SELECT manifest FROM images WHERE ${VALID.images.rule} ORDER BY manifest`)) {
    await pass.breathe()
    const manifest = String(row['manifest']) as BlobDigest
    if (examineImage(pass, manifest).length === 0) continue
    pass.findings.push(...db.transaction(() => examineImage(pass, manifest)))
  }
  checkDangling(pass)
}

/** A manifest and its config as the files have them, whatever the index says. Throws `STORE_CORRUPT`, or what parsing throws. */
export function readImage(
  paths: StorePaths,
  digest: BlobDigest,
): { readonly manifest: Manifest; readonly config: ImageConfig } {
  const manifest = parseManifest(readWhole(paths, digest))
  const config = parseConfig(readWhole(paths, manifest.config.digest))
  assertSameLayers(manifest, config)
  return { manifest, config }
}

function readWhole(paths: StorePaths, digest: BlobDigest): Buffer {
  const path = blobPath(paths, digest)
  try {
    if (statSync(path).size <= MAX_CONFIG_BYTES) {
      const bytes = readFileSync(path)
      if (`sha256:${hash('sha256', bytes)}` === digest) return bytes
    }
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EIO')) throw error
  }
  throw new TbuildError('STORE_CORRUPT', `The blob ${digest} is missing or damaged.`)
}

function examineImage(pass: Pass, digest: BlobDigest): Finding[] {
  const { db, paths } = pass.context
  const row = db.get('SELECT config FROM images WHERE manifest = ?', digest)
  if (row === undefined) return []
  const finding = (
    code: Finding['code'],
    what: string,
    repair: string,
    mend: NonNullable<Finding['mend']>,
  ): Finding => ({
    code,
    what,
    repair,
    mend,
    where: `index.db: images ${digest}`,
    affects: { manifest: digest },
  })
  let image: ReturnType<typeof readImage>
  try {
    image = readImage(paths, digest)
  } catch (error) {
    if (!(error instanceof TbuildError)) throw error
    const repair = 'take the image out of the index, with its names'
    return [
      finding('IMAGE_DAMAGED', `An image cannot be read: ${error.message}`, repair, () =>
        dropImage(pass, digest),
      ),
    ]
  }
  const found: Finding[] = []
  const config = image.manifest.config.digest
  const layers = new Set(image.config.rootfs.diff_ids)
  for (const blob of new Set([digest, config])) {
    if (db.get('SELECT 1 AS one FROM blobs WHERE digest = ?', blob) !== undefined) continue
    const what = `The index does not know the blob ${blob} of an image; its file is there.`
    found.push(finding('BLOB_MISSING', what, 'record it', () => recordBlob(db, paths, blob)))
  }
  const recorded = db
    .all('SELECT diff_id FROM image_layers WHERE manifest = ? ORDER BY diff_id', digest)
    .map((one) => String(one['diff_id']))
  const isSame = recorded.length === layers.size && recorded.every((diffId) => layers.has(diffId as DiffId))
  if (row['config'] !== config || !isSame) {
    const what = 'What the index says of an image is not what its manifest and config say.'
    const mend = (): void => recordImage(db, digest, image)
    found.push(finding('IMAGE_ROW_WRONG', what, 'record what they say', mend))
  }
  const missing = [...layers].filter(
    (diffId) => db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) === undefined,
  )
  if (missing.length > 0) {
    const rest = missing.length === 1 ? '' : ` and ${missing.length - 1} more`
    const repair =
      'record the layer again, if its recipe and contents are there, or get it from its compressed form; else take the image out of the index, with its names'
    found.push(
      finding('IMAGE_LAYER_MISSING', `An image lacks its layer ${missing[0]}${rest}.`, repair, async () => {
        if (db.get('SELECT 1 AS one FROM images WHERE manifest = ?', digest) === undefined) return
        for (const diffId of missing) if (!(await regain(pass, diffId))) return dropImage(pass, digest)
      }),
    )
  }
  return found
}

async function regain(pass: Pass, diffId: DiffId): Promise<boolean> {
  if (pass.context.db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) !== undefined) return true
  return (await adoptLayer(pass, diffId)) || (await pass.restore(diffId))
}

function recordBlob(db: Database, paths: StorePaths, digest: BlobDigest): void {
  db.run('INSERT OR IGNORE INTO blobs VALUES (?, ?)', digest, statSync(blobPath(paths, digest)).size)
}

/** Inside a transaction or not: its rows as its manifest and config have them. */
export function recordImage(
  db: Database,
  digest: BlobDigest,
  { manifest, config }: ReturnType<typeof readImage>,
  storedAt = Date.now(),
): void {
  db.transaction(() => {
    db.run('DELETE FROM image_layers WHERE manifest = ?', digest)
    for (const diffId of config.rootfs.diff_ids)
      db.run('INSERT OR IGNORE INTO image_layers VALUES (?, ?)', digest, diffId)
    db.run('INSERT OR IGNORE INTO images VALUES (?, ?, ?)', digest, manifest.config.digest, storedAt)
    db.run('UPDATE images SET config = ? WHERE manifest = ?', manifest.config.digest, digest)
  })
}

function dropImage(pass: Pass, digest: BlobDigest): void {
  const { context } = pass
  const { db } = context
  changeNames(context, () => {
    const names = db
      .all('DELETE FROM names WHERE manifest = ? RETURNING name', digest)
      .map((row) => String(row['name']))
    db.run('DELETE FROM image_layers WHERE manifest = ?', digest)
    if (db.run('DELETE FROM images WHERE manifest = ?', digest) > 0)
      pass.lose(names.length === 0 ? [digest] : names)
    return { result: undefined, changed: names.length > 0 }
  })
}

function checkDangling(pass: Pass): void {
  const { context, findings } = pass
  const { db, paths } = context
  const without = 'manifest NOT IN (SELECT manifest FROM images)'
  for (const row of db.all(`SELECT DISTINCT manifest FROM names WHERE ${without} AND ${VALID.names.rule}`)) {
    const digest = String(row['manifest']) as BlobDigest
    findings.push({
      code: 'NAME_DANGLING',
      what: 'A name leads to an image that the index does not know.',
      where: `index.db: names ${digest}`,
      repair: 'record the image again, if its manifest and config are there; else remove the name',
      affects: { manifest: digest },
      mend: async () => {
        if (db.get('SELECT 1 AS one FROM images WHERE manifest = ?', digest) !== undefined) return
        try {
          const image = readImage(paths, digest)
          for (const diffId of image.config.rootfs.diff_ids)
            if (!(await regain(pass, diffId))) return removeNames(pass, digest)
          db.transaction(() => {
            recordBlob(db, paths, digest)
            recordBlob(db, paths, image.manifest.config.digest)
            recordImage(db, digest, image, Math.round(statSync(blobPath(paths, digest)).mtimeMs))
          })
        } catch (error) {
          if (!(error instanceof TbuildError)) throw error
          removeNames(pass, digest)
        }
      },
    })
  }
  for (const row of db.all(
    `SELECT DISTINCT manifest FROM image_layers WHERE ${without} AND ${VALID.image_layers.rule}`,
  )) {
    const digest = String(row['manifest']) as BlobDigest
    findings.push({
      code: 'IMAGE_ROW_WRONG',
      what: 'The index has layers of an image that it does not know.',
      where: `index.db: image_layers ${digest}`,
      repair: 'remove the rows',
      affects: { manifest: digest },
      mend: () => void db.run(`DELETE FROM image_layers WHERE manifest = ? AND ${without}`, digest),
    })
  }
}

function removeNames(pass: Pass, digest: BlobDigest): void {
  const { context } = pass
  changeNames(context, () => {
    const rows = context.db.all('DELETE FROM names WHERE manifest = ? RETURNING name', digest)
    pass.lose(rows.map((row) => String(row['name'])))
    return { result: undefined, changed: rows.length > 0 }
  })
}

/** The file of the names against the index. It may be behind: a process was killed, or power failed. */
function checkNames(pass: Pass): void {
  const { context, findings } = pass
  const { db, paths } = context
  const look = () => {
    const sequence = namesSequence(db)
    const kept = readNames(paths)
    if (kept === undefined) return sequence > 0 ? ('missing' as const) : undefined
    if (kept === 'damaged') return kept
    if (kept.sequence > sequence) return 'stale' as const
    if (kept.sequence < sequence) return undefined
    const names = db.all('SELECT name, manifest FROM names')
    const isSame =
      names.length === kept.names.size &&
      names.every((row) => kept.names.get(String(row['name'])) === row['manifest'])
    return isSame ? undefined : kept
  }
  const wrong = look() && db.transaction(look)
  if (wrong === undefined) return
  if (wrong === 'stale') {
    findings.push({
      code: 'INDEX_STALE',
      what: 'The index is older than the file of the names: it has lost its latest changes.',
      where: 'index.db',
      repair: 'make the index anew from the files of the store (tbuild fsck --repair does it first)',
      affects: {},
    })
  } else if (wrong === 'missing' || wrong === 'damaged') {
    findings.push({
      code: 'NAMES_FILE_DAMAGED',
      what: wrong === 'missing' ? 'The file of the names is not there.' : 'The file of the names is damaged.',
      where: 'names.json',
      repair: 'write it anew from the index',
      affects: {},
      mend: () => rewriteNames(context),
    })
  } else {
    findings.push({
      code: 'NAMES_WRONG',
      what: 'The names in the index are others than those that were kept in names.json.',
      where: 'index.db: names',
      repair: 'take them from names.json',
      affects: {},
      mend: () =>
        changeNames(context, () => {
          // Names that went because their images are lost are counted: then the file is behind.
          if (namesSequence(db) !== wrong.sequence) return { result: undefined, changed: false }
          db.run('DELETE FROM names')
          for (const [name, manifest] of wrong.names) {
            db.run('INSERT INTO names VALUES (?, ?)', name, manifest)
          }
          return { result: undefined, changed: true }
        }),
    })
  }
}
