/**
 * Makes the index anew where it is lost, damaged, or older than what else is in the store. All that the store holds tells what it is: contents by the
 * segments' sidecars, layers by their recipes, blobs by their names, images by their manifests, names by names.json. Nothing is believed unread. What only
 * the index knew (build steps, where blobs came from, the compressed forms of layers) is taken from the old one, as far as it can be read.
 *
 * The old index is kept in `lost+found/`; nothing else is moved, and nothing removed. Layers and images that are not whole are recorded as far as they go:
 * `fsck` with `repair`, which is to follow, gets them from elsewhere or takes them out, and says so.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync, type SQLInputValue } from 'node:sqlite'
import { TbuildError } from '../../errors.ts'
import { flock, isErrno } from '../../linux/index.ts'
import { readSidecar, RECORD_BYTES } from '../contents/sidecar.ts'
import type { BlobDigest, DiffId } from '../oci.ts'
import { MAX_MANIFEST_BYTES } from '../parse-oci.ts'
import { createContext, type StoreContext } from '../store/context.ts'
import { openDatabase, type Database } from '../store/database.ts'
import { keptSequence, namesSequence, readNames, rewriteNames } from '../store/names.ts'
import {
  blobPath,
  objectPath,
  sidecarPath,
  STORE_VERSION,
  storePaths,
  type StorePaths,
} from '../store/paths.ts'
import { syncDirectory } from '../store/spool.ts'
import { orUnusable } from '../store/open.ts'
import { isOnReadOnlyDisk, storeReadOnly } from '../store/read-only.ts'
import { createTurns } from '../store/turns.ts'
import { createContentVerifier, digestOfFile } from './bytes.ts'
import { readImage, recordImage } from './images.ts'
import { adoptLayer } from './layers.ts'
import { databaseDamage, VALID, type TableName } from './rows.ts'
import type { FsckOptions, Pass } from './types.ts'

export interface IndexRepair {
  /** What was wrong with the index: a sentence. */
  readonly reason: string
  /** Where the old one is now, in the store; `undefined` when there was none. */
  readonly kept: string | undefined
}

/**
 * To be called before `openStore`, where that may throw `STORE_CORRUPT`. Resolves with nothing when the index is in order. A kill -9 in between leaves the store
 * as damaged as it was. Throws `STORE_TOO_NEW`, `STORE_IN_USE` (another process has a lease), `STORE_READ_ONLY`, `STORE_UNUSABLE`.
 */
export async function repairStore(
  path: string,
  options: Pick<FsckOptions, 'signal' | 'onProgress'> = {},
): Promise<IndexRepair | undefined> {
  const paths = storePaths(path)
  refuseOther(paths)
  if (isOnReadOnlyDisk(paths)) throw storeReadOnly(paths)
  const reason = findDamage(paths)
  if (reason === undefined) return undefined
  for (const directory of [
    paths.blobs,
    paths.layers,
    paths.segments,
    paths.objects,
    paths.trees,
    paths.contexts,
    paths.cacheMounts,
    paths.work,
    paths.leases,
  ])
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  using _ = holdAlone(paths)
  const old = oldIndex(paths)
  const fresh = `${paths.index}.new`
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(fresh + suffix, { force: true })
  {
    using db = openDatabase(fresh)
    const context = createContext(paths, db)
    try {
      await fill(context, old, options)
    } finally {
      context.release()
    }
  }
  syncFile(fresh)
  return { reason, kept: replaceIndex(paths, fresh) }
}

function refuseOther(paths: StorePaths): void {
  if (![paths.index, paths.blobs, paths.layers, paths.segments].some((one) => existsSync(one))) {
    throw new TbuildError('STORE_UNUSABLE', `${paths.root} is not a store.`)
  }
  const kept = readNames(paths)
  const format = Math.max(
    kept === undefined || kept === 'damaged' ? 0 : kept.format,
    headerVersion(paths.index),
  )
  if (format > STORE_VERSION) {
    throw new TbuildError(
      'STORE_TOO_NEW',
      `The store has format ${format}; this tbuild knows ${STORE_VERSION}.`,
      {
        hint: 'Use a newer tbuild, or another store (--store).',
      },
    )
  }
}

