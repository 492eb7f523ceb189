import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { createCipheriv, createHash, hash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  openStore,
  type FormerLayer,
  type Layer,
  type Revision,
  type Store,
  type TarOutputEntry,
} from '../index.ts'
import { bytesOf } from '../index.ts'
import { openDatabase } from './database.ts'
import { segmentPath, storePaths } from './paths.ts'

let root: string
let other: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'revise-'))
  other = mkdtempSync(join(tmpdir(), 'revise-'))
})
afterEach(() => {
  for (const path of [root, other]) rmSync(path, { recursive: true })
})

/** Another each time; a failure names it. */
const SEED = process.env['TBUILD_SEED'] ?? String(Date.now())
const stream = createCipheriv('aes-128-ctr', createHash('md5').update(SEED).digest(), Buffer.alloc(16))

function randomBytes(length: number): Buffer {
  return stream.update(Buffer.alloc(length))
}

/** 0, or `from`, up to `below` - 1. */
function randomInt(from: number, below?: number): number {
  const [least, end] = below === undefined ? [0, from] : [from, below]
  return least + (randomBytes(6).readUIntBE(0, 6) % (end - least))
}

interface Planned {
  entry: Omit<TarOutputEntry, 'size'>
  contents: Buffer
}

const NONE = new Map<string, Buffer>()

function entryOf(type: TarOutputEntry['type'], path: string, more: Partial<TarOutputEntry> = {}) {
  const mode = type === 'directory' ? 0o755 : 0o644
  return {
    type,
    path: bytesOf(path),
    mode,
    uid: 0,
    gid: 0,
    mtimeNs: timeOf(),
    major: 0,
    minor: 0,
    xattrs: NONE,
    ...more,
  }
}

/** Whole seconds, fractions, before 1970, and beyond what a header can say. */
function timeOf(): bigint {
  const [kind, base] = [randomInt(8), BigInt(randomInt(2 ** 40))]
  if (kind === 0) return base * 1_000_000_000n * 16n
  if (kind === 1) return -base
  if (kind < 4) return (base % 2n ** 31n) * 1_000_000_000n
  return base * 1_234_567n
}

/** Sizes of all kinds; `large`: some over 4 MiB. */
function contentsOf(large: boolean): Buffer {
  const kind = randomInt(40)
  if (kind === 0) return Buffer.alloc(0)
  if (kind === 1) return randomBytes(512 * randomInt(1, 20))
  if (kind === 2 && large && randomInt(20) === 0) return randomBytes(4_500_000 + randomInt(100))
  return randomBytes(randomInt(1, 9000))
}

function randomLayer(directories: number, files: number, large: boolean): Planned[] {
  const all: Planned[] = []
  for (let d = 0; d < directories; d++) {
    const directory = `d${String(d).padStart(4, '0')}`
    all.push({ entry: entryOf('directory', directory), contents: Buffer.alloc(0) })
    for (let f = 0; f < files; f++) {
      const kind = randomInt(60)
      const name = kind === 1 ? 'ü'.repeat(60) : 'n'.repeat(randomInt(1, 30))
      const path = `${directory}/${String(f).padStart(4, '0')}${name}`
      const xattrs = kind === 2 ? new Map([['user.a', randomBytes(20)]]) : NONE
      if (kind === 3) all.push({ entry: entryOf('symlink', path, { link: 'x' }), contents: Buffer.alloc(0) })
      else if (kind === 4) {
        all.push({ entry: entryOf('file', path), contents: randomBytes(100) })
        const link = bytesOf(path)
        all.push({ entry: entryOf('hardlink', `${path}+`, { link }), contents: Buffer.alloc(0) })
      } else if (kind === 5) {
        // With a hole.
        const contents = Buffer.concat([randomBytes(8192), Buffer.alloc(8192), randomBytes(10)])
        all.push({ entry: entryOf('file', path), contents })
      } else all.push({ entry: entryOf('file', path, { xattrs }), contents: contentsOf(large) })
    }
  }
  return all
}

/** The layer, and where in its tar each entry begins. */
async function write(store: Store, all: readonly Planned[]): Promise<{ layer: Layer; starts: number[] }> {
  const starts: number[] = []
  const layer = await store.layers.write((writer) => {
    for (const { entry, contents } of all) {
      starts.push(writer.entry({ ...entry, size: contents.length }))
      if (contents.length > 0) writer.data(contents)
    }
    return Promise.resolve()
  })
  return { layer, starts }
}

async function formerOf(layer: Layer): Promise<FormerLayer> {
  const { diffId, outline } = await layer.stored
  return { diffId, outline: outline ?? new Uint8Array(0) }
}

/** Neither empty nor with holes, nor of several names. */
function isRevisable(all: readonly Planned[], at: number): boolean {
  const { entry, contents } = all[at] ?? { contents: Buffer.alloc(0) }
  if (entry?.type === 'directory') return true
  const hasHole = contents.subarray(8192, 16_384).equals(Buffer.alloc(8192))
  return entry?.type === 'file' && contents.length > 0 && !hasHole && all[at + 1]?.entry.type !== 'hardlink'
}

