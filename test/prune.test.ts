/** Garbage collection: what goes, what stays and why, that every freed byte is one, and that nothing living is ever harmed. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  statfsSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import {
  MEDIA,
  openStore,
  openTree,
  type BlobDigest,
  type DiffId,
  type OpenStoreOptions,
  type Store,
  type Tree,
  type PruneReport,
} from '../cas/index.ts'
import { flock, statAt } from '../linux/index.ts'
import { bytesOf, noise, readLayer, storeLayer } from './support/store-process.ts'

const HELPER = join(import.meta.dirname, 'support/store-process.ts')
const CLI = join(import.meta.dirname, '../cli/index.ts')

let path: string
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'tbuild-prune-'))
})
afterEach(() => rmSync(path, { recursive: true, force: true }))

/** With a store that has no lease on what an earlier one made. */
async function withStore<T>(work: (store: Store) => Promise<T>, driver?: DriverName): Promise<T> {
  await using store = await openStore(path, { driver })
  return await work(store)
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

async function layerOf(store: Store, files: Readonly<Record<string, Buffer>>): Promise<DiffId> {
  const layer = await store.layers.write(async (writer) => {
    for (const [name, bytes] of Object.entries(files)) {
      const rest = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, major: 0, minor: 0, xattrs: new Map() }
      writer.entry({ type: 'file', path: name, size: bytes.length, ...rest })
      if (!writer.stored(hash('sha256', bytes, 'buffer'))) writer.data(bytes)
    }
  })
  return (await layer.stored).diffId
}

function imageOf(store: Store, diffIds: readonly DiffId[], ...names: string[]): BlobDigest {
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: diffIds },
      history: diffIds.map(() => ({ created_by: 'test' })),
    }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: store.blobs.write(config), size: config.length },
    layers: diffIds.map((digest) => ({
      mediaType: MEDIA.layer,
      digest,
      size: store.layers.find(digest)?.size ?? 0,
    })),
  }
  return store.images.put(store.blobs.write(Buffer.from(JSON.stringify(manifest))), names).manifestDigest
}