/** `user_version`, where SQLite's file format has it: without opening the database, which may write to it. 0 when it is none. */
function headerVersion(path: string): number {
  const head = Buffer.alloc(100)
  try {
    const fd = openSync(path, 'r')
    try {
      readSync(fd, head, 0, head.length, 0)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'EIO')) throw error
  }
  return head.toString('latin1', 0, 16) === 'SQLite format 3\0' ? head.readUInt32BE(60) : 0
}

/** What is wrong with the index, as a sentence. */
function findDamage(paths: StorePaths): string | undefined {
  const holdsSomething = [paths.blobs, paths.layers, paths.segments, paths.objects].some(
    (directory) => existsSync(directory) && readdirSync(directory).length > 0,
  )
  if (!existsSync(paths.index)) return holdsSomething ? 'The index was not there.' : undefined
  const kept = keptSequence(paths)
  try {
    using db = orUnusable(paths, () =>
      openDatabase(paths.index, () => {
        if (holdsSomething) throw new TbuildError('STORE_CORRUPT', 'The index was empty.')
      }),
    )
    const [damage] = databaseDamage(db, false)
    if (damage !== undefined) return `SQLite found the index damaged: ${damage}.`
    const missing = missingColumn(db)
    if (missing !== undefined) return `The index had no ${missing}.`
    if (kept !== undefined && kept > namesSequence(db))
      return 'The index was older than the file of the names.'
    return undefined
  } catch (error) {
    if (!(error instanceof TbuildError) || error.code !== 'STORE_CORRUPT') throw error
    return error.cause === undefined ? error.message : 'The index was no database that can be read.'
  }
}

/** Tables and columns that an index has. */
function missingColumn(db: Database): string | undefined {
  using model = openDatabase(':memory:')
  // oxlint-disable-next-line unicorn/consistent-function-scoping -- short, and of use here only
  const columns = (of: Database, table: string): Set<string> =>
    new Set(of.all(`SELECT name FROM pragma_table_info(?)`, table).map((row) => String(row['name'])))
  for (const row of model.all(
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
  )) {
    const table = String(row['name'])
    const present = columns(db, table)
    if (present.size === 0) return `table ${table}`
    for (const column of columns(model, table))
      if (!present.has(column)) return `column ${column} in ${table}`
  }
  return undefined
}

/** Throws `STORE_IN_USE`. */
function holdAlone(paths: StorePaths): Disposable {
  const held: number[] = []
  const dispose = (): void => held.splice(0).forEach((fd) => closeSync(fd))
  const take = (path: string): void => {
    const fd = openSync(path, 'a', 0o600)
    held.push(fd)
    if (flock(fd, 'exclusive')) return
    throw new TbuildError(
      'STORE_IN_USE',
      `The store ${paths.root} is in use: its index cannot be made anew now.`,
      {
        hint: 'Wait until builds and containers have ended, or stop them.',
      },
    )
  }
  try {
    for (const name of ['collection', 'epoch-0', 'epoch-1']) take(join(paths.root, name))
    for (const name of readdirSync(paths.leases)) take(join(paths.leases, name))
  } catch (error) {
    dispose()
    throw error
  }
  // The leases are dead ones, and the epochs are entered again below.
  dispose()
  const fd = openSync(join(paths.root, 'collection'), 'a', 0o600)
  held.push(fd)
  flock(fd, 'exclusive')
  return { [Symbol.dispose]: dispose }
}

/** The index that was, or what a repair that was killed put aside. */
function oldIndex(paths: StorePaths): string | undefined {
  if (existsSync(paths.index)) return paths.index
  const names = keptIndexes(paths)
  const last = names.at(-1)
  return last === undefined ? undefined : join(lostAndFound(paths), last, 'index.db')
}

function lostAndFound(paths: StorePaths): string {
  return join(paths.root, 'lost+found')
}

function keptIndexes(paths: StorePaths): string[] {
  // oxlint-disable-next-line unicorn/consistent-function-scoping -- short, and of use here only
  const number = (name: string): number => Number(name.slice('index-'.length))
  return existsSync(lostAndFound(paths))
    ? readdirSync(lostAndFound(paths))
        .filter((name) => /^index-\d+$/.test(name))
        .toSorted((a, b) => number(a) - number(b))
    : []
}

