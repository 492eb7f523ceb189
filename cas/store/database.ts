/**
 * The index: what is in the store, in `node:sqlite`. It never names what is not durable. Its write lock (BEGIN IMMEDIATE) is also the
 * lock for making files visible: a file is renamed into place and recorded, or unrecorded and taken away, inside one
 * transaction, so that no other process sees one without the other.
 */
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from 'node:sqlite'
import { TbuildError } from '../../errors.ts'
import { STORE_VERSION } from './paths.ts'

export type Row = Readonly<Record<string, string | number | bigint | null | Uint8Array>>

export interface Database extends Disposable {
  get(sql: string, ...parameters: SQLInputValue[]): Row | undefined
  all(sql: string, ...parameters: SQLInputValue[]): readonly Row[]
  /** Rows changed. */
  run(sql: string, ...parameters: SQLInputValue[]): number
  /**
   * Kept whatever happens to this process; a power cut may undo it, and all after it. Nested calls are part of the outermost.
   */
  transaction<T>(work: () => T): T
  /** As `transaction`, and durable when it returns, with all before it. */
  durably<T>(work: () => T): T
  /** As `transaction`, but nothing of it stays. */
  rehearsal<T>(work: () => T): T
  /** A part of a transaction that is undone when it returns false. */
  attempt(work: () => boolean): boolean
  /** A query of one row as its columns, for loops: half the time of an object (8 against 16 us). */
  columns(sql: string): (...parameters: SQLInputValue[]) => readonly SQLOutputValue[] | undefined
  /** All rows as their columns, one by one. */
  scan(sql: string): Iterable<readonly SQLOutputValue[]>
  /** A query of one row, for loops. */
  prepare(sql: string): (...parameters: SQLInputValue[]) => Row | undefined
}

/** For stores that were made before there were any. */
const MIDSTATES = `
  -- Where the digest of a layer's tar stood now and then, and a crc32: cas/store/midstates.ts.
  CREATE TABLE IF NOT EXISTS midstates (diff_id TEXT PRIMARY KEY, packed BLOB NOT NULL);
`

const SCHEMA = `
  CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
  -- size: of the tar. image: file of the index image, where the driver has one. Times in milliseconds since 1970.
  CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, image TEXT, opaque_root INTEGER NOT NULL, has_root INTEGER NOT NULL,
    stored_at INTEGER NOT NULL, used_at INTEGER NOT NULL) WITHOUT ROWID;
  -- The data devices of a layer's index image, in their order.
  CREATE TABLE layer_segments (
    diff_id TEXT NOT NULL, device INTEGER NOT NULL, segment INTEGER NOT NULL, PRIMARY KEY (diff_id, device)) WITHOUT ROWID;
  -- Where each content is: block of 512 bytes in a segment; segment 0: a file of its own.
  CREATE TABLE contents (
    digest BLOB PRIMARY KEY, segment INTEGER NOT NULL, block INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
  -- What is in them: bytes of the segment, records of its sidecar. More than that is nobody's. retired: its contents have been copied elsewhere, so it is
  -- to go; until then old mounts may read it.
  CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, length INTEGER NOT NULL, records INTEGER NOT NULL,
    retired INTEGER NOT NULL DEFAULT 0);
  -- Places that no content is at any more, and that are still to be freed.
  CREATE TABLE dead (
    segment INTEGER NOT NULL, block INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (segment, block)) WITHOUT ROWID;
  -- The same of contents that are files.
  CREATE TABLE dead_objects (digest BLOB PRIMARY KEY) WITHOUT ROWID;
  -- A layer as a directory. boot: directories are not synced, so after another boot they are made anew.
  CREATE TABLE trees (diff_id TEXT PRIMARY KEY, name TEXT NOT NULL, boot TEXT NOT NULL) WITHOUT ROWID;
  -- Mounted index images, for others to share: the descriptor of a process.
  CREATE TABLE mounts (
    image TEXT NOT NULL, pid INTEGER NOT NULL, started INTEGER NOT NULL, fd INTEGER NOT NULL,
    PRIMARY KEY (image, pid, fd)) WITHOUT ROWID;
  CREATE TABLE compressed (
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, descriptor TEXT NOT NULL, PRIMARY KEY (diff_id, digest)) WITHOUT ROWID;
  CREATE TABLE origins (digest TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
  CREATE TABLE images (manifest TEXT PRIMARY KEY, config TEXT NOT NULL, stored_at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE INDEX images_config ON images (config);
  CREATE TABLE image_layers (manifest TEXT NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY (manifest, diff_id)) WITHOUT ROWID;
  CREATE TABLE names (name TEXT PRIMARY KEY, manifest TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE steps (
    key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, created TEXT NOT NULL, title TEXT NOT NULL, components TEXT NOT NULL,
    used_at INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE aliases (cheap TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE builds (key TEXT PRIMARY KEY, manifest TEXT NOT NULL) WITHOUT ROWID;
  -- What a process uses or has just made; goes with its lease.
  CREATE TABLE leased (scope TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (scope, digest)) WITHOUT ROWID;
  ${MIDSTATES}
`

/** Another process may hold the write lock while it renames files; it never holds it while it computes. */
const BUSY_MS = 30_000

/**
 * Throws `STORE_TOO_NEW`, `STORE_CORRUPT`, or what `node:sqlite` throws.
 * @param mayCreate is asked, under the lock, before an index is made where there is none; it throws when one is lost
 * @param shown of a copy: what it is of, for messages
 */
