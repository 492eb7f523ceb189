/**
 * For tests only: what the store promises, whichever driver keeps its layers. Each driver passes this one suite (containerd's way with snapshotters), so
 * that nothing above the store needs to know which it has.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
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
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { getXattr, isErrno, setXattr, statAt } from '../../linux/index.ts'
import type { DiffId } from '../oci.ts'
import type { Layer, LayerWriter, Root, Store } from '../store/types.ts'
import type { TarOutputEntry } from '../tar/index.ts'
import {
  archiveOf,
  capability,
  describeTree,
  entriesOf,
  gnuPack,
  makeTree,
  pack,
  paxHeader,
  punch,
  rawArchive,
  rawEntry,
  richTree,
  scratch,
  type Described,
} from '../tar/testing.ts'

/**
 * @param open a store at this path, with the driver that is under test
 * @param parent directory where the stores are
 */
export function testDriver(name: string, open: (path: string) => Promise<Store>, parent = tmpdir()): void {
  let base: string
  let path: string
  let store: Store
  beforeEach(async () => {
    base = mkdtempSync(join(parent, 'tbuild-driver-'))
    path = join(base, 'store')
    store = await open(path)
  })
  afterEach(async () => {
    await store[Symbol.asyncDispose]()
    rmSync(base, { recursive: true, force: true })
  })

  const ingest = async (archive: Buffer, into: Store = store): Promise<DiffId> =>
    (await into.layers.ingestTar(inParts(archive))).diffId
  const layerOf = async (...entries: readonly Described[]): Promise<Layer> =>
    store.layers.open(await ingest(archiveOf(...entries)))
  const opened = (...diffIds: readonly DiffId[]): Layer[] =>
    diffIds.map((diffId) => store.layers.open(diffId))
  const tarOf = async (diffId: DiffId): Promise<Buffer> => {
    const parts: Buffer[] = []
    for await (const part of store.layers.tar(diffId)) parts.push(part)
    return Buffer.concat(parts)
  }
  /** A layer that a process has written. */
  const run = async (layers: readonly Layer[], work: (root: string) => void): Promise<Layer> => {
    await using root = await store.layers.mountWritable(layers)
    work(inside(root))
    return await root.commit()
  }
  const names = async (layers: readonly Layer[]): Promise<string[]> => {
    await using root = await store.layers.mount(layers)
    return namesIn(root)
  }

  describe(`the driver ${name}: a tree`, () => {
    test('is shown as it was, with every attribute, also by another process', async () => {
      using own = scratch()
      makeTree(own.directory('tree'), richTree({ xattrs: true }))
      const expected = describeTree(join(own.path, 'tree'), { links: false })
      const diffId = await ingest(await pack(join(own.path, 'tree')))
      expect(store.layers.driver).toBe(name)
      for (let process = 0; process < 2; process++) {
        await using root = await store.layers.mount(opened(diffId))
        // Of the root the time may be the mount's.
        expect(describeTree(inside(root), { links: false }).slice(1)).toEqual(expected.slice(1))
        await store[Symbol.asyncDispose]()
        store = await open(path)
      }
    })

    test('keeps its hard links: one inode, its count exact', async () => {
      const layer = await layerOf(
        { path: 'd/' },
        { path: 'd/one', contents: 'same' },
        { path: 'd/two', type: 'hardlink', link: 'd/one' },
        { path: 'three', type: 'hardlink', link: 'd/one' },
        { path: 'gone', contents: 'x' },
        { path: 'alone', type: 'hardlink', link: 'gone' },
        { path: 'gone', contents: 'another' },
        { path: 'p', type: 'fifo' },
        { path: 'p2', type: 'hardlink', link: 'p' },
      )
      await using root = await store.layers.mount([layer])
      const links = (file: string): number => lstatSync(join(inside(root), file)).nlink
      expect(['d/one', 'd/two', 'three', 'p', 'p2'].map(links)).toEqual([3, 3, 3, 2, 2])
      expect(['gone', 'alone'].map(links)).toEqual([1, 1])
      expect(readFileSync(join(inside(root), 'three'), 'utf8')).toBe('same')
      expect(readFileSync(join(inside(root), 'alone'), 'utf8')).toBe('x')
    })

    test('has its holes: sizes are whole, the disk holds what is there', async () => {
      const contents = Buffer.alloc(8 * 1024 * 1024)
      contents.write('in the middle', 3 * 1024 * 1024)
      contents.write('end', contents.length - 3)
      using own = scratch()
      punch(join(own.directory('tree'), 'sparse'), contents)
      const before = allocated(path)
      for (const archive of [
        await pack(join(own.path, 'tree')),
        gnuPack(join(own.path, 'tree'), '--sparse'),
        gnuPack(join(own.path, 'tree'), '--sparse', '--format=posix'),
      ]) {
        await using root = await store.layers.mount(opened(await ingest(archive)))
        expect(readFileSync(join(inside(root), 'sparse')).equals(contents)).toBe(true)
      }
      expect(allocated(path) - before).toBeLessThan(2 * 1024 * 1024)
    })

    test('of files of all sizes comes back', async () => {
      const sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 65_535, 65_536, 65_537, 4_194_304, 9_000_000]
      const contents = sizes.map((size) => Buffer.alloc(size, `${size}|`))
      const entries = contents.map((bytes, i) => ({
        path: `f${String(i).padStart(2, '0')}`,
        contents: bytes,
      }))
      const archive = archiveOf(...entries)
      const diffId = await ingest(archive)
      await using root = await store.layers.mount(opened(diffId))
      for (const entry of entries)
        expect(readFileSync(join(inside(root), entry.path)).equals(entry.contents)).toBe(true)
      expect((await tarOf(diffId)).equals(archive)).toBe(true)
    })

    test('gives its exact tar back, whoever wrote it', async () => {
      using own = scratch()
      makeTree(own.directory('tree'), richTree({ xattrs: false }))
      const archives = [
        ...['gnu', 'pax'].map((format) => gnuPack(join(own.path, 'tree'), `--format=${format}`)),
        rawArchive(
          paxHeader({ path: 'long/name', comment: 'x' }),
          rawEntry({ name: 'x', magic: 'v7' }, 'contents'),
          rawEntry({ name: './twice' }, 'first'),
          rawEntry({ name: 'twice' }, 'second'),
        ),
        Buffer.concat([
          archiveOf({ path: 'a', contents: 'a' }),
          Buffer.alloc(10_240),
          Buffer.from('and more'),
        ]),
      ]
      for (const archive of archives) {
        const diffId = await ingest(archive)
        expect((await tarOf(diffId)).equals(archive)).toBe(true)
      }
    })

    test('is made anew when what is mounted of it is gone', async () => {
      const lower = await ingest(
        archiveOf({ path: 'd/' }, { path: 'd/f', contents: 'kept' }, { path: 'd/g' }),
      )
      const upper = await ingest(archiveOf({ path: 'd/' }, { path: 'd/.wh.g' }))
      expect(await names(opened(lower, upper))).toEqual(['d', 'd/f'])
      await store[Symbol.asyncDispose]()
      const db = new DatabaseSync(join(path, 'index.db'))
      db.exec('UPDATE layers SET image = NULL; DELETE FROM layer_segments; DELETE FROM trees')
      db.close()
      for (const file of readdirSync(join(path, 'trees')))
        rmSync(join(path, 'trees', file), { recursive: true })
      for (const file of readdirSync(join(path, 'layers')).filter((one) => one.endsWith('.erofs')))
        rmSync(join(path, 'layers', file))
      store = await open(path)
      expect(await names(opened(lower, upper))).toEqual(['d', 'd/f'])
      await using root = await store.layers.mount(opened(lower, upper))
      expect(readFileSync(join(inside(root), 'd/f'), 'utf8')).toBe('kept')
    })
  })

  describe(`the driver ${name}: layers on each other`, () => {
    test('whiteouts hide, opaque directories hide all', async () => {
      const bottom = await layerOf(
        { path: 'a' },
        { path: 'd/' },
        { path: 'd/old' },
        { path: 'o/' },
        { path: 'o/hidden' },
        { path: 'w/' },
        { path: 'w/x' },
      )
      const top = await layerOf(
        { path: '.wh.a' },
        { path: '.wh.w' },
        { path: 'd/' },
        { path: 'd/new' },
        { path: 'o/' },
        { path: 'o/.wh..wh..opq' },
        { path: 'o/shown' },
      )
      expect(await names([bottom, top])).toEqual(['d', 'd/new', 'd/old', 'o', 'o/shown'])
      const again = await layerOf({ path: 'a', contents: 'again' })
      expect(await names([bottom, top, again])).toContain('a')
      expect(await names([top])).toEqual(['d', 'd/new', 'o', 'o/shown'])
    })

    test('a whiteout of nothing is nothing: it is not listed, and its directory can be copied and removed', async () => {
      const below = await layerOf(
        { path: 'base' },
        { path: 'link', type: 'symlink', link: 'base' },
        { path: 'o/was' },
      )
      const above = await layerOf(
        { path: 'alone/' },
        { path: 'alone/keep' },
        { path: 'alone/.wh.gone' },
        { path: 'alone/deep/' },
        { path: 'alone/deep/.wh.gone' },
        { path: 'link/' },
        { path: 'link/.wh.gone' },
        { path: 'o/' },
        { path: 'o/.wh..wh..opq' },
        { path: 'o/.wh.was' },
        { path: 'o/is' },
        { path: '.wh.nothing' },
      )
      const expected = ['alone', 'alone/deep', 'alone/keep', 'base', 'link', 'o', 'o/is']
      expect(await names([below, above])).toEqual(expected)
      const copied = await run([below, above], (root) => {
        for (const [from, to] of [
          ['alone', 'copy'],
          ['o', 'moved'],
        ]) {
          const place = root.replace('self', String(process.pid))
          execFileSync('cp', ['-a', `${place}/${from}`, `${place}/${to}`])
          execFileSync('rm', ['-r', `${place}/${from}`])
        }
      })
      const after = ['base', 'copy', 'copy/deep', 'copy/keep', 'link', 'moved', 'moved/is']
      expect(await names([below, above, copied])).toEqual(after)
      const { diffId } = await copied.stored
      expect(await names([below, above, store.layers.open(diffId)])).toEqual(after)
    })

    test('an opaque root hides every layer below it', async () => {
      const bottom = await layerOf({ path: 'below' }, { path: 'd/' }, { path: 'd/below' })
      const opaque = await layerOf({ path: '.wh..wh..opq' }, { path: 'd/' }, { path: 'd/above' })
      expect(await names([bottom, opaque])).toEqual(['d', 'd/above'])
      await using root = await store.layers.mountWritable([bottom, opaque])
      expect(namesIn(root)).toEqual(['d', 'd/above'])
    })

    test('the root is what the topmost layer says of it', async () => {
      const says = await layerOf(
        { path: './', type: 'directory', mode: 0o1700, uid: 7, gid: 8 },
        { path: 'a' },
      )
      const silent = await layerOf({ path: 'b' })
      for (const layers of [[says], [says, silent], [silent, says]]) {
        await using root = await store.layers.mount(layers)
        const { mode, uid, gid } = statSync(inside(root))
        expect([mode & 0o7777, uid, gid]).toEqual([0o1700, 7, 8])
      }
      await using root = await store.layers.mountWritable([silent])
      expect(statSync(inside(root)).mode & 0o7777).toBe(0o755)
    })

    test('one layer may be there twice', async () => {
      const layer = await layerOf({ path: 'a', contents: 'a' })
      const between = await layerOf({ path: '.wh.a' })
      expect(await names([layer, layer])).toEqual(['a'])
      expect(await names([layer, between, layer])).toEqual(['a'])
      expect(await names([layer, between])).toEqual([])
    })

    test('a hundred of them are one tree, and so is none', async () => {
      const layers: Layer[] = []
      for (let i = 0; i < 100; i++)
        layers.push(await layerOf({ path: `f${i}`, contents: `${i}` }, { path: 'top', contents: `${i}` }))
      await using root = await store.layers.mountWritable(layers)
      expect(namesIn(root)).toHaveLength(101)
      expect(readFileSync(join(inside(root), 'top'), 'utf8')).toBe('99')
      expect(await names([])).toEqual([])
    })
  })

  describe(`the driver ${name}: a writable root`, () => {
    test('becomes a layer of what has changed', async () => {
      const below = await layerOf(
        { path: 'd/', mtimeNs: 1_000_000_000n },
        { path: 'd/kept', contents: 'kept' },
        { path: 'd/removed' },
        { path: 'd/changed', contents: 'before', mode: 0o600 },
        { path: 'r/' },
        { path: 'r/in' },
      )
      const layer = await run([below], (root) => {
        rmSync(join(root, 'd/removed'))
        writeFileSync(join(root, 'd/changed'), 'after')
        writeFileSync(join(root, 'new'), 'new')
        linkSync(join(root, 'new'), join(root, 'linked'))
        rmSync(join(root, 'r'), { recursive: true })
        mkdirSync(join(root, 'r'))
        setXattr(join(root, 'new'), 'security.capability', capability)
        // Looked at, and not changed.
        chmodSync(join(root, 'd/kept'), statSync(join(root, 'd/kept')).mode & 0o7777)
      })
      const { diffId } = await layer.stored
      const entries = await entriesOf(await tarOf(diffId))
      expect(entries.map(({ path: entry }) => entry.toString())).toEqual([
        'd',
        'd/changed',
        'd/.wh.removed',
        'linked',
        'new',
        'r',
        'r/.wh..wh..opq',
      ])
      await using root = await store.layers.mount([below, store.layers.open(diffId)])
      expect(namesIn(root)).toEqual(['d', 'd/changed', 'd/kept', 'linked', 'new', 'r'])
      expect(readFileSync(join(inside(root), 'd/changed'), 'utf8')).toBe('after')
      expect(lstatSync(join(inside(root), 'new')).nlink).toBe(2)
      expect(getXattr(join(inside(root), 'linked'), 'security.capability')).toEqual(capability)
    })

    test('a file below it that only changes its mode, owner or name is copied whole', async () => {
      const contents = 'contents '.repeat(10_000)
      const below = await layerOf(
        { path: 'a', contents },
        { path: 'b', contents },
        { path: 'c', contents },
        { path: 'd', contents },
      )
      const layer = await run([below], (root) => {
        chmodSync(join(root, 'a'), 0o700)
        renameSync(join(root, 'b'), join(root, 'moved'))
        linkSync(join(root, 'c'), join(root, 'linked'))
        setXattr(join(root, 'd'), 'user.x', Buffer.from('x'))
        for (const file of ['a', 'moved', 'c', 'linked', 'd'])
          expect(readFileSync(join(root, file), 'utf8')).toBe(contents)
      })
      const entries = await entriesOf(await tarOf((await layer.stored).diffId))
      expect(
        entries.map(({ path: entry, type, xattrs }) => [entry.toString(), type, [...xattrs.keys()]]),
      ).toEqual([
        ['a', 'file', []],
        ['.wh.b', 'file', []],
        ['c', 'file', []],
        ['d', 'file', ['user.x']],
        ['linked', 'hardlink', []],
        ['moved', 'file', []],
      ])
      expect(
        entries.filter((entry) => entry.contents === contents).map(({ path: entry }) => entry.toString()),
      ).toEqual(['a', 'c', 'd', 'moved'])
      // It was a link to the same inode, and its own contents are the store's already.
      expect(contentsOf(path).filter(({ size }) => size === contents.length)).toHaveLength(1)
    })

    test('nothing that is done in it leads to data that is not in it', async () => {
      const below = await layerOf(
        { path: 'secret', contents: 'secret' },
        { path: 'other', contents: 'other!' },
      )
      const digest = contentsOf(path)[0]?.digest ?? ''
      await using root = await store.layers.mountWritable([below])
      const file = join(inside(root), 'mine')
      writeFileSync(file, '')
      setIfAllowed(file, 'trusted.overlay.metacopy', '')
      setIfAllowed(file, 'trusted.overlay.redirect', `/${digest.slice(0, 2)}/${digest.slice(2)}`)
      truncateSync(file, 6)
      const layer = await root.commit()
      await using above = await store.layers.mount([below, layer])
      expect(readFileSync(join(inside(above), 'mine')).equals(Buffer.alloc(6))).toBe(true)
      // It may become a layer, or be refused; what it is not is a way to others' data.
      const stored = await layer.stored.catch(() => undefined)
      if (stored === undefined) return
      const mine = (await entriesOf(await tarOf(stored.diffId))).find(
        ({ path: entry }) => entry.toString() === 'mine',
      )
      expect(mine?.contents).toBe('\0'.repeat(6))
    })

    test('serves as a lower the moment it is committed, and is dropped when it is stored', async () => {
      const below = await layerOf({ path: 'a' })
      let layers = [below]
      for (let i = 0; i < 3; i++) {
        const layer = await run(layers, (root) => writeFileSync(join(root, `step${i}`), String(i)))
        layers = [...layers, layer]
        expect(await names(layers)).toContain(`step${i}`)
      }
      const stored = await Promise.all(layers.map(async (layer) => (await layer.stored).diffId))
      expect(await names(layers)).toEqual(['a', 'step0', 'step1', 'step2'])
      expect(await names(opened(...stored))).toEqual(['a', 'step0', 'step1', 'step2'])
      await store[Symbol.asyncDispose]()
      expect(readdirSync(join(path, 'work'))).toEqual([])
      store = await open(path)
      expect(await names(opened(...stored))).toEqual(['a', 'step0', 'step1', 'step2'])
    })

    test('that is not committed, or whose ingest is called off, leaves nothing', async () => {
      const below = await layerOf({ path: 'a', contents: 'a' })
      const before = filesOf(path)
      {
        await using root = await store.layers.mountWritable([below])
        writeFileSync(join(inside(root), 'b'), 'b'.repeat(10_000))
      }
      {
        await using root = await store.layers.mountWritable([below])
        writeFileSync(join(inside(root), 'b'), 'b'.repeat(10_000))
        const layer = await root.commit({ signal: AbortSignal.abort(new Error('called off')) })
        await expect(layer.stored).rejects.toThrow('called off')
      }
      await settled(store)
      expect(withoutTrees(filesOf(path))).toEqual(withoutTrees(before))
    })
  })

  describe(`the driver ${name}: entries`, () => {
    test('from bytes, from files, and of contents that are there already', async () => {
      using own = scratch()
      const file = join(own.path, 'file')
      writeFileSync(file, 'from a file')
      const fd = openSync(file, 'r')
      let known = false
      const layer = await store.layers.write(async (writer) => {
        writer.entry(entryOf('a', 4))
        writer.data(Buffer.from('by'))
        writer.data(Buffer.from('te'))
        writer.entry(entryOf('b', 11))
        writer.dataFrom(fd, 0, 11)
        writer.entry(entryOf('c', 200_000))
        writer.data(Buffer.from('x'))
        writer.zeros(199_999)
        await writer.breathe()
        // Written a moment ago, and not yet recorded.
        writer.entry(entryOf('d', 4))
        known = writer.stored(sha256('byte'))
      })
      closeSync(fd)
      expect(known).toBe(true)
      const { diffId } = await layer.stored
      await using root = await store.layers.mount([layer])
      const read = (one: string): string => readFileSync(join(inside(root), one), 'utf8')
      expect([read('a'), read('b'), read('d')]).toEqual(['byte', 'from a file', 'byte'])
      expect(read('c')).toBe(`x${'\0'.repeat(199_999)}`)
      const another = await store.layers.write(async (writer) => {
        writer.entry(entryOf('e', 11))
        expect(writer.stored(sha256('unknown'))).toBe(false)
        expect(writer.stored(sha256('from a file'))).toBe(true)
      })
      const tar = await entriesOf(await tarOf((await another.stored).diffId))
      expect(tar.map(({ contents }) => contents)).toEqual(['from a file'])
      expect(
        (await tarOf(diffId)).equals(
          archiveOf(
            { path: 'a', contents: 'byte' },
            { path: 'b', contents: 'from a file' },
            { path: 'c', contents: read('c') },
            { path: 'd', contents: 'byte' },
          ),
        ),
      ).toBe(true)
    })

    test('of all sizes, one after another, from bytes, from files and from an upper', async () => {
      using own = scratch()
      // Around what is kept in one buffer, hashed at once, and hashed while it is copied; equal ones, too.
      const sizes = [70_000, 300_000, 9_000_001, 12, 5_000_000, 0, 262_144, 4_194_305, 20_000_000, 1, 600_000]
      const holes = [300_000, 4_500_000].map((size) =>
        Buffer.concat([randomBytes(size), Buffer.alloc(200_000), randomBytes(size), Buffer.alloc(131_072)]),
      )
      const all = [...sizes.map((size) => randomBytes(size)), ...holes]
      const files = [...all, ...all].map((bytes, i) => ({ path: `f${i < 10 ? 0 : ''}${i}`, bytes }))
      const fill = async (writer: LayerWriter, way: 'data' | 'dataFrom'): Promise<void> => {
        for (const { path: file, bytes } of files) {
          writer.entry(entryOf(file, bytes.length))
          writeFileSync(join(own.path, file), bytes)
          const fd = openSync(join(own.path, file), 'r')
          for (let at = 0; at < bytes.length; at += 1_000_000) {
            const part = bytes.subarray(at, at + 1_000_000)
            if (way === 'data') writer.data(part)
            else writer.dataFrom(fd, at, part.length)
          }
          closeSync(fd)
          await writer.breathe()
        }
      }
      const layers = [
        await store.layers.write((writer) => fill(writer, 'data')),
        await store.layers.write((writer) => fill(writer, 'dataFrom')),
        await run([], (root) => {
          for (const { path: file, bytes } of files) writeFileSync(join(root, file), bytes)
        }),
      ]
      const counts = new Set<number>()
      for (const layer of layers) {
        const { diffId } = await layer.stored
        counts.add(contentsOf(path).length)
        const tar = await tarOf(diffId)
        expect(`sha256:${sha256(tar).toString('hex')}`).toBe(diffId)
        await using root = await store.layers.mount([layer])
        for (const { path: file, bytes } of files)
          expect(readFileSync(join(inside(root), file)).equals(bytes)).toBe(true)
      }
      // Each is there once; those with holes are three.
      expect([...counts]).toEqual([sizes.length - 1 + 3 * holes.length])
      expect(await store.fsck()).toMatchObject({ problems: [] })
    })

    test('whose contents came before it was known what for', async () => {
      using own = scratch()
      const large = Buffer.alloc(5_000_000, 'large')
      writeFileSync(join(own.path, 'small'), 'small')
      writeFileSync(join(own.path, 'large'), large)
      using end = new DisposableStack()
      const root = openSync(own.path, 'r')
      end.defer(() => closeSync(root))
      const take = (intake: ReturnType<Store['layers']['intake']>, file: string): Buffer => {
        const stats = statAt(root, file)
        if (stats === undefined) throw new Error(`no ${file}`)
        return intake.take({ root, path: file, stats, open: () => openSync(join(own.path, file), 'r') })
          .digest
      }
      await layerOf({ path: 'first', contents: 'first' })
      const before = filesOf(path)
      {
        using intake = store.layers.intake()
        take(intake, 'large')
        expect(intake.has(take(intake, 'small'))).toBe(true)
      }
      expect(filesOf(path)).toEqual(before)
      using intake = store.layers.intake()
      const digests = [take(intake, 'small'), take(intake, 'large')]
      const layer = await store.layers.write(
        async (writer) => {
          for (const [i, size] of [5, 5_000_000].entries()) {
            writer.entry(entryOf(`f${i}`, size))
            expect(writer.stored(digests[i] ?? Buffer.alloc(0))).toBe(true)
          }
        },
        { intake },
      )
      await layer.stored
      await using mounted = await store.layers.mount([layer])
      expect(readFileSync(join(inside(mounted), 'f1')).equals(large)).toBe(true)
    })
  })

  describe(`the driver ${name}: contents`, () => {
    test('are kept once, whichever layers, names and ways they come by', async () => {
      const contents = 'the same '.repeat(1000)
      const first = await layerOf(
        { path: 'a', contents },
        { path: 'b', contents },
        { path: 'c', contents: 'other' },
      )
      const bytes = allocated(path)
      await layerOf({ path: 'd', contents, mode: 0o600, mtimeNs: 5n })
      await (
        await run([first], (root) => writeFileSync(join(root, 'e'), contents))
      ).stored
      expect(
        contentsOf(path)
          .map(({ size }) => size)
          .toSorted((a, b) => a - b),
      ).toEqual([5, contents.length])
      expect(allocated(path) - bytes).toBeLessThan(150_000)
    })

    test('two stores on one path bring the same at once: both succeed, each content is there once', async () => {
      await using other = await open(path)
      const archives = Array.from({ length: 6 }, (_, i) =>
        archiveOf(
          ...Array.from({ length: 40 }, (_x, j) => ({
            path: `f${String(j).padStart(2, '0')}`,
            contents: `${(i % 3) * 10 + j} `.repeat(500),
          })),
          { path: 'own', contents: `layer ${i}` },
        ),
      )
      const diffIds = await Promise.all(
        archives.flatMap((archive) => [ingest(archive), ingest(archive, other)]),
      )
      const digests = contentsOf(path).map(({ digest }) => digest)
      expect(new Set(digests).size).toBe(digests.length)
      expect(new Set(diffIds).size).toBe(archives.length)
      for (const [i, archive] of archives.entries())
        expect((await tarOf(diffIds[2 * i] ?? ('' as DiffId))).equals(archive)).toBe(true)
      const [layers, theirs] = [opened(...diffIds), diffIds.map((diffId) => other.layers.open(diffId))]
      const roots = await Promise.all([store.layers.mount(layers), other.layers.mount(theirs)])
      expect(namesIn(roots[0])).toEqual(namesIn(roots[1]))
      await Promise.all(roots.map((root) => root[Symbol.asyncDispose]()))
      await store[Symbol.asyncDispose]()
      await other[Symbol.asyncDispose]()
      expect(readdirSync(join(path, 'work'))).toEqual([])
      store = await open(path)
    })

    test('that nothing needs any more go with a collection; what is needed stays', async () => {
      const gone = await ingest(
        archiveOf(
          { path: 'a', contents: 'gone '.repeat(50_000) },
          { path: 'b', contents: 'shared '.repeat(50_000) },
        ),
      )
      // Its lease keeps it until then.
      await store[Symbol.asyncDispose]()
      store = await open(path)
      const kept = await ingest(archiveOf({ path: 'c', contents: 'shared '.repeat(50_000) }))
      const before = keptBytes(path)
      await store.prune()
      expect(store.layers.find(gone)).toBeUndefined()
      await using root = await store.layers.mount(opened(kept))
      expect(readFileSync(join(inside(root), 'c'), 'utf8')).toBe('shared '.repeat(50_000))
      expect(contentsOf(path)).toHaveLength(1)
      expect(before - keptBytes(path)).toBeGreaterThan(200_000)
    })
  })

  describe(`the driver ${name}: an ingest that fails leaves the store as it was`, () => {
    const large = Array.from({ length: 30 }, (_, i) => ({ path: `f${i}`, contents: `${i}`.repeat(300_000) }))
    const whole = archiveOf(...large)
    const redirect = new Map([['trusted.overlay.redirect', Buffer.from('/aa/x')]])

    test.each([
      ['a stream that ends early', /ends|truncated|short/, () => ingest(whole.subarray(0, 5_000_000))],
      [
        'a stream that fails',
        /the connection is gone/,
        () => store.layers.ingestTar(failing(whole.subarray(0, 5_000_000))),
      ],
      [
        'another DiffId',
        /000000/,
        () => store.layers.ingestTar(inParts(whole), { expected: `sha256:${'0'.repeat(64)}` as DiffId }),
      ],
      ['an entry outside', /\.\.\/x/, () => ingest(archiveOf(...large, { path: '../x' }))],
      [
        'a redirect of overlayfs',
        /trusted\.overlay\.redirect/,
        () => ingest(archiveOf(...large, { path: 'x', xattrs: redirect })),
      ],
      [
        'a signal',
        /called off/,
        () => {
          const stop = new AbortController()
          const source = inParts(whole, () => stop.abort(new Error('called off')))
          return store.layers.ingestTar(source, { signal: stop.signal })
        },
      ],
      [
        'entries that come short',
        /f29/,
        () =>
          store.layers.write(async (writer) => {
            for (const { path: file, contents } of large) {
              writer.entry(entryOf(file, contents.length))
              writer.data(Buffer.from(contents).subarray(0, file === 'f29' ? 5 : undefined))
            }
          }),
      ],
    ] as const)('%s', async (_, message, attempt) => {
      await layerOf({ path: 'there', contents: 'there' })
      const before = filesOf(path)
      const contents = contentsOf(path)
      await expect(attempt()).rejects.toThrow(message)
      expect(filesOf(path)).toEqual(before)
      expect(contentsOf(path)).toEqual(contents)
      // And nothing of it is in the way of what comes next.
      expect((await tarOf(await ingest(whole))).equals(whole)).toBe(true)
    })
  })

  test(`the driver ${name}: a store whose path has 300 bytes works`, async () => {
    let long = base
    while (long.length < 300 - 50) long = join(long, 'n'.repeat(50))
    long = join(long, 'n'.repeat(300 - long.length - 1))
    await using far = await open(long)
    const first = far.layers.open(await ingest(archiveOf({ path: 'a', contents: 'a' }), far))
    const second = far.layers.open(await ingest(archiveOf({ path: 'b', contents: 'b' }), far))
    await using root = await far.layers.mountWritable([first, second])
    expect(namesIn(root)).toEqual(['a', 'b'])
    writeFileSync(join(inside(root), 'c'), 'c')
    const layer = await root.commit()
    await layer.stored
    expect(existsSync(join(long, 'index.db'))).toBe(true)
  })
}