function contentsOf(tree: Tree, name: string): Buffer {
  const fd = tree.open(name)
  try {
    return readFileSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** A hole divides an extent: where the file system had the segment in several already, their list takes one block more, which nobody can tell before. */
function expectTold(dry: PruneReport, report: PruneReport): void {
  expect([0, 4096]).toContain(dry.freedBytes - report.freedBytes)
}

/** As du(1) counts; without the index, which grows by what is written into it. */
function onDisk(): number {
  const parts = ['blobs', 'layers', 'segments', 'objects', 'trees', 'contexts', 'work'].map((name) =>
    join(path, name),
  )
  const total = execFileSync('du', ['-c', '--block-size=1', '-s', ...parts], { encoding: 'utf8' })
    .trim()
    .split('\n')
    .at(-1)
  return Number.parseInt(total ?? '', 10)
}

function all(): number {
  return Number.parseInt(execFileSync('du', ['--block-size=1', '-s', path], { encoding: 'utf8' }), 10)
}

function query<T = Record<string, unknown>>(sql: string): T[] {
  const db = new DatabaseSync(join(path, 'index.db'), { timeout: 10_000 })
  try {
    return db.prepare(sql).all() as T[]
  } finally {
    db.close()
  }
}

/** Every layer streams as it should, every file has its row, every row its file. */
async function verify(driver?: DriverName): Promise<number> {
  const layers = query<{ diff_id: DiffId; image: string | null }>('SELECT diff_id, image FROM layers')
  await withStore(async (store) => {
    for (const { diff_id } of layers) {
      await readLayer(store, diff_id)
      await using root = await store.layers.mount([store.layers.open(diff_id)])
      using tree = openTree(root.fd)
      const wrong = tree.list('').filter((name) => {
        return /^f\d+$/.test(name) && !contentsOf(tree, name).equals(bytesOf(Number(name.slice(1))))
      })
      expect(wrong).toEqual([])
    }
  }, driver)
  return layers.length
}

/** After a collection that nothing hindered there is nothing else. */
function nothingIsLeft(): void {
  const layers = query<{ diff_id: DiffId; image: string | null }>('SELECT diff_id, image FROM layers')
  const files = layers.flatMap(({ diff_id, image }) => [
    `${diff_id.slice(7)}.recipe`,
    ...(image === null ? [] : [image]),
  ])
  expect(readdirSync(join(path, 'layers')).toSorted()).toEqual(files.toSorted())
  const segments = query<{ id: number }>('SELECT id FROM segments').flatMap(({ id }) => [
    `${id}`,
    `${id}.list`,
  ])
  expect(readdirSync(join(path, 'segments')).toSorted()).toEqual(segments.toSorted())
  const blobs = query<{ digest: string }>('SELECT digest FROM blobs').map(({ digest }) => digest.slice(7))
  expect(readdirSync(join(path, 'blobs/sha256')).toSorted()).toEqual(blobs.toSorted())
  const objects = readdirSync(join(path, 'objects')).flatMap((two) =>
    readdirSync(join(path, 'objects', two)).map((rest) => two + rest),
  )
  const contents = query<{ hex: string }>('SELECT lower(hex(digest)) AS hex FROM contents WHERE segment = 0')
  expect(objects.toSorted()).toEqual(contents.map(({ hex }) => hex).toSorted())
  expect(readdirSync(join(path, 'work'))).toEqual([])
  expect(query("SELECT * FROM meta WHERE key = 'unmarked'")).toEqual([])
}

describe('what goes', () => {
  test('what no named image needs; its bytes are free, exactly those that are told, before as after', async () => {
    const kept = await withStore(async (store) => {
      const base = await storeLayer(store, range(0, 30))
      const gone = await storeLayer(store, range(20, 60))
      imageOf(store, [base], 'kept')
      imageOf(store, [base, gone])
      await layerOf(store, { big: noise('big', 3_000_000) })
      return base
    })
    const before = onDisk()
    const dry = await withStore((store) => store.prune({ dryRun: true }))
    expect(onDisk()).toBe(before)
    expect(dry).toMatchObject({
      images: [expect.any(String)],
      layers: [expect.any(String), expect.any(String)],
    })
    const report = await withStore((store) => store.prune())
    // The file system's list of a file's extents may need a block more for the holes.
    expect({ ...report, freedBytes: 0 }).toEqual({ ...dry, freedBytes: 0 })
    expect(Math.abs(report.freedBytes - dry.freedBytes)).toBeLessThanOrEqual(4096)
    expect(report.freedBytes).toBe(before - onDisk())
    expect(report.freedBytes).toBeGreaterThan(3_500_000)
    expect(query('SELECT diff_id FROM layers')).toEqual([{ diff_id: kept }])
    await verify()
    nothingIsLeft()
    const again = await withStore((store) => store.prune())
    expect(again).toMatchObject({ images: [], layers: [], blobs: [], steps: 0, freedBytes: 0 })
  })

  test('a store that nothing in it needs is empty afterwards', async () => {
    await withStore((store) => storeLayer(store, range(0, 50)))
    await withStore((store) => store.prune())
    expect(readdirSync(join(path, 'segments'))).toEqual([])
    expect(query('SELECT * FROM contents UNION ALL SELECT *, 0 FROM dead')).toEqual([])
    await withStore((store) => storeLayer(store, range(0, 50)))
    // Numbers of segments do not come again: an old mount may still say them.
    expect(query('SELECT id FROM segments')).toEqual([{ id: 2 }])
    expect(await verify()).toBe(1)
  })

  test('what a process uses stays, and is named', async () => {
    await using store = await openStore(path)
    const diffId = await storeLayer(store, range(0, 10))
    await withStore((other) => other.prune())
    await readLayer(store, diffId)
    const pin = store.pins().find(({ kind }) => kind === 'process')
    expect(pin?.name).toContain(`process ${process.pid}`)
    expect(pin?.ownBytes).toBeGreaterThan(100_000)
  })

  test('small files next to each other free a block together, also when they die one after another', async () => {
    const [even = {}, odd = {}] = [0, 1].map((rest) =>
      Object.fromEntries(Object.entries(small(0)).filter((_, i) => i % 2 === rest)),
    )
    await withStore(async (store) => {
      // Both in turns, in one segment.
      const both = await layerOf(store, small(0))
      imageOf(store, [both], 'both')
      imageOf(store, [await layerOf(store, even)], 'even')
      imageOf(store, [await layerOf(store, odd)], 'odd')
      imageOf(store, [await layerOf(store, { kept: noise('kept', 700) })], 'kept')
    })
    await withStore(async (store) => {
      store.images.untag('both')
      store.images.untag('even')
    })
    await withStore((store) => store.prune())
    const dead = query<{ size: number }>('SELECT size FROM dead')
    expect(dead.length).toBeGreaterThan(10)
    await withStore(async (store) => store.images.untag('odd'))
    const before = onDisk()
    const report = await withStore((store) => store.prune())
    expect(report.freedBytes).toBe(before - onDisk())
    expect(statSync(join(path, 'segments/1')).blocks * 512).toBe(4096)
    expect(query('SELECT size FROM dead').length).toBeLessThan(3)
    await verify()
  })

  test('only what was last used before', async () => {
    const [old, young] = await withStore(async (store) => [
      await storeLayer(store, range(0, 5)),
      await storeLayer(store, range(5, 10)),
    ])
    query(`UPDATE layers SET used_at = used_at - 90000000 WHERE diff_id = '${old}' RETURNING 1`)
    const report = await withStore((store) => store.prune({ olderThanMs: 24 * 3600_000 }))
    expect(report.layers).toEqual([old])
    expect(query('SELECT diff_id FROM layers')).toEqual([{ diff_id: young }])
  })

  test('a use counts, of a layer as of a cache record', async () => {
    const key = 'key' as never
    const [stepped, mounted] = await withStore(async (store) => {
      const one = await storeLayer(store, range(0, 5))
      store.steps.record({ key, diffId: one, created: '2020-01-01T00:00:00Z' }, [['a', 'b']], 'RUN')
      return [one, await storeLayer(store, range(5, 10))]
    })
    query('UPDATE layers SET used_at = 1000 RETURNING 1')
    query('UPDATE steps SET used_at = 1000 RETURNING 1')
    await withStore(async (store) => {
      expect(store.steps.find(key)?.diffId).toBe(stepped)
      await using _ = await store.layers.mount([store.layers.open(mounted)])
    })
    const report = await withStore((store) => store.prune({ olderThanMs: 3600_000 }))
    expect(report).toMatchObject({ layers: [], steps: 0 })
    expect(
      query<{ used_at: number }>('SELECT used_at FROM layers UNION SELECT used_at FROM steps').every(
        (row) => row.used_at > 1000,
      ),
    ).toBe(true)
    await withStore(async (store) => expect((await store.prune()).steps).toBe(1))
  })

  test('what killed processes left: tails, files and directories without a record', async () => {
    const image = await withStore(async (store) => {
      const diffId = await storeLayer(store, range(0, 5))
      imageOf(store, [diffId], 'kept')
      return diffId
    })
    await withStore((store) => store.prune())
    const before = onDisk()
    appendFileSync(join(path, 'segments/1'), noise('tail', 500_000))
    appendFileSync(join(path, 'segments/1.list'), noise('list', 5000))
    for (const name of [
      'segments/77',
      'segments/78.list',
      'layers/x.recipe',
      'layers/y.erofs',
      `blobs/sha256/${'0'.repeat(64)}`,
    ])
      writeFileSync(join(path, name), noise(name, 20_000))
    mkdirSync(join(path, 'trees/old'))
    writeFileSync(join(path, 'trees/old/file'), noise('tree', 20_000))
    const left = onDisk()
    const dry = await withStore((store) => store.prune({ dryRun: true }))
    const report = await withStore((store) => store.prune())
    expect(report.freedBytes).toBe(left - onDisk())
    expect(onDisk()).toBe(before)
    expect(dry.freedBytes).toBe(report.freedBytes)
    nothingIsLeft()
    await withStore((store) => readLayer(store, image))
  })

  test('directories of layers that were made before this boot; not those of this boot, whoever made them', async () => {
    await withStore(async (store) => {
      const layer = store.layers.open(await layerOf(store, { a: noise('a', 100) }))
      imageOf(store, [(await layer.stored).diffId], 'a')
      await using _ = await store.layers.mount([layer])
    }, 'copy')
    query("UPDATE trees SET boot = boot || '-user'")
    await withStore((store) => store.prune(), 'copy')
    expect(readdirSync(join(path, 'trees'))).toHaveLength(1)
    query("UPDATE trees SET boot = 'an earlier one'")
    await withStore((store) => store.prune(), 'copy')
    expect(readdirSync(join(path, 'trees'))).toEqual([])
  })

  test.each([
    ['objects/ab/cd/', 'objects/ab/cd'],
    ['objects/x', 'objects/x'],
    ['objects/aa -> .', 'objects/aa'],
    ['objects/bb/link -> .', 'objects/bb/link'],
    ['cache-mounts/x', 'cache-mounts/x'],
    ['cache-mounts/link -> .', 'cache-mounts/link'],
    ['segments/77/d/', 'segments/77'],
    ['segments/link -> .', 'segments/link'],
    ['leases/d/e/', 'leases/d'],
    ['layers/d/e/', 'layers/d'],
    ['layers/link -> .', 'layers/link'],
    ['blobs/sha256/d/', 'blobs/sha256/d'],
    ['trees/x', 'trees/x'],
    ['work/link -> .', 'trees/x'],
  ])('what is not of the store, and nothing that it leads to: %s', async (what, gone) => {
    const bytes = noise('kept', 5000)
    const [kept, dropped] = await withStore(async (store) => {
      const made = [await layerOf(store, { kept: bytes }), await layerOf(store, { dropped: bytes })] as const
      imageOf(store, [made[0]], 'docker.io/library/kept:latest')
      return made
    })
    const outside = mkdtempSync(join(tmpdir(), 'tbuild-outside-'))
    writeFileSync(join(outside, 'bb0123'), 'outside')
    const [name = '', target] = what.split(' -> ')
    const place = join(path, name)
    mkdirSync(join(place, name.endsWith('/') ? '.' : '..'), { recursive: true })
    if (target !== undefined) symlinkSync(outside, place)
    else if (!name.endsWith('/')) writeFileSync(place, 'x'.repeat(5000))
    await withStore(async (store) => {
      expect((await store.prune()).layers).toEqual([dropped])
      expect(await store.fsck()).toMatchObject({ problems: [] })
      expect(store.layers.find(kept)).toBeDefined()
    })
    expect(readFileSync(join(outside, 'bb0123'), 'utf8')).toBe('outside')
    expect(existsSync(join(path, gone))).toBe(false)
    rmSync(outside, { recursive: true })
  })

  test('contents that are files of their own, unless somebody has recorded them again', async () => {
    await withStore(async () => {})
    const put = (bytes: Buffer): string => {
      const hex = hash('sha256', bytes)
      mkdirSync(join(path, 'objects', hex.slice(0, 2)), { recursive: true })
      writeFileSync(join(path, 'objects', hex.slice(0, 2), hex.slice(2)), bytes)
      return hex
    }
    const [gone, back] = [put(noise('gone', 9000)), put(noise('back', 9000))]
    for (const hex of [gone, back]) query(`INSERT INTO dead_objects VALUES (x'${hex}') RETURNING 1`)
    query(`INSERT INTO contents VALUES (x'${back}', 0, 0, 9000) RETURNING 1`)
    const report = await withStore((store) => store.prune())
    expect(report.freedBytes).toBe(12_288)
    expect(existsSync(join(path, 'objects', gone.slice(0, 2), gone.slice(2)))).toBe(false)
    expect(existsSync(join(path, 'objects', back.slice(0, 2), back.slice(2)))).toBe(true)
    expect(query('SELECT * FROM dead_objects')).toEqual([])
  })

  test('on a small disk that is filled again and again', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'tbuild-full-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'none', disk])
    try {
      const store = join(disk, 'store')
      const first = await openStore(store)
      imageOf(first, [await storeLayer(first, range(0, 20))], 'kept')
      await storeLayer(first, range(10, 60))
      await first[Symbol.asyncDispose]()
      for (const file of ['others', 'more', 'still more']) {
        spawnSync('dd', ['if=/dev/zero', `of=${join(disk, file)}`, 'bs=4k'])
        expect(statfsSync(disk).bavail).toBe(0)
        // Looking takes nothing away for good.
        await using full = await openStore(store)
        expect(full.images.list()).toHaveLength(1)
      }
      await using full = await openStore(store)
      expect((await full.prune()).freedBytes).toBeGreaterThan(1_000_000)
      await full[Symbol.asyncDispose]()
      rmSync(join(store, 'contexts'), { recursive: true })
      writeFileSync(join(store, 'contexts'), '')
      spawnSync('dd', ['if=/dev/zero', `of=${join(disk, 'all')}`, 'bs=4k'])
      rmSync(join(store, 'contexts'))
      await expect(openStore(store)).rejects.toMatchObject({
        code: 'STORE_UNUSABLE',
        message: expect.stringContaining('its disk is full'),
        hint: expect.stringContaining('tbuild prune'),
      })
    } finally {
      execFileSync('umount', ['-l', disk])
      rmSync(disk, { recursive: true })
    }
  })

  test('on a disk that is full to the last block', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'tbuild-full-'))
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=26m', 'none', disk])
    try {
      const store = join(disk, 'store')
      const first = await openStore(store)
      const kept = await storeLayer(first, range(0, 20))
      imageOf(first, [kept], 'kept')
      await storeLayer(first, range(10, 300))
      await first[Symbol.asyncDispose]()
      // Ends with an error: there is no room.
      spawnSync('dd', ['if=/dev/zero', `of=${join(disk, 'others')}`, 'bs=4k'])
      expect(statfsSync(disk).bavail).toBe(0)
      await using full = await openStore(store)
      expect((await full.prune()).freedBytes).toBeGreaterThan(5_000_000)
      await readLayer(full, kept)
    } finally {
      execFileSync('umount', ['-l', disk])
      rmSync(disk, { recursive: true })
    }
  })

  test('nothing is freed while a needed layer’s recipe is damaged, and the report says so', async () => {
    const damaged = await withStore(async (store) => {
      const diffId = await storeLayer(store, range(0, 20))
      imageOf(store, [diffId], 'kept')
      await storeLayer(store, range(10, 40))
      return diffId
    })
    const recipe = join(path, 'layers', `${damaged.slice(7)}.recipe`)
    const bytes = readFileSync(recipe)
    truncateSync(recipe, 40)
    const before = query('SELECT digest FROM contents')
    const report = await withStore((store) => store.prune())
    expect(report.damaged).toEqual([damaged])
    expect(report.layers).toHaveLength(1)
    expect(query('SELECT digest FROM contents')).toEqual(before)
    writeFileSync(recipe, bytes)
    const next = await withStore((store) => store.prune())
    expect(next.damaged).toEqual([])
    expect(next.freedBytes).toBeGreaterThan(100_000)
    await verify()
  })
})

