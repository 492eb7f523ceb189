/**
 * Archives made to harm. Each is unpacked into `layer`, next to `outside`, which stands for the host: whatever the outcome,
 * nothing outside may change.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { TbuildError } from '../../errors.ts'
import { createUnpacker, TarReader, type UnpackResult } from './index.ts'
import {
  archiveOf,
  capability,
  describeTree,
  paxHeader,
  rawArchive,
  rawEntry,
  rawHeader,
  scratch,
  unpack,
  withDirectory,
  type Described,
} from './testing.ts'

interface Host extends Disposable {
  readonly outside: string
  readonly layer: string
  /** Unpack it; throws if the host was changed. */
  take(archive: Buffer, options?: Parameters<typeof unpack>[2]): Promise<UnpackResult>
}

function newHost(): Host {
  const base = scratch()
  const outside = base.directory('outside')
  const layer = base.directory('layer')
  writeFileSync(join(outside, 'secret'), 'secret', { mode: 0o600 })
  const before = describeTree(outside)
  return {
    outside,
    layer,
    async take(archive, options) {
      try {
        return await unpack(archive, layer, options)
      } finally {
        expect(describeTree(outside)).toEqual(before)
        expect(readdirSync(base.path).toSorted()).toEqual(['layer', 'outside'])
      }
    },
    [Symbol.dispose]: () => base[Symbol.dispose](),
  }
}

const symlink = (path: string, link: string): Described => ({ path, type: 'symlink', link })
const hardlink = (path: string, link: string): Described => ({ path, type: 'hardlink', link })
const refusal = (code: string): unknown => expect.objectContaining({ code, name: 'TbuildError' })

describe('names that lead out', () => {
  test.each(['..', '../outside/secret', 'a/../../outside/secret', './../x', 'a/..', 'a/../b'])(
    '%s is refused',
    async (path) => {
      using host = newHost()
      await expect(host.take(rawArchive(rawHeader({ name: path })))).rejects.toEqual(refusal('TAR_PATH'))
      await expect(host.take(rawArchive(rawHeader({ name: `${path}/`, flag: '5' })))).rejects.toEqual(
        refusal('TAR_PATH'),
      )
    },
  )

  test('so is .. in a PAX path', async () => {
    using host = newHost()
    const archive = rawArchive(
      paxHeader({ path: '../outside/secret' }),
      rawEntry({ name: 'harmless' }, 'evil'),
    )
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_PATH'))
  })

  test('an absolute name is one below the layer', async () => {
    using host = newHost()
    await host.take(rawArchive(rawEntry({ name: '/etc/passwd' }, 'mine'), rawEntry({ name: '//x' }, 'mine')))
    expect(readFileSync(join(host.layer, 'etc/passwd'), 'utf8')).toBe('mine')
    expect(readdirSync(host.layer).toSorted()).toEqual(['etc', 'x'])
  })

  test('a name that only looks like .. is a name', async () => {
    using host = newHost()
    await host.take(archiveOf({ path: '...' }, { path: 'a..b/..c' }))
    expect(readdirSync(host.layer).toSorted()).toEqual(['...', 'a..b'])
  })

  test.each([
    rawHeader({ name: './' }),
    rawHeader({ name: '/', flag: '2', link: '/etc' }),
    rawHeader({ name: '.', flag: '1', link: 'x' }),
  ])('the root is nothing but a directory (%#)', async (header) => {
    using host = newHost()
    await expect(host.take(rawArchive(header))).rejects.toEqual(refusal('TAR_PATH'))
  })
})

