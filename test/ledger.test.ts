/** The ledger against those who know: du(1) for what the store occupies, the kernel's overlayfs for what images hold. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import {
  closeSync,
  constants,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import * as fc from 'fast-check'
import {
  MEDIA,
  openStore,
  openTree,
  type BlobDigest,
  type DiskUsage,
  type Image,
  type ImageView,
  type OpenStoreOptions,
  type RowKind,
  type Store,
  type StoredLayer,
  type Tree,
} from '../cas/index.ts'
import { TbuildError } from '../errors.ts'
import { apply, arbitraryEntries } from '../cas/layer/testing.ts'
import { getXattr, listXattrs } from '../linux/index.ts'
import { archiveOf, type Described } from '../cas/tar/testing.ts'
import { openWorkshop } from './support/build.ts'
import { freshCommand } from './support/bundle.ts'

const scratch = mkdtempSync(join(tmpdir(), 'tbuild-ledger-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))
let stores = 0
const newStore = (): string => join(scratch, `store-${++stores}`)

function keys(value: object | undefined): string[] {
  return Object.keys(value ?? {})
}

function writeJson(root: string, path: string, manifest: object): void {
  mkdirSync(join(root, path), { recursive: true })
  writeFileSync(join(root, path, 'package.json'), JSON.stringify(manifest))
}

async function* parts(bytes: Buffer): AsyncGenerator<Buffer, void, undefined> {
  yield bytes
}

function ingest(store: Store, ...entries: readonly Described[]): Promise<StoredLayer> {
  return store.layers.ingestTar(parts(archiveOf(...entries)))
}

/** An image of these layers, bottom first. */
function imageOf(store: Store, layers: readonly StoredLayer[], name: string): Image {
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: { Labels: { name } },
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
    }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: store.blobs.write(config), size: config.length },
    layers: layers.map(({ diffId, size }) => ({ mediaType: MEDIA.layer, digest: diffId, size })),
  }
  return store.images.put(store.blobs.write(Buffer.from(JSON.stringify(manifest))), [name])
}

const full = (name: string): string => `docker.io/library/${name}:latest`

async function usageOf(path: string, options: OpenStoreOptions = {}): Promise<DiskUsage> {
  const read = async () => {
    await using store = await openStore(path, options)
    return (await store.ledger()).usage()
  }
  return (await read()).measure()
}

function du(path: string): number {
  return Number(execFileSync('du', ['-s', '--block-size=1', path], { encoding: 'utf8' }).split('\t')[0])
}

function row(usage: DiskUsage, kind: RowKind): number {
  const found = usage.rows.find((one) => one.kind === kind)
  if (found === undefined) throw new Error(`no row ${kind}`)
  return found.allocatedBytes
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)

/** To the byte; and what is told of layers and images adds up to it. */
async function expectExact(path: string, options: OpenStoreOptions = {}): Promise<DiskUsage> {
  const usage = await usageOf(path, options)
  expect(usage.allocatedBytes).toBe(du(path))
  expect(sum(usage.rows.map(({ allocatedBytes }) => allocatedBytes))).toBe(usage.allocatedBytes)
  const { layers, images } = usage
  expect(sum(layers.map((layer) => layer.uniqueBytes))).toBe(row(usage, 'layerContents'))
  expect(sum(layers.map((layer) => layer.recipeBytes))).toBe(row(usage, 'recipes'))
  expect(sum(layers.map((layer) => layer.indexImageBytes))).toBe(row(usage, 'indexImages'))
  expect(sum(layers.map((layer) => layer.treeBytes))).toBe(row(usage, 'trees'))
  for (const one of [...layers, ...images])
    expect(one.repeatedBytes + one.sharedBytes + one.uniqueBytes).toBe(one.contentBytes)
  return usage
}

