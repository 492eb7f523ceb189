import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { TbuildError } from '../../errors.ts'
import { readTar, TarReader, TAR_LIMITS, type TarLimits } from './index.ts'
import {
  archiveOf,
  entriesOf,
  gnuPack,
  makeTree,
  namesOf,
  paxHeader,
  punch,
  rawArchive,
  rawEntry,
  rawHeader,
  scratch,
  type RawFields,
} from './testing.ts'

const nothing = { entry() {}, data() {}, end() {} }

function read(archive: Buffer, limits: Partial<TarLimits> = {}): void {
  const reader = new TarReader(nothing, limits)
  reader.feed(archive)
  reader.finish()
}

const withCode = (code: string): unknown => expect.objectContaining({ code })

describe('what GNU tar writes', () => {
  test.each(['v7', 'ustar', 'gnu', 'pax'])('%s: names, types, links, owners and times', async (format) => {
    using base = scratch()
    const tree = base.directory('tree')
    makeTree(tree, [
      { type: 'directory', path: 'd', mode: 0o1777, mtimeNs: 5_000_000_000n },
      {
        type: 'file',
        path: 'd/f',
        contents: 'hello',
        mode: 0o4755,
        uid: 1000,
        gid: 7,
        mtimeNs: 3_000_000_000n,
      },
      { type: 'hardlink', path: 'd/g', link: 'd/f' },
      { type: 'symlink', path: 's', link: '/etc/../x', mtimeNs: 4_000_000_000n },
    ])
    const entries = await entriesOf(gnuPack(tree, `--format=${format}`, '--sort=name'))
    expect(entries.map(({ path, type, link }) => [String(path), type, link?.toString()])).toEqual([
      ['', 'directory', undefined],
      ['d', 'directory', undefined],
      ['d/f', 'file', undefined],
      ['d/g', 'hardlink', 'd/f'],
      ['s', 'symlink', '/etc/../x'],
    ])
    expect(entries[1]).toMatchObject({ mode: 0o1777, mtimeNs: 5_000_000_000n })
    expect(entries[2]).toMatchObject({ mode: 0o4755, uid: 1000, gid: 7, mtimeNs: 3_000_000_000n, size: 5 })
    expect(entries[2]?.contents).toBe('hello')
  })

  test.each(['ustar', 'gnu', 'pax'])('%s: device numbers above 255, and fifos', async (format) => {
    using base = scratch()
    const tree = base.directory('tree')
    makeTree(tree, [
      { type: 'block', path: 'b', device: [7, 70_000] },
      { type: 'char', path: 'c', device: [300, 3] },
      { type: 'fifo', path: 'f' },
    ])
    const entries = await entriesOf(gnuPack(tree, `--format=${format}`, '--sort=name'))
    expect(entries.slice(1).map(({ type, major, minor }) => [type, major, minor])).toEqual([
      ['block', 7, 70_000],
      ['char', 300, 3],
      ['fifo', 0, 0],
    ])
  })

  test.each(['gnu', 'pax'])(
    '%s: names and links that no header field holds, bytes that are no UTF-8',
    async (format) => {
      using base = scratch()
      const tree = base.directory('tree')
      const long = 'n'.repeat(250)
      const latin = Buffer.from('gr\u00fc\u00df\xff', 'latin1')
      makeTree(tree, [
        { type: 'directory', path: long },
        { type: 'file', path: `${long}/${long}` },
        { type: 'symlink', path: 's', link: 't'.repeat(4000) },
        { type: 'file', path: latin, mtimeNs: -2_000_000_000n, uid: 3_000_000, gid: 4_000_000_000 },
        { type: 'symlink', path: 'z', link: latin },
        { type: 'hardlink', path: 'zz', link: `${long}/${long}` },
      ])
      const entries = await entriesOf(gnuPack(tree, `--format=${format}`, '--sort=name'))
      expect(entries.map(({ path, link }) => [path.toString('latin1'), link?.toString('latin1')])).toEqual([
        ['', undefined],
        ['gr\u00fc\u00df\xff', undefined],
        [long, undefined],
        [`${long}/${long}`, undefined],
        ['s', 't'.repeat(4000)],
        ['z', 'gr\u00fc\u00df\xff'],
        ['zz', `${long}/${long}`],
      ])
      expect(entries[1]).toMatchObject({ uid: 3_000_000, gid: 4_000_000_000, mtimeNs: -2_000_000_000n })
    },
  )

  test('pax: nanoseconds on both sides of 1970, attributes of any bytes', async () => {
    using base = scratch()
    const tree = base.directory('tree')
    const xattrs = { 'user.a=b%c': Buffer.from('1\0\n=\xff', 'latin1'), 'user.empty': Buffer.alloc(0) }
    makeTree(tree, [
      { type: 'file', path: 'a', mtimeNs: -1_500_000_001n },
      { type: 'file', path: 'b', mtimeNs: 1_234_567_890_123_456_789n, xattrs },
    ])
    const [, a, b] = await entriesOf(gnuPack(tree, '--format=pax', '--sort=name', '--xattrs'))
    expect([a?.mtimeNs, b?.mtimeNs]).toEqual([-1_500_000_001n, 1_234_567_890_123_456_789n])
    expect(b?.xattrs).toEqual(new Map(Object.entries(xattrs)))
  })

  test.each([
    ['old GNU', '--format=gnu'],
    ['PAX 0.0', '--format=pax', '--sparse-version=0.0'],
    ['PAX 0.1', '--format=pax', '--sparse-version=0.1'],
    ['PAX 1.0', '--format=pax', '--sparse-version=1.0'],
  ])('%s: a sparse file of more regions than one block of its map holds', async (_, ...options) => {
    using base = scratch()
    const tree = base.directory('tree')
    const contents = Buffer.alloc(60 * 65_536 + 4096)
    for (let i = 0; i < 60; i++) contents.write(`region ${i}`, i * 65_536 + 8192)
    makeTree(tree, [
      { type: 'file', path: 'f' },
      { type: 'file', path: 'g', contents: 'after' },
    ])
    punch(`${tree}/f`, contents)
    const [, f, g] = await entriesOf(gnuPack(tree, '--sort=name', '--sparse', ...options))
    expect(f?.sparse?.length).toBeGreaterThanOrEqual(60)
    expect(f?.path.toString()).toBe('f')
    expect(Buffer.from(f?.contents ?? '', 'latin1').equals(contents)).toBe(true)
    expect(g?.contents).toBe('after')
  })
})

