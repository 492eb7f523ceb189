/**
 * umoci's way of testing a store: each thing that is stored is damaged in turn. Whatever it is: fsck finds it, or it does no harm; nothing wrong is read out as
 * if it were right; repair brings back all that can be had, and after it all is well.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  appendFileSync,
  cpSync,
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { crc32, gzipSync } from 'node:zlib'
import {
  MEDIA,
  openStore,
  repairStore,
  type BlobDigest,
  type DiffId,
  type FsckReport,
  type ProblemCode,
  type Store,
  type StoredLayer,
} from '../cas/index.ts'
import { TbuildError } from '../errors.ts'

const CLI = join(import.meta.dirname, '../cli/index.ts')
const FILE = {
  type: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  major: 0,
  minor: 0,
  xattrs: new Map<string, Buffer>(),
} as const
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'] as const

let directory: string
/** A closed store: what each test damages is a copy of it. */
let template: string
let copies = 0
/** Of each image its layers, and of each layer whether its compressed form is there, too. */
const IMAGES: Record<string, readonly DiffId[]> = {}
const compressed = new Set<DiffId>()

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'tbuild-fsck-'))
  template = join(directory, 'template')
  await using store = await openStore(template)
  const base = await addLayer(store, {
    'etc/name': 'base\n',
    'bin/tool': noise(90_000, 1),
    'bin/other': noise(700, 2),
    empty: '',
  })
  const app = await addLayer(store, {
    'app/main': noise(5000, 3),
    'app/data': noise(200_000, 4),
    'app/again': noise(700, 2),
  })
  const only = await addLayer(store, { 'lib/one': noise(3000, 5), 'lib/two': noise(1, 6) })
  await addCompressed(store, base)
  addImage(store, 'local/base:1', [base])
  IMAGES['local/base:1'] = [base.diffId]
  addImage(store, 'local/app:1', [base, app])
  IMAGES['local/app:1'] = [base.diffId, app.diffId]
  addImage(store, 'local/only:1', [only])
  IMAGES['local/only:1'] = [only.diffId]
  for (const { diffId } of [base, app, only]) {
    const root = await store.layers.mount([store.layers.open(diffId)])
    await root[Symbol.asyncDispose]()
  }
  const key = 'k'.repeat(64) as never
  store.steps.record({ key, diffId: app.diffId, created: '2026-01-01T00:00:00Z' }, [['a', 'b']], 'RUN a')
  store.steps.alias('cheap' as never, 'dear')
  store.steps.recordImage(key, store.images.byName('local/app:1')?.manifestDigest as BlobDigest)
  store.blobs.rememberOrigin(base.diffId as never, 'example.org/base')
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** The same bytes each time. */
function noise(length: number, seed: number): Buffer {
  const parts: Buffer[] = []
  for (let i = 0; parts.length * 32 < length; i++)
    parts.push(createHash('sha256').update(`${seed} ${i}`).digest())
  return Buffer.concat(parts).subarray(0, length)
}

async function addLayer(
  store: Store,
  files: Readonly<Record<string, string | Buffer>>,
): Promise<StoredLayer> {
  const root = mkdtempSync(join(directory, 'layer-'))
  for (const [name, bytes] of Object.entries(files)) {
    mkdirSync(join(root, name, '..'), { recursive: true })
    writeFileSync(join(root, name), bytes)
  }
  const tar = `${root}.tar`
  execFileSync('tar', [
    '-C',
    root,
    '--sort=name',
    '--mtime=@1000000000',
    '--owner=0',
    '--group=0',
    '--numeric-owner',
    '-cf',
    tar,
    '.',
  ])
  return await store.layers.ingestTar(createReadStream(tar))
}

/** As a row of the index has them. */
function seal(diffId: DiffId, packed: Uint8Array): Buffer {
  const crc = Buffer.alloc(4)
  crc.writeUInt32LE(crc32(packed, crc32(diffId, 3)))
  return Buffer.concat([packed, crc])
}

async function addCompressed(store: Store, { diffId }: StoredLayer): Promise<void> {
  const parts: Buffer[] = []
  for await (const part of store.layers.tar(diffId)) parts.push(part)
  const bytes = gzipSync(Buffer.concat(parts))
  store.layers.rememberCompressed(diffId, {
    mediaType: MEDIA.layerGzip,
    digest: store.blobs.write(bytes),
    size: bytes.length,
  })
  compressed.add(diffId)
}

function addImage(store: Store, name: string, layers: readonly StoredLayer[]): string {
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { Env: [name] },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: store.blobs.write(config), size: config.length },
    layers: layers.map(
      ({ diffId, size }) =>
        store.layers.compressed(diffId)[0] ?? { mediaType: MEDIA.layer, digest: diffId, size },
    ),
  }
  return store.images.put(store.blobs.write(Buffer.from(JSON.stringify(manifest))), [name]).id
}

function copy(from = template): string {
  const path = join(directory, `copy-${++copies}`)
  cpSync(from, path, { recursive: true, preserveTimestamps: true })
  return path
}

/** Every file of the template that is somebody's. SQLite's log is none, of a store that was closed. */
function filesOf(path: string): string[] {
  return (readdirSync(path, { recursive: true }) as string[])
    .filter(
      (name) =>
        statSync(join(path, name)).isFile() &&
        !/^(epoch-|collection|leases|work|contexts|index.db-)/.test(name),
    )
    .toSorted()
}

type Found = FsckReport | 'refused'

async function check(path: string): Promise<Found> {
  try {
    await using store = await openStore(path)
    return await store.fsck()
  } catch (error) {
    if (error instanceof TbuildError && error.code === 'STORE_CORRUPT') return 'refused'
    throw error
  }
}