describe('the total is what du counts', () => {
  test('an empty store', async () => {
    const usage = await expectExact(newStore())
    expect(usage.images).toEqual([])
    expect(row(usage, 'other') + row(usage, 'unrecorded') + row(usage, 'rounding')).toBe(0)
  })

  test('after builds, and after a prune', async () => {
    const path = newStore()
    await using shop = await openWorkshop(path)
    const context = shop.context({
      Dockerfile: 'FROM base\nCOPY . /app\nRUN echo one > /one && cp /app/a /b\nWORKDIR /w\n',
      a: 'a'.repeat(10_000),
    })
    await shop.build(context)
    // Uppers go behind the build: what is measured twice must not change in between.
    const uppers = (): string[] =>
      readdirSync(join(path, 'work'), { recursive: true, encoding: 'utf8' }).filter((name) =>
        /upper/.test(name),
      )
    while (uppers().length > 0) await setTimeout(5)
    // The workshop's own store is open, with its lease and SQLite's log.
    const open = await expectExact(path)
    expect(row(open, 'leases')).toBe(0)
    await shop.build(shop.context({ Dockerfile: 'FROM base\nRUN dd if=/dev/zero of=/big bs=1M count=3\n' }))
    await shop.store[Symbol.asyncDispose]()
    const usage = await expectExact(path)
    expect(row(usage, 'work')).toBe(0)
    expect(row(usage, 'cacheRecords')).toBeGreaterThan(0)
    expect(row(usage, 'other')).toBe(0)
    {
      await using store = await openStore(path)
      store.images.untag(full('app'))
      await store.prune()
    }
    const pruned = await expectExact(path)
    expect(row(pruned, 'unrecorded')).toBe(0)
  })

  test('compressed layers, and files that nothing names', async () => {
    const path = newStore()
    {
      await using store = await openStore(path)
      const tar = archiveOf({ path: 'random', contents: randomBytes(100_000) })
      const layer = await store.layers.ingestTar(parts(tar))
      const packed = gzipSync(tar)
      const digest = store.blobs.write(packed)
      store.layers.rememberCompressed(layer.diffId, {
        mediaType: MEDIA.layerGzip,
        digest,
        size: packed.length,
      })
      store.layers.rememberCompressed(layer.diffId, {
        mediaType: MEDIA.layerZstd,
        digest: `sha256:${'1'.repeat(64)}` as BlobDigest,
        size: 10,
      })
      imageOf(store, [layer], full('pulled'))
    }
    mkdirSync(join(path, 'strange'))
    writeFileSync(join(path, 'strange/file'), randomBytes(5000))
    writeFileSync(join(path, 'layers', `${'0'.repeat(64)}.recipe`), randomBytes(5000))
    writeFileSync(join(path, 'blobs/sha256', '2'.repeat(64)), randomBytes(5000))
    const usage = await expectExact(path)
    const [layer] = usage.layers
    expect(layer?.compressed.map(({ allocatedBytes }) => allocatedBytes > 0).toSorted()).toEqual([
      false,
      true,
    ])
    expect(row(usage, 'compressedLayers')).toBe(sum(layer?.compressed.map((one) => one.allocatedBytes) ?? []))
    expect(usage.images[0]?.compressedBytes).toBe(10)
    expect(row(usage, 'other')).toBeGreaterThanOrEqual(5000)
    expect(row(usage, 'unrecorded')).toBeGreaterThanOrEqual(10_000)
  })

  test('a segment that is half dead, then half punched', async () => {
    const path = newStore()
    {
      await using store = await openStore(path)
      const dead = await ingest(
        store,
        ...Array.from({ length: 50 }, (_, i) => ({ path: `f${i}`, contents: randomBytes(7000 + i) })),
      )
      await ingest(store, { path: 'live', contents: randomBytes(9000) })
      imageOf(store, [dead], full('dead'))
      store.images.remove(store.images.byName(full('dead'))?.manifestDigest ?? ('' as BlobDigest))
    }
    const db = new DatabaseSync(join(path, 'index.db'))
    db.exec(`
      INSERT INTO dead SELECT segment, block, size FROM contents WHERE size BETWEEN 7000 AND 8000;
      DELETE FROM contents WHERE size BETWEEN 7000 AND 8000`)
    const places = db.prepare('SELECT segment, block, size FROM dead').all()
    db.close()
    const before = await expectExact(path)
    expect(row(before, 'deadContents')).toBeGreaterThanOrEqual(50 * 7000)
    expect(before.layers.some(({ isDamaged }) => isDamaged)).toBe(true)
    for (const { segment, block, size } of places) {
      const file = join(path, 'segments', String(segment))
      execFileSync('fallocate', ['-p', '-o', String(Number(block) * 512), '-l', String(size), file])
    }
    // Recorded as dead still: the collection that freed them was killed.
    await expectExact(path)
    const again = new DatabaseSync(join(path, 'index.db'))
    again.exec('DELETE FROM dead')
    again.close()
    const after = await expectExact(path)
    expect(row(after, 'deadContents')).toBe(0)
    // Parts of blocks whose other part lives.
    expect(row(after, 'rounding')).toBeGreaterThan(0)
    expect(row(after, 'rounding')).toBeLessThan(51 * 8192)
  })

  test('a segment whose contents have been copied elsewhere', async () => {
    const path = newStore()
    {
      await using store = await openStore(path)
      await ingest(store, { path: 'f', contents: randomBytes(30_000) })
    }
    const db = new DatabaseSync(join(path, 'index.db'))
    db.exec('UPDATE segments SET retired = 1; DELETE FROM contents; DELETE FROM layers')
    db.close()
    const usage = await expectExact(path)
    expect(row(usage, 'deadContents')).toBe(statSync(join(path, 'segments/1')).blocks * 512)
    expect(row(usage, 'rounding')).toBe(0)
  })

  test('layers as directories, with hard links and deep paths', async () => {
    const path = newStore()
    const options = { driver: 'copy' } as const
    {
      await using store = await openStore(path, options)
      const deep = `${'d'.repeat(200)}/`.repeat(20)
      const layer = await ingest(
        store,
        { path: 'a', contents: randomBytes(50_000) },
        { path: 'b', type: 'hardlink', link: 'a' },
        { path: `${deep}f`, contents: randomBytes(5000) },
        { path: Buffer.from('not\xff\xfeutf8', 'latin1'), contents: 'x' },
      )
      imageOf(store, [layer], full('tree'))
      await using _ = await store.layers.mount([store.layers.open(layer.diffId)])
    }
    const usage = await expectExact(path, options)
    expect(row(usage, 'trees')).toBeGreaterThan(55_000)
  })

  test('while another process has the store open, with a lease and unfinished work', async () => {
    const path = newStore()
    {
      await using store = await openStore(path)
      imageOf(store, [await ingest(store, { path: 'f', contents: randomBytes(3000) })], full('app'))
    }
    const script = `
      import { openStore } from ${JSON.stringify(resolve(import.meta.dirname, '../cas/index.ts'))}
      import { writeFileSync } from 'node:fs'
      const store = await openStore(${JSON.stringify(path)})
      writeFileSync(store.workDirectory('x') + '/half', Buffer.alloc(12345, 1))
      store.steps.alias('cheap', 'dear')
      console.log('ready')
      process.stdin.resume()`
    const other = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    try {
      await once(other.stdout, 'data')
      const usage = await expectExact(path)
      expect(row(usage, 'work')).toBeGreaterThanOrEqual(12345)
      expect(readdirSync(path)).toContain('index.db-wal')
    } finally {
      other.kill()
      await once(other, 'exit')
    }
    const usage = await expectExact(path)
    expect(row(usage, 'work')).toBe(0)
  })

  test('segments longer than the index says, and missing ones', async () => {
    const path = newStore()
    {
      await using store = await openStore(path)
      await ingest(store, { path: 'f', contents: randomBytes(30_000) })
    }
    writeFileSync(join(path, 'segments/1'), randomBytes(20_000), { flag: 'a' })
    const usage = await expectExact(path)
    expect(row(usage, 'unfinishedContents')).toBe(20_000)
    rmSync(join(path, 'segments/1'))
    const lost = await expectExact(path)
    expect(row(lost, 'layerContents')).toBe(30_000)
    expect(row(lost, 'rounding')).toBe(-30_000)
  })
})