/** While there is no index, no store is opened here. Returns where the old one is. */
function replaceIndex(paths: StorePaths, fresh: string): string | undefined {
  let kept: string | undefined
  if (existsSync(paths.index)) {
    const number = Number((keptIndexes(paths).at(-1) ?? 'index-0').slice('index-'.length)) + 1
    kept = `lost+found/index-${number}`
    mkdirSync(join(paths.root, kept), { recursive: true, mode: 0o700 })
    renameSync(paths.index, join(paths.root, kept, 'index.db'))
    if (existsSync(`${paths.index}-wal`))
      renameSync(`${paths.index}-wal`, join(paths.root, kept, 'index.db-wal'))
    syncDirectory(join(paths.root, kept))
    syncDirectory(paths.root)
  }
  // A log that lies beside an index is taken for its own.
  for (const suffix of ['-wal', '-shm']) rmSync(paths.index + suffix, { force: true })
  syncDirectory(paths.root)
  renameSync(fresh, paths.index)
  syncDirectory(paths.root)
  return kept
}

function syncFile(path: string): void {
  const fd = openSync(path, 'r')
  fsyncSync(fd)
  closeSync(fd)
}

async function fill(
  context: StoreContext,
  old: string | undefined,
  options: Pick<FsckOptions, 'signal' | 'onProgress'>,
): Promise<void> {
  const { db, paths } = context
  const { signal, onProgress } = options
  const total = sizeOf(paths.segments) + sizeOf(paths.blobs)
  let done = 0
  const pass: Pass = {
    context,
    // Nothing is ingested or mounted here.
    restore: async () => false,
    driver: () => {
      throw new Error('the store is not open')
    },
    quick: false,
    findings: [],
    badContents: new Set(),
    breathe: createTurns(signal, () => onProgress?.(Math.min(done, total), total)),
    read: (bytes) => (done += bytes),
    lose: () => {},
  }
  await fillContents(pass)
  await fillBlobs(pass)
  for (const name of readdirSync(paths.layers)) {
    const [hex = '', kind] = name.split('.')
    if (kind === 'recipe' && /^[0-9a-f]{64}$/.test(hex)) await adoptLayer(pass, `sha256:${hex}` as DiffId)
  }
  using salvage = openOld(old)
  fillImages(pass, salvage)
  // The file of the names is not to be ahead of the index.
  db.run(
    "INSERT OR REPLACE INTO meta VALUES ('names', ?)",
    Math.max(keptSequence(paths) ?? 0, oldSequence(salvage)),
  )
  if (salvage !== undefined) db.transaction(() => takeOver(db, salvage))
  // For collection: contents that no layer needs.
  db.run("INSERT OR REPLACE INTO meta VALUES ('unmarked', 1)")
  rewriteNames(context)
}

function sizeOf(directory: string): number {
  return readdirSync(directory).reduce((sum, name) => sum + statSync(join(directory, name)).size, 0)
}

const BATCH = 1000