/** Some entries changed, and what `revise` is to be told of it. */
function change(
  all: readonly Planned[],
  starts: readonly number[],
  chosen: readonly number[],
  large: boolean,
) {
  const revisions: Revision[] = []
  const changed = all.map(({ entry, contents }, i) => {
    if (!chosen.includes(i)) return { entry, contents }
    const mtimeNs = timeOf()
    const isDirectory = entry.type === 'directory'
    let now = isDirectory ? contents : contentsOf(large)
    if (!isDirectory && now.length === 0) now = randomBytes(3)
    const digest = hash('sha256', now, 'buffer')
    const start = starts[i] ?? -1
    revisions.push({ start, mtimeNs, ...(!isDirectory && { contents: { digest, size: now.length } }) })
    return { entry: { ...entry, mtimeNs }, contents: now }
  })
  return { changed, revisions }
}

const one = (contents: Buffer): Planned => ({ entry: entryOf('file', 'x'), contents })

/** Contents come in with a layer of their own. */
async function bringIn(store: Store, all: readonly Planned[]): Promise<void> {
  const files = all.filter(({ contents }) => contents.length > 0)
  const { layer } = await write(
    store,
    files.map(({ contents }, i) => ({ ...one(contents), entry: entryOf('file', `x${i}`) })),
  )
  await layer.stored
}

/** Which and how many at most: none, one, a few, in a row, many. */
function choose(all: readonly Planned[]): number[] {
  const possible = all.flatMap((_, i) => (isRevisable(all, i) ? [i] : []))
  const count = [0, 1, 1, 3, 40][randomInt(5)] ?? 1
  if (randomInt(4) === 0) {
    const from = randomInt(possible.length)
    return possible.slice(from, from + count)
  }
  return [...new Set(Array.from({ length: count }, () => possible[randomInt(possible.length)] ?? 0))]
}

async function bytesOfLayer(store: Store, layer: Layer): Promise<string> {
  const { diffId } = await layer.stored
  const parts: Buffer[] = []
  for await (const part of store.layers.tar(diffId)) parts.push(Buffer.from(part))
  return `sha256:${hash('sha256', Buffer.concat(parts))}`
}

test.each([
  ['some', 20, 60, false],
  ['many, some of them large', 30, 150, true],
])(
  `a layer that is revised, again and again, is what it is when it is written: %s (TBUILD_SEED=${SEED})`,
  async (_, directories, files, large) => {
    await using store = await openStore(root, { driver: 'erofs' })
    await using reference = await openStore(other, { driver: 'erofs' })
    let all = randomLayer(directories, files, large)
    const written = await write(store, all)
    let former = await formerOf(written.layer)
    let { starts } = written
    for (let round = 0; round < 6; round++) {
      const { changed, revisions } = change(all, starts, choose(all), large)
      await bringIn(store, changed)
      const intake = store.layers.intake()
      const revised = await store.layers.revise(former, revisions, { intake })
      if (revised === undefined) throw new Error('not revised')
      const whole = await write(reference, changed)
      const { diffId, size } = await revised.layer.stored
      const should = await whole.layer.stored
      expect({ diffId, size }).toEqual({ diffId: should.diffId, size: should.size })
      expect(await bytesOfLayer(store, revised.layer)).toBe(diffId)
      all = changed
      former = await formerOf(revised.layer)
      let moved = 0
      let next = 0
      starts = starts.map((start) => {
        const at = start + moved
        if (revisions[next]?.start === start) moved += revised.shifts[next++] ?? 0
        return at
      })
      expect(starts).toEqual(whole.starts)
    }
    // Which also makes each index image anew and compares it.
    expect((await store.fsck()).problems).toEqual([])
    using db = openDatabase(storePaths(root).index)
    expect(db.get('SELECT count(*) AS count FROM layers WHERE image IS NULL')).toEqual({ count: 0 })
  },
)

