/**
 * Every archive here goes two ways: onto disk (cas/tar/unpack.ts) and into a tree in memory. Both must refuse it with the same code, or give the same.
 */
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { AT_FDCWD, setTimes } from '../../linux/index.ts'
import { TbuildError } from '../../errors.ts'
import type { TarOutputEntry } from '../tar/index.ts'
import {
  archiveOf,
  capability,
  defaultAcl,
  gnuPack,
  makeTree,
  paxHeader,
  rawArchive,
  rawEntry,
  rawHeader,
  richTree,
  scratch,
  unpack,
  type Described,
} from '../tar/testing.ts'
import { createApplier } from './apply.ts'
import { apply, arbitraryEntries, describeDirectory, describeLayer, type Applied } from './testing.ts'
import { LayerTree } from './tree.ts'

interface Outcome {
  /** `undefined`: it was taken. */
  readonly code?: string
  readonly lines?: readonly string[]
  readonly counts?: object
}

/** Both ways, compared. */
async function both(archive: Buffer): Promise<Outcome> {
  const memory = attempt(() => apply(archive))
  const isRefused = memory instanceof TbuildError
  const outcome = isRefused ? { code: memory.code } : { lines: describeLayer(memory), counts: memory.layer }
  expect(outcome).toEqual(await onDisk(archive, !isRefused && memory.layer.hasRoot))
  return outcome
}

async function onDisk(archive: Buffer, hasRoot: boolean): Promise<Outcome> {
  using base = scratch()
  const root = base.directory('layer')
  let result
  try {
    result = await unpack(archive, root)
  } catch (error) {
    return { code: refusalOf(error).code }
  }
  if (!hasRoot) setTimes(AT_FDCWD, root, { mtime: 0n })
  return { lines: describeDirectory(root), counts: { ...result, hasRoot } }
}

function attempt(work: () => Applied): Applied | TbuildError {
  try {
    return work()
  } catch (error) {
    return refusalOf(error)
  }
}

function refusalOf(error: unknown): TbuildError {
  if (error instanceof TbuildError) return error
  throw error
}

async function refused(archive: Buffer): Promise<string | undefined> {
  return (await both(archive)).code
}

/** The tree below the root. */
async function taken(...entries: readonly Described[]): Promise<readonly string[]> {
  const { code, lines } = await both(archiveOf(...entries))
  expect(code).toBeUndefined()
  return (lines ?? []).slice(1)
}

const symlink = (path: string, link: string): Described => ({ path, type: 'symlink', link })
const hardlink = (path: string, link: string): Described => ({ path, type: 'hardlink', link })
const namesOf = (lines: readonly string[]): string[] =>
  lines.map((line) => line.replace(/^"([^"]*)" (\w+).*$/, '$1 $2'))

test('any archive of names and links made to collide: as on disk', async () => {
  const codes = new Map<string | undefined, number>()
  await fc.assert(
    fc.asyncProperty(arbitraryEntries({ isHostile: true }), async (entries) => {
      const { code } = await both(archiveOf(...entries))
      codes.set(code, (codes.get(code) ?? 0) + 1)
    }),
    { numRuns: 400 },
  )
  expect(codes.get('TAR_PATH')).toBeGreaterThan(0)
  expect(codes.get('TAR_LINK')).toBeGreaterThan(0)
})

test('any archive without the entries that are refused: the same tree as on disk', async () => {
  await fc.assert(
    fc.asyncProperty(arbitraryEntries({ isHostile: true }), async (entries) => {
      expect(await refused(archiveOf(...withoutRefused(entries)))).toBeUndefined()
    }),
    { numRuns: 400 },
  )
})

function withoutRefused(entries: readonly Described[]): Described[] {
  const kept: Described[] = []
  for (const entry of entries) {
    if (!(attempt(() => apply(archiveOf(...kept, entry))) instanceof TbuildError)) kept.push(entry)
  }
  return kept
}

test.each([
  ['gnu', false, []],
  ['pax', true, ['--xattrs', '--xattrs-include=*']],
] as const)('a bit of everything, from GNU tar in the format %s', async (format, xattrs, options) => {
  using base = scratch()
  const tree = base.directory('tree')
  makeTree(tree, richTree({ xattrs }))
  expect(await refused(gnuPack(tree, `--format=${format}`, ...options))).toBeUndefined()
})

