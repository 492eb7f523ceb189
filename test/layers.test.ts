/** From an upper to a layer and back: what a RUN did is there after the layer's tar was all that was left of it. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { openStore, openTree, readTar, show, type Image, type Store, type Tree } from '../cas/index.ts'
import { buildIn, openWorkshop, type Built, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

const build = (dockerfile: string, files: Readonly<Record<string, string>> = {}): Promise<Built> =>
  shop.build(shop.context({ Dockerfile: dockerfile, ...files }))

async function withTree<T>(store: Store, image: Image, look: (tree: Tree, fd: number) => T): Promise<T> {
  await using root = await store.layers.mount(
    image.config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId)),
  )
  using tree = openTree(root.fd)
  return look(tree, root.fd)
}

/** Everything that can be said of every name, in order. */
function describeTree(tree: Tree): string[] {
  const inodes = new Map<bigint, number>()
  const lines: string[] = []
  const walk = (path: string): void => {
    const stats = tree.lstat(path)
    if (stats === undefined) throw new Error(`no ${path}`)
    const inode = inodes.get(stats.ino) ?? inodes.size
    inodes.set(stats.ino, inode)
    const { type, mode, uid, gid, major, minor, mtimeNs } = stats
    // overlayfs shows a directory's own number of links only; of the root the time is the mount's.
    const links = stats.isDirectory() ? 0 : stats.nlink
    const size = stats.isFile() ? stats.size : 0
    const xattrs = [...tree.xattrs(path)].map(([name, value]) => `${name}=${value.toString('hex')}`)
    const link = stats.isSymbolicLink() ? tree.readlink(path) : ''
    const time = path === '' ? 0n : mtimeNs
    lines.push(
      [
        show(path),
        type,
        mode.toString(8),
        uid,
        gid,
        links,
        major,
        minor,
        size,
        time,
        stats.isFile() ? inode : '',
        link,
        ...xattrs,
      ].join(' '),
    )
    if (stats.isDirectory()) for (const name of tree.list(path)) walk(path === '' ? name : `${path}/${name}`)
  }
  walk('')
  return lines
}

async function entriesOf(built: Built, layer: number): Promise<string[]> {
  const diffId = shop.image(built).config.rootfs.diff_ids.at(layer)
  if (diffId === undefined) throw new Error('no such layer')
  const names: string[] = []
  for await (const { entry } of readTar(shop.store.layers.tar(diffId)))
    names.push(show(entry.path.toString('latin1')))
  return names
}

const long = 'n'.repeat(200)
const everything = `FROM base
RUN mkdir -p /d/gone /d/kept /replaced/sub && echo x > /d/gone/file && echo y > /d/file && echo z > /replaced/old
RUN rm -r /d/gone && rm /d/file && rm -r /replaced && mkdir /replaced && echo new > /replaced/new
RUN echo linked > /one && ln /one /two && ln /one /d/three && ln -s /no/where /dangling
RUN mknod /null c 1 3 && mknod /disk b 254 70000 && mkfifo /fifo && chmod 4755 /one && chmod 1777 /d
RUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=50000000 && echo end >> /sparse
RUN mkdir -p /${long}/${long} && echo deep > /${long}/${long}/${long}
RUN echo big > /bigid && chown 3000000:4000000000 /bigid && touch -d '1969-12-31 12:00:00' /old && touch -d '2050-01-01' /future
RUN printf 'x' > "/$(printf 'bytes\\377')" && printf 'x' > '/with space'
`

/** Two runs of the same commands differ in them. */
function withoutTimes(lines: readonly string[]): string[] {
  return lines.map((line) => line.replace(/ \d{18,19} /, ' '))
}