test('the entries do not depend on where the stream is cut', async () => {
  using base = scratch()
  const tree = base.directory('tree')
  makeTree(tree, [
    { type: 'file', path: 'l'.repeat(200), contents: 'x'.repeat(700) },
    { type: 'file', path: 'sparse' },
    { type: 'file', path: 'z', contents: 'y'.repeat(512) },
  ])
  const contents = Buffer.alloc(300_000)
  for (let i = 0; i < 30; i++) contents.write('data', i * 10_000)
  punch(`${tree}/sparse`, contents)
  for (const format of [['--format=gnu'], ['--format=pax', '--sparse-version=1.0']]) {
    const archive = gnuPack(tree, '--sparse', ...format)
    const whole = await entriesOf(archive)
    for (const size of [1, 7, 511, 512, 513, 1000]) expect(await entriesOf(archive, size)).toEqual(whole)
  }
})

describe('which field wins, as in Go', () => {
  test('a GNU long name over a PAX path over the header', async () => {
    const long = rawEntry({ flag: 'L', name: '././@LongLink', magic: 'gnu' }, 'gnu\0')
    const pax = paxHeader({ path: 'pax' })
    expect(
      await namesOf(rawArchive(long, pax, rawHeader({ name: 'ustar' }), rawHeader({ name: 'next' }))),
    ).toEqual(['gnu', 'next'])
    expect(await namesOf(rawArchive(pax, rawHeader({ name: 'ustar' })))).toEqual(['pax'])
  })

  test('an empty PAX value leaves the header alone, the last of two records counts', async () => {
    const header = rawHeader({ name: 'h', uid: 5 })
    const pax = rawEntry({ flag: 'x' }, '9 path=a\n9 path=b\n7 uid=\n')
    expect(await entriesOf(rawArchive(pax, header))).toMatchObject([{ path: Buffer.from('b'), uid: 5 }])
  })

  test('a global PAX header renames nothing', async () => {
    expect(await namesOf(rawArchive(paxHeader({ path: 'evil' }, 'g'), rawHeader({ name: 'good' })))).toEqual([
      'good',
    ])
  })

  test('a global PAX header ends what is pending', async () => {
    const lost = Buffer.concat([paxHeader({ path: 'lost' }), paxHeader({ comment: 'x' }, 'g')])
    expect(await namesOf(rawArchive(lost, rawHeader({ name: 'own' })))).toEqual(['own'])
  })

  test('an old file is a directory by its trailing slash', async () => {
    const entries = await entriesOf(rawArchive(rawHeader({ name: 'old/', flag: '\0', magic: 'v7' })))
    expect(entries.map(({ type }) => type)).toEqual(['directory'])
  })

  test('a link whose header has a size has no contents', async () => {
    const link = rawHeader({ name: 'l', flag: '1', link: 'f', size: 5 })
    expect(
      await namesOf(rawArchive(rawEntry({ name: 'f' }, 'hello'), link, rawHeader({ name: 'next' }))),
    ).toEqual(['f', 'l', 'next'])
  })

  test('the ustar prefix, and the one that old versions of Go put into GNU headers', async () => {
    const entries = rawArchive(
      rawHeader({ name: 'n', prefix: 'a/b' }),
      rawHeader({ name: 'n', prefix: 'go', magic: 'gnu' }),
    )
    expect(await namesOf(entries)).toEqual(['a/b/n', 'go/n'])
  })

  test('leading ./ and /, empty and . components are dropped; .. is left to the consumer to refuse', async () => {
    const names = ['./a', '/b', '//c//d/', './', 'e/./f', '../g', 'h/..']
    const archive = rawArchive(...names.map((name) => rawHeader({ name })))
    expect(await namesOf(archive)).toEqual(['a', 'b', 'c/d', '', 'e/f', '../g', 'h/..'])
  })
})

