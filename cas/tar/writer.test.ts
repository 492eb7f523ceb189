import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { encodeHeader, END, TarWriter, type TarOutputEntry } from './index.ts'
import { archiveOf, entriesOf, gnuTar, rawHeader, scratch, type Described } from './testing.ts'

/** Only the PAX records of an entry's header; empty when it has none. */
function recordsOf(entry: Described): string {
  const archive = archiveOf(entry)
  if (archive[156] !== 'x'.charCodeAt(0)) return ''
  return archive.toString('latin1', 512, 512 + Number.parseInt(archive.toString('latin1', 124, 135), 8))
}

const withCode = (code: string): unknown => expect.objectContaining({ code })

describe('the canonical form', () => {
  test('a plain file is one ustar block', () => {
    const archive = archiveOf({ path: './a//b', contents: 'hi', uid: 0o7777777, mtimeNs: 1_000_000_000n })
    const header = rawHeader({ name: 'a/b', size: 2, uid: 0o7777777, mtime: 1 })
    expect(archive.subarray(0, 512).equals(header)).toBe(true)
    expect(archive.length).toBe(512 + 512 + 1024)
    expect(archive.subarray(1024).equals(END)).toBe(true)
  })

  test('directories end in a slash, the root is ./', async () => {
    expect(gnuList(archiveOf({ path: '/' }, { path: 'd/' }, { path: 'd/e', type: 'directory' }))).toEqual([
      './',
      'd/',
      'd/e/',
    ])
  })

  test('type and other bits of a mode are left out', () => {
    expect(archiveOf({ path: 'a', mode: 0o104755 }).toString('latin1', 100, 108)).toBe('0004755\0')
  })

  test('what a header can say is not said again in PAX records', () => {
    expect(recordsOf({ path: 'n'.repeat(100), mtimeNs: 0o77777777777n * 1_000_000_000n })).toBe('')
    expect(recordsOf({ path: 'l', type: 'symlink', link: 't'.repeat(100), gid: 0o7777777 })).toBe('')
    expect(encodeHeader({ ...plain, size: 0o77777777777 }).length).toBe(512)
  })

  test.each<[string, Described, string]>([
    ['a name of 101 bytes', { path: 'n'.repeat(101) }, `111 path=${'n'.repeat(101)}\n`],
    [
      'a directory whose slash is the 101st',
      { path: `${'d'.repeat(100)}/` },
      `111 path=${'d'.repeat(100)}/\n`,
    ],
    ['a name that is not ASCII', { path: 'ü' }, '11 path=Ã¼\n'],
    ['a name that is not UTF-8', { path: Buffer.from([0xff]) }, '21 hdrcharset=BINARY\n9 path=ÿ\n'],
    [
      'a link of 101 bytes',
      { path: 'l', type: 'symlink', link: 't'.repeat(101) },
      `115 linkpath=${'t'.repeat(101)}\n`,
    ],
    [
      'an owner over 2097151',
      { path: 'a', uid: 2_097_152, gid: 4_294_967_294 },
      '18 gid=4294967294\n15 uid=2097152\n',
    ],
    ['a fraction of a second', { path: 'a', mtimeNs: 1_500_000_000n }, '13 mtime=1.5\n'],
    ['a nanosecond before 1970', { path: 'a', mtimeNs: -1n }, '22 mtime=-0.000000001\n'],
    [
      'a time after 2242',
      { path: 'a', mtimeNs: (0o77777777777n + 1n) * 1_000_000_000n },
      '20 mtime=8589934592\n',
    ],
    [
      'records in the order of their keys',
      {
        path: 'a',
        uid: 2 ** 22,
        xattrs: new Map([
          ['user.b', Buffer.from('2')],
          ['user.a=%', Buffer.from('1')],
        ]),
      },
      '31 SCHILY.xattr.user.a%3D%25=1\n25 SCHILY.xattr.user.b=2\n15 uid=4194304\n',
    ],
  ])('a PAX record for %s', async (_, entry, records) => {
    expect(recordsOf({ ...entry, path: bytes(entry.path) })).toBe(records)
  })

  test('a size from 8 GiB on', () => {
    const header = encodeHeader({ ...plain, size: 0o77777777777 + 1 })
    expect(header.toString('latin1', 512, 531)).toBe('19 size=8589934592\n')
    expect(header.toString('latin1', 1024 + 124, 1024 + 136)).toBe('00000000000\0')
  })

  test('a record whose length grows by counting its own digits', () => {
    for (let length = 85; length < 105; length++) {
      const [record = ''] = recordsOf({ path: `é${'n'.repeat(length)}` }).split('\n')
      expect(Number(record.split(' ')[0])).toBe(record.length + 1)
    }
  })
})

