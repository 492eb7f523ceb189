import {
  appendFileSync,
  closeSync,
  constants,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { fileSystemUuid, getXattr, mountErofs, mountOverlay } from '../../linux/index.ts'
import { LayerTree } from '../layer/tree.ts'
import {
  describeMount,
  describeTree,
  imageBytes,
  mountTree,
  rootOf,
  scratch,
  TreeBuilder,
  UUID,
  writeImage,
} from './testing.ts'

const { ROOT } = LayerTree
const attributes = (xattrs: Readonly<Record<string, string | Buffer>>): Map<string, Buffer> =>
  new Map(Object.entries(xattrs).map(([name, value]) => [name, Buffer.from(value)]))
/** cap_net_raw+ep, as the kernel stores it. */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex')
/** Of the access kind: u::rw-, u:5:r--, g::r--, m::r--, o::r--. */
const ACL = Buffer.from(
  '0200000001000600ffffffff020004000500000004000400ffffffff10000400ffffffff20000400ffffffff',
  'hex',
)

const data = (length: number): Buffer => Buffer.alloc(length, 'data ')

/** An image of always the same tree, whose files are made in this order. */
function imageMadeIn(order: readonly number[]): Buffer {
  const built = new TreeBuilder()
  const parents = [ROOT, built.directory(ROOT, 'x'), built.directory(ROOT, 'y')]
  for (const i of order) {
    const xattrs = attributes({ 'user.a': `${i % 7}`, 'user.b': `${i % 4}` })
    built.file(parents[i % 3] ?? ROOT, `${i}`, [], { xattrs })
  }
  return imageBytes(built.tree)
}

/** What a mount of the tree's image says. */
function shown(built: TreeBuilder, devices = 1): string[] {
  using base = scratch()
  using image = mountTree(base, built, devices)
  return describeMount(image.root)
}

describe('the kernel sees in the mount what is in the tree', () => {
  test('an empty layer', () => {
    const built = new TreeBuilder()
    built.tree.setAttributes(ROOT, { mode: 0o1711, uid: 3, gid: 4, mtimeNs: 5n, xattrs: new Map() })
    expect(shown(built)).toEqual(describeTree(built))
    using base = scratch()
    using image = mountTree(base, built, 0)
    expect(image.bytes).toBe(2048)
  })

  test('every type, with its mode, owner, time and attributes', () => {
    const built = new TreeBuilder()
    const more = {
      uid: 0xffff_fffe,
      gid: 70_000,
      mtimeNs: 1_700_000_000_123_456_789n,
      xattrs: attributes({ 'user.a': 'b' }),
    }
    built.directory(ROOT, 'directory', { ...more, mode: 0o7777 })
    built.file(ROOT, 'file', [[0, 'contents']], { ...more, mode: 0o4711 })
    built.file(ROOT, 'empty', [], { ...more, mode: 0 })
    built.add(ROOT, 'symlink', {
      ...more,
      type: 'symlink',
      target: '../a/\u00ff',
      mode: 0o777,
      xattrs: attributes({ 'security.x': 'y' }),
    })
    const special = { ...more, xattrs: attributes({ 'trusted.x': 'y' }) }
    built.add(ROOT, 'char', { ...special, type: 'char', major: 0xfff, minor: 0xfffff })
    built.add(ROOT, 'char 0:1', { ...special, type: 'char', major: 0, minor: 1 })
    built.add(ROOT, 'block', { ...special, type: 'block', major: 259, minor: 256 })
    built.add(ROOT, 'fifo', { ...special, type: 'fifo' })
    built.add(ROOT, 'whiteout', { type: 'whiteout', mode: 0 })
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('times before 1970 and after 2038 and 2106, to the nanosecond', () => {
    const built = new TreeBuilder()
    const times = [
      -1n,
      -1_000_000_000n,
      -2_208_988_800_123_456_789n,
      2n ** 31n * 1_000_000_000n,
      2n ** 32n * 1_000_000_000n + 1n,
    ]
    for (const [i, mtimeNs] of [...times, 999_999_999n].entries())
      built.file(ROOT, `file ${i}`, [], { mtimeNs })
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('names of 1 and of 255 bytes, that are not UTF-8, and that sort before and around the dots', () => {
    const built = new TreeBuilder()
    const names = [
      '!',
      '-',
      '.-',
      '...',
      '..a',
      '.a',
      '/'.replace('/', '0'),
      '\u0001',
      '\u00ff',
      '\u00c3\u0028',
      ' ',
    ]
    for (const name of [...names, 'x'.repeat(255), '\u00ff'.repeat(255), `${'y'.repeat(254)}\u00e9`]) {
      built.file(ROOT, name, [[0, name]])
      built.directory(built.directory(ROOT, `${name.slice(0, 254)}d`), name)
    }
    expect(shown(built)).toEqual(describeTree(built))
  })

  test.each([1, 2, 3])(
    'directories whose last entry ends at, before and behind a block: %d blocks',
    (blocks) => {
      const built = new TreeBuilder()
      // '.' and '..' take 27 bytes, an entry 12 and its name.
      for (let missing = 0; missing <= 40; missing++) {
        const directory = built.directory(ROOT, `missing-${missing}`)
        for (let block = 0; block < blocks; block++) {
          // Names in order: full blocks first, and the last is the one that varies.
          const room = block === 0 ? 512 - 27 : 512
          const first = `${block}`.padEnd(200, 'a')
          built.file(directory, first)
          const rest = room - 12 - first.length - 12 - (block === blocks - 1 ? missing : 0)
          built.file(directory, `${block}`.padEnd(rest > 255 ? 255 : rest, 'b'))
          if (rest > 255 + 12) built.file(directory, `${block}`.padEnd(rest - 255 - 12, 'c'))
        }
      }
      expect(shown(built)).toEqual(describeTree(built))
    },
  )

  test('a directory of 700 names, and one of 4,000', () => {
    const built = new TreeBuilder()
    for (const count of [700, 4000]) {
      const directory = built.directory(ROOT, `of-${count}`)
      for (let i = 0; i < count; i++) built.file(directory, `name-${(i * 7919) % count}`)
    }
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('symlinks of every length around what fits behind an inode, in a block, and at all', () => {
    const built = new TreeBuilder()
    const lengths = [
      1, 440, 447, 448, 449, 450, 480, 511, 512, 513, 959, 960, 961, 1023, 1024, 1025, 4094, 4095,
    ]
    for (const [i, length] of lengths.entries()) {
      built.add(ROOT, `${i}-${length}`, {
        type: 'symlink',
        target: String.fromCharCode(97 + i).repeat(length),
      })
      // Moves what follows on.
      if (i % 3 === 0) built.file(ROOT, `${i}-file`)
    }
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('hard links, and inodes with more names than 16 bits count', () => {
    const built = new TreeBuilder()
    const [a, b] = [built.directory(ROOT, 'a'), built.directory(ROOT, 'b')]
    const file = built.file(a, 'file', [[0, 'x']])
    built.tree.link(b, 'file', file)
    built.tree.link(ROOT, '!before', file)
    built.tree.link(b, 'gone', file)
    built.tree.unlink(b, 'gone')
    const fifo = built.add(b, 'fifo', { type: 'fifo' })
    built.tree.link(a, 'fifo', fifo)
    const symlink = built.add(b, 'symlink', { type: 'symlink', target: 'x' })
    built.tree.link(a, 'symlink', symlink)
    expect(shown(built)).toEqual(describeTree(built))

    const many = new TreeBuilder()
    const inode = many.file(ROOT, 'first')
    for (let i = 0; i < 70_000; i++) many.tree.link(ROOT, `link-${i}`, inode)
    using base = scratch()
    using image = mountTree(base, many)
    const [first, last] = ['first', 'link-69999'].map((name) => statSync(`${image.root}/${name}`))
    expect(first).toMatchObject({ nlink: 70_001, ino: last?.ino })
    expect(readdirSync(image.root)).toHaveLength(70_001)
  })

  test('a directory with more subdirectories than 16 bits count', () => {
    const built = new TreeBuilder()
    for (let i = 0; i < 66_000; i++) built.directory(ROOT, `directory-${i}`)
    using base = scratch()
    using image = mountTree(base, built)
    expect(statSync(image.root).nlink).toBe(66_002)
    expect(statSync(`${image.root}/directory-65999`).nlink).toBe(2)
    expect(statSync(`${image.root}/directory-65999/..`).ino).toBe(statSync(image.root).ino)
  })

  test('a removed file and what was in a removed directory take no room', () => {
    const [one, other] = [new TreeBuilder(), new TreeBuilder()]
    for (const built of [one, other]) built.file(ROOT, 'kept')
    other.file(ROOT, 'gone')
    other.file(other.directory(ROOT, 'directory'), 'gone too')
    for (const name of ['gone', 'directory']) other.tree.unlink(ROOT, name)
    expect(imageBytes(other.tree)).toEqual(imageBytes(one.tree))
  })
})

describe('extended attributes', () => {
  test('of every kind of name, alone and shared, with ACLs', () => {
    const built = new TreeBuilder()
    const sets = [
      attributes({ 'user.a': '', 'user.\u00e9\u4e2d': 'text' }),
      attributes({ 'trusted.a': 'x', 'security.capability': CAPABILITY }),
      attributes({ 'system.posix_acl_access': ACL }),
      attributes({ 'system.posix_acl_access': ACL, 'system.posix_acl_default': ACL, 'user.a': '' }),
    ]
    for (const [i, xattrs] of sets.entries()) {
      built.directory(ROOT, `alone-${i}`, { xattrs: new Map([...xattrs, ['user.number', Buffer.from([i])]]) })
      for (const copy of [1, 2, 3]) built.directory(ROOT, `shared-${i}-${copy}`, { xattrs })
    }
    built.tree.setAttributes(ROOT, {
      mode: 0o755,
      uid: 0,
      gid: 0,
      mtimeNs: 0n,
      xattrs: attributes({ 'user.root': '1' }),
    })
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('a repeated set stands in the image once', () => {
    const built = new TreeBuilder()
    const value = Buffer.from('only once in it')
    for (let i = 0; i < 100; i++)
      built.file(ROOT, `${i}`, [], { xattrs: attributes({ 'user.a': value, [`user.${i % 10}`]: '' }) })
    const bytes = imageBytes(built.tree)
    expect(bytes.indexOf(value)).toBe(bytes.lastIndexOf(value))
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('the largest: names of 255 bytes, values of 65,535, more than fit behind an inode, more than 255', () => {
    const built = new TreeBuilder()
    const large = Buffer.alloc(65_535, 7)
    built.file(ROOT, 'name', [], {
      xattrs: attributes({ [`user.${'n'.repeat(250)}`]: 'x', [`security.${'n'.repeat(246)}`]: 'y' }),
    })
    built.file(ROOT, 'value', [[0, 'contents']], { xattrs: attributes({ 'user.a': large }) })
    for (const copy of [1, 2])
      built.file(ROOT, `shared-${copy}`, [], { xattrs: attributes({ 'user.b': large }) })
    const five = [1, 2, 3, 4, 5].map((i) => [`user.${i}`, large] as const)
    built.directory(ROOT, 'five large values', { xattrs: new Map(five) })
    for (const count of [255, 256, 600]) {
      const many = Array.from(
        { length: count },
        (_, i) => [`user.of-${count}-${i}`, Buffer.from([i & 255])] as const,
      )
      built.file(ROOT, `${count}`, [], { xattrs: new Map(many) })
      for (const copy of [1, 2]) {
        built.directory(ROOT, `shared-${count}-${copy}`, {
          xattrs: new Map([...many, ['user.shared', Buffer.from('')]]),
        })
      }
    }
    expect(shown(built)).toEqual(describeTree(built))
  })

  test('bodies of every length move data that stands behind them over block boundaries', () => {
    const built = new TreeBuilder()
    for (let length = 0; length < 520; length += 4) {
      const xattrs = attributes({ 'user.a': Buffer.alloc(length, length) })
      const directory = built.directory(ROOT, `directory-${length}`, { xattrs })
      built.file(directory, 'a'.repeat(200))
      built.add(ROOT, `symlink-${length}`, {
        type: 'symlink',
        target: 't'.repeat(300),
        xattrs: attributes({ 'trusted.a': Buffer.alloc(length, length) }),
      })
      built.file(ROOT, `file-${length}`, [[0, 'x']], { xattrs })
    }
    expect(shown(built)).toEqual(describeTree(built))
  })

  test.each([
    ['a name space that there is not', { 'nothing.a': 'x' }],
    ['no name in a name space', { 'user.': 'x' }],
    ['another system attribute', { 'system.nfs4_acl': 'x' }],
    ['a value of 65,536 bytes', { 'user.a': Buffer.alloc(65_536) }],
    ['too long a name', { [`user.${'n'.repeat(256)}`]: '' }],
  ])('%s is refused by the path of the file', (_, xattrs) => {
    const built = new TreeBuilder()
    built.file(built.directory(ROOT, 'a'), 'b', [], { xattrs: attributes(xattrs) })
    expect(() => imageBytes(built.tree)).toThrow(
      expect.objectContaining({ code: 'LAYER_XATTR', message: expect.stringContaining('/a/b: ') }),
    )
  })
})

describe('contents', () => {
  test('of every size around blocks and pages, from several devices', () => {
    const built = new TreeBuilder()
    const sizes = [1, 511, 512, 513, 1024, 4095, 4096, 4097, 8191, 8192, 65_536, 100_000, 1_048_577]
    for (const size of sizes) built.file(ROOT, `${size}`, [[0, Buffer.alloc(size, `contents of ${size} `)]])
    expect(shown(built, 1)).toEqual(describeTree(built))
    expect(shown(built, 3)).toEqual(describeTree(built))
  })

  test('holes at the start, between, at the end, and only them', () => {
    const built = new TreeBuilder()
    built.file(ROOT, 'start', [[4096, data(100)]])
    built.file(ROOT, 'end', [[0, data(512)]], { size: 10_000 })
    built.file(ROOT, 'between', [
      [0, data(1536)],
      [65_536, data(512)],
      [66_560, data(3)],
    ])
    built.file(ROOT, 'adjoining', [
      [0, data(512)],
      [512, data(2048)],
      [2560, data(7)],
    ])
    built.file(ROOT, 'nothing', [], { size: 1 })
    built.file(ROOT, 'much nothing', [], { size: 1_000_001 })
    built.file(
      ROOT,
      'an empty piece',
      [
        [0, ''],
        [0, data(512)],
        [512, ''],
      ],
      { size: 700 },
    )
    expect(shown(built, 2)).toEqual(describeTree(built))
  })

  test('many devices', () => {
    const built = new TreeBuilder()
    for (let i = 0; i < 300; i++) built.file(ROOT, `${i}`, [[0, `contents ${i}`]])
    expect(shown(built, 300)).toEqual(describeTree(built))
  })

  test('files of 5 GiB and holes of terabytes; every byte at its place', () => {
    using base = scratch()
    const GiB = 2 ** 30
    const TiB = 2 ** 40
    const segment = openSync(join(base.path, 'segment'), 'w+')
    ftruncateSync(segment, 8 * GiB)
    // Block 4 is where the contents of 5 GiB begin.
    for (const offset of [0, 4 * GiB - 1, 5 * GiB - 3]) writeSync(segment, `at`, 2048 + offset)
    const built = new TreeBuilder()
    const large = built.add(ROOT, 'large', { type: 'file' })
    built.tree.setSize(large, 5 * GiB)
    built.tree.addPiece(large, 0, 5 * GiB, 0)
    const sparse = built.add(ROOT, 'sparse', { type: 'file' })
    built.tree.setSize(sparse, 3 * TiB + 1000)
    built.tree.addPiece(sparse, 2 * TiB, GiB, 0)
    const empty = built.add(ROOT, 'nothing', { type: 'file' })
    built.tree.setSize(empty, 2 ** 53 - 1)
    const image = openSync(join(base.path, 'image'), 'w+')
    writeImage(image, built.tree, {
      devices: [{ blocks: (8 * GiB) / 512 }],
      locate: () => ({ device: 1, block: 4 }),
    })
    const mount = mountErofs(image, [segment])
    const read = (name: string, position: number): string => {
      const fd = openSync(`${rootOf(mount)}/${name}`, 'r')
      const bytes = Buffer.alloc(4)
      const length = readSync(fd, bytes, 0, 4, position)
      closeSync(fd)
      return bytes.toString('latin1', 0, length)
    }
    expect(read('large', 0)).toBe('at\0\0')
    expect(read('large', 4 * GiB - 1)).toBe('at\0\0')
    expect(read('large', 5 * GiB - 3)).toBe('at\0')
    expect(read('sparse', 0)).toBe('\0\0\0\0')
    expect(read('sparse', 2 * TiB)).toBe('at\0\0')
    expect(read('sparse', 2 * TiB + GiB)).toBe('\0\0\0\0')
    expect(read('sparse', 3 * TiB + 998)).toBe('\0\0')
    expect(lstatSync(`${rootOf(mount)}/sparse`).size).toBe(3 * TiB + 1000)
    expect(lstatSync(`${rootOf(mount)}/nothing`).size).toBe(2 ** 53 - 1)
    expect(read('nothing', 2 ** 53 - 3)).toBe('\0\0')
    for (const fd of [mount, image, segment]) closeSync(fd)
  })

  test('an address behind 32 bits is refused, and does not wrap', () => {
    const built = new TreeBuilder()
    const file = built.add(ROOT, 'file', { type: 'file' })
    built.tree.setSize(file, 1024)
    built.tree.addPiece(file, 0, 1024, 0)
    const at = (block: number, device = 1): (() => unknown) => {
      return () => imageBytes(built.tree, { devices: [{ blocks: 10 }], locate: () => ({ device, block }) })
    }
    expect(at(2 ** 32 - 3)).not.toThrow()
    expect(at(2 ** 32 - 2)).toThrow('content 0')
    expect(at(2 ** 32)).toThrow('content 0')
    expect(at(-1)).toThrow('content 0')
    expect(at(0, 2)).toThrow('device 2 of 1')
    expect(at(0, 0)).toThrow('device 0 of 1')
    expect(() => imageBytes(new LayerTree(), { devices: [{ blocks: 2 ** 32 }] })).toThrow('blocks')
  })

  test.each([
    ['data that begins inside a block', 100_000, 100, 412],
    ['data that ends inside a block', 100_000, 512, 100],
    ['a table of more than 64 MiB', 2 ** 33, 512, 512],
  ])('%s is refused by the path of the file', (_, size, offset, length) => {
    const built = new TreeBuilder()
    const file = built.add(built.directory(ROOT, 'a'), 'b', { type: 'file' })
    built.tree.setSize(file, size)
    built.tree.addPiece(file, offset, length, 0)
    expect(() =>
      imageBytes(built.tree, { devices: [{ blocks: 10 }], locate: () => ({ device: 1, block: 0 }) }),
    ).toThrow(expect.objectContaining({ code: 'LAYER_SPARSE', message: expect.stringContaining('/a/b: ') }))
  })
})

describe('the image', () => {
  test('is the same for the same tree, in whatever order it was made', () => {
    const order = Array.from({ length: 200 }, (_, i) => i)
    expect(imageMadeIn(order.toReversed())).toEqual(imageMadeIn(order))
  })

  test('is told by its UUID, from the mount alone', () => {
    using base = scratch()
    using image = mountTree(base, new TreeBuilder())
    expect(fileSystemUuid(image.mount)).toEqual(UUID)
  })

  test('whose superblock was damaged is not mounted', () => {
    using base = scratch()
    const bytes = imageBytes(new LayerTree())
    bytes[1024 + 48] = (bytes[1024 + 48] ?? 0) ^ 1
    const fd = openSync(join(base.path, 'image'), 'w+')
    writeSync(fd, bytes)
    expect(() => mountErofs(fd, [])).toThrow(expect.objectContaining({ code: 'EBADMSG' }))
    closeSync(fd)
  })

  test('is given on in parts of a megabyte at most, also where one thing is larger', () => {
    const built = new TreeBuilder()
    const file = built.add(ROOT, 'file', { type: 'file' })
    built.tree.setSize(file, 2 ** 29)
    built.tree.addPiece(file, 512, 512, 0)
    const lengths: number[] = []
    imageBytes(built.tree, {
      devices: [{ blocks: 10 }],
      locate: () => ({ device: 1, block: 0 }),
      sink: (chunk) => void lengths.push(chunk.length),
    })
    expect(lengths.reduce((a, b) => a + b)).toBeGreaterThan(8 * 2 ** 20)
    expect(Math.max(...lengths)).toBeLessThanOrEqual(2 ** 20)
  })

  test.each([
    ['LAYER_NAME', (built: TreeBuilder) => built.file(ROOT, 'x'.repeat(256))],
    ['LAYER_NAME', (built: TreeBuilder) => built.file(ROOT, 'a/b')],
    ['LAYER_NAME', (built: TreeBuilder) => built.file(ROOT, 'a\0b')],
    [
      'LAYER_SYMLINK',
      (built: TreeBuilder) => built.add(ROOT, 'a', { type: 'symlink', target: 'x'.repeat(4096) }),
    ],
    ['LAYER_SYMLINK', (built: TreeBuilder) => built.add(ROOT, 'a', { type: 'symlink', target: '' })],
    ['LAYER_DEVICE', (built: TreeBuilder) => built.add(ROOT, 'a', { type: 'char', major: 4096, minor: 0 })],
    [
      'LAYER_DEVICE',
      (built: TreeBuilder) => built.add(ROOT, 'a', { type: 'block', major: 0, minor: 2 ** 20 }),
    ],
  ])('%s: what no file can have is refused', (code, make) => {
    const built = new TreeBuilder()
    make(built)
    expect(() => imageBytes(built.tree)).toThrow(expect.objectContaining({ code }))
  })
})

describe('as a lower of overlayfs', () => {
  test('whiteouts hide, opaque directories hide what is below, the others merge', () => {
    const lower = new TreeBuilder()
    for (const name of ['merged', 'opaque', 'replaced'])
      lower.file(lower.directory(ROOT, name), 'lower', [[0, name]])
    for (const name of ['deleted', 'changed', 'kept']) lower.file(ROOT, name, [[0, 'lower']])
    lower.file(lower.directory(ROOT, 'deleted directory'), 'x')
    const upper = new TreeBuilder()
    upper.tree.setOpaque(ROOT)
    for (const name of ['deleted', 'deleted directory']) upper.add(ROOT, name, { type: 'whiteout' })
    upper.file(ROOT, 'changed', [[0, 'upper']])
    upper.file(ROOT, 'replaced', [[0, 'upper']])
    upper.file(upper.directory(ROOT, 'merged'), 'upper', [[0, 'merged']])
    const opaque = upper.directory(ROOT, 'opaque', { xattrs: attributes({ 'user.a': 'b' }) })
    upper.tree.setOpaque(opaque)
    upper.file(opaque, 'upper', [[0, 'opaque']])
    const second = upper.directory(ROOT, 'opaque too')
    upper.tree.setOpaque(second)

    using base = scratch()
    using top = mountTree(base, upper)
    using bottom = mountTree(base, lower, 2)
    const mount = mountOverlay({ lowers: [top.mount, bottom.mount] })
    const files = readdirSync(rootOf(mount), { recursive: true, withFileTypes: true })
      .map((entry) => {
        const path = join(entry.parentPath, entry.name)
        const short = path.slice(rootOf(mount).length - 1)
        return entry.isFile() ? `${short}=${readFileSync(path, 'utf8')}` : short
      })
      .toSorted()
    expect(files).toEqual([
      'changed=upper',
      'kept=lower',
      'merged',
      'merged/lower=merged',
      'merged/upper=merged',
      'opaque',
      'opaque too',
      'opaque/upper=opaque',
      'replaced=upper',
    ])
    expect(getXattr(`${rootOf(mount)}/opaque`, 'user.a')?.toString()).toBe('b')
    closeSync(mount)
  })

  test('hard links of a lower keep their count, and a copied-up file its contents and attributes', () => {
    using base = scratch()
    const built = new TreeBuilder()
    const file = built.file(ROOT, 'a', [[0, Buffer.alloc(10_000, 'x')]], {
      mtimeNs: -1n,
      xattrs: attributes({ 'user.a': 'b', 'system.posix_acl_access': ACL }),
    })
    built.tree.link(ROOT, 'b', file)
    built.add(ROOT, 'symlink', { type: 'symlink', target: 'a' })
    using image = mountTree(base, built)
    using tmp = scratch()
    const directories = ['upper', 'work'].map((name) => {
      const path = join(tmp.path, name)
      mkdirSync(path)
      return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
    })
    const [upper = -1, work = -1] = directories
    const mount = mountOverlay({ lowers: [image.mount], upper: { upper, work } })
    const root = rootOf(mount)
    expect(statSync(`${root}/a`).nlink).toBe(2)
    expect(readlinkSync(`${root}/symlink`)).toBe('a')
    appendFileSync(`${root}/a`, 'y')
    expect(readFileSync(`${root}/a`, 'latin1')).toBe(`${'x'.repeat(10_000)}y`)
    expect(readFileSync(`${root}/b`, 'latin1')).toBe('x'.repeat(10_000))
    expect(getXattr(`${root}/a`, 'system.posix_acl_access')).toEqual(ACL)
    for (const fd of [mount, upper, work]) closeSync(fd)
  })
})