describe('who has what', () => {
  test('layers and contents that images share, and what only one has', async () => {
    const path = newStore()
    const [base, common, one, two, cached] = [8000, 5000, 3000, 2000, 1000].map((size) => randomBytes(size))
    {
      await using store = await openStore(path)
      const below = await ingest(store, { path: 'base', contents: base ?? '' })
      const first = await ingest(
        store,
        { path: 'lib', contents: common ?? '' },
        { path: 'lib2', contents: common ?? '' },
        { path: 'one', contents: one ?? '' },
      )
      const second = await ingest(
        store,
        { path: 'vendor/lib', contents: common ?? '' },
        { path: 'two', contents: two ?? '' },
      )
      await ingest(store, { path: 'cached', contents: cached ?? '' }, { path: 'two', contents: two ?? '' })
      imageOf(store, [below, first], full('a'))
      imageOf(store, [below, second], full('b'))
    }
    const usage = await expectExact(path)
    const layerOf = (contentBytes: number) =>
      usage.layers.find((layer) => layer.contentBytes === contentBytes)
    const [below, first] = [layerOf(8000), layerOf(13_000)]
    expect(first).toMatchObject({
      repeatedBytes: 5000,
      sharedBytes: 5000,
      uniqueBytes: 3000,
      distinctContents: 2,
      uniqueContents: 1,
      images: [full('a')],
      sharedWith: [{ diffId: layerOf(7000)?.diffId, bytes: 5000 }],
    })
    expect(below).toMatchObject({ uniqueBytes: 8000, images: [full('a'), full('b')], sharedWith: [] })
    const [a, b] = ['a', 'b'].map((name) => usage.images.find(({ names }) => names.includes(full(name))))
    expect(a).toMatchObject({
      contentBytes: 21_000,
      repeatedBytes: 5000,
      sharedBytes: 13_000,
      uniqueBytes: 3000,
    })
    // What a layer without an image has as well is not the image's alone.
    expect(b).toMatchObject({ contentBytes: 15_000, repeatedBytes: 0, sharedBytes: 15_000, uniqueBytes: 0 })
    expect(a?.sharedWith).toEqual([
      {
        manifestDigest: b?.manifestDigest,
        names: [full('b')],
        layers: 1,
        layerBytes: below?.tarBytes,
        contentBytes: 13_000,
      },
    ])
    expect(row(usage, 'sharedContents')).toBe(7000)
  })

  test('savings: by layers, by files, and where they repeat', async () => {
    await using store = await openStore(newStore())
    const files = (version: string, own: Buffer): Described[] => [
      {
        path: 'app/node_modules/left/package.json',
        contents: JSON.stringify({ name: 'left', version: '1.0.0' }),
      },
      { path: 'app/node_modules/left/index.js', contents: left },
      { path: 'app/node_modules/@s/right/package.json', contents: JSON.stringify({ version }) },
      { path: 'app/node_modules/@s/right/big.js', contents: right },
      { path: 'usr/lib/python3/dist-packages/py/x.py', contents: python },
      {
        path: 'usr/lib/python3/dist-packages/py-2.0.dist-info/RECORD',
        contents: 'py/x.py,sha256=1,2\n../../../bin/py,,\n',
      },
      { path: 'usr/bin/true', contents: debian },
      { path: 'var/lib/dpkg/info/coreutils.list', contents: '/.\n/bin\n/bin/true\n' },
      {
        path: 'var/lib/dpkg/status',
        contents: 'Package: coreutils\nArchitecture: amd64\nVersion: 9.1-1\n\n',
      },
      { path: 'own', contents: own },
    ]
    const [left, right, python, debian] = [20_000, 30_000, 10_000, 15_000].map((size) =>
      randomBytes(size),
    ) as [Buffer, Buffer, Buffer, Buffer]
    const base = await ingest(store, { path: 'base', contents: randomBytes(50_000) })
    const one = await ingest(store, ...files('1.0.0', randomBytes(1000)))
    const two = await ingest(store, ...files('2.0.0', randomBytes(1000)))
    imageOf(store, [base, one], full('one'))
    imageOf(store, [base, two], full('two'))
    const pending = (await store.ledger()).savings()
    await store[Symbol.asyncDispose]()
    const savings = pending.measure()
    expect(savings.imageBytes).toBe(2 * base.size + one.size + two.size)
    expect(savings.layerSharingSavedBytes).toBe(base.size)
    expect(savings.fileSharingSavedBytes).toBeGreaterThan(75_000)
    expect(savings.fileSharingSavedBytes).toBeLessThan(75_500)
    expect(savings.allocatedBytes).toBe(du(store.path))
    expect(
      savings.directories.map(({ path, repeatedBytes, layers }) => [path, repeatedBytes, layers]),
    ).toEqual([
      ['/app/node_modules/@s/right', 30_000, 1],
      ['/app/node_modules/left', 20_033, 1],
      ['/usr/bin', 15_000, 1],
      ['/usr/lib/python3/dist-packages/py', 10_000, 1],
      ['/', expect.any(Number), 1],
    ])
    expect(
      savings.packages.map(({ kind, name, version, copies, repeatedBytes }) => [
        kind,
        name,
        version,
        copies,
        repeatedBytes,
      ]),
    ).toEqual([
      ['npm', '@s/right', '2.0.0', 1, 30_000],
      ['npm', 'left', '1.0.0', 2, 20_033],
      ['debian', 'coreutils', '9.1-1', 2, 15_000],
      ['python', 'py', '2.0', 2, 10_000],
    ])
  })

  test('savings finds the packages of a tree that npm finds', async () => {
    const root = join(scratch, 'npm')
    const packages: readonly (readonly [path: string, manifest: object])[] = [
      ['node_modules/plain', { name: 'plain', version: '1.0.0' }],
      ['node_modules/plain/node_modules/inner', { name: 'inner', version: '2.0.0-rc.1' }],
      ['node_modules/plain/node_modules/@s/inner', { name: '@s/inner', version: '3.0.0' }],
      ['node_modules/@s/inner', { name: '@s/inner', version: '3.0.0' }],
      ['node_modules/inner', { name: 'inner', version: '1.9.0' }],
      ['node_modules/alias', { name: 'plain', version: '1.0.0' }],
      ['node_modules/@t/alias', { name: 'other', version: '0.0.1' }],
      ['node_modules/plain/lib/no-package', { name: 'no-package', version: '9.0.0' }],
      ['node_modules/plain/node_modules/.bin', { name: 'no-bin', version: '9.0.0' }],
    ]
    writeJson(root, '', { name: 'root', version: '1.0.0', dependencies: { plain: '*' } })
    for (const [path, manifest] of packages) {
      writeJson(root, path, manifest)
      writeFileSync(join(root, path, 'index.js'), randomBytes(100))
    }
    const script = `
      const Arborist = require('@npmcli/arborist')
      new Arborist({ path: ${JSON.stringify(root)} }).loadActual().then(({ inventory }) => {
        const nodes = [...inventory.values()].filter(({ isRoot }) => !isRoot)
        console.log(JSON.stringify(nodes.map(({ packageName, version }) => packageName + '@' + version)))
      })`
    const said = execFileSync(process.execPath, ['-e', script], {
      cwd: import.meta.dirname,
      encoding: 'utf8',
    })
    await using store = await openStore(newStore())
    for (const name of ['one', 'two']) {
      writeFileSync(join(root, 'own'), name)
      const tar = execFileSync('tar', ['-C', root, '-c', '.'])
      imageOf(store, [await store.layers.ingestTar(parts(tar))], full(name))
    }
    const pending = (await store.ledger()).savings()
    await store[Symbol.asyncDispose]()
    const found = pending.measure().packages.flatMap(({ kind, name, version, copies }) => {
      expect([kind, copies % 2]).toEqual(['npm', 0])
      return Array.from({ length: copies / 2 }, () => `${name}@${version}`)
    })
    expect(found.toSorted()).toEqual((JSON.parse(said) as string[]).toSorted())
    expect(found).toHaveLength(7)
  })

  test('files that came in other pieces are the same', async () => {
    const root = mkdtempSync(join(scratch, 'sparse-'))
    const bytes = Buffer.alloc(1_000_000)
    for (const at of [4096, 200_000, 700_000]) bytes.set(randomBytes(5000), at)
    writeFileSync(join(root, 'same'), bytes)
    execFileSync('fallocate', ['--dig-holes', join(root, 'same')])
    bytes[700_000] = (bytes[700_000] ?? 0) ^ 1
    writeFileSync(join(root, 'other'), bytes)
    execFileSync('fallocate', ['--dig-holes', join(root, 'other')])
    await using store = await openStore(newStore())
    const take = async (name: string, ...flags: readonly string[]) => {
      const tar = execFileSync('tar', ['-C', root, ...flags, '-c', 'same', 'other'], { maxBuffer: 1e7 })
      return { name, image: imageOf(store, [await store.layers.ingestTar(parts(tar))], full(name)) }
    }
    const reuse = (await store.ledger()).reuse(await take('plain'), await take('sparse', '-S'))
    expect(reuse).toMatchObject({ samePath: { files: 2, bytes: 2_000_000 }, differing: [] })
    expect([reuse.a.changed.files, reuse.b.elsewhere.files]).toEqual([0, 0])
  })

  test('what two images have in common, and who keeps it', async () => {
    await using store = await openStore(newStore())
    const base = await ingest(store, { path: 'etc/same', contents: 'S'.repeat(100) })
    const a = await ingest(
      store,
      { path: 'lib/moved', contents: 'M'.repeat(50) },
      { path: 'changed', contents: 'one' },
      { path: 'gone', contents: 'G'.repeat(7) },
      { path: 'gone2', type: 'hardlink', link: 'gone' },
    )
    const b = await ingest(
      store,
      { path: 'vendor/moved', contents: 'M'.repeat(50) },
      { path: 'changed', contents: 'other' },
    )
    const [first, second] = [imageOf(store, [base, a], full('a')), imageOf(store, [base, b], full('b'))]
    imageOf(store, [base], full('base'))
    const reuse = (await store.ledger()).reuse({ name: 'a', image: first }, { name: 'b', image: second })
    expect(reuse.samePath).toEqual({ files: 1, bytes: 100 })
    expect(reuse.a).toMatchObject({
      total: { files: 5, bytes: 160 },
      elsewhere: { files: 1, bytes: 50 },
      changed: { files: 1, bytes: 3 },
      only: { files: 2, bytes: 7 },
    })
    expect(reuse.b).toMatchObject({
      elsewhere: { files: 1, bytes: 50 },
      changed: { files: 1, bytes: 5 },
      only: { files: 0, bytes: 0 },
    })
    expect(reuse.layers[0]).toEqual({
      diffId: base.diffId,
      tarBytes: base.size,
      a: 0,
      b: 0,
      sameChain: true,
      pinnedBy: [full('a'), full('b'), full('base')],
      cacheRecords: 0,
    })
    expect(reuse.sharedLayerBytes).toBe(base.size)
    expect(reuse.differing[0]).toEqual({ path: '/lib/moved', kind: 'onlyA', bytesA: 50, bytesB: 0 })
    expect(reuse.differing.map(({ path }) => path)).toContain('/changed')
  })
})