describe('the end', () => {
  test('what follows the end marker is not read', async () => {
    expect(await namesOf(Buffer.concat([archiveOf({ path: 'a' }), rawHeader({ name: 'b' })]))).toEqual(['a'])
  })

  test('an archive may stop without an end marker, and without the last padding', () => {
    expect(() => read(rawEntry({}, 'abc'))).not.toThrow()
    expect(() => read(rawEntry({}, 'abc').subarray(0, 515))).not.toThrow()
    expect(() => read(Buffer.alloc(0))).not.toThrow()
  })

  test('a stream cut in a header, in contents, in a PAX header or right after it is refused', () => {
    const archive = Buffer.concat([paxHeader({ path: 'p' }), rawEntry({}, 'x'.repeat(600))])
    for (const length of [1, 511, 512, 515, 700, 1024, 1025, 1535, 1536, 1700, 2135]) {
      expect(() => read(archive.subarray(0, length))).toThrow(withCode('TAR_TRUNCATED'))
    }
    expect(() => read(archive.subarray(0, 2136))).not.toThrow()
  })

  test('a header after one block of zeros is refused, since others stop there', () => {
    expect(() => read(Buffer.concat([rawHeader({}), Buffer.alloc(512), rawHeader({})]))).toThrow(
      withCode('TAR_HEADER'),
    )
  })
})