describe('through symlinks', () => {
  test('of an absolute target: the entry goes where a chrooted process would put it', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('a', host.outside), { path: 'a/secret', contents: 'mine' }))
    expect(readFileSync(join(host.layer, host.outside, 'secret'), 'utf8')).toBe('mine')
  })

  test('of an absolute target, from further down', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('d/e/a', '/f'), { path: 'd/e/a/g' }))
    expect(readdirSync(host.layer).toSorted()).toEqual(['d', 'f'])
    expect(existsSync(join(host.layer, 'f/g'))).toBe(true)
  })

  test('of a target that climbs: .. stops at the layer', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('dir/a', '../../outside'), { path: 'dir/a/secret', contents: 'mine' }))
    expect(readFileSync(join(host.layer, 'outside/secret'), 'utf8')).toBe('mine')
  })

  test('to a symlink to a symlink that climbs', async () => {
    using host = newHost()
    const archive = archiveOf(symlink('up', '..'), symlink('x', 'up/up/up/outside'), symlink('y', '/x'), {
      path: 'y/secret',
    })
    await host.take(archive)
    expect(existsSync(join(host.layer, 'outside/secret'))).toBe(true)
  })

  test('of /proc: no magic link of the host is followed', async () => {
    using host = newHost()
    await host.take(
      archiveOf(symlink('root', '/proc/self/root'), { path: `root${host.outside}/secret`, contents: 'mine' }),
    )
    expect(existsSync(join(host.layer, 'proc/self/root', host.outside, 'secret'))).toBe(true)
  })

  test.each([
    ['a file', { path: 'a', contents: 'mine' }],
    ['a directory', { path: 'a/', mode: 0o777, uid: 1000, mtimeNs: 1n }],
    ['a device', { path: 'a', type: 'char', major: 1, minor: 3 } as const],
    ['a hard link', hardlink('a', 'other')],
  ])('%s takes the place of a symlink, and does not go through it', async (_, entry) => {
    using host = newHost()
    await host.take(archiveOf({ path: 'other' }, symlink('a', host.outside), entry))
    await host.take(archiveOf({ path: 'other' }, symlink('a', join(host.outside, 'secret')), entry))
    expect(lstatSync(join(host.layer, 'a')).isSymbolicLink()).toBe(false)
  })

  test('of a symlink itself: owner, attributes and time are its own', async () => {
    using host = newHost()
    await host.take(
      archiveOf({ ...symlink('a', join(host.outside, 'secret')), uid: 5, mtimeNs: 1n, mode: 0o777 }),
    )
    expect(lstatSync(join(host.layer, 'a'))).toMatchObject({ uid: 5 })
  })

  test('a directory that was filled and then became a symlink: what comes next goes to the target', async () => {
    using host = newHost()
    await host.take(
      archiveOf(
        { path: 'd/sub/f', contents: '1' },
        symlink('d', 'e'),
        { path: 'd/sub/f', contents: '2' },
        { path: 'e/', mode: 0o700 },
      ),
    )
    expect(readFileSync(join(host.layer, 'e/sub/f'), 'utf8')).toBe('2')
  })

  test('a directory that became a symlink out: its mode and time are not set at the end', async () => {
    using host = newHost()
    await host.take(
      archiveOf({ path: 'd/', mode: 0o777, mtimeNs: 1n }, { path: 'd/f' }, symlink('d', host.outside)),
    )
    expect(lstatSync(join(host.layer, 'd')).isSymbolicLink()).toBe(true)
  })

  test('a loop ends', async () => {
    using host = newHost()
    const archive = archiveOf(symlink('a', 'b'), symlink('b', 'a'), { path: 'a/f' })
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_PATH'))
    await expect(host.take(archiveOf(symlink('self', 'self/x'), { path: 'self/f' }))).rejects.toEqual(
      refusal('TAR_PATH'),
    )
  })

  test('a chain that doubles with each link ends', async () => {
    using host = newHost()
    const chain = Array.from({ length: 60 }, (_, i) => symlink(`l${i + 1}`, `l${i}/../l${i}`))
    const archive = archiveOf({ path: 'd/' }, symlink('l0', 'd'), ...chain, { path: 'l60/f' })
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_PATH'))
  })

  test('a real path beyond PATH_MAX is refused by name', async () => {
    using host = newHost()
    const deep = `${'d'.repeat(250)}/`.repeat(15)
    const archive = archiveOf({ path: deep }, symlink('l', deep), {
      path: `l/${'e'.repeat(250)}/${'f'.repeat(250)}/g`,
    })
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_NAME_TOO_LONG'))
  })
})

