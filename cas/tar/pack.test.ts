import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import { AT_FDCWD, mkdirat, openat2, setTimes } from '../../linux/index.ts'
import { packDirectory, packUpper } from './index.ts'
import {
  archiveOf,
  entriesOf,
  gnuUnpack,
  describeTree,
  makeTree,
  namesOf,
  pack,
  punch,
  scratch,
  unpack,
  withDirectory,
} from './testing.ts'

describe('the order and the bytes', () => {
  test('names in the order of their bytes, whatever order they were made in', async () => {
    using base = scratch()
    const names = ['b', 'a', 'a.b', 'a b', 'B', '\u00e9', '\ud83d\ude00', '\uff5e', Buffer.from([0xff])]
    makeTree(base.path, [
      ...names.map((path) => ({ type: 'file', path }) as const),
      { type: 'directory', path: 'a-dir' },
      { type: 'file', path: 'a-dir/z' },
    ])
    const utf8 = ['\u00e9', '\uff5e', '\ud83d\ude00'].map((text) => Buffer.from(text).toString('latin1'))
    expect(await namesOf(await pack(base.path))).toEqual([
      'B',
      'a',
      'a b',
      'a-dir',
      'a-dir/z',
      'a.b',
      'b',
      ...utf8,
      '\xff',
    ])
  })

  test('equal trees give equal bytes, from any place, at any time of access', async () => {
    using base = scratch()
    const [one, two] = [base.directory('one'), base.directory('two')]
    const nodes = [
      {
        type: 'file',
        path: 'f',
        contents: 'x',
        xattrs: { 'user.a': Buffer.from('1'), 'user.b': Buffer.from('2') },
      },
      { type: 'hardlink', path: 'g', link: 'f' },
    ] as const
    makeTree(one, nodes)
    makeTree(two, [
      { ...nodes[0], xattrs: { 'user.b': Buffer.from('2'), 'user.a': Buffer.from('1') } },
      nodes[1],
    ])
    setTimes(AT_FDCWD, join(two, 'f'), { atime: 7n, mtime: 0n })
    expect((await pack(one)).equals(await pack(two))).toBe(true)
  })

  test('later times become the one that is asked for, earlier ones stay', async () => {
    using base = scratch()
    makeTree(base.path, [
      { type: 'file', path: 'new', mtimeNs: 20_000_000_001n },
      { type: 'file', path: 'old', mtimeNs: -5n },
    ])
    const entries = await entriesOf(await pack(base.path, { clampMtimeNs: 10_000_000_000n }))
    expect(entries.map(({ mtimeNs }) => mtimeNs)).toEqual([10_000_000_000n, -5n])
  })

  test('the root only when it is asked for', async () => {
    using base = scratch()
    expect(await namesOf(await pack(base.path))).toEqual([])
    expect((await pack(base.path)).equals(archiveOf())).toBe(true)
    expect(await namesOf(await pack(base.path, { root: 'emit' }))).toEqual([''])
  })
})