describe('images are read as the kernel shows them', () => {
  let store: Store
  beforeAll(async () => {
    store = await openStore(newStore())
  })
  afterAll(async () => store[Symbol.asyncDispose]())

  /** As it is read, and as the kernel shows it. */
  const both = async (layers: readonly StoredLayer[]): Promise<[string[], string[]]> => {
    const view = (await store.ledger()).view(layers.map(({ diffId }) => diffId))
    await using root = await store.layers.mount(layers.map(({ diffId }) => store.layers.open(diffId)))
    using tree = openTree(root.fd)
    return [describeView(view), describeMount(tree, root.fd)]
  }

  test('whiteouts, opaque directories, other types, links, holes, attributes', async () => {
    const below = await ingest(
      store,
      { path: './', mode: 0o711, uid: 3 },
      { path: 'd/a', contents: 'a' },
      { path: 'd/sub/b', contents: 'b' },
      { path: 'gone/x', contents: 'x' },
      { path: 'becomes-file/x', contents: 'x' },
      { path: 'becomes-directory', contents: 'x' },
      { path: 'l', type: 'symlink', link: '/d/../d/a' },
      { path: 'h', type: 'hardlink', link: 'd/a' },
      { path: 'null', type: 'char', major: 1, minor: 3 },
      { path: 'fifo', type: 'fifo' },
      {
        path: 'holes',
        contents: Buffer.concat([randomBytes(70_000), Buffer.alloc(300_000), randomBytes(5)]),
      },
      { path: 'zeros', contents: Buffer.alloc(500_000) },
      { path: 'x', mode: 0o4755, xattrs: new Map([['user.k', Buffer.from('v')]]) },
    )
    const above = await ingest(
      store,
      { path: '.wh.gone' },
      { path: 'd/.wh..wh..opq' },
      { path: 'd/c', contents: 'c', mtimeNs: 1_234_567_891n },
      { path: 'becomes-file', contents: 'now' },
      { path: 'becomes-directory/y', contents: 'y' },
    )
    for (const layers of [[below, above], [below], [below, above, below], []]) {
      const [found, expected] = await both(layers)
      expect(found).toEqual(expected)
    }
  })

  test('any layers that collide', async () => {
    const entries = arbitraryEntries({ isHostile: false }).map((all) => {
      const kept: Described[] = []
      for (const entry of all) if (isTaken([...kept, entry])) kept.push(entry)
      return kept
    })
    await fc.assert(
      fc.asyncProperty(fc.array(entries, { minLength: 1, maxLength: 4 }), async (drawn) => {
        const layers: StoredLayer[] = []
        for (const one of drawn) layers.push(await ingest(store, ...one))
        const [found, expected] = await both(layers)
        expect(found).toEqual(expected)
      }),
      { numRuns: 60 },
    )
  })

  test('what changed', async () => {
    const below = await ingest(
      store,
      { path: 'd/', mode: 0o755 },
      { path: 'd/same', contents: 'x' },
      { path: 'd/edited', contents: 'x' },
      { path: 'd/touched', contents: 'x' },
      { path: 'd/owned', contents: 'x' },
      { path: 'gone/x', contents: 'x' },
      { path: 'l', type: 'symlink', link: 'a' },
      { path: 't', contents: 'x' },
      { path: 'z', contents: Buffer.alloc(200_000) },
    )
    const above = await ingest(
      store,
      { path: 'd/', mode: 0o700 },
      { path: 'd/same', contents: 'x' },
      { path: 'd/edited', contents: 'y' },
      { path: 'd/touched', contents: 'x', mtimeNs: 5n },
      {
        path: 'd/owned',
        contents: 'x',
        uid: 7,
        mode: 0o600,
        xattrs: new Map([['user.a', Buffer.from('1')]]),
      },
      { path: '.wh.gone' },
      { path: 'l', type: 'symlink', link: 'b' },
      { path: 't/new', contents: 'four' },
      { path: 'z', contents: Buffer.alloc(200_000) },
    )
    const ledger = await store.ledger()
    const chain = [below.diffId, above.diffId]
    const changes = ledger
      .diff([below.diffId], chain)
      .map(({ kind, path, what }) => [kind, path, ...what].join(' '))
    expect(changes).toEqual([
      'M /d mode',
      'C /d/edited content',
      'M /d/owned mode owner xattrs',
      'D /gone',
      'C /l target',
      'C /t type mode',
      'A /t/new',
    ])
    const times = ledger
      .diff([below.diffId], chain, { times: true })
      .filter(({ what }) => what.includes('mtime'))
    expect(times.map(({ path }) => path)).toEqual(['/d/touched'])
    expect(ledger.diff(chain, chain)).toEqual([])
  })

  test('holes that came in otherwise are no change', async () => {
    const contents = Buffer.concat([Buffer.alloc(65_536, 1), Buffer.alloc(65_536), Buffer.alloc(100, 2)])
    const directory = join(scratch, 'sparse')
    mkdirSync(directory)
    const fd = openSync(join(directory, 'f'), constants.O_CREAT | constants.O_WRONLY)
    writeSync(fd, contents, 0, 65_536, 0)
    writeSync(fd, contents, 131_072, 100, 131_072)
    closeSync(fd)
    // With a hole in its middle that tar finds; and with the same hole of a page less.
    const sparse = execFileSync(
      'tar',
      ['-C', directory, '--sparse', '--mtime=@0', '--owner=0', '--group=0', '-cf', '-', 'f'],
      {
        maxBuffer: 1e9,
      },
    )
    const a = await store.layers.ingestTar(parts(sparse))
    const b = await ingest(store, { path: 'f', contents, mode: statSync(join(directory, 'f')).mode & 0o7777 })
    expect((await store.ledger()).diff([a.diffId], [b.diffId])).toEqual([])
  })
})