describe('below what is no directory', () => {
  test.each<[string, Described]>([
    ['a file', { path: 'a' }],
    ['a fifo', { path: 'a', type: 'fifo' }],
    ['a device', { path: 'a', type: 'block', major: 7, minor: 0 }],
    ['a symlink to a file', symlink('a', 'f')],
  ])('%s', async (_, entry) => {
    using host = newHost()
    await expect(host.take(archiveOf({ path: 'f' }, entry, { path: 'a/b' }))).rejects.toEqual(
      refusal('TAR_PATH'),
    )
  })
})

describe('hard links', () => {
  test.each(['../outside/secret', 'a/../../outside/secret'])('out of the layer by %s', async (target) => {
    using host = newHost()
    const archive = rawArchive(rawHeader({ name: 'l', flag: '1', link: target }))
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_PATH'))
  })

  test('out of the layer by an absolute name', async () => {
    using host = newHost()
    const archive = rawArchive(rawHeader({ name: 'l', flag: '1', link: `${host.outside}/secret` }))
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_LINK'))
  })

  test.each([
    ['of an absolute target', (outside: string) => outside],
    ['that climbs', () => '../outside'],
  ])('out of the layer through a symlink %s', async (_, target) => {
    using host = newHost()
    const archive = archiveOf(symlink('s', target(host.outside)), hardlink('l', 's/secret'))
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_LINK'))
  })

  test('to a symlink that points out: the symlink gets a second name, and writing to that goes nowhere', async () => {
    using host = newHost()
    const archive = archiveOf(symlink('s', join(host.outside, 'secret')), hardlink('l', 's'), {
      path: 'l',
      contents: 'evil',
    })
    await host.take(archive)
    expect(lstatSync(join(host.layer, 'l')).isFile()).toBe(true)
    expect(lstatSync(join(host.layer, 's')).isSymbolicLink()).toBe(true)
  })

  test.each<[string, Described[]]>([
    ['what is not in this archive', [hardlink('l', 'lower/file')]],
    ['what comes later', [hardlink('l', 'f'), { path: 'f' }]],
    ['a deleted name', [{ path: '.wh.f' }, hardlink('l', 'f')]],
    ['a directory', [{ path: 'd/' }, hardlink('l', 'd')]],
    ['the root', [hardlink('l', '')]],
  ])('to %s', async (_, entries) => {
    using host = newHost()
    await expect(host.take(archiveOf(...entries))).rejects.toEqual(refusal('TAR_LINK'))
  })

  test('over the directory that holds the target', async () => {
    using host = newHost()
    const archive = archiveOf({ path: 'd/f' }, hardlink('d', 'd/f'))
    await expect(host.take(archive)).rejects.toEqual(refusal('ENOENT'))
  })
})