describe('what the archive holds', () => {
  test('several names of one inode: the first in order has the contents, whatever its type', async () => {
    using base = scratch()
    makeTree(base.path, [
      { type: 'file', path: 'z', contents: 'x' },
      { type: 'directory', path: 'd' },
      { type: 'hardlink', path: 'd/a', link: 'z' },
      { type: 'symlink', path: 's', link: 'z' },
      { type: 'hardlink', path: 't', link: 's' },
      { type: 'char', path: 'u', device: [1, 3] },
      { type: 'hardlink', path: 'v', link: 'u' },
    ])
    const entries = await entriesOf(await pack(base.path))
    expect(entries.map(({ path, type, link }) => [String(path), type, link?.toString()])).toEqual([
      ['d', 'directory', undefined],
      ['d/a', 'file', undefined],
      ['s', 'symlink', 'z'],
      ['t', 'hardlink', 's'],
      ['u', 'char', undefined],
      ['v', 'hardlink', 'u'],
      ['z', 'hardlink', 'd/a'],
    ])
  })

  test('sockets are left out and counted', async () => {
    using base = scratch()
    const server = createServer().listen(join(base.path, 'socket'))
    await once(server, 'listening')
    const result = await withDirectory(base.path, (fd) => packDirectory(fd, { sink: () => {} }))
    server.close()
    expect(result).toMatchObject({ entries: 0, skippedSockets: 1 })
  })

  test('attributes of this host and of overlayfs stay here', async () => {
    using base = scratch()
    const value = Buffer.from('y')
    const names = [
      'trusted.overlay.opaque',
      'trusted.x',
      'user.overlay.opaque',
      'user.kept',
      'security.ima.x',
    ]
    const xattrs = Object.fromEntries(names.map((name) => [name, value]))
    makeTree(base.path, [{ type: 'directory', path: 'd', xattrs }])
    const [entry] = await entriesOf(await pack(base.path))
    expect([...(entry?.xattrs.keys() ?? [])]).toEqual(['user.kept'])
  })

  test('a sparse file is written whole: holes at the start, in the middle and at the end', async () => {
    using base = scratch()
    makeTree(base.path, [{ type: 'file', path: 'f' }])
    const contents = Buffer.alloc(3_000_123)
    contents.write('middle', 1_500_000)
    contents.write('more', 2_500_000)
    punch(join(base.path, 'f'), contents)
    expect(statSync(join(base.path, 'f')).blocks).toBe(16)
    const out = base.directory('out')
    gnuUnpack(await pack(base.path), out)
    const [, file] = describeTree(base.path).filter((line) => !line.startsWith('"out"'))
    expect(describeTree(out)).toContain(file)
  })

  test('a file that is nothing but a hole', async () => {
    using base = scratch()
    makeTree(base.path, [{ type: 'file', path: 'f' }])
    truncateSync(join(base.path, 'f'), 5_000_000)
    const [entry] = await entriesOf(await pack(base.path))
    expect(entry?.contents).toBe('\0'.repeat(5_000_000))
  })

  test('files larger than the buffer', async () => {
    using base = scratch()
    const contents = Buffer.alloc(2_500_000, 'not a multiple of anything')
    makeTree(base.path, [
      { type: 'file', path: 'a', contents },
      { type: 'file', path: 'b', contents: 'after' },
    ])
    const archive = await pack(base.path)
    expect(archive.equals(archiveOf({ path: 'a', contents }, { path: 'b', contents: 'after' }))).toBe(true)
  })

  test('the result counts what was written', async () => {
    using base = scratch()
    makeTree(base.path, [
      { type: 'file', path: 'a', contents: 'abc' },
      { type: 'directory', path: 'd' },
    ])
    const parts: number[] = []
    const result = await withDirectory(base.path, (fd) =>
      packDirectory(fd, { sink: (chunk) => parts.push(chunk.length) }),
    )
    expect(result).toEqual({
      entries: 2,
      bytes: 2560,
      contentBytes: 3,
      whiteouts: 0,
      opaque: 0,
      unchanged: 0,
      skippedSockets: 0,
    })
    expect(parts).toEqual([2560])
  })
})

describe('what no archive can hold', () => {
  test.each(['.wh.a', '.wh..wh..opq', '.wh.'])('a file called %s would delete another', async (name) => {
    using base = scratch()
    makeTree(base.path, [
      { type: 'directory', path: 'd' },
      { type: 'file', path: `d/${name}` },
    ])
    await expect(pack(base.path)).rejects.toMatchObject({
      code: 'TAR_RESERVED_NAME',
      message: expect.stringContaining(`"d/${name}"`),
    })
    expect(await namesOf(await pack(base.path, { reservedNames: 'keep' }))).toEqual(['d', `d/${name}`])
  })

  test('a path that no system call takes', async () => {
    using base = scratch()
    makeDeep(base.path, 'd'.repeat(250), 18)
    await expect(pack(base.path)).rejects.toMatchObject({ code: 'TAR_NAME_TOO_LONG' })
    // Node's own removal takes no such path either.
    execFileSync('rm', ['-r', join(base.path, 'd'.repeat(250))])
  })

  test('a file that shrinks while it is read', async () => {
    using base = scratch()
    makeTree(base.path, [{ type: 'file', path: 'f', contents: Buffer.alloc(3_000_000, 'x') }])
    let chunks = 0
    const packing = withDirectory(base.path, (fd) =>
      packDirectory(fd, { sink: () => chunks++ === 0 && truncateSync(join(base.path, 'f'), 10) }),
    )
    await expect(packing).rejects.toMatchObject({ code: 'TAR_FILE_CHANGED' })
  })
})