describe('a cap', () => {
  const MB = 1_000_000
  /** Each 1 MB, used one hour after another. */
  async function tenLayers(): Promise<DiffId[]> {
    const layers = await withStore(async (store) => {
      const made: DiffId[] = []
      for (const n of range(0, 10)) made.push(await layerOf(store, { [`n${n}`]: noise(`layer ${n}`, MB) }))
      return made
    })
    for (const [i, diffId] of layers.entries())
      query(`UPDATE layers SET used_at = ${(i + 1) * 3600_000} WHERE diff_id = '${diffId}' RETURNING 1`)
    return layers
  }

  test('is kept: the least recently used go first, and no more than need to', async () => {
    const layers = await tenLayers()
    const report = await withStore((store) => store.prune({ keepBytes: 5 * MB }))
    expect(all()).toBeLessThanOrEqual(5 * MB)
    expect(report.cap).toMatchObject({ isKept: true, pins: [] })
    const left = query<{ diff_id: DiffId }>('SELECT diff_id FROM layers').map(({ diff_id }) => diff_id)
    expect(new Set(left)).toEqual(new Set(layers.slice(-left.length)))
    expect(left.length).toBeGreaterThanOrEqual(4)
    await verify()
  })

  test('is told before: the same layers', async () => {
    await tenLayers()
    const dry = await withStore((store) => store.prune({ keepBytes: 5 * MB, dryRun: true }))
    const report = await withStore((store) => store.prune({ keepBytes: 5 * MB }))
    expect(report.layers).toEqual(dry.layers)
    expectTold(dry, report)
    expect(dry.cap?.isKept).toBe(true)
  })

  test('is of what the store takes when it is closed: one that is kept takes nothing away', async () => {
    await tenLayers()
    const keepBytes = all() + 4096
    const report = await withStore((store) => store.prune({ keepBytes, all: true }))
    expect(report).toMatchObject({ layers: [], freedBytes: 0, cap: { isKept: true } })
    expect(report.cap?.allocatedBytes).toBe(all())
    const less = await withStore((store) => store.prune({ keepBytes: 3 * MB }))
    expect(less.cap?.allocatedBytes).toBe(all())
  })

  test('and df count a store behind a symlink like any other', async () => {
    await tenLayers()
    const link = `${path}-link`
    symlinkSync(path, link)
    try {
      await using store = await openStore(link)
      expect((await store.ledger()).usage().measure().allocatedBytes).toBe(all())
      const report = await store.prune({ keepBytes: 5 * MB })
      expect(report.layers).not.toEqual([])
      expect(report.cap?.allocatedBytes).toBeGreaterThan(3 * MB)
    } finally {
      unlinkSync(link)
    }
  })

  test('is told before: what would go is not what the rest stays for', async () => {
    await withStore(async (store) => {
      imageOf(store, [await layerOf(store, { kept: noise('kept', 2 * MB) })], 'kept')
      imageOf(store, [await layerOf(store, { untagged: noise('untagged', MB) })])
      await layerOf(store, { cached: noise('cached', MB) })
    })
    const prune = (dryRun: boolean): Promise<PruneReport> =>
      withStore((store) => store.prune({ keepBytes: MB, all: true, dryRun }))
    for (const report of [await prune(true), await prune(false)]) {
      const pins = (report.cap?.pins ?? []).filter(({ kind }) => kind !== 'index' && kind !== 'dead')
      expect(pins.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['image kept'])
    }
  })

  test('named images stay; what pins the rest is named, with its bytes', async () => {
    await withStore(async (store) => {
      const shared = await layerOf(store, { shared: noise('shared', 2 * MB) })
      imageOf(store, [shared, await layerOf(store, { a: noise('a', MB) })], 'one')
      imageOf(store, [shared], 'two')
      imageOf(store, [await layerOf(store, { c: noise('c', MB) })])
    })
    const report = await withStore((store) => store.prune({ keepBytes: MB }))
    expect(report).toMatchObject({ images: [], layers: [] })
    const { cap } = report
    expect(cap?.isKept).toBe(false)
    expect(cap?.allocatedBytes).toBeGreaterThan(4 * MB)
    const pin = (name: string) => cap?.pins.find((one) => one.name === name)
    expect(pin('one')?.bytes).toBeGreaterThan(3 * MB)
    expect(pin('one')?.ownBytes).toBeGreaterThan(MB)
    expect(pin('one')?.ownBytes).toBeLessThan(1.1 * MB)
    expect(pin('two')?.bytes).toBeGreaterThan(2 * MB)
    expect(pin('two')?.ownBytes).toBeLessThan(0.1 * MB)
    expect(cap?.pins.find(({ kind }) => kind === 'untagged')?.ownBytes).toBeGreaterThan(MB)
    expect(cap?.pins.some(({ kind }) => kind === 'index')).toBe(true)

    const more = await withStore((store) => store.prune({ keepBytes: MB, all: true }))
    expect(more.images).toHaveLength(1)
    expect(more.cap?.isKept).toBe(false)
    await verify()
  })

  test('compressed layers that can be fetched again go before anything else; what they were is remembered', async () => {
    const [diffId, digest, own] = await withStore(async (store) => {
      const layer = await layerOf(store, { a: noise('a', MB) })
      imageOf(store, [layer], 'pulled')
      await layerOf(store, { cached: noise('cached', MB) })
      const put = async (bytes: Buffer, origin?: string): Promise<BlobDigest> => {
        const blob = store.blobs.write(bytes)
        store.layers.rememberCompressed(layer, {
          mediaType: MEDIA.layerGzip,
          digest: blob,
          size: bytes.length,
        })
        if (origin !== undefined) store.blobs.rememberOrigin(blob, origin)
        return blob
      }
      return [
        layer,
        await put(gzipSync(noise('a', MB)), 'registry.example/a'),
        await put(noise('compressed here', MB)),
      ]
    })
    const report = await withStore((store) => store.prune({ keepBytes: all() - MB / 2 }))
    expect(report).toMatchObject({ blobs: [digest], layers: [], cap: { isKept: true } })
    await withStore(async (store) => {
      expect(
        store.layers
          .compressed(diffId)
          .map((descriptor) => descriptor.digest)
          .toSorted(),
      ).toEqual([digest, own].toSorted())
      expect(store.blobs.origins(digest)).toEqual(['registry.example/a'])
      expect(store.blobs.size(digest)).toBeUndefined()
      // It can be had nowhere else.
      expect(store.blobs.size(own)).toBe(MB)
    })
    const rest = await withStore((store) => store.prune({ keepBytes: 1 }))
    expect(rest.layers).toHaveLength(1)
    expect(rest.blobs).toEqual([])
  })
})