function isTaken(entries: readonly Described[]): boolean {
  try {
    apply(archiveOf(...entries))
    return true
  } catch (error) {
    if (error instanceof TbuildError) return false
    throw error
  }
}

/** Everything that can be said of every name. */
function describeView(view: ImageView): string[] {
  const lines: string[] = []
  view.walk(view.root, '', (path, node) => {
    const entry = view.entry(path, node)
    const { type, mode, uid, gid, size, links, mtimeSeconds, mtimeNanoseconds, target, device, xattrs } =
      entry
    const time = BigInt(mtimeSeconds) * 1_000_000_000n + BigInt(mtimeNanoseconds)
    const isDevice = type === 'char' || type === 'block'
    lines.push(
      [
        JSON.stringify(path),
        type,
        mode.toString(8),
        uid,
        gid,
        type === 'directory' ? '' : links,
        type === 'directory' ? '' : size,
        // Of the root the time may be the mount's.
        path === '' ? '' : time,
        target,
        isDevice ? device.join() : '',
        ...[...xattrs].map(([name, value]) => `${name}=${value.toString('hex')}`).toSorted(),
        type === 'file'
          ? Buffer.concat([...view.read(node)].map((part) => Buffer.from(part))).toString('base64')
          : '',
      ].join(' '),
    )
    return true
  })
  return lines
}

