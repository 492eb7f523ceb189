/** Stacks as high as images get, and higher; mounts that processes share. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { openStore, openTree, type Layer, type LayerStore, type TarOutputEntry } from '../cas/index.ts'
import { openWorkshop, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

const plain = { uid: 0, gid: 0, mtimeNs: 10n ** 18n, major: 0, minor: 0, xattrs: new Map<string, Buffer>() }
const file = (path: string, size: number): TarOutputEntry => ({
  ...plain,
  type: 'file',
  path,
  mode: 0o644,
  size,
})

/** Each adds a file, changes a common one, and deletes the one of ten layers below. */
function addLayer(layers: LayerStore, number: number): Promise<Layer> {
  const text = Buffer.from(`layer ${number}`)
  return layers.write(async (writer) => {
    writer.entry({ ...plain, type: 'directory', path: 'd', mode: 0o755, size: 0 })
    if (number >= 10) writer.entry(file(`d/.wh.own-${number - 10}`, 0))
    writer.entry(file('d/common', text.length))
    writer.data(text)
    writer.entry(file(`d/own-${number}`, text.length))
    writer.data(text)
  })
}

async function names(layers: LayerStore, stack: readonly Layer[]): Promise<string[]> {
  await using root = await layers.mount(stack)
  using tree = openTree(root.fd)
  return [...tree.list('d')].toSorted()
}

test('700 layers are one tree; a writable root stands on them', async () => {
  const { layers } = shop.store
  const stack: Layer[] = []
  for (let number = 0; number < 700; number++) {
    const layer = await addLayer(layers, number)
    await layer.stored
    stack.push(layer)
  }
  const expected = ['common', ...Array.from({ length: 10 }, (_, i) => `own-${690 + i}`)].toSorted()
  for (const height of [479, 481, 499, 500, 501, 512, 513, 700]) {
    const last = height - 1
    const own = Array.from({ length: 10 }, (_, i) => `own-${last - 9 + i}`)
    expect(await names(layers, stack.slice(0, height))).toEqual(['common', ...own].toSorted())
  }
  await using root = await layers.mountWritable(stack)
  const fd = openSync(`/proc/self/fd/${root.fd}/d/common`, constants.O_RDONLY)
  expect(readFileSync(fd, 'utf8')).toBe('layer 699')
  closeSync(fd)
  execFileSync('touch', [`/proc/${process.pid}/fd/${root.fd}/d/new`])
  const top = await root.commit()
  expect(await names(layers, [...stack, top])).toEqual([...expected, 'new'].toSorted())
  await top.stored
  expect(await names(layers, [...stack, top])).toEqual([...expected, 'new'].toSorted())
}, 120_000)

test('as many that are the same few, again and again', async () => {
  const { layers } = shop.store
  const [one, two] = [await addLayer(layers, 1), await addLayer(layers, 2)]
  await Promise.all([one.stored, two.stored])
  const stack = Array.from({ length: 601 }, (_, i) => (i % 2 === 0 ? one : two))
  expect(await names(layers, stack)).toEqual(['common', 'own-1', 'own-2'])
  await using root = await layers.mount(stack)
  expect(readFileSync(`/proc/self/fd/${root.fd}/d/common`, 'utf8')).toBe('layer 1')
})

/** Of a layer's image: what each holder's mount is, by its device number. Holders that are this process. */
function holders(path: string, diffId: string): number[] {
  const db = new DatabaseSync(join(path, 'index.db'), { readOnly: true })
  const image = String(db.prepare('SELECT image FROM layers WHERE diff_id = ?').get(diffId)?.['image'])
  const rows = db.prepare('SELECT fd FROM mounts WHERE image = ?').all(`${image.split('.')[1]} build`)
  db.close()
  return rows.map((row) => fstatSync(Number(row['fd'])).dev)
}

test('two users of one image share its file system; the second keeps it when the first has gone', async () => {
  await using own = await openWorkshop()
  const built = await own.build(own.context({ Dockerfile: 'FROM scratch\nCOPY f /f\n', f: 'shared' }))
  const [diffId] = own.image(built).config.rootfs.diff_ids
  if (diffId === undefined) throw new Error('no layer')
  const { path } = own.store
  const first = await openStore(path)
  await using second = await openStore(path)
  const one = await first.layers.mount([first.layers.open(diffId)])
  await using two = await second.layers.mount([second.layers.open(diffId)])
  const [a, b, ...rest] = holders(path, diffId)
  expect(rest).toEqual([])
  expect(a).toBe(b)
  await one[Symbol.asyncDispose]()
  await first[Symbol.asyncDispose]()
  expect(holders(path, diffId)).toEqual([a])
  using tree = openTree(two.fd)
  const fd = tree.open('f')
  expect(readFileSync(fd, 'utf8')).toBe('shared')
  closeSync(fd)
})

test('a mount whose process was killed is not taken for one', async () => {
  const script = `
    import { openStore } from ${JSON.stringify(join(import.meta.dirname, '../cas/index.ts'))}
    const store = await openStore(${JSON.stringify(shop.store.path)})
    const image = store.images.list()[0]
    await store.layers.mount(image.config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId)))
    console.log('mounted')
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await new Promise((resolve) => child.stdout.once('data', resolve))
  const exit = new Promise((resolve) => void child.once('exit', resolve))
  child.kill('SIGKILL')
  await exit
  const image = shop.store.images.list()[0]
  await using store = await openStore(shop.store.path)
  await using root = await store.layers.mount(
    (image?.config.rootfs.diff_ids ?? []).map((one) => store.layers.open(one)),
  )
  using tree = openTree(root.fd)
  expect(tree.list('')).toContain('bin')
})

test('no mount of ours stands in the table of mounts', () => {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
  expect(mounts).not.toMatch(/erofs/)
  expect(mounts).not.toContain(shop.store.path)
})