describe('names that lead out', () => {
  test.each(['..', '../outside/secret', 'a/../../outside/secret', './../x', 'a/..', 'a/../b'])(
    '%s is refused',
    async (path) => {
      expect(await refused(rawArchive(rawHeader({ name: path })))).toBe('TAR_PATH')
      expect(await refused(rawArchive(rawHeader({ name: `${path}/`, flag: '5' })))).toBe('TAR_PATH')
    },
  )

  test('so is .. in a PAX path', async () => {
    const archive = rawArchive(
      paxHeader({ path: '../outside/secret' }),
      rawEntry({ name: 'harmless' }, 'evil'),
    )
    expect(await refused(archive)).toBe('TAR_PATH')
  })

  test('an absolute name is one below the layer', async () => {
    const archive = rawArchive(rawEntry({ name: '/etc/passwd' }, 'mine'), rawEntry({ name: '//x' }, 'mine'))
    expect(namesOf((await both(archive)).lines ?? [])).toEqual([
      ' directory',
      'etc directory',
      'etc/passwd file',
      'x file',
    ])
  })

  test('a name that only looks like .. is a name', async () => {
    expect(namesOf(await taken({ path: '...' }, { path: 'a..b/..c' }))).toEqual([
      '... file',
      'a..b directory',
      'a..b/..c file',
    ])
  })

  test.each([
    rawHeader({ name: './' }),
    rawHeader({ name: '/', flag: '2', link: '/etc' }),
    rawHeader({ name: '.', flag: '1', link: 'x' }),
  ])('the root is nothing but a directory (%#)', async (header) => {
    expect(await refused(rawArchive(header))).toBe('TAR_PATH')
  })
})