function entryOf(path: string, size: number): TarOutputEntry {
  const nothing = { mtimeNs: 0n, major: 0, minor: 0, xattrs: new Map<string, Buffer>() }
  return { path, type: 'file', size, mode: 0o644, uid: 0, gid: 0, ...nothing }
}

/** Refused is as good. */
function setIfAllowed(file: string, attribute: string, value: string): void {
  try {
    setXattr(file, attribute, Buffer.from(value))
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'EOPNOTSUPP', 'EINVAL')) throw error
  }
}

/** Symlinks of /proc are followed only with something after them. */
function inside(root: Root): string {
  return `/proc/self/fd/${root.fd}/.`
}

function namesIn(root: Root): string[] {
  return readdirSync(inside(root), { recursive: true, encoding: 'utf8' }).toSorted()
}

function sha256(contents: string | Buffer): Buffer {
  return Buffer.from(execFileSync('sha256sum', { input: contents, encoding: 'utf8' }).slice(0, 64), 'hex')
}

const PART = 100_000

/** `between` is called when half of it has gone. */
async function* inParts(bytes: Buffer, between = (): void => {}): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += PART) {
    if (at <= bytes.length / 2 && at + PART > bytes.length / 2) between()
    yield bytes.subarray(at, at + PART)
  }
}