describe('the round trip', () => {
  test('everything a file system has survives', async () => {
    const built = await build(everything)
    const before = await withTree(shop.store, shop.image(built), (tree) => describeTree(tree))
    // Another store gets the tars only.
    await using other = await openStore(join(shop.directory, 'other'))
    const image = shop.image(built)
    for (const diffId of image.config.rootfs.diff_ids)
      await other.layers.ingestTar(shop.store.layers.tar(diffId), { expected: diffId })
    other.blobs.write(shop.store.blobs.read(image.id))
    other.blobs.write(shop.store.blobs.read(image.manifestDigest))
    const copy = other.images.put(image.manifestDigest, [])
    const after = await withTree(other, copy, (tree) => describeTree(tree))
    expect(after).toEqual(before)
    const names = before.map((line) => line.split(' ')[0])
    expect(names).not.toContain('d/gone')
    expect(names).not.toContain('replaced/old')
    expect(names).toContain('replaced/new')
  })

  test('a file’s capabilities survive', async () => {
    await shop.store.prune()
    const context = shop.context({
      Dockerfile: 'FROM base\nRUN cp /bin/busybox /ping\nCOPY ping2 /ping2\nRUN touch /ping2\n',
      ping2: 'x',
    })
    execFileSync('setcap', ['cap_net_raw+ep', join(context, 'ping2')])
    const built = await shop.build(context)
    const value = await withTree(shop.store, shop.image(built), (tree) =>
      tree.xattrs('ping2').get('security.capability'),
    )
    expect(value?.readUInt32LE(4)).toBe(1 << 13)
  })

  test('sparse files stay small on disk and whole in size', async () => {
    const built = await build('FROM base\nRUN dd if=/dev/zero of=/sparse bs=1 count=1 seek=100000000\n')
    const diffId = shop.image(built).config.rootfs.diff_ids.at(-1)
    await using other = await openStore(join(shop.directory, 'sparse'))
    await other.layers.ingestTar(shop.store.layers.tar(diffId as never))
    await using root = await other.layers.mount([other.layers.open(diffId as never)])
    using tree = openTree(root.fd)
    expect(tree.lstat('sparse')?.size).toBe(100_000_001)
    const allocated = execFileSync('du', ['-s', '--block-size=1', other.path], { encoding: 'utf8' })
    expect(Number.parseInt(allocated, 10)).toBeLessThan(1_000_000)
  })
})

describe('what is in a layer', () => {
  test('deleted files are whiteouts, replaced directories opaque', async () => {
    const built = await build(everything)
    expect(await entriesOf(built, 2)).toEqual([
      'd',
      'd/.wh.file',
      'd/.wh.gone',
      'replaced',
      'replaced/.wh..wh..opq',
      'replaced/new',
    ])
  })

  test('what is only mounted on leaves nothing, not even a time', async () => {
    const built = await build(
      'FROM base\nRUN true\nRUN cat /etc/hosts /etc/resolv.conf > /dev/null; ls /proc /sys /dev > /dev/null\n',
    )
    expect(await entriesOf(built, -1)).toEqual([])
    expect(await entriesOf(built, -2)).toEqual([])
  })

  test('files that were copied up but not changed are left out', async () => {
    const built = await build(
      'FROM base\nRUN chmod 755 /bin/busybox && chown 0:0 /etc/passwd && echo x > /etc/other\n',
    )
    expect(await entriesOf(built, -1)).toEqual(['etc', 'etc/other'])
  })

  test('WORKDIR makes its directory in a step of its own', async () => {
    const built = await build('FROM base\nUSER ann\nWORKDIR /made/here\nRUN pwd\n')
    expect(await entriesOf(built, -2)).toEqual(['made', 'made/here'])
    const owner = await withTree(shop.store, shop.image(built), (tree) => tree.lstat('made/here')?.uid)
    expect(owner).toBe(1000)
  })

  test('a step that changes the root directory itself is seen by the next', async () => {
    const built = await build(
      'FROM base\nRUN chmod 700 /\nRUN stat -c %a /\nFROM scratch\nCOPY --from=0 / /\n',
    )
    expect(built.output).toBe('700\n')
  })
})

test('a layer’s index image is made anew when it is gone', async () => {
  const context = shop.context({ Dockerfile: everything })
  const built = await shop.build(context)
  const before = await withTree(shop.store, shop.image(built), (tree) => describeTree(tree))
  await using other = await openWorkshop()
  const again = await other.build(other.context({ Dockerfile: everything }))
  const path = other.store.path
  await other.store[Symbol.asyncDispose]()
  const { DatabaseSync } = await import('node:sqlite')
  const db = new DatabaseSync(join(path, 'index.db'))
  db.exec('UPDATE layers SET image = NULL; DELETE FROM layer_segments')
  db.close()
  await using store = await openStore(path)
  const image = store.images.byManifest(again.manifestDigest)
  if (image === undefined) throw new Error('no image')
  expect(withoutTimes(await withTree(store, image, (tree) => describeTree(tree)))).toEqual(
    withoutTimes(before),
  )
  expect(
    (await buildIn(store, other.context({ Dockerfile: `${everything}RUN cat /two /replaced/new\n` }))).output,
  ).toBe('linked\nnew\n')
})