describe('by itself', () => {
  test('only when the store has grown beyond its bound; then to nine tenths of it, images without a name included', async () => {
    const named = await withStore(async (store) => {
      const layer = await layerOf(store, { a: noise('a', 1_000_000) })
      imageOf(store, [layer], 'named')
      for (const n of range(0, 4))
        imageOf(store, [layer, await layerOf(store, { b: noise(`${n}`, 1_000_000) })])
      return layer
    })
    await withStore(async (store) => {
      expect(await store.collectIfDue()).toBeUndefined()
      expect(await store.collectIfDue(20_000_000)).toBeUndefined()
      const report = await store.collectIfDue(4_000_000)
      expect(report?.images.length).toBeGreaterThan(1)
      expect(report?.cap).toMatchObject({ isKept: true, keepBytes: 3_600_000 })
    })
    expect(all()).toBeLessThan(3_700_000)
    await withStore(async (store) => {
      await readLayer(store, named)
      expect(await store.collectIfDue(4_000_000)).toBeUndefined()
      // What is pinned is not looked for again each time.
      expect((await store.collectIfDue(500_000))?.cap?.isKept).toBe(false)
      expect(await store.collectIfDue(500_000)).toBeUndefined()
    })
  })

  test('it waits for no ingest, frees nothing that one may rely on, and leaves it to the next', async () => {
    await withStore((store) => storeLayer(store, range(0, 40)))
    await using store = await openStore(path)
    const wanted = bytesOf(3)
    const file = join(path, 'work/wanted')
    writeFileSync(file, wanted)
    const root = openSync(join(path, 'work'), 'r')
    const stats = statAt(root, 'wanted')
    if (stats === undefined) throw new Error('it was written just now')
    const intake = store.layers.intake()
    const { digest } = intake.take({ root, path: 'wanted', stats, open: () => openSync(file, 'r') })
    closeSync(root)
    rmSync(file)
    // Its layer goes, and all its contents are unrecorded; one of them an ingest has found before.
    const report = await withStore((other) => other.collectIfDue(1))
    expect(report?.layers).toHaveLength(1)
    expect(report?.waitingBytes).toBeGreaterThan(100_000)
    const next = await withStore((other) => other.collectIfDue(1))
    expect(next?.freedBytes ?? 0).toBe(0)
    const layer = await store.layers.write(
      async (writer) => {
        const rest = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, major: 0, minor: 0, xattrs: new Map() }
        writer.entry({ type: 'file', path: 'f3', size: wanted.length, ...rest })
        expect(writer.stored(digest)).toBe(true)
      },
      { intake },
    )
    const { diffId } = await layer.stored
    await readLayer(store, diffId)
    const last = await withStore((other) => other.prune())
    expect(last.freedBytes).toBeGreaterThan(100_000)
    expect(last.waitingBytes).toBe(0)
    expect(query('SELECT digest FROM contents')).toHaveLength(1)
    await readLayer(store, diffId)
  })
})