export function openDatabase(path: string, mayCreate: () => void = () => {}, shown = path): Database {
  const db = new DatabaseSync(path, { timeout: BUSY_MS })
  try {
    db.exec('PRAGMA synchronous = NORMAL')
    const version = userVersion(db)
    if (version === 0) create(db, mayCreate)
    else if (version === 1) migrateFrom1(db)
    else if (version === STORE_VERSION) db.exec(MIDSTATES)
    else {
      leaveUntouched(db, path)
      throw tooNew(version)
    }
  } catch (error) {
    if (db.isOpen) db.close()
    throw corrupt(error, shown)
  }
  return wrap(db, shown)
}

function create(db: DatabaseSync, mayCreate: () => void): void {
  db.exec('BEGIN IMMEDIATE')
  try {
    // Another process may have been faster.
    if (userVersion(db) === 0) mayCreate()
  } finally {
    db.exec('ROLLBACK')
  }
  db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
  db.exec('BEGIN IMMEDIATE')
  if (userVersion(db) === 0) db.exec(`${SCHEMA}; PRAGMA user_version = ${STORE_VERSION}`)
  db.exec('COMMIT')
  // Contents that come next must not outlive their index: a store that has some and none is one that has lost it.
  db.exec('PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous = NORMAL')
}

/** Who closes an index last folds the log into it; not who only reads it. */
function leaveUntouched(db: DatabaseSync, path: string): void {
  const last = new DatabaseSync(path, { readOnly: true })
  userVersion(last)
  db.close()
  last.close()
}

/**
 * Format 1 kept the tar of each layer as a blob. Its layers become `legacy` ones, which `convertLegacy` makes layers of this format; the tables that
 * stay are as they were.
 */
function migrateFrom1(db: DatabaseSync): void {
  db.exec('BEGIN IMMEDIATE')
  if (userVersion(db) === 1) {
    db.exec(`
      CREATE TABLE legacy (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
      INSERT INTO legacy SELECT diff_id, size FROM layers;
      DROP TABLE layers;
      DROP TABLE directories;
      ALTER TABLE steps ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
      ${SCHEMA.replaceAll(/CREATE TABLE (?!IF)/g, 'CREATE TABLE IF NOT EXISTS ').replaceAll('CREATE INDEX', 'CREATE INDEX IF NOT EXISTS')};
      PRAGMA user_version = ${STORE_VERSION}`)
  }
  db.exec('COMMIT')
}

function userVersion(db: DatabaseSync): number {
  return Number(db.prepare('PRAGMA user_version').get()?.['user_version'])
}

function wrap(db: DatabaseSync, path: string): Database {
  const statements = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    let statement = statements.get(sql)
    if (statement === undefined) {
      statement = db.prepare(sql)
      statements.set(sql, statement)
    }
    return statement
  }
  /** Damage is seen when a page is first read. */
  const told = <T>(query: () => T): T => {
    try {
      return query()
    } catch (error) {
      throw corrupt(error, path)
    }
  }
  let depth = 0
  const within = <T>(work: () => T, end: 'COMMIT' | 'ROLLBACK'): T => {
    if (depth > 0) return work()
    db.exec('BEGIN IMMEDIATE')
    depth++
    try {
      const result = work()
      db.exec(end)
      return result
    } catch (error) {
      if (db.isTransaction) db.exec('ROLLBACK')
      throw error
    } finally {
      depth--
    }
  }
  return {
    get: (sql, ...parameters) => told(() => prepare(sql).get(...parameters)),
    all: (sql, ...parameters) => told(() => prepare(sql).all(...parameters)),
    run: (sql, ...parameters) => told(() => Number(prepare(sql).run(...parameters).changes)),
    transaction: (work) => within(work, 'COMMIT'),
    durably: (work) => {
      if (depth > 0) return work()
      // In WAL mode NORMAL syncs at checkpoints only, FULL the log at each commit: 0.3 ms here, 5 and more on a busy disk.
      db.exec('PRAGMA synchronous = FULL')
      try {
        return within(work, 'COMMIT')
      } finally {
        db.exec('PRAGMA synchronous = NORMAL')
      }
    },
    rehearsal: (work) => within(work, 'ROLLBACK'),
    attempt: (work) => {
      db.exec('SAVEPOINT attempt')
      let kept = false
      try {
        kept = work()
      } finally {
        db.exec(kept ? 'RELEASE attempt' : 'ROLLBACK TO attempt; RELEASE attempt')
      }
      return kept
    },
    columns: (sql) => {
      const statement = db.prepare(sql)
      statement.setReturnArrays(true)
      return (...parameters) => statement.get(...parameters) as unknown as SQLOutputValue[] | undefined
    },
    scan: (sql) => {
      const statement = db.prepare(sql)
      statement.setReturnArrays(true)
      return statement.iterate() as unknown as Iterable<readonly SQLOutputValue[]>
    },
    prepare: (sql) => {
      const statement = prepare(sql)
      return (...parameters) => statement.get(...parameters)
    },
    [Symbol.dispose]: () => db.close(),
  }
}

function tooNew(version: number): TbuildError {
  return new TbuildError(
    'STORE_TOO_NEW',
    `The store has format ${version}; this tbuild knows ${STORE_VERSION}.`,
    {
      hint: 'Use a newer tbuild, or another store (--store).',
    },
  )
}

/** SQLITE_CORRUPT and SQLITE_NOTADB. */
function corrupt(error: unknown, path: string): unknown {
  const code =
    typeof error === 'object' && error !== null && 'errcode' in error ? Number(error.errcode) & 0xff : 0
  if (code !== 11 && code !== 26) return error
  return new TbuildError('STORE_CORRUPT', `The store's index ${path} is damaged.`, {
    hint: 'tbuild fsck --repair makes it anew from the files of the store; it must not be in use.',
    cause: error,
  })
}