test('GNU tar reads what we write as we do', async () => {
  const archive = archiveOf(
    { path: './' },
    { path: 'd/', mode: 0o1777 },
    { path: `d/${'n'.repeat(200)}`, contents: 'x', mode: 0o4755, uid: 3_000_000, mtimeNs: 1_500_000_000n },
    { path: 'gr\u00fc\u00df', type: 'symlink', link: 'z'.repeat(300), mode: 0o777 },
    { path: 'h', type: 'hardlink', link: `d/${'n'.repeat(200)}`, mode: 0o4755 },
    { path: 'b', type: 'block', major: 259, minor: 70_000 },
    { path: 'f', type: 'fifo' },
  )
  using base = scratch()
  writeFileSync(join(base.path, 'a.tar'), archive)
  const list = gnuTar([
    '--numeric-owner',
    '--full-time',
    '--quoting-style=literal',
    '-tvf',
    join(base.path, 'a.tar'),
  ])
  expect(list.trimEnd().replaceAll(/ +/g, ' ').split('\n')).toEqual([
    'drwxr-xr-x 0/0 0 1970-01-01 00:00:00 ./',
    'drwxrwxrwt 0/0 0 1970-01-01 00:00:00 d/',
    `-rwsr-xr-x 3000000/0 1 1970-01-01 00:00:01.5 d/${'n'.repeat(200)}`,
    `lrwxrwxrwx 0/0 0 1970-01-01 00:00:00 gr\u00fc\u00df -> ${'z'.repeat(300)}`,
    `hrwsr-xr-x 0/0 0 1970-01-01 00:00:00 h link to d/${'n'.repeat(200)}`,
    'brw-r--r-- 0/0 259,70000 1970-01-01 00:00:00 b',
    'prw-r--r-- 0/0 0 1970-01-01 00:00:00 f',
  ])
})

describe('TarWriter', () => {
  test('the bytes do not depend on the buffer, and are those of encodeHeader', () => {
    const entries = [
      { ...plain, path: 'a', size: 700 },
      { ...plain, path: 'n'.repeat(300), size: 0 },
      { ...plain, path: 'b', size: 512 },
    ]
    const written = (bufferSize: number): Buffer => {
      const parts: Buffer[] = []
      const writer = new TarWriter((chunk) => parts.push(Buffer.from(chunk)), bufferSize)
      for (const entry of entries) {
        writer.entry(entry)
        writer.data(Buffer.alloc(Math.min(entry.size, 200), 'x'))
        if (entry.size > 200) writer.zeros(entry.size - 200)
      }
      const length = writer.finish()
      expect(writer.bytes).toBe(length)
      return Buffer.concat(parts)
    }
    const whole = written(1024 * 1024)
    for (const size of [512, 513, 600, 1024, 1337]) expect(written(size).equals(whole)).toBe(true)
    expect(whole.subarray(0, 512).equals(encodeHeader(entries[0] ?? plain))).toBe(true)
  })

  test('a file that shrank, or grew, since its size was taken', () => {
    using base = scratch()
    writeFileSync(join(base.path, 'f'), 'abc')
    const fd = openSync(join(base.path, 'f'), 'r')
    const writer = new TarWriter(() => {})
    writer.entry({ ...plain, size: 4 })
    expect(() => writer.dataFrom(fd, 0, 4)).toThrow(withCode('TAR_FILE_CHANGED'))
    closeSync(fd)
    const short = new TarWriter(() => {})
    short.entry({ ...plain, size: 4 })
    short.data(Buffer.from('abc'))
    expect(() => short.data(Buffer.from('de'))).toThrow(withCode('TAR_FILE_CHANGED'))
    expect(() => short.entry(plain)).toThrow(withCode('TAR_FILE_CHANGED'))
    expect(() => short.finish()).toThrow(withCode('TAR_FILE_CHANGED'))
  })

  test('what is no file has no contents', () => {
    const writer = new TarWriter(() => {})
    writer.entry({ ...plain, type: 'directory', size: 4096 })
    expect(() => writer.data(Buffer.from('x'))).toThrow(withCode('TAR_FILE_CHANGED'))
  })
})