describe('whiteouts', () => {
  test('through a symlink that points out delete nothing there', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('a', host.outside), { path: 'a/.wh.secret' }))
    expect(lstatSync(join(host.layer, host.outside, 'secret')).isCharacterDevice()).toBe(true)
  })

  test('an opaque mark through a symlink that points out marks nothing there', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('a', '../outside'), { path: 'a/.wh..wh..opq' }))
    expect(readdirSync(host.layer).toSorted()).toEqual(['a', 'outside'])
  })

  test('of a symlink that points out', async () => {
    using host = newHost()
    await host.take(archiveOf(symlink('a', host.outside), { path: '.wh.a' }))
    expect(lstatSync(join(host.layer, 'a')).isSymbolicLink()).toBe(true)
  })

  test.each(['.wh.', 'd/.wh.', '.wh..', 'd/.wh...'])('%s deletes no name', async (path) => {
    using host = newHost()
    await expect(host.take(archiveOf({ path }))).rejects.toEqual(refusal('TAR_WHITEOUT'))
  })

  test.each<[string, Described[]]>([
    ['meta names of unknown meaning', [{ path: 'd/.wh..wh.x' }]],
    ['a file below a whiteout', [{ path: '.wh.a/b' }]],
    ['a file below a whiteout further up', [{ path: 'd/.wh.a/b/c' }]],
    ['a file below an opaque mark', [{ path: 'd/.wh..wh..opq/f' }]],
    ['a directory that a symlink would make', [symlink('s', '.wh.a'), { path: 's/f' }]],
    ['a directory that a symlink would make further down', [symlink('s', 'd/.wh.a/e'), { path: 's/f' }]],
  ])('reserved: %s', async (_, entries) => {
    using host = newHost()
    await expect(host.take(archiveOf(...entries))).rejects.toEqual(refusal('TAR_RESERVED_NAME'))
  })
})

describe('devices and attributes that mean something to overlayfs', () => {
  const zero = { path: 'd/null', type: 'char', major: 0, minor: 0 } as const

  test.each(['overlay', 'none'] as const)('a 0/0 character device (%s)', async (whiteouts) => {
    using host = newHost()
    await expect(host.take(archiveOf(zero), { whiteouts })).rejects.toEqual(refusal('TAR_DEVICE'))
  })

  test.each([
    'trusted.overlay.opaque',
    'trusted.overlay.redirect',
    'trusted.overlay.metacopy',
    'trusted.anything',
    'user.overlay.opaque',
    'user.overlay.redirect',
  ])('%s on a file, a directory, a symlink, a hard link, the root', async (name) => {
    using host = newHost()
    const xattrs = new Map([[name, Buffer.from('y')]])
    const links = [symlink('s', 'x'), hardlink('l', 'f')]
    for (const entry of [{ path: 'x' }, { path: 'x/' }, { path: './' }, ...links]) {
      const archive = archiveOf({ path: 'f' }, { ...entry, xattrs })
      await expect(host.take(archive)).rejects.toEqual(refusal('TAR_XATTR'))
    }
  })

  test('the same under the name that libarchive gives it', async () => {
    using host = newHost()
    const archive = rawArchive(
      paxHeader({ 'LIBARCHIVE.xattr.trusted%2Eoverlay.opaque': 'eQ==' }),
      rawHeader({}),
    )
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_XATTR'))
  })

  test.each([
    ['of no length', Buffer.alloc(0)],
    ['cut short', capability.subarray(0, 19)],
    ['of an unknown version', Buffer.from([9, 9, 9, 9, ...capability.subarray(4)])],
  ])('file capabilities %s', async (_, value) => {
    using host = newHost()
    const xattrs = new Map([['security.capability', value]])
    await expect(host.take(archiveOf({ path: 'f', xattrs }))).rejects.toEqual(refusal('TAR_XATTR'))
  })

  test('a default ACL of a file is skipped', async () => {
    using host = newHost()
    const xattrs = new Map([['system.posix_acl_default', Buffer.from('02000000', 'hex')]])
    expect(await host.take(archiveOf({ path: 'f', xattrs }))).toMatchObject({ skippedXattrs: 1 })
  })
})