async function repair(path: string): Promise<FsckReport> {
  await repairStore(path)
  await using store = await openStore(path)
  return await store.fsck({ repair: true })
}

const isFound = (found: Found): boolean => found === 'refused' || found.problems.length > 0

/** What of the layers comes out of the store: right, or with an error. Anything else fails the test. */
async function readOut(path: string): Promise<Map<DiffId, boolean>> {
  const read = new Map<DiffId, boolean>()
  const all = new Set(Object.values(IMAGES).flat())
  let store: Store
  try {
    store = await openStore(path)
  } catch (error) {
    if (!(error instanceof TbuildError) || error.code !== 'STORE_CORRUPT') throw error
    return new Map([...all].map((diffId) => [diffId, false]))
  }
  await using _ = store
  for (const diffId of all) {
    const hash = createHash('sha256')
    try {
      for await (const part of store.layers.tar(diffId)) hash.update(part)
    } catch (error) {
      const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : ''
      if (!['STORE_CORRUPT', 'LAYER_UNKNOWN', 'ERR_OUT_OF_RANGE'].includes(code)) throw error
      read.set(diffId, false)
      continue
    }
    expect(`sha256:${hash.digest('hex')}`).toBe(diffId)
    read.set(diffId, true)
  }
  return read
}

/** Names of the images that can be had whole. */
async function wholeImages(path: string): Promise<string[]> {
  const read = await readOut(path)
  await using store = await openStore(path)
  return Object.entries(IMAGES)
    .filter(([name, layers]) => {
      const image = store.images.byName(name)
      return (
        image?.config.rootfs.diff_ids.join() === layers.join() &&
        layers.every((diffId) => read.get(diffId) === true)
      )
    })
    .map(([name]) => name)
}

interface Damage {
  readonly name: string
  /** It must be found, not only be harmless. */
  readonly must: boolean
  readonly apply: (path: string) => void
  /** Images that may be lost by it. */
  readonly lost?: readonly string[]
}

/** Everything that is promised of any damage. Returns what went wrong. */
async function tryDamage({ name, must, apply, lost = [] }: Damage): Promise<string[]> {
  const path = copy()
  const wrong: string[] = []
  try {
    apply(path)
    const found = await check(path)
    const read = await readOut(path)
    if (must && !isFound(found)) wrong.push(`${name}: not found`)
    if (!isFound(found) && [...read.values()].includes(false)) wrong.push(`${name}: not found, and not read`)
    if (!isFound(found) && (await wholeImages(path)).length < 3)
      wrong.push(`${name}: not found, and an image is gone`)
    const report = await repair(path)
    for (const { repaired, code, what } of report.problems)
      if (!repaired) wrong.push(`${name}: not repaired: ${code} ${what}`)
    const after = await check(path)
    if (isFound(after)) wrong.push(`${name}: after repair: ${JSON.stringify(after)}`)
    const whole = await wholeImages(path)
    for (const image of Object.keys(IMAGES)) {
      const isNamed = report.lost.includes(image)
      if (!whole.includes(image) && !lost.includes(image))
        wrong.push(`${name}: ${image} is lost (${JSON.stringify(report.problems)})`)
      if (!whole.includes(image) && !isNamed) wrong.push(`${name}: ${image} is lost, and not named`)
      if (whole.includes(image) && isNamed) wrong.push(`${name}: ${image} is said to be lost`)
    }
  } catch (error) {
    wrong.push(`${name}: ${String(error)} ${error instanceof Error ? error.stack : ''}`)
  } finally {
    rmSync(path, { recursive: true, force: true })
  }
  return wrong
}

async function whatGoesWrong(damages: readonly Damage[]): Promise<string[]> {
  const wrong: string[] = []
  for (const damage of damages) wrong.push(...(await tryDamage(damage)))
  return wrong
}

function flip(file: string, position: number): void {
  const bytes = readFileSync(file)
  const at = Math.min(bytes.length - 1, Math.max(0, Math.floor(position)))
  bytes[at] = (bytes[at] ?? 0) ^ 0x20
  writeFileSync(file, bytes)
}

/** Images that need the layers, compressed or not. */
function imagesOf(...layers: readonly DiffId[]): string[] {
  return Object.keys(IMAGES).filter((name) => IMAGES[name]?.some((diffId) => layers.includes(diffId)))
}
/** Layers that only the segments and recipes have. */
function irreplaceable(): DiffId[] {
  return [...new Set(Object.values(IMAGES).flat())].filter((diffId) => !compressed.has(diffId))
}

/** Damages of one file. */
function damagesOf(name: string): Damage[] {
  const size = statSync(join(template, name)).size
  const isIndex = name === 'index.db'
  const isTailNobodys = name.startsWith('segments/')
  const lost = lostWith(name)
  const at = (what: string, apply: (file: string) => void, must = true): Damage => ({
    name: `${name}: ${what}`,
    must,
    apply: (path) => apply(join(path, name)),
    lost,
  })
  // The format's version among them: what is newer is left alone.
  const positions = [
    ...new Set(
      [0, 4, 20, 41, 60, 100, 1040, size / 4, size / 2, (size * 3) / 4, size - 9, size - 1].map(Math.floor),
    ),
  ].filter((one) => one < size && !(isIndex && one === 60))
  return [
    // A page of the index has room that means nothing; so has the end of a segment's last block.
    ...positions.map((one) =>
      at(
        `flipped at ${one}`,
        (file) => flip(file, one),
        !isIndex && !(isTailNobodys && !name.endsWith('.list')),
      ),
    ),
    at('empty', (file) => truncateSync(file, 0)),
    at('half of it', (file) => truncateSync(file, Math.floor(size / 2)), !isIndex || size > 8192),
    at('one byte short', (file) => truncateSync(file, size - 1), !isIndex),
    at('gone', (file) => rmSync(file)),
    at('zeros', (file) => writeFileSync(file, Buffer.alloc(size))),
    at('noise', (file) => writeFileSync(file, noise(size, 9))),
    at('longer', (file) => appendFileSync(file, noise(700, 8)), !isIndex && !isTailNobodys),
  ]
}