function describeMount(tree: Tree, rootFd: number): string[] {
  const lines: string[] = []
  const walk = (path: string): void => {
    const stats = tree.lstat(path)
    // Where nothing is merged, overlayfs lists whiteouts too.
    if (stats === undefined) return
    const { type, major, minor } = stats
    const isDirectory = type === 'directory'
    lines.push(
      [
        JSON.stringify(path),
        type,
        stats.mode.toString(8),
        stats.uid,
        stats.gid,
        isDirectory ? '' : stats.nlink,
        isDirectory ? '' : stats.size,
        path === '' ? '' : stats.mtimeNs,
        type === 'symlink' ? tree.readlink(path) : '',
        type === 'char' || type === 'block' ? `${major},${minor}` : '',
        ...xattrsOf(Buffer.from(`/proc/self/fd/${rootFd}/./${path}`, 'latin1')),
        type === 'file' ? contentsOf(tree, path).toString('base64') : '',
      ].join(' '),
    )
    if (isDirectory) for (const name of tree.list(path)) walk(path === '' ? name : `${path}/${name}`)
  }
  walk('')
  return lines
}

/** All but overlayfs's own. */
function xattrsOf(path: Buffer): string[] {
  return listXattrs(path)
    .filter((name) => !name.startsWith('trusted.'))
    .map((name) => `${name}=${getXattr(path, name)?.toString('hex')}`)
    .toSorted()
}