describe('a stream that stops', () => {
  test('in the middle of a file leaves no descriptor open', async () => {
    using host = newHost()
    const archive = archiveOf({ path: 'd/e/f', contents: 'x'.repeat(2000) })
    const open = readdirSync('/proc/self/fd').length
    for (let i = 0; i < 10; i++) {
      await expect(host.take(archive.subarray(0, 1000))).rejects.toEqual(refusal('TAR_TRUNCATED'))
    }
    expect(readdirSync('/proc/self/fd').length).toBe(open)
  })

  test('an error does not leave descriptors open either', async () => {
    using host = newHost()
    const open = readdirSync('/proc/self/fd').length
    const archive = archiveOf({ path: 'd/e/f' }, { path: '../x' })
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_PATH'))
    expect(readdirSync('/proc/self/fd').length).toBe(open)
  })

  test('a file of a huge declared size takes no more room than what comes of it', async () => {
    using host = newHost()
    const size = Buffer.from([0x80, 0, 0, 0, 0, 0x1f, 255, 255, 255, 255, 255, 255])
    const archive = Buffer.concat([rawHeader({ name: 'f', size }), Buffer.alloc(512)])
    await expect(host.take(archive)).rejects.toEqual(refusal('TAR_TRUNCATED'))
    expect(lstatSync(join(host.layer, 'f')).size).toBe(512)
  })

  test('a sparse file of a size that the file system does not have', async () => {
    using host = newHost()
    const sparse = {
      'GNU.sparse.major': '0',
      'GNU.sparse.minor': '1',
      'GNU.sparse.numblocks': '0',
      'GNU.sparse.map': '',
    }
    const archive = rawArchive(
      paxHeader({ ...sparse, 'GNU.sparse.size': '9007199254740991' }),
      rawHeader({ name: 'f' }),
    )
    await expect(host.take(archive)).rejects.toEqual(refusal('EFBIG'))
  })

  test('data without an entry is ignored', async () => {
    using host = newHost()
    await withDirectory(host.layer, (fd) => {
      const unpacker = createUnpacker(fd)
      unpacker.handler.data(Buffer.from('x'), 0)
      unpacker.handler.end()
      expect(unpacker.finish()).toMatchObject({ entries: 0 })
    })
  })
})

test('any archive of names and links made to collide: nothing outside changes, no reserved name is left', async () => {
  const names = [
    '',
    'a',
    'b',
    'c',
    'a/b',
    'a/b/c',
    'b/c',
    'c/a',
    '../outside/secret',
    '/b/a',
    'a/secret',
    'b/..',
    '.wh.a',
    'a/.wh.b',
  ]
  const marks = [
    '.wh..wh..opq',
    'a/.wh..wh..opq',
    '.wh..wh.x',
    'a/.wh..wh.x',
    '.wh.',
    '.wh.a/b',
    'c/.wh.secret',
  ]
  const targets = [
    'a',
    'b',
    'c',
    'a/b',
    '..',
    '../..',
    '/',
    '/a',
    '.',
    '../outside',
    'HOST',
    'HOST/secret',
    '.wh.x',
    'd',
  ]
  const entry = fc.record({
    name: fc.constantFrom(...names, ...names, ...marks),
    flag: fc.constantFrom('0', '0', '5', '5', '2', '2', '2', '1', '1', '6', '3'),
    link: fc.constantFrom(...targets),
    minor: fc.nat(1),
  })
  let taken = 0
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { minLength: 2, maxLength: 12, size: 'max' }), async (entries) => {
      using host = newHost()
      const archive = rawArchive(
        ...entries.map(({ link, ...more }) =>
          rawHeader({ ...more, link: link.replace('HOST', host.outside), mtime: 7 }),
        ),
      )
      const outcome = await host.take(archive).catch((error: unknown) => error)
      if (outcome instanceof TbuildError) return
      taken++
      expect(outcome).toMatchObject({ entries: expect.any(Number) })
      expect(describeTree(host.layer).filter((line) => /^"([^"]*\/)?\.wh\./.test(line))).toEqual([])
    }),
    { numRuns: 400 },
  )
  expect(taken).toBeGreaterThan(20)
})

test('an error in one entry keeps the reader from handing on the next', () => {
  const seen: string[] = []
  const reader = new TarReader({
    entry(entry) {
      seen.push(entry.path.toString())
      throw new Error('stop')
    },
    data() {},
    end() {},
  })
  expect(() => reader.feed(archiveOf({ path: 'a' }, { path: 'b' }))).toThrow('stop')
  expect(seen).toEqual(['a'])
})