test('what cannot be revised is not, and the intake is still of use', async () => {
  await using store = await openStore(root, { driver: 'erofs' })
  const hole = Buffer.concat([randomBytes(4096), Buffer.alloc(4096), randomBytes(10)])
  const all: Planned[] = [
    { entry: entryOf('directory', 'd'), contents: Buffer.alloc(0) },
    { entry: entryOf('file', 'd/a'), contents: randomBytes(1000) },
    { entry: entryOf('file', 'd/b'), contents: Buffer.alloc(0) },
    { entry: entryOf('file', 'd/c'), contents: hole },
    { entry: entryOf('symlink', 'd/d', { link: 'x' }), contents: Buffer.alloc(0) },
  ]
  const { layer, starts } = await write(store, all)
  const former = await formerOf(layer)
  const known = randomBytes(700)
  await bringIn(store, [one(known)])
  const digest = hash('sha256', known, 'buffer')
  const contents = { digest, size: known.length }
  using intake = store.layers.intake()
  const revise = async (revisions: Revision[], of = former) =>
    await store.layers.revise(of, revisions, { intake })
  const at = (i: number, more: Partial<Revision> = { contents }): Revision => ({
    start: starts[i] ?? 0,
    mtimeNs: 0n,
    ...more,
  })
  for (const wrong of [
    // A directory has no contents, a file has some, and so has what it was before; no others change at all.
    [at(0)],
    [at(1, {})],
    [at(1, { contents: { digest: hash('sha256', '', 'buffer'), size: 0 } })],
    [at(2)],
    [at(4)],
    // Contents that nobody has.
    [at(1, { contents: { digest: randomBytes(32), size: 700 } })],
    // Not where an entry begins; not in their order.
    [{ ...at(1), start: (starts[1] ?? 0) + 512 }],
    [{ ...at(1), start: 1 }],
    [{ ...at(1), start: 10_000_000 }],
    [at(3), at(1)],
  ])
    expect(await revise(wrong)).toBeUndefined()
  expect(
    await revise([at(1)], { ...former, diffId: `sha256:${'0'.repeat(64)}` as typeof former.diffId }),
  ).toBeUndefined()
  expect(await revise([at(1)], { ...former, outline: new Uint8Array(40) })).toBeUndefined()
  const revised = await revise([at(1)])
  expect(revised?.shifts).toHaveLength(1)
  await revised?.layer.stored
  expect((await store.fsck()).problems).toEqual([])
})

test('a former layer whose recipe is damaged, or that has no image, or has another driver', async () => {
  const all: Planned[] = [one(randomBytes(1000)), { ...one(randomBytes(1000)), entry: entryOf('file', 'y') }]
  const known = randomBytes(700)
  const contents = { digest: hash('sha256', known, 'buffer'), size: known.length }
  let former: FormerLayer
  {
    await using store = await openStore(root, { driver: 'erofs' })
    const { layer } = await write(store, all)
    former = await formerOf(layer)
    await bringIn(store, [one(known)])
    using db = openDatabase(storePaths(root).index)
    db.run('UPDATE layers SET image = NULL WHERE diff_id = ?', former.diffId)
    db.run('DELETE FROM layer_segments WHERE diff_id = ?', former.diffId)
    const intake = store.layers.intake()
    const revised = await store.layers.revise(former, [{ start: 0, mtimeNs: 5n, contents }], { intake })
    const { diffId } = (await revised?.layer.stored) ?? {}
    expect(db.get('SELECT image FROM layers WHERE diff_id = ?', diffId ?? '')).toEqual({ image: null })
    // It is made now.
    await using mounted = await store.layers.mount([revised?.layer ?? layer])
    expect(readFileSync(`/proc/self/fd/${mounted.fd}/x`)).toEqual(known)
  }
  const { layers } = storePaths(root)
  for (const recipe of readdirSync(layers).filter((name) => name.endsWith('.recipe'))) {
    const bytes = readFileSync(join(layers, recipe))
    bytes[60] = (bytes[60] ?? 0) ^ 1
    writeFileSync(join(layers, recipe), bytes)
  }
  for (const driver of ['erofs', 'copy'] as const) {
    await using store = await openStore(root, { driver })
    using intake = store.layers.intake()
    expect(
      await store.layers.revise(former, [{ start: 0, mtimeNs: 6n, contents }], { intake }),
    ).toBeUndefined()
  }
})

test('damage in what is hashed is told, and nothing of the layer stays', async () => {
  await using store = await openStore(root, { driver: 'erofs' })
  const all = Array.from({ length: 60 }, (_, i) => ({
    contents: randomBytes(500_000),
    entry: entryOf('file', `f${String(i).padStart(2, '0')}`),
  }))
  const { layer, starts } = await write(store, all)
  const former = await formerOf(layer)
  const known = randomBytes(700)
  await bringIn(store, [one(known)])
  const contents = { digest: hash('sha256', known, 'buffer'), size: known.length }
  const revise = async () => {
    const revision = { start: starts[50] ?? 0, mtimeNs: 7n, contents }
    const revised = await store.layers.revise(former, [revision], { intake: store.layers.intake() })
    return await revised?.layer.stored
  }
  const segment = segmentPath(storePaths(root), 1)
  const bytes = readFileSync(segment)
  const layers = (): string[] => readdirSync(storePaths(root).layers).toSorted()
  const before = layers()
  const damaged = Buffer.from(bytes)
  damaged.fill(0xee, bytes.indexOf(all[55]?.contents ?? ''), bytes.indexOf(all[55]?.contents ?? '') + 9)
  writeFileSync(segment, damaged)
  await expect(revise()).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  expect(layers()).toEqual(before)
  writeFileSync(segment, bytes)
  expect(await revise()).toBeDefined()
  expect((await store.fsck()).problems).toEqual([])
})