function contentsOf(tree: Tree, path: string): Buffer {
  const fd = tree.open(path)
  try {
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

describe('the commands', () => {
  const command = freshCommand()
  const path = newStore()
  const tbuild = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync(command, args, {
      maxBuffer: 1e8,
      env: { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: path, TZ: 'Asia/Tokyo' },
    })
    return { status, stdout: stdout.toString(), stderr: stderr.toString(), bytes: stdout }
  }

  beforeAll(async () => {
    await using store = await openStore(path)
    const base = await ingest(
      store,
      { path: 'etc/passwd', contents: 'root:x:0:0\n', mode: 0o644, mtimeNs: 1_700_000_000_000_000_000n },
      { path: 'etc/link', type: 'symlink', link: '/etc/passwd' },
      { path: 'etc/up', type: 'symlink', link: '../../../etc' },
      { path: 'bin/su', contents: 'su', mode: 0o4755, uid: 0, gid: 42 },
      { path: 'dev/null', type: 'char', mode: 0o666, major: 1, minor: 3 },
      { path: 'tmp/', mode: 0o1777 },
      { path: 'tmp/\x1b[31mred\n', contents: 'x' },
      { path: Buffer.from('tmp/\xff', 'latin1'), contents: 'y' },
    )
    const app = await ingest(
      store,
      {
        path: 'etc/passwd',
        contents: 'root:x:0:0\nann:x:1:1\n',
        mode: 0o644,
        mtimeNs: 1_700_000_000_000_000_000n,
      },
      { path: 'app/copy', contents: 'su' },
      { path: 'big', contents: randomBytes(3_000_000) },
    )
    imageOf(store, [base], full('base'))
    imageOf(store, [base, app], full('app'))
  })

  test('df: JSON with the fields that are documented, and the total du says', () => {
    const usage = JSON.parse(tbuild('df', '--json').stdout) as DiskUsage
    expect(usage.allocatedBytes).toBe(du(path))
    expect(keys(usage)).toEqual(['store', 'allocatedBytes', 'rows', 'images', 'layers'])
    expect(keys(usage.rows[0])).toEqual(['kind', 'allocatedBytes', 'count'])
    expect(keys(usage.images[0]).toSorted()).toEqual([
      'allocatedBytes',
      'compressedBytes',
      'contentBytes',
      'id',
      'layers',
      'manifestDigest',
      'names',
      'repeatedBytes',
      'sharedBytes',
      'sharedWith',
      'tarBytes',
      'uniqueBytes',
    ])
    expect(keys(usage.layers[0]).toSorted()).toEqual([
      'allocatedBytes',
      'compressed',
      'contentBytes',
      'diffId',
      'distinctContents',
      'images',
      'indexImageBytes',
      'isDamaged',
      'recipeBytes',
      'repeatedBytes',
      'sharedBytes',
      'sharedWith',
      'tarBytes',
      'treeBytes',
      'uniqueBytes',
      'uniqueContents',
    ])
    const documented = readFileSync(resolve(import.meta.dirname, '../docs/ledger.md'), 'utf8')
    for (const name of [
      ...usage.rows.map(({ kind }) => kind),
      ...keys(usage.images[0]),
      ...keys(usage.layers[0]),
    ])
      expect(documented).toContain(`\`${name}\``)
  })

  test('df: tables for a person', () => {
    const short = tbuild('df')
    expect(short.status).toBe(0)
    expect(short.stdout).toMatch(
      /^IMAGE +LAYERS +SIZE +REPEATED +SHARED +UNIQUE +COMPRESSED +ON DISK\napp:latest +2 /,
    )
    expect(short.stdout).toMatch(/\ntotal +\S+B\n$/)
    expect(tbuild('df', '-v').stdout).toMatch(/LAYER +SHARES WITH +CONTENTS\n/)
  })

  test('savings and reuse', () => {
    expect(tbuild('savings').stdout).toMatch(/each of 2 layers once/)
    const savings = JSON.parse(tbuild('savings', '--json').stdout) as Record<string, unknown>
    expect(Object.keys(savings).toSorted()).toEqual([
      'afterFileSharingBytes',
      'afterLayerSharingBytes',
      'allocatedBytes',
      'compressedBytes',
      'compressedLayers',
      'directories',
      'fileSharingSavedBytes',
      'imageBytes',
      'images',
      'layerSharingSavedBytes',
      'layers',
      'packages',
      'storedBytes',
    ])
    expect(savings['allocatedBytes']).toBe(du(path))
    expect(tbuild('reuse', 'base', 'app').stdout).toMatch(/1 of 2 layers are in both/)
    const reuse = JSON.parse(tbuild('reuse', '--json', 'base', 'app').stdout) as Record<string, unknown>
    expect(Object.keys(reuse).toSorted()).toEqual([
      'a',
      'b',
      'differing',
      'layers',
      'samePath',
      'sharedLayerBytes',
    ])
  })

  test('diff: of two images, and of one with what it is built on', () => {
    const expected = 'A /app\nA /app/copy\nA /big\nC /etc/passwd (content)\n'
    expect(tbuild('diff', 'base', 'app').stdout).toBe(expected)
    const alone = tbuild('diff', 'app')
    expect(alone.stdout).toBe(expected)
    expect(alone.stderr).toBe('compared with base:latest\n')
    expect(tbuild('diff', 'base').stdout).toMatch(/^A \/bin\nA \/bin\/su\n/)
    const { changes } = JSON.parse(tbuild('diff', '--json', 'base', 'app').stdout) as { changes: unknown[] }
    expect(changes.at(-1)).toEqual({
      path: '/etc/passwd',
      kind: 'C',
      what: ['content'],
      bytesBefore: 11,
      bytesAfter: 21,
    })
  })

  test('ls: as ls does it', () => {
    expect(tbuild('ls', 'app').stdout).toBe('app\nbig\nbin\ndev\netc\ntmp\n')
    expect(tbuild('ls', '-l', 'app:latest:/etc/passwd').stdout).toBe(
      '-rw-r--r-- 1 0 0 21 2023-11-14 22:13 passwd\n',
    )
    expect(tbuild('ls', '-l', 'app:/etc').stdout).toMatch(/^lrwx.* link -> \/etc\/passwd\n-rw-r/)
    expect(tbuild('ls', '-l', 'app:/bin').stdout).toMatch(/^-rwsr-xr-x 1 0 42 2 1970-01-01 00:00 su\n$/)
    expect(tbuild('ls', '-l', 'app:/dev').stdout).toMatch(/^crw-rw-rw- 1 0 0 1, 3 /)
    expect(tbuild('ls', '-l', 'app:/').stdout).toMatch(/\ndrwxrwxrwt 1 +0 +0 +0 1970-01-01 00:00 tmp\n$/)
    expect(tbuild('ls', 'app:/etc/up').stdout).toBe('link\npasswd\nup\n')
    expect(tbuild('ls', '-R', 'app:/').stdout).toMatch(/^\/:\napp\n.*\n\n\/app:\ncopy\n\n\/bin:\nsu\n/s)
    const [entry] = JSON.parse(tbuild('ls', '--json', 'app:/etc/passwd').stdout) as [object]
    expect(entry).toEqual({
      path: '/etc/passwd',
      type: 'file',
      mode: '0644',
      uid: 0,
      gid: 0,
      size: 21,
      links: 1,
      mtime: '2023-11-14T22:13:20.000000000Z',
      xattrs: {},
    })
  })

  test('names that are no text come out as they are, on a terminal escaped', () => {
    expect(tbuild('ls', 'app:/tmp').bytes).toEqual(Buffer.from('\x1b[31mred\n\n\xff\n', 'latin1'))
    const entries = JSON.parse(tbuild('ls', '--json', 'app:/tmp').stdout) as Record<string, string>[]
    expect(entries.map((entry) => entry['pathBase64'])).toEqual([
      undefined,
      Buffer.from('/tmp/\xff', 'latin1').toString('base64'),
    ])
    const terminal = spawnSync('script', ['-qec', `${command} ls app:/tmp`, '/dev/null'], {
      env: { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: path },
    })
    expect(terminal.stdout.toString('latin1')).toBe('\\033[31mred\\012\r\n\\377\r\n')
  })

  test('cat: through symlinks as chroot would, several at once', () => {
    expect(tbuild('cat', 'base:/etc/link').stdout).toBe('root:x:0:0\n')
    expect(tbuild('cat', 'app:latest:/../etc/up/passwd', '/bin/su').stdout).toBe('root:x:0:0\nann:x:1:1\nsu')
    expect(tbuild('cat', 'app:/big').bytes.length).toBe(3_000_000)
  })

  test('mistakes are answered with what was meant', () => {
    const missing = tbuild('cat', 'app:/etc/paswd')
    expect(missing.status).toBe(1)
    expect(missing.stderr).toMatch(
      /There is no "\/etc\/paswd" in app\. \[PATH_NOT_FOUND\]\nhint: did you mean \/etc\/passwd\?/,
    )
    expect(tbuild('cat', 'ap:/etc/passwd').stderr).toMatch(/IMAGE_NOT_FOUND\]\nhint: did you mean app/)
    expect(tbuild('cat', 'app').stderr).toMatch(/ARGUMENTS\]\nhint: .*tbuild cat app:\/etc\/passwd/)
    expect(tbuild('cat', 'app').status).toBe(2)
    expect(tbuild('cat', 'app:/etc').stderr).toMatch(/"\/etc" is a directory\. \[PATH_NOT_FILE\]/)
    expect(tbuild('ls', 'app:/etc/passwd/x').stderr).toMatch(/PATH_NOT_DIRECTORY/)
    expect(tbuild('cat', 'app:/etc/passwd/').stderr).toMatch(/"?\/etc\/passwd"? is not a directory/)
    expect(tbuild('reuse', 'app', 'bse').stderr).toMatch(/did you mean base/)
    for (const name of ['df', 'savings', 'reuse', 'diff', 'ls', 'cat'])
      expect(tbuild(name, '--help').stdout).toMatch(/Examples:\n/)
  })

  test('a damaged content is an error, and none of it comes out', async () => {
    const segment = join(path, 'segments/1')
    const bytes = readFileSync(segment)
    const at = bytes.indexOf('root:x:0:0\nann')
    bytes[at] = 0x52
    writeFileSync(segment, bytes)
    const small = tbuild('cat', 'app:/etc/passwd')
    expect(small.stdout).toBe('')
    expect(small.stderr).toMatch(/STORE_CORRUPT/)
    expect(small.status).toBe(1)
    const db = new DatabaseSync(join(path, 'index.db'))
    const { block } = db.prepare('SELECT block FROM contents WHERE size = 3000000').get() ?? {}
    db.close()
    bytes[Number(block) * 512 + 2_999_999]! ^= 1
    writeFileSync(segment, bytes)
    const big = tbuild('cat', 'app:/big')
    expect(big.status).toBe(1)
    expect(big.stderr).toMatch(/STORE_CORRUPT/)
    expect(big.bytes.length).toBeLessThan(3_000_000)
  })
})
