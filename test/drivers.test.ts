/** Each driver against the store's contract, and what is particular to one. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { execFile } from 'node:child_process'
import {
  chmodSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { DRIVER_NAMES, openStore, type Layer } from '../cas/index.ts'
import { testDriver } from '../cas/drivers/contract.ts'
import { archiveOf, defaultAcl } from '../cas/tar/testing.ts'
import { getXattr, setXattr } from '../linux/index.ts'

const CLI = join(import.meta.dirname, '../cli/index.ts')

for (const driver of DRIVER_NAMES) testDriver(driver, (path) => openStore(path, { driver }))

let path: string
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'tbuild-drivers-'))
})
afterEach(() => rmSync(path, { recursive: true, force: true }))

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes
}
const archive = archiveOf({ path: 'a', contents: 'contents '.repeat(1000) })

describe('the choice of a driver', () => {
  test('is erofs on this machine', async () => {
    await using store = await openStore(path)
    expect([store.layers.driver, store.layers.driverReason]).toEqual([
      'erofs',
      'EROFS images mount from files here',
    ])
  })

  test.each([
    ['objects', ['erofs', 'copy'], 'objects', 'the store keeps each content in a file'],
    ['erofs', ['objects'], 'erofs', 'EROFS images mount from files here'],
    ['copy', ['objects'], 'erofs', 'EROFS images mount from files here'],
  ] as const)(
    'the first ingest, with %s, decides how contents are kept',
    async (first, misfits, found, reason) => {
      {
        await using store = await openStore(path, { driver: first })
        await store.layers.ingestTar(once(archive))
      }
      for (const driver of misfits) {
        await using store = await openStore(path, { driver })
        await expect(store.layers.ingestTar(once(archiveOf({ path: 'b' })))).rejects.toMatchObject({
          code: 'DRIVER_UNUSABLE',
        })
      }
      await using store = await openStore(path)
      expect([store.layers.driver, store.layers.driverReason]).toEqual([found, reason])
    },
  )

  test('what one driver for segments has stored, the other mounts', async () => {
    for (const drivers of [
      ['copy', 'erofs'],
      ['erofs', 'copy'],
    ] as const) {
      const directory = join(path, drivers.join('-'))
      for (const driver of drivers) {
        await using store = await openStore(directory, { driver })
        const { diffId } = await store.layers.ingestTar(once(archive))
        await using root = await store.layers.mount([store.layers.open(diffId)])
        expect(readFileSync(`/proc/self/fd/${root.fd}/a`, 'utf8')).toBe('contents '.repeat(1000))
      }
    }
  })
})

test('objects: a layer as a directory holds no data, and objects have one place', async () => {
  await using store = await openStore(path, { driver: 'objects' })
  const { diffId } = await store.layers.ingestTar(once(archive))
  await using _ = await store.layers.mount([store.layers.open(diffId)])
  const [tree = ''] = readdirSync(join(path, 'trees'))
  const { size } = lstatSync(join(path, 'trees', tree, 'a'))
  expect(size).toBe(9000)
  expect(readFileSync(join(path, 'trees', tree, 'a')).equals(Buffer.alloc(9000))).toBe(true)
  const objects = readdirSync(join(path, 'objects'), { recursive: true, encoding: 'utf8' })
  expect(objects.filter((name) => /^[0-9a-f]{2}\/[0-9a-f]{62}$/.test(name))).toHaveLength(1)
  expect(readdirSync(join(path, 'segments'))).toEqual([])
})

test('erofs: a layer is mounted while a root stands on it, and some seconds more', async () => {
  await using store = await openStore(path)
  const layers: Layer[] = []
  for (const name of ['a', 'b']) {
    const { diffId } = await store.layers.ingestTar(once(archiveOf({ path: name, contents: name })))
    layers.push(store.layers.open(diffId))
  }
  const [lower] = layers as [Layer, Layer]
  await using root = await store.layers.mount([lower])
  {
    await using both = await store.layers.mount(layers)
    await using writable = await store.layers.mountWritable(layers)
    expect(readdirSync(`/proc/self/fd/${both.fd}`)).toEqual(readdirSync(`/proc/self/fd/${writable.fd}`))
    expect(erofsMounts()).toBe(2)
  }
  // The page cache is there for who comes next.
  expect(erofsMounts()).toBe(2)
  const until = Date.now() + 20_000
  while (erofsMounts() > 1 && Date.now() < until) await wait(200)
  expect(erofsMounts()).toBe(1)
  await using again = await store.layers.mount(layers)
  expect(readdirSync(`/proc/self/fd/${again.fd}`)).toEqual(['a', 'b'])
  expect(readdirSync(`/proc/self/fd/${root.fd}`)).toEqual(['a'])
}, 60_000)

test.each(DRIVER_NAMES)(
  '%s: an ACL can be set on what a lower layer has, once its mode was',
  async (driver) => {
    await using store = await openStore(path, { driver })
    const { diffId } = await store.layers.ingestTar(once(archiveOf({ path: 'd/' }, { path: 'f' })))
    await using root = await store.layers.mountWritable([store.layers.open(diffId)])
    for (const [name, attribute] of [
      ['d', 'system.posix_acl_default'],
      ['f', 'system.posix_acl_access'],
    ] as const) {
      const file = `/proc/self/fd/${root.fd}/${name}`
      chmodSync(file, statSync(file).mode)
      setXattr(file, attribute, defaultAcl)
      expect(getXattr(file, attribute)).toEqual(defaultAcl)
    }
  },
)

/** Those that this process holds open. */
function erofsMounts(): number {
  const EROFS_MAGIC = 0xe0f5e1e2
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return statfsSync(`/proc/self/fd/${fd}`).type === EROFS_MAGIC
    } catch {
      return false
    }
  }).length
}

test.each(DRIVER_NAMES)('%s: processes import the same at once, and each image is whole', async (driver) => {
  const tars = Array.from({ length: 4 }, (_, i) => {
    const file = join(path, `${i}.tar`)
    const shared = Array.from({ length: 300 }, (_x, j) => ({ path: `f${j}`, contents: `${j} `.repeat(200) }))
    writeFileSync(file, archiveOf(...shared, { path: 'own', contents: `${i % 2}` }))
    return file
  })
  const store = join(path, 'store')
  const results = await Promise.all(
    tars.map(
      (tar, i) =>
        new Promise((resolve) => {
          const args = ['import', '--store', store, '--driver', driver, tar, `image${i}`]
          execFile(process.execPath, [CLI, ...args], (error, _, stderr) => resolve(error === null || stderr))
        }),
    ),
  )
  expect(results).toEqual([true, true, true, true])
  await using opened = await openStore(store, { driver })
  for (const image of opened.images.list()) {
    await using root = await opened.layers.mount(
      image.config.rootfs.diff_ids.map((diffId) => opened.layers.open(diffId)),
    )
    expect(readFileSync(`/proc/self/fd/${root.fd}/f299`, 'utf8')).toBe('299 '.repeat(200))
  }
  // Two that have the same files and were made in the same millisecond are one image.
  const names = opened.images.list().flatMap((image) => image.names)
  expect(names.toSorted()).toEqual([0, 1, 2, 3].map((i) => `docker.io/library/image${i}:latest`))
})