async function* failing(bytes: Buffer): AsyncGenerator<Buffer> {
  yield* inParts(bytes)
  throw new Error('the connection is gone')
}

/** Bytes on the disk, of all files. */
function allocated(path: string): number {
  return Number.parseInt(execFileSync('du', ['-s', '--block-size=1', path], { encoding: 'utf8' }), 10)
}

function keptBytes(path: string): number {
  return allocated(join(path, 'segments')) + allocated(join(path, 'objects'))
}

/** Every name in the store with its size, but for the database's own files. */
function filesOf(path: string): string[] {
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => !name.startsWith('index.db'))
    .map((name) => {
      const stats = lstatSync(join(path, name))
      return stats.isDirectory() ? `${name}/` : `${name} ${stats.size}`
    })
    .toSorted()
}

/** A mount may have left what the next one will be quicker by. */
function withoutTrees(files: readonly string[]): string[] {
  return files.filter((file) => !file.startsWith('trees/') && !/^work\/[^/]+\/root-\d+\//.test(file))
}

function contentsOf(path: string): { readonly digest: string; readonly size: number }[] {
  const db = new DatabaseSync(join(path, 'index.db'), { readOnly: true, timeout: 10_000 })
  try {
    return db
      .prepare('SELECT hex(digest) AS digest, size FROM contents ORDER BY digest')
      .all()
      .map((row) => ({ digest: String(row['digest']).toLowerCase(), size: Number(row['size']) }))
  } finally {
    db.close()
  }
}

/** What goes on behind the caller's back has ended. */
async function settled(store: Store): Promise<void> {
  await (store.layers as unknown as AsyncDisposable)[Symbol.asyncDispose]()
}