/** A path of so many bytes. */
const deep = (length: number): string => 'd'.repeat(length).replaceAll('d'.repeat(16), `${'d'.repeat(15)}/`)
const named = (path: string): Buffer => rawArchive(paxHeader({ path }), rawHeader({}))
const linked = (linkpath: string): Buffer => rawArchive(paxHeader({ linkpath }), rawHeader({ flag: '2' }))
const base256 = (...bytes: number[]): Buffer => Buffer.from([...bytes, ...Buffer.alloc(12 - bytes.length)])

describe('hostile headers', () => {
  const negative = Buffer.alloc(12, 0xff)

  test.each<[string, string, RawFields]>([
    ['a size of 0x81 and zeros, 2^88', 'TAR_NUMBER', { size: base256(0x81) }],
    ['a size over 2^53', 'TAR_NUMBER', { size: base256(0x80, 0, 0, 0, 0, 0x20) }],
    ['a negative size', 'TAR_NUMBER', { size: negative }],
    ['a size that is no octal number', 'TAR_NUMBER', { size: Buffer.from('12345678901') }],
    ['a size with a sign', 'TAR_NUMBER', { size: Buffer.from('-0000000001') }],
    ['a negative owner', 'TAR_NUMBER', { uid: negative.subarray(0, 8) }],
    [
      'the owner 2^32 - 1, which chown takes for none',
      'TAR_NUMBER',
      { uid: Buffer.from([0x80, 0, 0, 0, 255, 255, 255, 255]) },
    ],
    ['a device number beyond what Linux has', 'TAR_NUMBER', { flag: '3', major: 0o7777777, minor: 1 }],
    ['an unknown type', 'TAR_TYPE', { flag: 'V' }],
    ['a multi-volume continuation', 'TAR_TYPE', { flag: 'M' }],
    ['a negative extended header', 'TAR_NUMBER', { flag: 'x', size: negative }],
  ])('%s', (_, code, fields) => {
    expect(() => read(rawArchive(rawHeader(fields)))).toThrow(withCode(code))
  })

  test('names longer than Linux allows; one that is deleted may be as long as any other', async () => {
    for (const path of [
      'n'.repeat(255),
      `.wh.${'n'.repeat(255)}`,
      deep(4095),
      `${deep(4080)}.wh.${'n'.repeat(15)}`,
    ]) {
      expect(await namesOf(named(path))).toEqual([path])
    }
    for (const path of [
      'n'.repeat(256),
      `.wh.${'n'.repeat(256)}`,
      `.wh.${'n'.repeat(255)}/x`,
      `${deep(4095)}d`,
    ]) {
      expect(() => read(named(path))).toThrow(withCode('TAR_NAME_TOO_LONG'))
    }
    expect(() => read(linked('t'.repeat(4095)))).not.toThrow()
    expect(() => read(linked('t'.repeat(4096)))).toThrow(withCode('TAR_NAME_TOO_LONG'))
  })

  test('a checksum that does not match', () => {
    const header = rawHeader({ name: 'abc' })
    header[0] = 0x78
    expect(() => read(rawArchive(header))).toThrow(withCode('TAR_CHECKSUM'))
  })

  test('a huge declared size takes no memory and ends as truncated', () => {
    const before = process.memoryUsage().arrayBuffers
    const archive = Buffer.concat([
      rawHeader({ size: base256(0x80, 0, 0, 0, 0, 0x1f, 255, 255, 255, 255, 255, 255) }),
      Buffer.alloc(4096),
    ])
    expect(() => read(archive)).toThrow(withCode('TAR_TRUNCATED'))
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000)
  })

  test('a PAX header that is too large is refused before it is held', () => {
    const header = rawHeader({ flag: 'x', size: TAR_LIMITS.header + 1 })
    for (const flag of ['x', 'g', 'L', 'K']) {
      const huge = rawHeader({ flag, size: TAR_LIMITS.header + 1 })
      expect(() => new TarReader(nothing).feed(huge)).toThrow(withCode('TAR_TOO_LARGE'))
    }
    expect(() => new TarReader(nothing, { header: TAR_LIMITS.header + 1 }).feed(header)).not.toThrow()
  })

  test('more attributes, or bytes of them, than the bound', () => {
    const xattrs = Object.fromEntries(
      Array.from({ length: 3 }, (_, i) => [`SCHILY.xattr.user.${i}`, 'value']),
    )
    const archive = rawArchive(paxHeader(xattrs), rawHeader({}))
    expect(() => read(archive, { xattrs: 3, xattrBytes: 33 })).not.toThrow()
    expect(() => read(archive, { xattrs: 2 })).toThrow(withCode('TAR_TOO_LARGE'))
    expect(() => read(archive, { xattrBytes: 32 })).toThrow(withCode('TAR_TOO_LARGE'))
  })

  test.each([
    ['no length', 'path=a\n'],
    ['a length of zero', '0 path=a\n'],
    ['a length that ends before the newline', '8 path=a\n'],
    ['a length beyond the header', '99 path=a\n'],
    ['a length of a billion digits', '9999999999 path=a\n'],
    ['a negative length', '-9 path=a\n'],
    ['no equals sign', '8 patha\n'],
    ['no key', '5 =a\n'],
    ['a name with a NUL', '11 path=a\0b\n'],
    ['a link target with a NUL', '15 linkpath=a\0b\n'],
    ['sparse offsets out of turn', '27 GNU.sparse.numbytes=123\n'],
  ])('a PAX record with %s', (_, records) => {
    expect(() => read(rawArchive(rawEntry({ flag: 'x' }, records), rawHeader({})))).toThrow(
      withCode('TAR_PAX'),
    )
  })

  test.each([
    ['a size in words', 'size', '1e3'],
    ['a negative size', 'size', '-1'],
    ['a size beyond 2^53', 'size', '9007199254740993'],
    ['an owner beyond 2^32', 'uid', '4294967296'],
    ['a time with two points', 'mtime', '1.2.3'],
    ['a time in exponents', 'mtime', '1e9'],
    ['a creation time in words', 'ctime', 'now'],
  ])('PAX: %s', (_, key, value) => {
    expect(() => read(rawArchive(paxHeader({ [key]: value }), rawHeader({})))).toThrow(withCode('TAR_NUMBER'))
  })
})

