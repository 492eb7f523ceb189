import { lstatSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { getXattr } from '../../linux/index.ts'
import {
  archiveOf,
  capability,
  defaultAcl,
  describeTree,
  gnuPack,
  gnuUnpack,
  makeTree,
  pack,
  punch,
  rawArchive,
  rawHeader,
  richTree,
  scratch,
  unpack,
  type Described,
  type Node,
} from './testing.ts'

describe('as GNU tar does', () => {
  const plain: readonly Node[] = [
    { type: 'directory', path: 'd', mode: 0o1777, mtimeNs: 9_000_000_000n },
    {
      type: 'file',
      path: 'd/f',
      contents: 'x'.repeat(1000),
      mode: 0o6755,
      uid: 1000,
      gid: 1001,
      mtimeNs: 8_000_000_000n,
    },
    { type: 'hardlink', path: 'd/g', link: 'd/f' },
    { type: 'symlink', path: 'd/s', link: '../..', uid: 5, gid: 6, mtimeNs: 7_000_000_000n },
    { type: 'directory', path: 'shut', mode: 0, mtimeNs: 6_000_000_000n },
    { type: 'file', path: 'shut/e', mode: 0 },
  ]
  const special: readonly Node[] = [
    { type: 'char', path: 'c', device: [1, 3], mode: 0o666, uid: 7 },
    { type: 'block', path: 'b', device: [259, 70_000], mode: 0o660 },
    { type: 'fifo', path: 'p', mode: 0o622, mtimeNs: 5_000_000_000n },
  ]

  test.each<[string, readonly Node[], readonly string[]]>([
    ['v7', plain, []],
    ['ustar', [...plain, ...special], []],
    ['gnu', richTree({ xattrs: false }), []],
    ['pax', richTree({ xattrs: true }), ['--xattrs', '--xattrs-include=*']],
  ])('%s', async (format, nodes, options) => {
    using base = scratch()
    const tree = base.directory('tree')
    makeTree(tree, nodes)
    const archive = gnuPack(tree, `--format=${format}`, ...options)
    const [theirs, ours] = [base.directory('theirs'), base.directory('ours')]
    gnuUnpack(archive, theirs)
    await unpack(archive, ours)
    expect(describeTree(ours)).toEqual(describeTree(theirs))
  })

  test.each([
    ['old GNU', '--format=gnu'],
    ['PAX 0.0', '--format=pax', '--sparse-version=0.0'],
    ['PAX 0.1', '--format=pax', '--sparse-version=0.1'],
    ['PAX 1.0', '--format=pax', '--sparse-version=1.0'],
  ])('%s: a sparse file keeps its holes', async (_, ...options) => {
    using base = scratch()
    const tree = base.directory('tree')
    makeTree(tree, [{ type: 'file', path: 'f' }])
    const contents = Buffer.alloc(4_000_000)
    contents.write('data', 1_000_000)
    punch(join(tree, 'f'), contents)
    const out = base.directory('out')
    await unpack(gnuPack(tree, '--sparse', ...options), out)
    expect(readFileSync(join(out, 'f')).equals(contents)).toBe(true)
    expect(lstatSync(join(out, 'f')).blocks).toBe(8)
  })
})

test('file capabilities survive the change of owner', async () => {
  using base = scratch()
  const xattrs = new Map([['security.capability', capability]])
  await unpack(archiveOf({ path: 'ping', mode: 0o4755, uid: 1000, contents: 'x', xattrs }), base.path)
  expect(getXattr(join(base.path, 'ping'), 'security.capability')).toEqual(capability)
  expect(lstatSync(join(base.path, 'ping'))).toMatchObject({ mode: 0o104755, uid: 1000 })
})

test('a default ACL of a directory does not reach what the archive puts into it', async () => {
  using base = scratch()
  const xattrs = new Map([['system.posix_acl_default', defaultAcl]])
  const archive = archiveOf({ path: 'd/', xattrs }, { path: 'd/e/' }, { path: 'd/f', contents: 'x' })
  await unpack(archive, base.path)
  expect((await pack(base.path)).equals(archive)).toBe(true)
})

test('contents that are zeros become holes', async () => {
  using base = scratch()
  const contents = Buffer.alloc(1_024_000)
  contents.write('middle', 500_000)
  await unpack(archiveOf({ path: 'f', contents }, { path: 'g', contents: Buffer.alloc(102_400) }), base.path)
  expect(readFileSync(join(base.path, 'f')).equals(contents)).toBe(true)
  expect(lstatSync(join(base.path, 'f')).blocks).toBe(8)
  expect(lstatSync(join(base.path, 'g'))).toMatchObject({ size: 102_400, blocks: 0 })
})

test('the result counts what was done', async () => {
  using base = scratch()
  const archive = archiveOf(
    { path: 'd/' },
    { path: 'd/f', contents: 'abc' },
    { path: 'd/.wh.g' },
    { path: 'd/.wh..wh..opq' },
    { path: '.wh..wh.plnk/' },
    { path: '.wh..wh.plnk/1.2', contents: 'skipped' },
    { path: 's', type: 'symlink', link: 'd', xattrs: new Map([['user.a', Buffer.from('1')]]) },
  )
  expect(await unpack(archive, base.path)).toEqual({
    entries: 5,
    whiteouts: 1,
    bytes: 3,
    opaqueRoot: false,
    skippedXattrs: 1,
    skippedEntries: 2,
  })
})

test('parents that the archive does not mention are of root, 0755, of 1970', async () => {
  using base = scratch()
  await unpack(archiveOf({ path: 'a/b/c', uid: 1000, mtimeNs: 5n }), base.path)
  expect(describeTree(base.path).slice(1, 3)).toEqual(['"a" 40755 0:0 @0', '"a/b" 40755 0:0 @0'])
})

test('a directory mentioned after its contents gets its metadata all the same, and again', async () => {
  using base = scratch()
  await unpack(
    archiveOf(
      { path: 'd/f' },
      { path: 'd/', mode: 0o700, mtimeNs: 1n },
      { path: 'd/g' },
      { path: 'd/', mode: 0o500, uid: 3, mtimeNs: 2n },
    ),
    base.path,
  )
  expect(describeTree(base.path)[1]).toBe('"d" 40500 3:0 @2')
})

test('everything gets the one owner that is asked for', async () => {
  using base = scratch()
  const archive = archiveOf(
    { path: 'a/b', uid: 5 },
    { path: 'c/', gid: 6 },
    { path: 's', type: 'symlink', link: 'x', uid: 7 },
  )
  await unpack(archive, base.path, { owner: { uid: 1, gid: 2 } })
  const owners = ['a', 'a/b', 'c', 's'].map((name) => lstatSync(join(base.path, name)))
  expect(owners.map(({ uid, gid }) => [uid, gid])).toEqual([
    [1, 2],
    [1, 2],
    [1, 2],
    [1, 2],
  ])
})

describe('one name twice', () => {
  test.each<[string, readonly Described[], readonly string[]]>([
    [
      'the last file counts',
      [
        { path: 'a', contents: '12' },
        { path: 'a', contents: '3' },
      ],
      ['"a" 100644 0:0 @0 1'],
    ],
    ['a file over a tree', [{ path: 'a/b/c' }, { path: 'a' }], ['"a" 100644 0:0 @0 0']],
    ['a directory over a file', [{ path: 'a' }, { path: 'a/' }], ['"a" 40755 0:0 @0']],
    [
      'a directory over a symlink to one',
      [{ path: 'd/' }, { path: 'a', type: 'symlink', link: 'd' }, { path: 'a/', mode: 0o700 }],
      ['"a" 40700 0:0 @0', '"d" 40755 0:0 @0'],
    ],
    [
      'a symlink over a directory',
      [{ path: 'a/b' }, { path: 'a', type: 'symlink', link: 'x', mode: 0o777 }],
      ['"a" 120777 0:0 @0 -> "x"'],
    ],
    [
      'a fifo over a symlink',
      [
        { path: 'a', type: 'symlink', link: 'x' },
        { path: 'a', type: 'fifo' },
      ],
      ['"a" 10644 0:0 @0'],
    ],
    [
      'a hard link over a file',
      [{ path: 'a', contents: '1' }, { path: 'b' }, { path: 'b', type: 'hardlink', link: 'a' }],
      ['"a" 100644 0:0 @0 1', '"b" 100644 0:0 @0 1'],
    ],
    [
      'a hard link to itself',
      [
        { path: 'a', contents: '1' },
        { path: 'a', type: 'hardlink', link: 'a' },
      ],
      ['"a" 100644 0:0 @0 1'],
    ],
  ])('%s', async (_, entries, expected) => {
    using base = scratch()
    await unpack(archiveOf(...entries), base.path)
    const lines = describeTree(base.path).slice(1)
    // Without the digest, which says no more than the size here.
    expect(lines.map((line) => line.replace(/(@\d+ \d+) .*/, '$1'))).toEqual(expected)
  })

  test('a file over a hard link leaves the other name alone', async () => {
    using base = scratch()
    const archive = archiveOf(
      { path: 'a', contents: 'old' },
      { path: 'b', type: 'hardlink', link: 'a' },
      { path: 'b', contents: 'new' },
    )
    await unpack(archive, base.path)
    expect([readFileSync(join(base.path, 'a'), 'utf8'), readFileSync(join(base.path, 'b'), 'utf8')]).toEqual([
      'old',
      'new',
    ])
  })
})

const opaque = (path: string, attribute = 'trusted.overlay.opaque'): string | undefined =>
  getXattr(path, attribute)?.toString()

describe('whiteouts', () => {
  test('become 0/0 devices, and opaque marks an attribute', async () => {
    using base = scratch()
    await unpack(archiveOf({ path: '.wh.gone' }, { path: 'd/.wh..wh..opq' }, { path: 'd/new' }), base.path)
    expect(describeTree(base.path).slice(1)).toEqual([
      '"d" 40755 0:0 @0',
      expect.stringMatching(/^"d\/new" /),
      expect.stringMatching(/^"gone" 20600 0:0 .* device 0$/),
    ])
    expect(opaque(join(base.path, 'd'))).toBe('y')
  })

  test('an opaque root is for the caller to heed', async () => {
    using base = scratch()
    expect(await unpack(archiveOf({ path: '.wh..wh..opq' }), base.path)).toMatchObject({ opaqueRoot: true })
  })

  test.each([
    ['the whiteout first', ['.wh.a', 'a']],
    ['the whiteout last', ['a', '.wh.a']],
  ])('an entry of the same name stays: %s', async (_, names) => {
    using base = scratch()
    await unpack(archiveOf(...names.map((path) => ({ path, contents: 'stays' }))), base.path)
    expect(readFileSync(join(base.path, 'a'), 'utf8')).toBe('stays')
  })

  test.each([
    ['the whiteout first', ['.wh.d', 'd/', 'd/f']],
    ['the whiteout last', ['d/', 'd/f', '.wh.d']],
    ['the directory not mentioned', ['.wh.d', 'd/f']],
  ])('a directory of the same name stays and hides what is below: %s', async (_, names) => {
    using base = scratch()
    await unpack(archiveOf(...names.map((path) => ({ path }))), base.path)
    expect(lstatSync(join(base.path, 'd/f')).isFile()).toBe(true)
    expect(opaque(join(base.path, 'd'))).toBe('y')
  })

  test('the longest name that a file can have can be deleted', async () => {
    using base = scratch()
    const name = 'n'.repeat(255)
    await unpack(archiveOf({ path: `.wh.${name}` }), base.path)
    expect(lstatSync(join(base.path, name)).isCharacterDevice()).toBe(true)
  })

  test('where the archive is no layer, such names are ordinary ones', async () => {
    using base = scratch()
    await unpack(archiveOf({ path: '.wh.a', contents: 'x' }, { path: 'd/.wh..wh..opq' }), base.path, {
      whiteouts: 'none',
    })
    expect(readFileSync(join(base.path, '.wh.a'), 'utf8')).toBe('x')
    expect(lstatSync(join(base.path, 'd/.wh..wh..opq')).isFile()).toBe(true)
    expect(opaque(join(base.path, 'd'))).toBeUndefined()
  })
})

test('more directories than are held open, in an order that reopens each', async () => {
  using base = scratch()
  const deep = 'd/'.repeat(100)
  const entries = Array.from({ length: 300 }, (_, i) => ({
    path: `${i % 100}/${i % 7 === 0 ? deep : ''}f${i}`,
    contents: `${i}`,
  }))
  await unpack(archiveOf(...entries), base.path)
  for (const { path, contents } of entries) expect(readFileSync(join(base.path, path), 'utf8')).toBe(contents)
})

test('an error of the kernel names the entry and keeps its code', async () => {
  using base = scratch()
  writeFileSync(join(base.path, 'file'), '')
  const archive = rawArchive(rawHeader({ name: 'empty', flag: '2' }))
  await expect(unpack(archive, base.path)).rejects.toMatchObject({
    code: 'ENOENT',
    message: expect.stringContaining('archive entry "empty"'),
  })
})
