/** The store, when things go wrong: killed processes, damaged files, other formats, many processes at once. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { spawn } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { setTimeout } from 'node:timers/promises'
import { openStore, type BlobDigest, type DiffId } from '../cas/index.ts'
import { openChosenStore } from '../cli/store.ts'
import { buildIn, openWorkshop, type Workshop } from './support/build.ts'

const CLI = join(import.meta.dirname, '../cli/index.ts')

let shop: Workshop
let path: string
beforeEach(async () => {
  shop = await openWorkshop()
  path = shop.store.path
})
afterEach(async () => shop[Symbol.asyncDispose]())

/** Everything that the index names is there and is what its name says. */
async function check(): Promise<{ layers: number; blobs: number }> {
  // As the command opens it: with the lease of a killed build its cgroups go, too.
  await using store = await openChosenStore({ store: path })
  const db = new DatabaseSync(join(path, 'index.db'), { readOnly: true })
  const column = (sql: string): string[] =>
    db
      .prepare(sql)
      .all()
      .map((row) => String(Object.values(row)[0]))
  const layers = column('SELECT diff_id FROM layers')
  const blobs = column('SELECT digest FROM blobs')
  for (const diffId of layers) for await (const _ of store.layers.tar(diffId as DiffId)) continue
  for (const digest of blobs) for await (const _ of store.blobs.stream(digest as BlobDigest)) continue
  const known = new Set(layers)
  for (const diffId of column('SELECT diff_id FROM image_layers')) expect(known.has(diffId)).toBe(true)
  const images = new Set(readdirSync(join(path, 'layers')))
  for (const name of column('SELECT image FROM layers')) expect(images.has(name)).toBe(true)
  db.close()
  return { layers: layers.length, blobs: blobs.length }
}

function layersRecorded(): number {
  const db = new DatabaseSync(join(path, 'index.db'), { readOnly: true, timeout: 10_000 })
  try {
    return Number(db.prepare('SELECT count(*) AS count FROM layers').get()?.['count'])
  } finally {
    db.close()
  }
}

function tbuild(...args: readonly string[]): Promise<number | null> {
  return new Promise((resolve) => {
    spawn(process.execPath, [CLI, ...args, '--store', path], { stdio: 'ignore' }).once('exit', resolve)
  })
}

describe('kill -9', () => {
  test('at any moment of builds: nothing recorded is lost or damaged, the next build goes on from there', async () => {
    const steps = Array.from(
      { length: 12 },
      (_, step) => `RUN echo ${step} > /${step}\nCOPY f /f${step}\n`,
    ).join('')
    const context = shop.context({ Dockerfile: `FROM base\n${steps}`, f: 'x'.repeat(10_000) })
    await shop.store[Symbol.asyncDispose]()
    let recorded = (await check()).layers
    for (let kill = 0; kill < 12; kill++) {
      const child = spawn(process.execPath, [CLI, 'build', '--store', path, '-t', 'killed', context], {
        stdio: 'ignore',
      })
      const exit = new Promise((resolve) => void child.once('exit', resolve))
      // Some time after its first layer, so that every build gets a little further.
      while (child.exitCode === null && layersRecorded() === recorded) await setTimeout(5)
      await Promise.race([setTimeout(kill * 7), exit])
      child.kill('SIGKILL')
      await exit
      const { layers } = await check()
      expect(layers).toBeGreaterThanOrEqual(recorded)
      recorded = layers
    }
    expect(await tbuild('images')).toBe(0)
    await using store = await openStore(path)
    const built = await buildIn(store, context, { network: 'host' })
    expect(built.fromCache.length).toBeGreaterThan(1)
    expect(readdirSync(join(path, 'leases')).length).toBeLessThanOrEqual(1)
    await check()
  }, 120_000)
})

describe('many processes', () => {
  test('build and prune on one store at once', async () => {
    const contexts = [0, 1, 2].map((n) =>
      shop.context({ Dockerfile: `FROM base\nRUN echo ${n % 2} > /a\nRUN cat /a && echo ${n} > /b\n` }),
    )
    await shop.store[Symbol.asyncDispose]()
    const rounds = [0, 1, 2].flatMap((round) => [
      ...contexts.map((context, n) => tbuild('build', '-t', `many:${n}-${round}`, context)),
      tbuild('prune'),
    ])
    expect(new Set(await Promise.all(rounds))).toEqual(new Set([0]))
    expect((await check()).layers).toBeGreaterThan(3)
  }, 120_000)
})