describe('under a live mount', () => {
  test('holes are punched around what it reads, and never in it', async () => {
    const mine = range(0, 60).filter((n) => n % 2 === 0)
    const [all60, half] = await withStore(async (store) => [
      await storeLayer(store, range(0, 60)),
      await storeLayer(store, mine),
    ])
    await using store = await openStore(path)
    await using root = await store.layers.mount([store.layers.open(half)])
    using tree = openTree(root.fd)
    const report = await withStore((other) => other.prune())
    expect(report.layers).toEqual([all60])
    expect(report.freedBytes).toBeGreaterThan(300_000)
    execFileSync('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
    for (const n of mine) expect(contentsOf(tree, `f${n}`).equals(bytesOf(n))).toBe(true)
  })

  test('compaction moves what it reads: the old mount goes on, a new one reads the new place', async () => {
    const mine = range(0, 60).filter((n) => n % 3 === 0)
    const half = await withStore(async (store) => {
      await storeLayer(store, range(0, 60))
      return await storeLayer(store, mine)
    })
    await using store = await openStore(path)
    await using root = await store.layers.mount([store.layers.open(half)])
    using tree = openTree(root.fd)
    const slow = store.layers.tar(half)[Symbol.asyncIterator]()
    await slow.next()
    await withStore((other) => other.prune())
    const before = onDisk()
    const report = await withStore((other) => other.prune({ compact: true }))
    expect(report.compactedSegments).toBe(1)
    expect(report.freedBytes).toBe(before - onDisk())
    expect(existsSync(join(path, 'segments/1'))).toBe(false)
    execFileSync('sh', ['-c', 'echo 1 > /proc/sys/vm/drop_caches'])
    for (const n of mine) expect(contentsOf(tree, `f${n}`).equals(bytesOf(n))).toBe(true)
    while ((await slow.next()).done !== true) continue
    // The same process, and another.
    for (const other of [store, await openStore(path)]) {
      await using again = await other.layers.mount([other.layers.open(half)])
      using there = openTree(again.fd)
      for (const n of mine) expect(contentsOf(there, `f${n}`).equals(bytesOf(n))).toBe(true)
      await readLayer(other, half)
      if (other !== store) await other[Symbol.asyncDispose]()
    }
    expect(query('SELECT * FROM dead')).toEqual([])
    expect((await withStore((other) => other.prune({ compact: true }))).compactedSegments).toBe(0)
  })

  test('a content that is damaged is not moved, and its segment stays with it', async () => {
    const mine = range(0, 30).filter((n) => n % 3 === 0)
    const diffId = await withStore(async (store) => {
      await storeLayer(store, range(0, 30))
      const one = await storeLayer(store, mine)
      imageOf(store, [one], 'kept')
      return one
    })
    const row = query<{ block: number }>(
      `SELECT block FROM contents WHERE digest = x'${hash('sha256', bytesOf(9))}'`,
    )[0]
    const file = openSync(join(path, 'segments/1'), 'r+')
    writeSync(file, Buffer.from('damage'), 0, 6, (row?.block ?? 0) * 512)
    await withStore((store) => store.prune({ compact: true }))
    expect(query('SELECT segment, count(*) AS n FROM contents GROUP BY segment')).toEqual([
      { segment: 1, n: 1 },
      { segment: 2, n: mine.length - 1 },
    ])
    await withStore(async (store) => {
      await expect(readLayer(store, diffId)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
      // Mended, it is whole again.
      writeSync(file, bytesOf(9), 0, undefined, (row?.block ?? 0) * 512)
      closeSync(file)
      await readLayer(store, diffId)
    })
    await withStore((store) => store.prune({ compact: true }))
    expect(query('SELECT segment FROM contents GROUP BY segment')).toEqual([{ segment: 2 }])
    await verify()
  })

  test('a layer that needs more than 1,024 segments is compacted to half of them', async () => {
    const held: number[] = []
    const count = 1100
    const diffId = await withStore(async (store) => {
      for (const n of range(0, count)) {
        await layerOf(store, { [`s${n}`]: noise(`s${n}`, 600) })
        // Nobody else can add to it.
        const fd = openSync(join(path, 'segments', String(n + 1)), 'r')
        held.push(fd)
        if (!flock(fd, 'exclusive')) throw new Error('locked')
      }
      const every = Object.fromEntries(range(0, count).map((n) => [`s${n}`, noise(`s${n}`, 600)]))
      return await layerOf(store, every)
    })
    for (const fd of held) closeSync(fd)
    await using store = await openStore(path)
    await using root = await store.layers.mount([store.layers.open(diffId)])
    const report = await withStore((other) => other.prune())
    expect(report.compactedSegments).toBe(count - 512)
    expect(query('SELECT count(*) AS n FROM layer_segments')[0]?.['n']).toBeLessThanOrEqual(513)
    await readLayer(store, diffId)
    await using again = await store.layers.mount([store.layers.open(diffId)])
    for (const { fd } of [root, again]) {
      using tree = openTree(fd)
      for (const n of range(0, count))
        expect(contentsOf(tree, `s${n}`).equals(noise(`s${n}`, 600))).toBe(true)
    }
  }, 120_000)
})

type DriverName = OpenStoreOptions['driver']

function helper(work: string, seed: number, count: number, driver: DriverName = 'erofs') {
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', HELPER, path, work, String(seed), String(count), driver],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let said = ''
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
  child.stdout.resume()
  const ended = new Promise<string>((resolve) =>
    child.once('close', (code, signal) => resolve(`${code ?? signal} ${said}`)),
  )
  return { child, ended }
}

describe('many processes', () => {
  test.each(['erofs', 'objects', 'copy'] as const)(
    'collect in loops while others store, mount and read just what goes (%s)',
    async (driver) => {
      const kept = await withStore(async (store) => {
        const sevenths = range(0, 60).filter((n) => n % 7 === 0)
        const diffId = await storeLayer(store, sevenths)
        imageOf(store, [diffId], 'kept')
        return diffId
      }, driver)
      const ingests = [1, 2, 3].map((seed) => helper('ingest', seed, 40, driver))
      const collections = [1, 2].map((seed) => helper('collect', seed, 100_000, driver))
      expect(await Promise.all(ingests.map(({ ended }) => ended))).toEqual(['0 ', '0 ', '0 '])
      for (const { child } of collections) child.kill('SIGKILL')
      await Promise.all(collections.map(({ ended }) => ended))
      await verify(driver)
      await withStore((store) => store.prune(), driver)
      expect(query('SELECT diff_id FROM layers')).toEqual([{ diff_id: kept }])
      await verify(driver)
      nothingIsLeft()
    },
    120_000,
  )

  test('a kill -9 of a collection at any moment harms nothing, and the next one ends its work', async () => {
    const named = range(0, 4)
    for (let kill = 0; kill < 16; kill++) {
      await withStore(async (store) => {
        for (const n of named) imageOf(store, [await storeLayer(store, range(n * 5, n * 5 + 12))], `name${n}`)
        await storeLayer(store, range(kill, kill + 40))
        await storeLayer(store, range(kill + 13, kill + 70))
      })
      const { child, ended } = helper('collect', kill, 2)
      await new Promise((resolve) => child.stdout.once('data', resolve))
      await setTimeout(kill * 5)
      child.kill('SIGKILL')
      await ended
      await verify()
    }
    await withStore((store) => store.prune({ compact: true }))
    expect(await verify()).toBe(named.length)
    nothingIsLeft()
    expect(query('SELECT count(*) AS n FROM contents')).toEqual([{ n: 27 }])
  }, 180_000)
})

describe('tbuild prune', () => {
  test('says what would go and why the rest stays, and does it', async () => {
    await withStore(async (store) => {
      imageOf(store, [await layerOf(store, { a: noise('a', 2_000_000) })], 'docker.io/library/app:latest')
      await layerOf(store, { b: noise('b', 1_000_000) })
    })
    const dry = tbuild('prune', '--dry-run')
    expect(dry).toMatch(/^layer sha256:\w{64}\n/)
    expect(dry).toMatch(/^Would reclaim: 1(\.0\d)?MB$/m)
    expect(dry).toMatch(/app:latest +2\.0\dMB +2\.0\dMB/)
    const capped = tbuild('prune', '--force', '--keep-storage', '1m', '--filter', 'until=0s')
    expect(capped).toMatch(/Reclaimed: 1(\.0\d)?MB/)
    expect(capped).toMatch(/still takes 2\.\d+MB/)
    expect(capped).toContain('app:latest')
    const json = JSON.parse(tbuild('prune', '-a', '--json')) as unknown
    expect(json).toEqual(expect.objectContaining({ layers: [], freedBytes: expect.any(Number) }))
  })

  test.each([
    [['--filter', 'until=yesterday'], /until/],
    [['--filter', 'label=x'], /until/],
    [['--keep-storage', 'much'], /not a size/],
  ])('refuses %j', async (args, message) => {
    await withStore(async () => {})
    expect(() => tbuild('prune', ...args)).toThrow(message)
  })
})

function small(from: number): Record<string, Buffer> {
  return Object.fromEntries(range(from, from + 40).map((n) => [`s${n}`, noise(`small ${n}`, 700)]))
}

function tbuild(...args: readonly string[]): string {
  return execFileSync(process.execPath, [CLI, ...args, '--store', path], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}