async function fillContents(pass: Pass): Promise<void> {
  const { db, paths } = pass.context
  using verifier = createContentVerifier(paths, pass.breathe, pass.read)
  let rows: [sql: string, ...values: SQLInputValue[]][] = []
  let batch = new Set<string>()
  const flush = (): void => {
    db.transaction(() => rows.forEach(([sql, ...values]) => db.run(sql, ...values)))
    rows = []
    batch = new Set()
  }
  const add = (sql: string, ...values: SQLInputValue[]): void => {
    rows.push([sql, ...values])
    if (rows.length >= BATCH) flush()
  }
  const lookup = db.prepare('SELECT 1 AS one FROM contents WHERE digest = ?')
  const isNew = (digest: Buffer): boolean => {
    const hex = digest.toString('hex')
    if (batch.has(hex) || lookup(digest) !== undefined) return false
    batch.add(hex)
    return true
  }
  const dead = 'INSERT OR IGNORE INTO dead VALUES (?, ?, ?)'
  const ids = readdirSync(paths.segments)
    .filter((name) => /^[1-9]\d{0,9}$/.test(name))
    .map(Number)
    .toSorted((a, b) => a - b)
  for (const id of ids) {
    let end = 0
    const broken: (readonly [block: number, size: number])[] = []
    for (const { digest, block, size } of readSidecar(sidecarPath(paths, id))) {
      if ((await verifier.verify(digest, { segment: id, block }, size)) !== 'whole') {
        broken.push([block, size])
        continue
      }
      end = Math.max(end, (block + Math.ceil(size / 512)) * 512)
      // The same once more: two ingests stored it at one time.
      if (isNew(digest)) add('INSERT OR IGNORE INTO contents VALUES (?, ?, ?, ?)', digest, id, block, size)
      else add(dead, id, block, size)
    }
    // The next ingest would take it for its own: so it is nobody's, and goes with the next collection.
    if (end === 0) continue
    for (const [block, size] of broken) if (block * 512 + size <= end) add(dead, id, block, size)
    const listed = statSync(sidecarPath(paths, id)).size
    add(
      'INSERT INTO segments (id, length, records) VALUES (?, ?, ?)',
      id,
      end,
      Math.floor(listed / RECORD_BYTES),
    )
    flush()
  }
  // No new one is to get the number of one that is there.
  const highest = ids.at(-1)
  if (highest !== undefined) {
    db.run('INSERT OR IGNORE INTO segments (id, length, records) VALUES (?, 0, 0)', highest)
    db.run('DELETE FROM segments WHERE id = ? AND length = 0', highest)
  }
  for (const part of readdirSync(paths.objects)) {
    for (const name of readdirSync(join(paths.objects, part))) {
      const hex = part + name
      if (!/^[0-9a-f]{64}$/.test(hex)) continue
      const found = await digestOfFile(objectPath(paths, hex), pass.breathe, pass.read)
      if (found?.digest !== `sha256:${hex}` || found.size === 0) continue
      add('INSERT OR IGNORE INTO contents VALUES (?, 0, 0, ?)', Buffer.from(hex, 'hex'), found.size)
    }
  }
  flush()
}

async function fillBlobs(pass: Pass): Promise<void> {
  const { db, paths } = pass.context
  for (const hex of readdirSync(paths.blobs)) {
    if (!/^[0-9a-f]{64}$/.test(hex)) continue
    const digest = `sha256:${hex}` as BlobDigest
    const found = await digestOfFile(blobPath(paths, digest), pass.breathe, pass.read)
    if (found?.digest === digest) db.run('INSERT INTO blobs VALUES (?, ?)', digest, found.size)
  }
}

/** Those with names, whole or not; of the others those that are whole. */
function fillImages({ context }: Pass, salvage: Salvage | undefined): void {
  const { db, paths } = context
  const names = namesOf(paths, salvage)
  const named = new Set(names?.values())
  const unnamed: string[] = []
  for (const row of db.all(`SELECT digest FROM blobs WHERE size <= ${MAX_MANIFEST_BYTES}`)) {
    const digest = String(row['digest']) as BlobDigest
    const path = blobPath(paths, digest)
    if (firstByte(path) !== '{') continue
    let image
    try {
      image = readImage(paths, digest)
    } catch (error) {
      // No manifest, or not one of an image that can be had.
      if (error instanceof TbuildError) continue
      throw error
    }
    const isWhole = image.config.rootfs.diff_ids.every(
      (diffId) => db.get('SELECT 1 AS one FROM layers WHERE diff_id = ?', diffId) !== undefined,
    )
    if (!isWhole && !named.has(digest)) continue
    recordImage(db, digest, image, Math.round(statSync(path).mtimeMs))
    for (const [i, diffId] of image.config.rootfs.diff_ids.entries()) {
      const descriptor = image.manifest.layers[i]
      if (descriptor === undefined) continue
      const sql = 'INSERT OR IGNORE INTO compressed VALUES (?, ?, ?)'
      db.run(sql, diffId, descriptor.digest, JSON.stringify(descriptor))
    }
    if (!named.has(digest)) unnamed.push(digest)
  }
  for (const [name, manifest] of names ?? []) db.run('INSERT INTO names VALUES (?, ?)', name, manifest)
  if (names !== undefined) return
  // Without any, the next collection would take them away.
  for (const digest of unnamed) {
    const id = String(db.get('SELECT config FROM images WHERE manifest = ?', digest)?.['config'])
    const name = `localhost/lost-and-found:${id.slice('sha256:'.length, 'sha256:'.length + 12)}`
    db.run('INSERT OR IGNORE INTO names VALUES (?, ?)', name, digest)
  }
}