function lostWith(name: string): string[] {
  const digest = `sha256:${/[0-9a-f]{64}/.exec(name)?.[0] ?? ''}` as DiffId
  if (/^segments\/\d+$/.test(name)) return imagesOf(...irreplaceable())
  if (name.endsWith('.recipe')) return compressed.has(digest) ? [] : imagesOf(digest)
  if (name.startsWith('blobs/')) {
    const db = new DatabaseSync(join(template, 'index.db'), { readOnly: true })
    const rows = db
      .prepare('SELECT name FROM names JOIN images USING (manifest) WHERE manifest = ?1 OR config = ?1')
      .all(digest)
    db.close()
    return rows.map((row) => String(row['name']))
  }
  return []
}

describe('each file', () => {
  test('the store is as it should be to begin with', async () => {
    expect(await check(copy())).toMatchObject({
      problems: [],
      leftovers: [],
      lost: [],
      counts: { layers: 3, images: 3, blobs: 7, contents: 7 },
    })
    expect(filesOf(template).filter((name) => name.startsWith('segments/'))).toEqual([
      'segments/1',
      'segments/1.list',
    ])
    expect(filesOf(template).filter((name) => name.endsWith('.erofs'))).toHaveLength(3)
  })

  const GROUPS = ['layers/', 'segments/', 'blobs/', 'index.db', 'names.json']

  test('is in one of the groups', () => {
    const others = filesOf(template).filter((name) => !GROUPS.some((group) => name.startsWith(group)))
    expect(others).toEqual([])
  })

  test.each(GROUPS)(
    'of %s: damaged, cut, emptied, gone',
    async (group) => {
      const files = filesOf(template).filter((name) => name.startsWith(group))
      expect(files).not.toEqual([])
      expect(await whatGoesWrong(files.flatMap(damagesOf))).toEqual([])
    },
    300_000,
  )

  test('each byte that was ever stored of a content', async () => {
    const db = new DatabaseSync(join(template, 'index.db'), { readOnly: true })
    const places = db.prepare('SELECT segment, block, size FROM contents ORDER BY block').all()
    db.close()
    expect(
      await whatGoesWrong(
        places.flatMap((row) =>
          [0, 0.5, 1].map((part) => ({
            name: `content at ${String(row['block'])}: ${part}`,
            must: true,
            lost: imagesOf(...irreplaceable()),
            apply: (path) =>
              flip(
                join(path, 'segments', String(row['segment'])),
                Number(row['block']) * 512 + Math.floor((Number(row['size']) - 1) * part),
              ),
          })),
        ),
      ),
    ).toEqual([])
  }, 300_000)
})

function change(path: string, work: (db: DatabaseSync) => void): void {
  const db = new DatabaseSync(join(path, 'index.db'))
  work(db)
  db.close()
}

/** Another value of the same kind, and one of none. */
function otherValues(value: SQLOutputValue): SQLOutputValue[] {
  if (typeof value === 'number') return [value + 1, value === 0 ? 5 : value - 1, -7, 2 ** 60]
  if (typeof value === 'string') return [value.replace(/.$/, (last) => (last === '0' ? '1' : '0')), '', 12]
  if (value instanceof Uint8Array) {
    const flipped = Buffer.from(value)
    flipped[3] = (flipped[3] ?? 0) ^ 1
    return [flipped, Buffer.alloc(3)]
  }
  return ['x']
}

function rowsOf(table: string): Record<string, SQLOutputValue>[] {
  const db = new DatabaseSync(join(template, 'index.db'), { readOnly: true })
  const rows = db.prepare(`SELECT * FROM ${table}`).all()
  db.close()
  return rows
}

function isCompressed(row: Record<string, SQLOutputValue>): boolean {
  const file = join(template, 'blobs/sha256', String(row['digest']).slice(7))
  return readFileSync(file).toString('hex', 0, 2) === '1f8b'
}

function where(row: Record<string, SQLOutputValue>): string {
  return Object.keys(row)
    .map((column) => `${column} IS ?`)
    .join(' AND ')
}