test('a tree deeper than the descriptors that are held', async () => {
  using base = scratch()
  makeDeep(base.path, 'd', 300)
  for (const depth of [0, 50, 299]) writeFileSync(join(base.path, 'd/'.repeat(depth), 'file'), '')
  const open = openDescriptors()
  const names = await namesOf(await pack(base.path))
  expect(names.length).toBe(303)
  expect(names.filter((name) => name.endsWith('file')).map((name) => name.length)).toEqual([602, 104, 4])
  expect(openDescriptors()).toBe(open)
})

test('a signal stops it, and no descriptor stays open', async () => {
  using base = scratch()
  makeTree(base.path, [
    { type: 'directory', path: 'd' },
    ...['a', 'b', 'c'].map(
      (name) => ({ type: 'file', path: `d/${name}`, contents: 'x'.repeat(3000) }) as const,
    ),
  ])
  const open = openDescriptors()
  const reason = new Error('stopped')
  await expect(pack(base.path, { signal: AbortSignal.abort(reason), yieldEvery: 1000 })).rejects.toBe(reason)
  expect(openDescriptors()).toBe(open)
})

test('the event loop gets its turn during a large file', async () => {
  using base = scratch()
  makeTree(base.path, [{ type: 'file', path: 'f' }])
  truncateSync(join(base.path, 'f'), 20_000_000)
  let turns = 0
  const timer = setInterval(() => turns++, 0)
  await pack(base.path, { yieldEvery: 1_000_000 })
  clearInterval(timer)
  expect(turns).toBeGreaterThan(0)
})

test('without a lower everything in an upper is written, whiteouts in both forms and every opaque mark', async () => {
  using base = scratch()
  const [opaque, mark] = [
    { 'trusted.overlay.opaque': Buffer.from('y') },
    { 'trusted.overlay.whiteout': Buffer.from('y') },
  ]
  makeTree(base.path, [
    { type: 'char', path: 'gone', device: [0, 0] },
    { type: 'file', path: 'gone too', xattrs: mark },
    { type: 'file', path: 'not gone', xattrs: mark, contents: 'since it is not empty' },
    { type: 'directory', path: 'd', xattrs: opaque },
    { type: 'directory', path: 'e', xattrs: { 'trusted.overlay.opaque': Buffer.from('x') } },
    { type: 'char', path: 'n'.repeat(255), device: [0, 0] },
  ])
  const archive = await upperOf(base.path)
  expect(await namesOf(archive)).toEqual([
    'd',
    'd/.wh..wh..opq',
    'e',
    '.wh.gone',
    '.wh.gone too',
    `.wh.${'n'.repeat(255)}`,
    'not gone',
  ])
  const out = base.directory('out')
  await unpack(archive, out)
  expect((await upperOf(out)).equals(archive)).toBe(true)
})

test.each(['redirect', 'metacopy'])('an upper that overlayfs wrote with %s is refused', async (name) => {
  using base = scratch()
  makeTree(base.path, [
    { type: 'directory', path: 'd', xattrs: { [`trusted.overlay.${name}`]: Buffer.from('/x') } },
  ])
  await expect(upperOf(base.path)).rejects.toMatchObject({ code: 'TAR_OVERLAY' })
})

async function upperOf(path: string): Promise<Buffer> {
  const parts: Buffer[] = []
  await withDirectory(path, (fd) => packUpper(fd, { sink: (chunk) => parts.push(Buffer.from(chunk)) }))
  return Buffer.concat(parts)
}

/** Directories of this name, one in the other. */
function makeDeep(path: string, name: string, depth: number): void {
  let fd = openat2(AT_FDCWD, path, { flags: constants.O_DIRECTORY })
  for (let i = 0; i < depth; i++) {
    mkdirat(fd, name, 0o755)
    const next = openat2(fd, name, { flags: constants.O_DIRECTORY })
    closeSync(fd)
    fd = next
  }
  closeSync(fd)
}

function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