const map = (size: string, blocks: string, text: string, stored = ''): Buffer =>
  rawArchive(
    paxHeader({
      'GNU.sparse.major': '0',
      'GNU.sparse.minor': '1',
      'GNU.sparse.size': size,
      'GNU.sparse.numblocks': blocks,
      'GNU.sparse.map': text,
    }),
    rawEntry({}, stored),
  )

describe('hostile sparse maps', () => {
  test.each([
    ['regions that overlap', map('100', '2', '0,10,5,10', 'x'.repeat(20))],
    ['regions out of order', map('100', '2', '50,10,0,10', 'x'.repeat(20))],
    ['a region beyond the end', map('100', '1', '95,10', 'x'.repeat(10))],
    ['a region of negative length', map('100', '2', '10,-5,20,15', 'x'.repeat(10))],
    ['less data than the regions say', map('100', '1', '0,10', 'x'.repeat(9))],
    ['more data than the regions say', map('100', '1', '0,10', 'x'.repeat(11))],
    ['fewer regions than announced', map('100', '2', '0,10', 'x'.repeat(10))],
    ['a count of regions that is negative', map('100', '-1', '', '')],
    ['a negative size and no regions', map('-5', '0', '')],
    ['offsets whose sum is beyond 2^53', map('9007199254740991', '1', '9007199254740991,9007199254740991')],
    [
      'the old form: a negative size and no regions',
      rawArchive(rawHeader({ flag: 'S', magic: 'gnu', patch: [[483, Buffer.alloc(12, 0xff)]] })),
    ],
    ['the old form in a header that is not GNU', rawArchive(rawHeader({ flag: 'S' }))],
    [
      'form 1.0 without room for a map',
      rawArchive(paxHeader({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), rawEntry({}, 'x')),
    ],
    [
      'form 1.0 with a map of a million regions that do not come',
      rawArchive(
        paxHeader({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }),
        rawEntry({}, `1000000\n${'0\n0\n'.repeat(300)}`),
      ),
    ],
    [
      'form 1.0 of a directory',
      rawArchive(paxHeader({ 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0' }), rawHeader({ flag: '5' })),
    ],
  ])('%s', (_, archive) => {
    expect(() => read(archive)).toThrow(withCode('TAR_SPARSE'))
  })

  test('a sparse map that goes on for ever', () => {
    const old = rawHeader({ flag: 'S', magic: 'gnu', patch: [[482, Buffer.from([1])]] })
    const extension = Buffer.alloc(512)
    extension[504] = 1
    const reader = new TarReader(nothing, { header: 10_000 })
    const feed = (): void => {
      reader.feed(old)
      for (let i = 0; i < 100; i++) reader.feed(extension)
    }
    expect(feed).toThrow(withCode('TAR_TOO_LARGE'))
  })
})

test('a wanted file that is larger than what may be held', async () => {
  const archive = archiveOf({ path: 'big', contents: 'x'.repeat(100) })
  const read10 = async (): Promise<void> => {
    for await (const _ of readTar([archive], { wants: () => true, maxContents: 10 })) continue
  }
  await expect(read10()).rejects.toMatchObject({ code: 'TAR_TOO_LARGE' })
})

/** Reads, or refuses with an error of ours; contents never exceed what was fed. */
const survives = (archive: Buffer): void => {
  let bytes = 0
  const reader = new TarReader({ ...nothing, data: (chunk) => (bytes += chunk.length) })
  expect([undefined, 'TAR_']).toContain(
    refusalOf(() => {
      reader.feed(archive)
      reader.finish()
    })?.code.slice(0, 4),
  )
  expect(bytes).toBeLessThanOrEqual(archive.length)
}

describe('any bytes', () => {
  const seed = rawArchive(
    rawEntry({ flag: 'L', magic: 'gnu' }, 'long\0'),
    rawEntry({ name: 'a' }, 'contents'),
    paxHeader({
      path: 'p',
      mtime: '1.5',
      'GNU.sparse.major': '1',
      'GNU.sparse.minor': '0',
      'GNU.sparse.size': '2000',
    }),
    rawEntry({}, `1\n1000\n3\n${'\0'.repeat(503)}abc`),
    rawHeader({ flag: 'S', magic: 'gnu' }),
    rawEntry({ name: 'z', prefix: 'y' }, 'end'),
  )

  test('a good archive with bytes changed, headers summed anew', () => {
    const change = fc.tuple(
      fc.nat(seed.length - 1),
      fc.oneof(fc.nat(255), fc.constantFrom(0, 10, 32, 48, 55, 128, 255)),
    )
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
        const archive = Buffer.from(seed)
        for (const [at, byte] of changes) archive[at] = byte
        for (let at = 0; at < archive.length; at += 512) sumAnew(archive.subarray(at, at + 512))
        survives(archive)
      }),
      { numRuns: 3000 },
    )
  })

  test('parts of a good archive in any order', () => {
    const block = fc.nat(seed.length / 512 - 1).map((i) => seed.subarray(i * 512, i * 512 + 512))
    fc.assert(
      fc.property(fc.array(block, { maxLength: 12 }), (blocks) => survives(Buffer.concat(blocks))),
      { numRuns: 1000 },
    )
  })
})

function refusalOf(action: () => void): TbuildError | undefined {
  try {
    action()
  } catch (error) {
    if (error instanceof TbuildError) return error
    throw error
  }
  return undefined
}

/** The checksum of what looks like a header. */
function sumAnew(block: Buffer): void {
  if (block[155] !== 32) return
  block.write('        ', 148, 'latin1')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
}