describe('each row of the index', () => {
  const KEPT = [
    'contents',
    'segments',
    'layers',
    'layer_segments',
    'blobs',
    'images',
    'image_layers',
    'names',
    'meta',
  ]
  const OTHERS = ['compressed', 'origins', 'steps', 'aliases', 'builds']
  /** Without them nothing is missed, or nothing tells that they were there. */
  const UNSEEN = new Set(['meta', ...OTHERS])

  test.each([...KEPT, ...OTHERS])(
    '%s: removed',
    async (table) => {
      expect(
        await whatGoesWrong(
          rowsOf(table).map((row, i) => ({
            name: `${table} ${i} removed`,
            // Of a compressed layer it is as if it had been collected.
            must: !UNSEEN.has(table) && !(table === 'blobs' && isCompressed(row)),
            apply: (path) =>
              change(
                path,
                (db) =>
                  void db
                    .prepare(`DELETE FROM ${table} WHERE ${where(row)}`)
                    .run(...(Object.values(row) as string[])),
              ),
          })),
        ),
      ).toEqual([])
    },
    300_000,
  )

  test.each([...KEPT, ...OTHERS])(
    '%s: changed',
    async (table) => {
      const columns = Object.keys(rowsOf(table)[0] ?? {})
      expect(
        await whatGoesWrong(
          rowsOf(table)
            .slice(0, 2)
            .flatMap((row, i) =>
              columns.flatMap((column) =>
                otherValues(row[column] ?? null).map((value) => ({
                  name: `${table} ${i}: ${column} = ${String(value)}`,
                  must: false,
                  apply: (path) =>
                    change(path, (db) => {
                      const sql = `UPDATE OR REPLACE ${table} SET ${column} = ? WHERE ${where(row)}`
                      db.prepare(sql).run(value as string, ...(Object.values(row) as string[]))
                    }),
                })),
              ),
            ),
        ),
      ).toEqual([])
    },
    600_000,
  )

  test("midstates that are damaged, or not those of the layer's tar, are found and removed", async () => {
    const path = copy()
    const diffIds: DiffId[] = []
    {
      await using store = await openStore(path)
      for (const seed of [7, 8]) {
        const bytes = noise(7_000_000, seed)
        const layer = await store.layers.write(async (writer) => {
          for (const name of ['a', 'b', 'c']) {
            writer.entry({ ...FILE, path: `${name}${seed}`, size: bytes.length })
            writer.data(bytes)
          }
        })
        diffIds.push((await layer.stored).diffId)
      }
      expect((await store.fsck()).problems).toEqual([])
    }
    const [one, two] = diffIds as [DiffId, DiffId]
    const damages: Readonly<Record<string, (its: Buffer, others: Buffer) => Buffer>> = {
      'a bit flipped': (its) => (its.writeUInt8(its.readUInt8(40) ^ 1, 40), its),
      cut: (its) => its.subarray(72),
      "another layer's, moved": (_, others) => others,
      "another layer's, with a right sum": (_, others) => seal(one, others.subarray(0, -4)),
      'of another place': (its) => {
        its.writeDoubleLE(its.readDoubleLE(64) + 64, 64)
        return seal(one, its.subarray(0, -4))
      },
      'beyond the end': (its) => {
        its.writeDoubleLE(2 ** 40, its.length - 4 - 8)
        return seal(one, its.subarray(0, -4))
      },
    }
    for (const [name, damage] of Object.entries(damages)) {
      const damaged = copy(path)
      change(damaged, (db) => {
        const packedOf = (diffId: DiffId): Buffer =>
          Buffer.from(
            db.prepare('SELECT packed FROM midstates WHERE diff_id = ?').get(diffId)?.[
              'packed'
            ] as Uint8Array,
          )
        expect(packedOf(one).length).toBeGreaterThan(72 * 2)
        db.prepare('UPDATE midstates SET packed = ? WHERE diff_id = ?').run(
          damage(packedOf(one), packedOf(two)),
          one,
        )
      })
      await using store = await openStore(damaged)
      const { problems } = await store.fsck({ repair: true })
      expect([name, problems.map((problem) => [problem.code, problem.where])]).toEqual([
        name,
        [['ROW_INVALID', `index.db: midstates ${one}`]],
      ])
      expect((await store.fsck()).problems).toEqual([])
    }
  }, 120_000)

  test('what it should find is found', async () => {
    const expected: readonly (readonly [sql: string, code: ProblemCode])[] = [
      ['UPDATE contents SET block = block + 1', 'CONTENT_DAMAGED'],
      ['UPDATE contents SET segment = 7', 'CONTENT_MISSING'],
      ['UPDATE contents SET block = (SELECT min(block) FROM contents)', 'CONTENTS_OVERLAP'],
      ['UPDATE segments SET length = 512', 'SEGMENT_LENGTH_WRONG'],
      ['UPDATE segments SET length = 1024 * 1024 * 1024', 'SEGMENT_SHORT'],
      ['UPDATE segments SET records = records + 1', 'SIDECAR_DAMAGED'],
      ['INSERT INTO dead SELECT segment, block, size FROM contents LIMIT 1', 'DEAD_WRONG'],
      ['INSERT INTO dead VALUES (1, 100000000, 5)', 'DEAD_WRONG'],
      ['UPDATE layers SET size = size + 512', 'LAYER_ROW_WRONG'],
      ['UPDATE layers SET opaque_root = 1', 'LAYER_ROW_WRONG'],
      ["UPDATE layers SET image = 'x'", 'LAYER_IMAGE_MISSING'],
      ['DELETE FROM layer_segments', 'LAYER_IMAGE_DAMAGED'],
      ['UPDATE layers SET image = NULL', 'LAYER_SEGMENTS_WRONG'],
      ["UPDATE layers SET diff_id = 'x' || diff_id", 'ROW_INVALID'],
      ['DELETE FROM layers', 'IMAGE_LAYER_MISSING'],
      ['UPDATE blobs SET size = size + 1', 'BLOB_SIZE_WRONG'],
      ['DELETE FROM images', 'NAME_DANGLING'],
      ['UPDATE images SET config = manifest', 'IMAGE_ROW_WRONG'],
      ['UPDATE names SET manifest = (SELECT min(manifest) FROM images)', 'NAMES_WRONG'],
      ["INSERT INTO leased VALUES ('../aaaa', 'sha256:x')", 'LEASE_DANGLING'],
    ]
    for (const [sql, code] of expected) {
      const path = copy()
      change(path, (db) => db.exec(sql))
      const found = await check(path)
      expect([sql, found === 'refused' ? [] : found.problems.map((problem) => problem.code)]).toEqual([
        sql,
        expect.arrayContaining([code]),
      ])
      expect([sql, (await repair(path)).problems.filter(({ repaired }) => !repaired)]).toEqual([sql, []])
      expect([sql, await check(path)]).toEqual([sql, expect.objectContaining({ problems: [] })])
      expect([sql, await wholeImages(path)]).toEqual([sql, Object.keys(IMAGES)])
    }
  }, 120_000)

  test('the images that need what is damaged are named', async () => {
    const path = copy()
    const [only] = IMAGES['local/only:1'] ?? []
    rmSync(join(path, 'layers', `${only?.slice(7)}.recipe`))
    await using store = await openStore(path)
    const { problems, lost } = await store.fsck({ repair: true })
    expect(problems).toContainEqual(
      expect.objectContaining({ code: 'LAYER_RECIPE_DAMAGED', images: ['local/only:1'], repaired: true }),
    )
    expect(lost).toEqual(['local/only:1'])
    expect(
      store.images
        .list()
        .flatMap(({ names }) => names)
        .toSorted(),
    ).toEqual(['local/app:1', 'local/base:1'])
  })
})