describe('damage', () => {
  test('a layer whose contents or recipe were changed never leaves the store', async () => {
    const built = await shop.build(
      shop.context({ Dockerfile: 'FROM base\nCOPY f /f\n', f: 'x'.repeat(10_000) }),
    )
    const { diff_ids } = shop.image(built).config.rootfs
    const diffId = diff_ids.at(-1)
    if (diffId === undefined) throw new Error('no layer')
    const read = async (): Promise<void> => {
      for await (const _ of shop.store.layers.tar(diffId)) continue
    }
    await read()
    const segment = join(path, 'segments/1')
    const bytes = readFileSync(segment)
    const at = bytes.indexOf('x'.repeat(10_000))
    bytes[at + 5000] = 0
    writeFileSync(segment, bytes)
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    truncateSync(segment, at + 5000)
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
    rmSync(join(path, 'layers', `${diffId.slice('sha256:'.length)}.recipe`))
    await expect(read()).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  })

  test('a damaged content does not get into a new layer by a COPY that finds it in the store', async () => {
    const files = { Dockerfile: 'FROM base\nCOPY f g /\n', f: 'x'.repeat(10_000), g: 'one' }
    await shop.build(shop.context(files))
    const segment = join(path, 'segments/1')
    const bytes = readFileSync(segment)
    bytes[bytes.indexOf(files.f) + 5000] = 0
    writeFileSync(segment, bytes)
    await expect(shop.build(shop.context({ ...files, g: 'two' }))).rejects.toMatchObject({
      code: 'STORE_CORRUPT',
    })
  })

  test('a layer whose files in the store are gone is told when it is mounted', async () => {
    const built = await shop.build(shop.context({ Dockerfile: 'FROM scratch\nCOPY f /\n', f: 'x' }))
    await shop.store[Symbol.asyncDispose]()
    await using store = await openStore(path)
    const [diffId] = store.images.byManifest(built.manifestDigest)?.config.rootfs.diff_ids ?? []
    if (diffId === undefined) throw new Error('no layer')
    const layers = [store.layers.open(diffId)]
    const hex = diffId.slice('sha256:'.length)
    const image =
      readdirSync(join(path, 'layers')).find((name) => name.startsWith(hex) && name.endsWith('.erofs')) ?? ''
    rmSync(join(path, 'layers', image))
    await expect(store.layers.mount(layers)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  })

  test('a config or manifest that was changed', async () => {
    const built = await shop.build(shop.context({ Dockerfile: 'FROM base\nLABEL a=b\n' }))
    writeFileSync(join(path, 'blobs/sha256', built.imageId.slice('sha256:'.length)), '{}')
    expect(() => shop.store.images.byManifest(built.manifestDigest)).toThrow(/missing or damaged/)
  })

  test('an index that is no database', async () => {
    await shop.store[Symbol.asyncDispose]()
    writeFileSync(join(path, 'index.db'), 'not a database, but long enough to be looked at as one')
    await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  })
})

describe('a lease that a power cut has lost', () => {
  test('what its process had goes all the same; what is no scope is not touched', async () => {
    await shop.store[Symbol.asyncDispose]()
    const scope = '0123456789abcdef'
    mkdirSync(join(path, 'work', scope, 'upper'), { recursive: true })
    mkdirSync(join(shop.directory, 'mine'))
    const db = new DatabaseSync(join(path, 'index.db'))
    db.exec(`INSERT INTO leased VALUES ('${scope}', 'sha256:x'), ('../../mine', 'sha256:x')`)
    await using _ = await openStore(path)
    expect(readdirSync(join(path, 'work'))).toEqual([])
    expect(db.prepare('SELECT scope FROM leased').all()).toEqual([{ scope: '../../mine' }])
    expect(statSync(join(shop.directory, 'mine')).isDirectory()).toBe(true)
    db.close()
  })
})

describe('opening', () => {
  test('a store of a newer format is refused', async () => {
    await shop.store[Symbol.asyncDispose]()
    const db = new DatabaseSync(join(path, 'index.db'))
    db.exec('PRAGMA user_version = 99')
    db.close()
    await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_TOO_NEW' })
  })

  test('a directory that holds something else is left alone', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tbuild-other-'))
    writeFileSync(join(directory, 'mine'), '')
    await expect(openStore(directory)).rejects.toMatchObject({ code: 'STORE_UNUSABLE' })
    expect(readdirSync(directory)).toEqual(['mine'])
    rmSync(directory, { recursive: true })
  })

  test.each(['/proc/nope', '/proc/self/nope/x', '/dev/null/x'])('at %s is an error', async (place) => {
    await expect(openStore(place)).rejects.toMatchObject({ code: 'STORE_UNUSABLE' })
  })

  test('a path of 300 bytes works', async () => {
    const deep = join(shop.directory, 'd'.repeat(200), 'e'.repeat(100))
    mkdirSync(deep, { recursive: true })
    await using other = await openWorkshop(join(deep, 'store'))
    expect((await other.build(other.context({ Dockerfile: 'FROM base\nRUN echo deep\n' }))).output).toBe(
      'deep\n',
    )
  })

  test('what is not there is named', async () => {
    const nothing = `sha256:${'0'.repeat(64)}` as BlobDigest
    expect(() => shop.store.blobs.read(nothing)).toThrow(expect.objectContaining({ code: 'BLOB_UNKNOWN' }))
    expect(() => shop.store.layers.open(nothing as never)).toThrow(
      expect.objectContaining({ code: 'LAYER_UNKNOWN' }),
    )
    expect(() => shop.store.images.tag('x', nothing)).toThrow(
      expect.objectContaining({ code: 'IMAGE_NOT_FOUND' }),
    )
    expect(() => shop.store.images.put(nothing, [])).toThrow(
      expect.objectContaining({ code: 'BLOB_UNKNOWN' }),
    )
  })
})