function firstByte(path: string): string {
  const fd = openSync(path, 'r')
  try {
    const byte = Buffer.alloc(1)
    return byte.toString('latin1', 0, readSync(fd, byte, 0, 1, 0))
  } finally {
    closeSync(fd)
  }
}

/** The newer of the file's and the old index's. `undefined`: neither can be read. */
function namesOf(paths: StorePaths, salvage: Salvage | undefined): ReadonlyMap<string, string> | undefined {
  const kept = readNames(paths)
  const old = salvage === undefined ? undefined : oldNames(salvage)
  if (kept === undefined || kept === 'damaged') return old?.names
  return old !== undefined && old.sequence > kept.sequence ? old.names : kept.names
}

function oldSequence(salvage: Salvage | undefined): number {
  if (salvage === undefined) return 0
  const rows = [...salvage.rows('meta', ['value'], "key = 'names' AND typeof(value) = 'integer'")]
  return Number(rows[0]?.[0] ?? 0)
}

function oldNames(
  salvage: Salvage,
): { readonly sequence: number; readonly names: ReadonlyMap<string, string> } | undefined {
  const sequence = oldSequence(salvage)
  const names = new Map<string, string>()
  for (const [name, manifest] of salvage.rows('names', ['name', 'manifest'], VALID.names.rule))
    if (typeof name === 'string' && typeof manifest === 'string') names.set(name, manifest)
  return salvage.isDamaged('names') || (names.size === 0 && sequence === 0) ? undefined : { sequence, names }
}

/** The old index, as far as it can be read. */
interface Salvage extends Disposable {
  /** What comes before the first damage. */
  rows(table: string, columns: readonly string[], rule: string): Iterable<readonly SQLInputValue[]>
  isDamaged(table: string): boolean
}

function openOld(path: string | undefined): Salvage | undefined {
  if (path === undefined) return undefined
  let db: DatabaseSync
  try {
    db = new DatabaseSync(path, { readOnly: true })
  } catch {
    return undefined
  }
  const damaged = new Set<string>()
  return {
    isDamaged: (table) => damaged.has(table),
    *rows(table, columns, rule) {
      try {
        const statement = db.prepare(`SELECT ${columns.join()} FROM ${table} WHERE ${rule}`)
        for (const row of statement.iterate()) yield columns.map((column) => row[column] ?? null)
      } catch (error) {
        if (!isErrno(error, 'ERR_SQLITE_ERROR', 'ERR_OUT_OF_RANGE')) throw error
        damaged.add(table)
      }
    },
    [Symbol.dispose]: () => db.close(),
  }
}

const TAKEN_OVER = {
  steps: ['key', 'diff_id', 'created', 'title', 'components', 'used_at'],
  aliases: ['cheap', 'value'],
  builds: ['key', 'manifest'],
  origins: ['digest', 'repository'],
  compressed: ['diff_id', 'digest', 'descriptor'],
} as const satisfies Partial<Record<TableName, readonly string[]>>

function takeOver(db: Database, salvage: Salvage): void {
  for (const [table, columns] of Object.entries(TAKEN_OVER)) {
    const sql = `INSERT OR IGNORE INTO ${table} (${columns.join()}) VALUES (${columns.map(() => '?').join()})`
    for (const row of salvage.rows(table, columns, VALID[table as keyof typeof TAKEN_OVER].rule))
      db.run(sql, ...row)
  }
  const times = salvage.rows('layers', ['stored_at', 'used_at', 'diff_id'], VALID.layers.rule)
  for (const row of times) db.run('UPDATE layers SET stored_at = ?, used_at = ? WHERE diff_id = ?', ...row)
  const stored = salvage.rows('images', ['stored_at', 'manifest'], VALID.images.rule)
  for (const row of stored) db.run('UPDATE images SET stored_at = ? WHERE manifest = ?', ...row)
}