describe('through symlinks', () => {
  test.each<[string, Described[], string]>([
    ['of an absolute target', [symlink('a', '/o/p'), { path: 'a/f' }], 'o/p/f file'],
    ['of an absolute target, from further down', [symlink('d/e/a', '/f'), { path: 'd/e/a/g' }], 'f/g file'],
    [
      'of a target that climbs: .. stops at the layer',
      [symlink('d/a', '../../o'), { path: 'd/a/f' }],
      'o/f file',
    ],
    [
      'to a symlink to a symlink that climbs',
      [symlink('up', '..'), symlink('x', 'up/up/up/o'), symlink('y', '/x'), { path: 'y/f' }],
      'o/f file',
    ],
    [
      'of one symlink by two names, in two directories',
      [symlink('d/s', 'x'), hardlink('e/s', 'd/s'), { path: 'd/s/1' }, { path: 'e/s/2' }],
      'e/x/2 file',
    ],
    [
      'of a directory and back up, where up is the real parent',
      [{ path: 'd/e/' }, symlink('s', 'd/e'), symlink('t', 's/../f'), { path: 't/g' }],
      'd/f/g file',
    ],
    [
      'that was replaced: what comes next goes to the new target',
      [symlink('s', 'd'), { path: 's/1' }, symlink('s', 'e'), { path: 's/2' }],
      'e/2 file',
    ],
    [
      'behind which a directory was replaced by a symlink',
      [symlink('s', 'd/e'), { path: 's/1' }, symlink('d', 'f'), { path: 's/2' }],
      'f/e/2 file',
    ],
    [
      'a directory that was filled and then became a symlink',
      [{ path: 'd/sub/f' }, symlink('d', 'e'), { path: 'd/sub/f' }, { path: 'e/', mode: 0o700 }],
      'e/sub/f file',
    ],
  ])('%s', async (_, entries, expected) => {
    expect(namesOf(await taken(...entries))).toContain(expected)
  })

  test.each<[string, Described]>([
    ['a file', { path: 'a', contents: 'mine' }],
    ['a directory', { path: 'a/', mode: 0o777, uid: 1000, mtimeNs: 1n }],
    ['a device', { path: 'a', type: 'char', major: 1, minor: 3 }],
    ['a hard link', hardlink('a', 'other')],
  ])('%s takes the place of a symlink, and does not go through it', async (_, entry) => {
    const lines = await taken({ path: 'other' }, { path: 'd/' }, symlink('a', 'd'), entry)
    expect(lines.join('\n')).not.toContain('symlink')
  })

  test('of a symlink itself: owner, attributes and time are its own', async () => {
    expect(await taken({ ...symlink('a', '/x'), uid: 5, mtimeNs: 1n, mode: 0o700 })).toEqual([
      '"a" symlink 777 5:0 @1 "/x"',
    ])
  })

  test('a loop ends', async () => {
    expect(await refused(archiveOf(symlink('a', 'b'), symlink('b', 'a'), { path: 'a/f' }))).toBe('TAR_PATH')
    expect(await refused(archiveOf(symlink('self', 'self/x'), { path: 'self/f' }))).toBe('TAR_PATH')
  })

  test('a chain that doubles with each link ends', async () => {
    const chain = Array.from({ length: 60 }, (_, i) => symlink(`l${i + 1}`, `l${i}/../l${i}`))
    expect(await refused(archiveOf({ path: 'd/' }, symlink('l0', 'd'), ...chain, { path: 'l60/f' }))).toBe(
      'TAR_PATH',
    )
  })

  test.each([
    [39, undefined],
    [40, 'TAR_PATH'],
  ])('a chain ends after 40 links, whatever of it was walked before: l%i', async (last, code) => {
    const chain = Array.from({ length: 41 }, (_, i) => symlink(`l${i + 1}`, `l${i}`))
    const start = [{ path: 'd/' }, symlink('l0', 'd'), ...chain]
    expect(await refused(archiveOf(...start, { path: `l${last}/f` }))).toBe(code)
    const warmed = [10, 20, 30, 39].map((i) => ({ path: `l${i}/${i}` }))
    expect(await refused(archiveOf(...start, ...warmed, { path: `l${last}/f` }))).toBe(code)
    expect(await refused(archiveOf(...start, ...warmed, { path: `l${last}/x/f` }))).toBe(code)
  })

  test('a real path beyond PATH_MAX is refused by name', async () => {
    const deep = `${'d'.repeat(250)}/`.repeat(15)
    const start = [{ path: deep }, symlink('l', deep)]
    const long = `l/${'e'.repeat(250)}/${'f'.repeat(250)}`
    expect(await refused(archiveOf(...start, { path: `${long}/g` }))).toBe('TAR_NAME_TOO_LONG')
    expect(await refused(archiveOf(...start, { path: `${long}/` }))).toBe('TAR_NAME_TOO_LONG')
    // The file is reached by its directory, whose own path is short enough.
    const { tree } = apply(archiveOf(...start, { path: long }))
    expect(tree.inodes).toBe(19)
    expect(() => apply(archiveOf(...start, { path: `${long}/g` }))).toThrow(/"dddd.*real path is longer/)
  })

  test("a target's component beyond NAME_MAX", async () => {
    const archive = archiveOf(symlink('s', 'n'.repeat(256)), { path: 's/f' })
    expect(await refused(archive)).toBe('TAR_NAME_TOO_LONG')
  })

  test('a symlink without a target', async () => {
    expect(await refused(rawArchive(rawHeader({ name: 'empty', flag: '2' })))).toBe('ENOENT')
  })
})

describe('below what is no directory', () => {
  test.each<[string, Described]>([
    ['a file', { path: 'a' }],
    ['a fifo', { path: 'a', type: 'fifo' }],
    ['a device', { path: 'a', type: 'block', major: 7, minor: 0 }],
    ['a symlink to a file', symlink('a', 'f')],
  ])('%s', async (_, entry) => {
    expect(await refused(archiveOf({ path: 'f' }, entry, { path: 'a/b' }))).toBe('TAR_PATH')
    expect(await refused(archiveOf({ path: 'f' }, entry, hardlink('b', 'a/b')))).toBe('TAR_PATH')
  })

  test('the message names the real path', () => {
    const archive = archiveOf({ path: 'x/d/f' }, symlink('s', 'x/d'), { path: 's/f/b' })
    expect(() => apply(archive)).toThrow(
      'archive entry "x/d/f": an entry lies below it, but it is not a directory',
    )
  })
})

describe('hard links', () => {
  test.each(['../outside/secret', 'a/../../outside/secret'])('out of the layer by %s', async (target) => {
    expect(await refused(rawArchive(rawHeader({ name: 'l', flag: '1', link: target })))).toBe('TAR_PATH')
  })

  test.each<[string, Described[]]>([
    ['out of the layer by an absolute name', [hardlink('l', '/etc/passwd')]],
    [
      'out of the layer through a symlink of an absolute target',
      [symlink('s', '/etc'), hardlink('l', 's/passwd')],
    ],
    ['out of the layer through a symlink that climbs', [symlink('s', '../etc'), hardlink('l', 's/passwd')]],
    ['to what is not in this archive', [hardlink('l', 'lower/file')]],
    ['to what comes later', [hardlink('l', 'f'), { path: 'f' }]],
    ['to a deleted name', [{ path: '.wh.f' }, hardlink('l', 'f')]],
    ['to what is below a deleted name', [{ path: '.wh.d' }, hardlink('l', 'd/f')]],
    ['to a directory', [{ path: 'd/' }, hardlink('l', 'd')]],
    ['to the root', [hardlink('l', '')]],
  ])('%s', async (_, entries) => {
    expect(await refused(archiveOf(...entries))).toBe('TAR_LINK')
  })

  test('over the directory that holds the target', async () => {
    expect(await refused(archiveOf({ path: 'd/f' }, hardlink('d', 'd/f')))).toBe('ENOENT')
    expect(await refused(archiveOf({ path: 'd/e/f' }, hardlink('g', 'd/e/f'), hardlink('d', 'd/e/f')))).toBe(
      'ENOENT',
    )
  })

  test('to a symlink: it gets a second name, and a file of that name replaces only that', async () => {
    expect(namesOf(await taken(symlink('s', '/etc'), hardlink('l', 's'), { path: 'l' }))).toEqual([
      'l file',
      's symlink',
    ])
  })

  test("the target's attributes count", async () => {
    const entries = [
      { path: 'f', contents: 'x', mode: 0o600 },
      { ...hardlink('l', 'f'), mode: 0o777, uid: 7, mtimeNs: 9n },
    ]
    expect(await taken(...entries)).toEqual(['"f" file 600 0:0 @0 "x"', '"l" file 600 0:0 @0 "x" is "f"'])
  })

  test.each<[string, Described[]]>([
    ['to itself', [{ path: 'a' }, hardlink('a', 'a')]],
    ['to itself through a symlink', [{ path: 'd/a' }, symlink('s', 'd'), hardlink('s/a', 'd/a')]],
    ['over another name of the target', [{ path: 'a' }, hardlink('b', 'a'), hardlink('b', 'a')]],
    [
      'over a file, a directory, a symlink, a deleted name',
      [
        { path: 'a' },
        { path: 'f' },
        { path: 'd/e/g' },
        symlink('s', 'd'),
        { path: '.wh.w' },
        ...['f', 'd', 's', 'w'].map((name) => hardlink(name, 'a')),
      ],
    ],
    ['over the symlink that leads to it', [{ path: 'd/f' }, symlink('s', 'd'), hardlink('s', 's/f')]],
    [
      'to a name whose first is replaced',
      [{ path: 'a', contents: '1' }, hardlink('b', 'a'), { path: 'a', contents: '2' }],
    ],
  ])('%s', async (_, entries) => {
    expect(await refused(archiveOf(...entries))).toBeUndefined()
  })
})

describe('whiteouts', () => {
  test.each<[string, Described[], string[]]>([
    ['delete', [{ path: '.wh.a' }, { path: 'd/.wh.b' }], ['a whiteout', 'd directory', 'd/b whiteout']],
    [
      'through a symlink that points out',
      [symlink('a', '/o'), { path: 'a/.wh.b' }],
      ['a symlink', 'o directory', 'o/b whiteout'],
    ],
    ['of a symlink', [symlink('a', '/o'), { path: '.wh.a' }], ['a symlink']],
    ['and an entry after it', [{ path: '.wh.a' }, { path: 'a' }], ['a file']],
    ['and an entry before it', [{ path: 'a' }, { path: '.wh.a' }], ['a file']],
    ['twice', [{ path: '.wh.a' }, { path: '.wh.a' }], ['a whiteout']],
    ['of the longest name', [{ path: `.wh.${'n'.repeat(255)}` }], [`${'n'.repeat(255)} whiteout`]],
  ])('%s', async (_, entries, expected) => {
    expect(namesOf(await taken(...entries))).toEqual(expected)
  })

  test.each<[string, Described[]]>([
    ['the whiteout first', [{ path: '.wh.d' }, { path: 'd/' }, { path: 'd/f' }]],
    ['the whiteout last', [{ path: 'd/' }, { path: 'd/f' }, { path: '.wh.d' }]],
    ['the directory not mentioned', [{ path: '.wh.d' }, { path: 'd/f' }]],
    ['an opaque mark', [{ path: 'd/f' }, { path: 'd/.wh..wh..opq' }]],
    ['an opaque mark through a symlink', [symlink('a', 'd'), { path: 'd/f' }, { path: 'a/.wh..wh..opq' }]],
    ['a directory in the place of a file', [{ path: 'd' }, { path: 'd/' }]],
    ['a directory in the place of a symlink', [symlink('d', 'e'), { path: 'd/' }]],
  ])('a directory of the same name stays and hides what is below: %s', async (_, entries) => {
    const lines = await taken(...entries)
    expect(lines.find((line) => line.startsWith('"d" '))).toMatch(/^"d" directory .* opaque$/)
  })

  test('an opaque root is for the caller to heed', () => {
    expect(apply(archiveOf({ path: '.wh..wh..opq' })).layer).toMatchObject({
      opaqueRoot: true,
      hasRoot: false,
    })
    const through = archiveOf(symlink('s', '/'), { path: 's/.wh..wh..opq' }, { path: './' })
    expect(apply(through).layer).toMatchObject({ opaqueRoot: true, hasRoot: true })
  })

  test.each(['.wh.', 'd/.wh.', '.wh..', 'd/.wh...'])('%s deletes no name', async (path) => {
    expect(await refused(archiveOf({ path }))).toBe('TAR_WHITEOUT')
  })

  test.each<[string, Described[]]>([
    ['meta names of unknown meaning', [{ path: 'd/.wh..wh.x' }]],
    ['a file below a whiteout', [{ path: '.wh.a/b' }]],
    ['a file below a whiteout further up', [{ path: 'd/.wh.a/b/c' }]],
    ['a file below an opaque mark', [{ path: 'd/.wh..wh..opq/f' }]],
    ['a directory that a symlink would make', [symlink('s', '.wh.a'), { path: 's/f' }]],
    ['a directory that a symlink would make further down', [symlink('s', 'd/.wh.a/e'), { path: 's/f' }]],
  ])('reserved: %s', async (_, entries) => {
    expect(await refused(archiveOf(...entries))).toBe('TAR_RESERVED_NAME')
  })

  test('the names that AUFS kept are skipped, contents and all', () => {
    const { layer, tree } = apply(
      archiveOf({ path: '.wh..wh.plnk/' }, { path: '.wh..wh.plnk/1.2', contents: 'skipped' }),
    )
    expect(layer).toMatchObject({ entries: 0, bytes: 0, skippedEntries: 2 })
    expect(tree.children(LayerTree.ROOT)).toEqual([])
  })
})

describe('devices and attributes that mean something to overlayfs', () => {
  test('a 0/0 character device', async () => {
    expect(await refused(archiveOf({ path: 'd/null', type: 'char', major: 0, minor: 0 }))).toBe('TAR_DEVICE')
    expect(await taken({ path: 'b', type: 'block', major: 0, minor: 0 })).toEqual([
      '"b" block 644 0:0 @0 0:0',
    ])
  })

  test.each([
    'trusted.overlay.opaque',
    'trusted.overlay.redirect',
    'trusted.overlay.metacopy',
    'trusted.anything',
    'user.overlay.opaque',
    'user.overlay.redirect',
  ])('%s on a file, a directory, a symlink, a hard link, the root', async (name) => {
    const xattrs = new Map([[name, Buffer.from('y')]])
    for (const entry of [
      { path: 'x' },
      { path: 'x/' },
      { path: './' },
      symlink('s', 'x'),
      hardlink('l', 'f'),
    ]) {
      expect(await refused(archiveOf({ path: 'f' }, { ...entry, xattrs }))).toBe('TAR_XATTR')
    }
  })

  test('the same under the name that libarchive gives it', async () => {
    const archive = rawArchive(
      paxHeader({ 'LIBARCHIVE.xattr.trusted%2Eoverlay.opaque': 'eQ==' }),
      rawHeader({}),
    )
    expect(await refused(archive)).toBe('TAR_XATTR')
  })

  test.each([
    ['of no length', Buffer.alloc(0)],
    ['cut short', capability.subarray(0, 19)],
    ['too long', Buffer.concat([capability, Buffer.alloc(4)])],
    ['of version 1', Buffer.from([0, 0, 0, 1, ...capability.subarray(4, 12)])],
    ['of an unknown version', Buffer.from([9, 9, 9, 9, ...capability.subarray(4)])],
  ])('file capabilities %s', async (_, value) => {
    const xattrs = new Map([['security.capability', value]])
    for (const entry of [{ path: 'f' }, { path: 'd/' }, symlink('s', 'x'), { path: './' }]) {
      expect(await refused(archiveOf({ ...entry, xattrs }))).toBe('TAR_XATTR')
    }
  })

  test.each<[string, string, Buffer, string]>([
    ['a name beyond what Linux takes', `user.${'n'.repeat(251)}`, Buffer.from('1'), 'ERANGE'],
    ['a value beyond what Linux takes', 'user.a', Buffer.alloc(65_537), 'E2BIG'],
  ])('%s', async (_, name, value, code) => {
    for (const path of ['f', 'd/', './']) {
      expect(await refused(archiveOf({ path, xattrs: new Map([[name, value]]) }))).toBe(code)
    }
  })
})

/** As linux/posix_acl_xattr.h has it. */
const acl = (...entries: readonly (readonly [tag: number, permissions: number, id: number])[]): Buffer => {
  const value = Buffer.alloc(4 + entries.length * 8)
  value.writeUInt32LE(2)
  for (const [i, [tag, permissions, id]] of entries.entries()) {
    value.writeUInt16LE(tag, 4 + i * 8)
    value.writeUInt16LE(permissions, 6 + i * 8)
    value.writeUInt32LE(id, 8 + i * 8)
  }
  return value
}

describe('attributes are kept as the kernel keeps them', () => {
  const every: readonly Described[] = [
    { path: 'f', mode: 0o640 },
    { path: 'd/', mode: 0o750 },
    symlink('s', 'x'),
    { path: 'p', type: 'fifo', mode: 0o600 },
    { path: 'c', type: 'char', major: 1, minor: 3, mode: 0o666 },
  ]
  const owner = [1, 7, 0] as const
  const group = [4, 5, 9] as const
  const other = [32, 4, 0xffff_ffff] as const
  const mask = [16, 1, 0] as const
  const user = [2, 6, 1000] as const

  test.each<[string, Buffer]>([
    ['nothing', Buffer.alloc(0)],
    ['no entries', acl()],
    ['as the kernel writes it', defaultAcl],
    ['no more than a mode', acl(owner, group, other)],
    ['ids where there are none, and a mask that is not needed', acl(owner, group, mask, other)],
    ['users and groups', acl(owner, user, [2, 3, 1], group, [8, 1, 5], [8, 2, 4], mask, other)],
    ['one user twice', acl(owner, user, user, group, mask, other)],
    ['no mask', acl(owner, user, group, other)],
    ['two masks', acl(owner, user, group, mask, mask, other)],
    ['no owner', acl(user, group, mask, other)],
    ['no others', acl(owner, group)],
    ['out of order', acl(owner, group, user, mask, other)],
    ['an unknown tag', acl(owner, group, [64, 1, 0], other)],
    ['two tags in one', acl(owner, [3, 1, 0], group, mask, other)],
    ['no tag', acl(owner, [0, 1, 0], group, mask, other)],
    ['a permission that is none', acl(owner, [4, 8, 0], other)],
    ['nobody', acl(owner, [2, 6, 0xffff_ffff], group, mask, other)],
    [
      'a version that is none',
      Buffer.concat([Buffer.from([1, 0, 0, 0]), acl(owner, group, other).subarray(4)]),
    ],
    ['cut short', acl(owner, group, other).subarray(0, 27)],
    ['two bytes', Buffer.from([2, 0])],
  ])('an ACL of %s', async (_, value) => {
    for (const name of ['system.posix_acl_access', 'system.posix_acl_default']) {
      const xattrs = new Map([[name, value]])
      expect(await refused(archiveOf(...every.map((entry) => ({ ...entry, xattrs }))))).toBeUndefined()
    }
  })

  test.each([
    ['user.a', 'user.', 'user'],
    ['security.tbuild', 'security.', 'security'],
    ['system.nothing', 'system.posix_acl_access2'],
    ['other.a', 'no', 'os2.a'],
  ])('%s and the like', async (...names) => {
    for (const name of names) {
      const xattrs = new Map([[name, Buffer.from('1')]])
      expect(await refused(archiveOf(...every.map((entry) => ({ ...entry, xattrs }))))).toBeUndefined()
    }
  })

  test('of a directory that comes twice: what only the first has stays, but for the default ACL', async () => {
    const first = new Map([
      ['user.a', Buffer.from('1')],
      ['user.b', Buffer.from('2')],
      ['system.posix_acl_access', defaultAcl],
      ['system.posix_acl_default', defaultAcl],
    ])
    const second = new Map([['user.b', Buffer.from('3')]])
    for (const path of ['d/', './']) {
      expect(
        await refused(archiveOf({ path, mode: 0o770, xattrs: first }, { path, mode: 0o711, xattrs: second })),
      ).toBeUndefined()
      expect(
        await refused(archiveOf({ path, mode: 0o770, xattrs: first }, { path, mode: 0o711 })),
      ).toBeUndefined()
      const reset = new Map([['system.posix_acl_access', Buffer.alloc(0)]])
      expect(
        await refused(archiveOf({ path, mode: 0o770, xattrs: first }, { path, mode: 0o711, xattrs: reset })),
      ).toBeUndefined()
    }
  })
})

describe('one name twice', () => {
  const kinds: readonly (readonly [string, Described[], canHold: boolean])[] = [
    ['a file', [{ path: 'a', contents: '12' }], false],
    ['a longer file', [{ path: 'a', contents: '345' }], false],
    ['a directory', [{ path: 'a/', mode: 0o700, mtimeNs: 5n }], true],
    ['a tree', [{ path: 'a/b/c' }, { path: 'a/d' }], true],
    ['a symlink to a directory', [{ path: 'd/' }, symlink('a', 'd')], true],
    ['a fifo', [{ path: 'a', type: 'fifo' }], false],
    ['a hard link', [{ path: 'h' }, hardlink('a', 'h')], false],
    ['a whiteout', [{ path: '.wh.a' }], true],
  ]
  const pairs = kinds.flatMap(([first, before, canHold]) =>
    kinds.map(([second, after]) => {
      const code = second === 'a tree' && !canHold ? 'TAR_PATH' : undefined
      return [second, first, [...before, ...after], code] as const
    }),
  )

  test.each(pairs)('%s over %s', async (_, __, entries, code) => {
    expect(await refused(archiveOf(...entries))).toBe(code)
  })
})

test('parents that the archive does not mention are of root, 0755, of 1970, and not explicit', async () => {
  expect((await taken({ path: 'a/b/c', uid: 1000, mtimeNs: 5n })).slice(0, 2)).toEqual([
    '"a" directory 755 0:0 @0 ',
    '"a/b" directory 755 0:0 @0 ',
  ])
  const { tree } = apply(archiveOf({ path: 'a/b' }, { path: 'c/' }))
  expect(tree.children(LayerTree.ROOT).map(([name, inode]) => [name, tree.isExplicit(inode)])).toEqual([
    ['a', false],
    ['c', true],
  ])
})

test('a stream that stops, or a file of a huge declared size, leaves nothing behind', () => {
  const size = Buffer.from([0x80, 0, 0, 0, 0, 0x1f, 255, 255, 255, 255, 255, 255])
  const archive = Buffer.concat([rawHeader({ name: 'f', size }), Buffer.alloc(512)])
  expect(() => apply(archive)).toThrow('ends in the middle of it')
})

test('names that are not text, and entries as a writer takes them', () => {
  const tree = new LayerTree()
  const applier = createApplier(tree)
  const rest = {
    mode: 0o100644,
    uid: 0,
    gid: 0,
    mtimeNs: 0n,
    major: 0,
    minor: 0,
    size: 0,
    xattrs: new Map<string, Buffer>(),
  }
  const entries: TarOutputEntry[] = [
    { ...rest, type: 'directory', path: './d/' },
    { ...rest, type: 'file', path: Buffer.from('d/gr\xfc\xdf', 'latin1') },
    { ...rest, type: 'hardlink', path: 'd/gr\xfc', link: '/d/gr\xfc\xdf' },
  ]
  for (const entry of entries) applier.entry(entry)
  const directory = tree.lookup(LayerTree.ROOT, 'd') ?? -1
  expect(
    tree.children(directory).map(([name, inode]) => [name, tree.mode(inode), tree.links(inode)]),
  ).toEqual([
    ['gr\xfc', 0o644, 2],
    ['gr\xfc\xdf', 0o644, 2],
  ])
})