const plain: TarOutputEntry = {
  type: 'file',
  path: 'a',
  mode: 0o644,
  uid: 0,
  gid: 0,
  size: 0,
  mtimeNs: 0n,
  major: 0,
  minor: 0,
  xattrs: new Map(),
}

test('any entry is read as it was written', async () => {
  const name = fc
    .uint8Array({ min: 1, minLength: 1, maxLength: 120 })
    .map((raw) => Buffer.from(raw.map((byte) => (byte === 47 || byte === 46 ? 95 : byte))))
  const path = fc
    .array(name, { minLength: 1, maxLength: 3 })
    .map((names) => Buffer.from(names.map((part) => part.toString('latin1')).join('/'), 'latin1'))
  const type = fc.constantFrom('file', 'directory', 'symlink', 'hardlink', 'char', 'block', 'fifo')
  const id = fc.oneof(fc.nat(0xffff_fffe), fc.constantFrom(2_097_151, 2_097_152))
  const entry = fc.record({
    type,
    path,
    link: path,
    mode: fc.nat(0o7777),
    uid: id,
    gid: id,
    mtimeNs: fc.bigInt(-(2n ** 63n), 2n ** 63n),
    major: fc.nat(0xfff),
    minor: fc.nat(0xfffff),
    xattrs: fc.dictionary(
      fc.string({ minLength: 1, maxLength: 20 }).filter((key) => !key.includes('\0')),
      fc.uint8Array({ maxLength: 20 }),
    ),
    contents: fc.string({ maxLength: 1000 }),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(entry, { maxLength: 5 }), async (entries) => {
      const written = entries.map(({ link, contents, major, minor, xattrs, ...more }) => ({
        ...more,
        ...(more.type === 'symlink' || more.type === 'hardlink' ? { link } : undefined),
        major: more.type === 'char' || more.type === 'block' ? major : 0,
        minor: more.type === 'char' || more.type === 'block' ? minor : 0,
        contents: more.type === 'file' ? contents : '',
        xattrs: new Map(Object.entries(xattrs).map(([key, value]) => [`user.${key}`, Buffer.from(value)])),
      }))
      const read = await entriesOf(archiveOf(...written))
      expect(read).toEqual(
        written.map(({ contents, ...more }) => ({
          ...more,
          size: Buffer.byteLength(contents),
          contents: more.type === 'file' ? Buffer.from(contents).toString('latin1') : undefined,
        })),
      )
    }),
    { numRuns: 500 },
  )
})

function bytes(name: Buffer | string | undefined): Buffer {
  return Buffer.from(name ?? '')
}

function gnuList(archive: Buffer): string[] {
  using base = scratch()
  writeFileSync(join(base.path, 'a.tar'), archive)
  return gnuTar(['-tf', join(base.path, 'a.tar')])
    .trimEnd()
    .split('\n')
}