describe('a lost index', () => {
  const lose: readonly (readonly [name: string, (path: string) => void])[] = [
    ['gone', (path) => rmSync(join(path, 'index.db'))],
    ['empty', (path) => truncateSync(join(path, 'index.db'), 0)],
    ['zeros', (path) => writeFileSync(join(path, 'index.db'), Buffer.alloc(90_000))],
    ['noise', (path) => writeFileSync(join(path, 'index.db'), randomBytes(90_000))],
    ['cut in half', (path) => truncateSync(join(path, 'index.db'), 40_960)],
    ['one page', (path) => truncateSync(join(path, 'index.db'), 4096)],
    ['without a table', (path) => change(path, (db) => db.exec('DROP TABLE contents'))],
    ['without a column', (path) => change(path, (db) => db.exec('ALTER TABLE steps DROP COLUMN used_at'))],
    [
      'another database',
      (path) => (rmSync(join(path, 'index.db')), change(path, (db) => db.exec('CREATE TABLE x (y)'))),
    ],
    [
      'older than the names',
      (path) =>
        change(path, (db) =>
          db.exec("DELETE FROM names; DELETE FROM images; UPDATE meta SET value = 1 WHERE key = 'names'"),
        ),
    ],
  ]
  test.each(lose)('%s: nothing is made over it, and all comes back', async (_, apply) => {
    const path = copy()
    apply(path)
    const before = describeFiles(path)
    const found = await check(path)
    expect(isFound(found)).toBe(true)
    expect(found === 'refused' ? describeFiles(path) : before).toEqual(before)
    const repaired = await repairStore(path)
    expect(repaired).toMatchObject({ reason: expect.any(String) })
    await using store = await openStore(path)
    expect(await store.fsck({ repair: true })).toMatchObject({ problems: [], lost: [] })
    expect(await wholeImages(path)).toEqual(Object.keys(IMAGES))
    // The compressed form, too, and images that are mounted without being made anew.
    expect([...compressed].map((diffId) => store.layers.compressed(diffId).length)).toEqual([1])
    expect(readdirSync(join(path, 'layers')).toSorted()).toEqual(
      readdirSync(join(template, 'layers')).toSorted(),
    )
    expect(await repairStore(path)).toBeUndefined()
  })

  test('what only the index knew is taken from the old one, as far as it can be read', async () => {
    const path = copy()
    change(path, (db) => db.exec('DROP TABLE contents'))
    expect(await repairStore(path)).toMatchObject({ kept: 'lost+found/index-1' })
    expect(existsSync(join(path, 'lost+found/index-1/index.db'))).toBe(true)
    await using store = await openStore(path)
    const [, app] = IMAGES['local/app:1'] ?? []
    expect(store.steps.find('k'.repeat(64) as never)).toMatchObject({ diffId: app })
    expect(store.steps.resolve('cheap' as never)).toBe('dear')
    expect(store.steps.findImage('k'.repeat(64) as never)).toBe(
      store.images.byName('local/app:1')?.manifestDigest,
    )
    expect(store.blobs.origins(IMAGES['local/base:1']?.[0] as never)).toEqual(['example.org/base'])
  })

  test('the log that was not yet folded in', async () => {
    const path = copy()
    await using store = await openStore(path)
    const layer = await addLayer(store, { late: 'late' })
    addImage(store, 'local/late:1', [layer])
    const torn = copy(path)
    expect(statSync(join(torn, 'index.db-wal')).size).toBeGreaterThan(0)
    rmSync(join(torn, 'index.db-wal'))
    rmSync(join(torn, 'index.db-shm'), { force: true })
    rmSync(join(torn, 'leases'), { recursive: true })
    await expect(openStore(torn)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    expect(await repair(torn)).toMatchObject({ problems: [], lost: [] })
    await using again = await openStore(torn)
    expect(again.images.byName('local/late:1')?.config.rootfs.diff_ids).toEqual([layer.diffId])
  })

  test('the names as well: images get new ones, so that they are not collected', async () => {
    const path = copy()
    rmSync(join(path, 'index.db'))
    rmSync(join(path, 'names.json'))
    await repair(path)
    await using store = await openStore(path)
    await store.prune()
    expect(store.images.list().flatMap(({ names }) => names)).toEqual(
      [1, 2, 3].map(() => expect.stringMatching(/^localhost\/lost-and-found:[0-9a-f]{12}$/)),
    )
    expect(await store.fsck()).toMatchObject({ problems: [] })
  })

  test('in use: it is left alone', async () => {
    const path = copy()
    await using store = await openStore(path)
    store.lease()
    renameSync(join(path, 'index.db'), join(path, 'moved'))
    try {
      await expect(repairStore(path)).rejects.toMatchObject({ code: 'STORE_IN_USE' })
    } finally {
      renameSync(join(path, 'moved'), join(path, 'index.db'))
    }
  })

  test('a repair that is killed leaves the store as damaged as it was', async () => {
    const path = copy()
    rmSync(join(path, 'index.db'))
    const script = `const { repairStore } = await import(${JSON.stringify(join(import.meta.dirname, '../cas/index.ts'))}); await repairStore(${JSON.stringify(path)})`
    for (let ms = 150; ms < 600; ms += 50) {
      const child = spawn(NODE[0], [NODE[1], '--input-type=module', '-e', script], { stdio: 'ignore' })
      const exit = new Promise((resolve) => child.once('exit', resolve))
      await Promise.race([setTimeout(ms), exit])
      child.kill('SIGKILL')
      await exit
      if (existsSync(join(path, 'index.db'))) break
      await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    }
    expect(await repair(path)).toMatchObject({ problems: [], lost: [] })
    expect(await wholeImages(path)).toEqual(Object.keys(IMAGES))
  }, 60_000)
})

/** Names, sizes and digests; what SQLite keeps for its readers is not looked at. */
function describeFiles(path: string): Record<string, string> {
  return Object.fromEntries(
    (readdirSync(path, { recursive: true }) as string[])
      .filter(
        (name) =>
          statSync(join(path, name)).isFile() &&
          !name.endsWith('-shm') &&
          !(name.endsWith('-wal') && statSync(join(path, name)).size === 0),
      )
      .map((name) => [
        name,
        createHash('sha256')
          .update(readFileSync(join(path, name)))
          .digest('hex'),
      ]),
  )
}

describe('a newer format', () => {
  test('is refused, and not a byte of it is changed', async () => {
    const path = copy()
    change(path, (db) => db.exec('PRAGMA user_version = 99'))
    const before = describeFiles(path)
    await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    await expect(repairStore(path)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    expect(spawnSync(NODE[0], [NODE[1], CLI, 'fsck', '--repair', '--store', path]).status).toBe(8)
    expect(describeFiles(path)).toEqual(before)
  })

  test('also while the change is still in the log', async () => {
    const path = copy()
    const db = new DatabaseSync(join(path, 'index.db'))
    db.exec('PRAGMA user_version = 99')
    const torn = copy(path)
    db.close()
    expect(statSync(join(torn, 'index.db-wal')).size).toBeGreaterThan(0)
    const before = describeFiles(torn)
    await expect(openStore(torn)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    await expect(repairStore(torn)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
    expect(describeFiles(torn)).toEqual(before)
  })

  test('also when its index is lost', async () => {
    const path = copy()
    rmSync(join(path, 'index.db'))
    const file = join(path, 'names.json')
    const body = '{}\n'
    writeFileSync(
      file,
      `${JSON.stringify({ format: 99, sequence: 1, crc32: crc32(`99 1 ${body}`) })}\n${body}`,
    )
    await expect(repairStore(path)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
  })
})

/** A store of format 1: the tar of each layer a blob. */
async function makeOld(): Promise<string> {
  const path = join(directory, `old-${++copies}`)
  for (const name of ['blobs/sha256', 'layers', 'work', 'leases'])
    mkdirSync(join(path, name), { recursive: true })
  const db = new DatabaseSync(join(path, 'index.db'))
  db.exec(`
      PRAGMA journal_mode = WAL;
      CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
      CREATE TABLE layers (diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
      CREATE TABLE directories (
        diff_id TEXT NOT NULL, chain TEXT NOT NULL, name TEXT NOT NULL, boot TEXT NOT NULL,
        opaque_root INTEGER NOT NULL, has_root INTEGER NOT NULL, PRIMARY KEY (diff_id, chain)) WITHOUT ROWID;
      CREATE TABLE compressed (
        diff_id TEXT NOT NULL, digest TEXT NOT NULL, descriptor TEXT NOT NULL, PRIMARY KEY (diff_id, digest)) WITHOUT ROWID;
      CREATE TABLE origins (digest TEXT NOT NULL, repository TEXT NOT NULL, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
      CREATE TABLE images (manifest TEXT PRIMARY KEY, config TEXT NOT NULL, stored_at INTEGER NOT NULL) WITHOUT ROWID;
      CREATE INDEX images_config ON images (config);
      CREATE TABLE image_layers (manifest TEXT NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY (manifest, diff_id)) WITHOUT ROWID;
      CREATE TABLE names (name TEXT PRIMARY KEY, manifest TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE steps (
        key TEXT PRIMARY KEY, diff_id TEXT NOT NULL, created TEXT NOT NULL, title TEXT NOT NULL, components TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE aliases (cheap TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE builds (key TEXT PRIMARY KEY, manifest TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE leased (scope TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (scope, digest)) WITHOUT ROWID;
      PRAGMA user_version = 1`)
  await using now = await openStore(copy())
  for (const image of now.images.list()) {
    for (const digest of [image.id, image.manifestDigest]) {
      const bytes = now.blobs.read(digest)
      writeFileSync(join(path, 'blobs/sha256', digest.slice(7)), bytes)
      db.prepare('INSERT OR IGNORE INTO blobs VALUES (?, ?)').run(digest, bytes.length)
    }
    db.prepare('INSERT INTO images VALUES (?, ?, ?)').run(image.manifestDigest, image.id, image.storedAt)
    for (const name of image.names)
      db.prepare('INSERT INTO names VALUES (?, ?)').run(name, image.manifestDigest)
    for (const diffId of image.config.rootfs.diff_ids) {
      const parts: Buffer[] = []
      for await (const part of now.layers.tar(diffId)) parts.push(part)
      const bytes = Buffer.concat(parts)
      writeFileSync(join(path, 'blobs/sha256', diffId.slice(7)), bytes)
      db.prepare('INSERT OR IGNORE INTO layers VALUES (?, ?)').run(diffId, bytes.length)
      db.prepare('INSERT OR IGNORE INTO image_layers VALUES (?, ?)').run(image.manifestDigest, diffId)
      db.prepare('INSERT OR IGNORE INTO steps VALUES (?, ?, ?, ?, ?)').run(
        diffId,
        diffId,
        '2026-01-01T00:00:00Z',
        'RUN',
        '[]',
      )
    }
  }
  db.close()
  return path
}

describe('format 1', () => {
  test('is migrated without loss', async () => {
    const path = await makeOld()
    expect(await check(path)).toMatchObject({ problems: [], counts: { layers: 3, images: 3, blobs: 6 } })
    expect(await wholeImages(path)).toEqual(Object.keys(IMAGES))
    await using store = await openStore(path)
    expect(store.steps.find(IMAGES['local/only:1']?.[0] as never)).toBeDefined()
  })

  test('also when it is killed in between, at any moment', async () => {
    const path = await makeOld()
    const script = `const { openStore } = await import(${JSON.stringify(join(import.meta.dirname, '../cas/index.ts'))}); await openStore(${JSON.stringify(path)})`
    for (let ms = 120; ms < 600; ms += 40) {
      const child = spawn(NODE[0], [NODE[1], '--input-type=module', '-e', script], { stdio: 'ignore' })
      const exit = new Promise((resolve) => child.once('exit', resolve))
      await Promise.race([setTimeout(ms), exit])
      child.kill('SIGKILL')
      await exit
    }
    expect(await check(path)).toMatchObject({ problems: [], counts: { layers: 3, images: 3 } })
    expect(await wholeImages(path)).toEqual(Object.keys(IMAGES))
  }, 60_000)

  test('a tar of it that was damaged before costs its images only', async () => {
    const path = await makeOld()
    flip(join(path, 'blobs/sha256', (IMAGES['local/only:1']?.[0] ?? '').slice(7)), 700)
    expect(await repair(path)).toMatchObject({ lost: ['local/only:1'] })
    expect(await check(path)).toMatchObject({ problems: [] })
    expect(await wholeImages(path)).toEqual(['local/base:1', 'local/app:1'])
  })

  test('its index lost: images come back from the tars', async () => {
    const path = await makeOld()
    rmSync(join(path, 'index.db'))
    await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    await repairStore(path)
    await using store = await openStore(path)
    await store.fsck({ repair: true })
    expect(store.layers.find(IMAGES['local/only:1']?.[0] as DiffId)).toBeUndefined()
  })
})

describe('contents that are files', () => {
  test('one that is damaged, one that is gone; a lost index', async () => {
    const path = join(directory, 'objects')
    {
      await using store = await openStore(path, { driver: 'objects' })
      addImage(store, 'local/one:1', [await addLayer(store, { a: noise(5000, 1), b: noise(900, 2) })])
      addImage(store, 'local/two:1', [await addLayer(store, { a: noise(5000, 3) })])
      addImage(store, 'local/three:1', [await addLayer(store, { a: noise(5000, 4) })])
      expect(await store.fsck()).toMatchObject({ problems: [], counts: { contents: 4 } })
    }
    rmSync(join(path, 'index.db'))
    expect(await repair(path)).toMatchObject({ problems: [], lost: [], counts: { contents: 4, images: 3 } })
    const objectOf = (bytes: Buffer): string => {
      const hex = createHash('sha256').update(bytes).digest('hex')
      return join(path, 'objects', hex.slice(0, 2), hex.slice(2))
    }
    flip(objectOf(noise(900, 2)), 700)
    rmSync(objectOf(noise(5000, 3)))
    const found = await check(path)
    const problems = found === 'refused' ? [] : found.problems
    expect(problems.map(({ code, images }) => `${code} ${images.join()}`)).toEqual(
      expect.arrayContaining([
        'CONTENT_DAMAGED local/one:1',
        'CONTENT_MISSING local/two:1',
        'LAYER_DAMAGED local/one:1',
        'LAYER_DAMAGED local/two:1',
      ]),
    )
    expect(await repair(path)).toMatchObject({
      lost: ['local/one:1', 'local/two:1'],
      counts: { contents: 2, images: 1 },
    })
    expect(await check(path)).toMatchObject({ problems: [] })
  })
})

async function mounted(apply: (path: string) => void): Promise<string> {
  const path = copy()
  apply(path)
  await using store = await openStore(path)
  const [base] = IMAGES['local/base:1'] ?? []
  try {
    await using root = await store.layers.mount([store.layers.open(base as DiffId)])
    return readFileSync(`/proc/self/fd/${root.fd}/bin/other`).equals(noise(700, 2)) ? 'right' : 'wrong'
  } catch (error) {
    return typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : String(error)
  }
}
function imageOf(path: string): string {
  const hex = IMAGES['local/base:1']?.[0]?.slice(7) ?? ''
  const name = readdirSync(join(path, 'layers')).find((one) => one.startsWith(hex) && one.endsWith('.erofs'))
  return join(path, 'layers', name ?? '')
}

describe('what is mounted of a store that is damaged', () => {
  test('what is missing is told; what is cut short is an error when it is read', async () => {
    expect(await mounted(() => {})).toBe('right')
    expect(await mounted((path) => truncateSync(join(path, 'segments/1'), 512))).toBe('EIO')
    expect(await mounted((path) => rmSync(join(path, 'segments/1')))).toBe('STORE_CORRUPT')
    expect(await mounted((path) => rmSync(imageOf(path)))).toBe('STORE_CORRUPT')
    expect(await mounted((path) => truncateSync(imageOf(path), 1500))).toMatch(/^E|STORE_CORRUPT/)
    expect(await mounted((path) => flip(imageOf(path), 1024 + 36))).toBe('STORE_CORRUPT')
  })
})

describe('beside others', () => {
  test('ingests, tags and collections in other processes are no damage', async () => {
    const path = copy()
    const script = `
      import { randomBytes } from 'node:crypto'
      const { openStore } = await import(${JSON.stringify(join(import.meta.dirname, '../cas/index.ts'))})
      const end = Date.now() + 6000
      for (let n = 0; Date.now() < end; n++) {
        const store = await openStore(${JSON.stringify(path)})
        const base = store.images.list()[0]
        for (let i = 0; i < 4; i++) {
          const layer = await store.layers.write(async (writer) => {
            for (let file = 0; file < 5; file++) {
              const bytes = file < 2 ? Buffer.from('the same ' + file + ' ' + (n % 3)) : randomBytes(5000)
              writer.entry({ path: 'f' + file, type: 'file', size: bytes.length, mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, xattrs: new Map() })
              writer.data(bytes)
            }
          })
          await layer.stored
          store.images.tag('other:' + process.pid, base.manifestDigest)
        }
        await store.prune(n % 2 ? { compact: true } : {})
        store.images.untag('other:' + process.pid)
        await store[Symbol.asyncDispose]()
      }`
    const others = [1, 2].map(() => {
      const child = spawn(NODE[0], [NODE[1], '--input-type=module', '-e', script], {
        stdio: ['ignore', 'ignore', 'pipe'],
      })
      let said = ''
      child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
      return new Promise<string>((resolve) => child.once('exit', (code) => resolve(code === 0 ? '' : said)))
    })
    let rounds = 0
    for (let said: string[] | undefined; said === undefined; rounds++) {
      expect(await check(path)).toMatchObject({ problems: [] })
      said = await Promise.race([Promise.all(others), setTimeout(1, undefined)])
      expect(said ?? ['', '']).toEqual(['', ''])
    }
    expect(rounds).toBeGreaterThan(5)
    expect(await check(path)).toMatchObject({ problems: [] })
  }, 60_000)

  test('it can be called off', async () => {
    await using store = await openStore(copy())
    const controller = new AbortController()
    controller.abort(new Error('enough'))
    await setTimeout(30)
    const large = await addLayer(store, { large: randomBytes(8_000_000) })
    expect(large.size).toBeGreaterThan(8_000_000)
    await expect(store.fsck({ signal: controller.signal })).rejects.toThrow('enough')
  })

  test('what an ingest left that died is no problem, but told', async () => {
    const path = copy()
    appendFileSync(join(path, 'segments/1'), noise(1000, 1))
    writeFileSync(join(path, 'layers', `${'a'.repeat(64)}.recipe`), 'x')
    writeFileSync(join(path, 'blobs/sha256', 'b'.repeat(64)), 'x')
    writeFileSync(join(path, 'segments/77'), 'x')
    const found = await check(path)
    expect(found).toMatchObject({ problems: [] })
    expect(found === 'refused' ? [] : found.leftovers.map((leftover) => leftover.path).toSorted()).toEqual([
      `blobs/sha256/${'b'.repeat(64)}`,
      `layers/${'a'.repeat(64)}.recipe`,
      'segments/1',
      'segments/77',
    ])
  })
})

function fsck(...args: readonly string[]): { status: number | null; stdout: string } {
  return spawnSync(NODE[0], [NODE[1], CLI, 'fsck', ...args], { encoding: 'utf8' })
}

describe('tbuild fsck', () => {
  test('says what fsck(8) would by its exit status', () => {
    const path = copy()
    expect(fsck('--store', path)).toMatchObject({ status: 0, stdout: expect.stringContaining('all is well') })
    const file = filesOf(path).find((name) => name.endsWith('.erofs')) ?? ''
    rmSync(join(path, file))
    const before = describeFiles(path)
    const found = fsck('--store', path, '--json')
    expect(found.status).toBe(4)
    expect(JSON.parse(found.stdout)).toMatchObject({
      problems: [{ code: 'LAYER_IMAGE_MISSING', where: file, repaired: false }],
      index: null,
    })
    expect(Object.keys(describeFiles(path))).toEqual(Object.keys(before))
    expect(fsck('--store', path, '--quick').status).toBe(4)
    expect(fsck('--store', path, '--repair')).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('repaired: make it anew'),
    })
    expect(fsck('--store', path).status).toBe(0)
    rmSync(join(path, 'index.db'))
    expect(fsck('--store', path)).toMatchObject({ status: 4, stdout: expect.stringContaining('--repair') })
    expect(fsck('--store', path, '--repair')).toMatchObject({
      status: 1,
      stdout: expect.stringContaining('made anew'),
    })
    expect(fsck('--store', path, '--repair').status).toBe(0)
    expect(fsck('--store', CLI).status).toBe(8)
  }, 60_000)
})
