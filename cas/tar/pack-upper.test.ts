/** The difference that an overlay's upper makes: real mounts, and the layer applied again. */
import {
  chmodSync,
  chownSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { AT_FDCWD, isErrno, setTimes, setXattr } from '../../linux/index.ts'
import { packUpper, type PackOptions, type PackResult } from './index.ts'
import {
  describeTree,
  entriesOf,
  makeTree,
  namesOf,
  overlay,
  scratch,
  unpack,
  type Node,
  type Scratch,
} from './testing.ts'

const lowerNodes: readonly Node[] = [
  { type: 'directory', path: 'd', mtimeNs: 1n },
  { type: 'file', path: 'd/a', contents: 'a', mtimeNs: 2n },
  { type: 'file', path: 'd/b', contents: 'b', xattrs: { 'user.x': Buffer.from('1') } },
  { type: 'directory', path: 'd/e' },
  { type: 'directory', path: 'd/e/f' },
  { type: 'file', path: 'd/e/f/g', contents: 'g' },
  { type: 'file', path: 'h', contents: 'linked' },
  { type: 'hardlink', path: 'i', link: 'h' },
  { type: 'symlink', path: 's', link: 'd' },
  { type: 'char', path: 'null', device: [1, 3] },
]

interface Change extends PackResult {
  readonly archive: Buffer
}

/** Change the lower tree through an overlay, and take the difference. */
async function change(
  base: Scratch,
  act: (merged: string) => void,
  options: Partial<PackOptions> = {},
): Promise<Change> {
  const lower = base.directory('lower')
  if (readdirSync(lower).length === 0) makeTree(lower, lowerNodes)
  using mount = overlay(base, [lower])
  act(mount.merged)
  return await packed(mount.upperFd, { lower: { rootFd: mount.lowerFd }, ...options })
}

async function packed(upperFd: number, options: Partial<PackOptions>): Promise<Change> {
  const parts: Buffer[] = []
  const result = await packUpper(upperFd, { ...options, sink: (chunk) => parts.push(Buffer.from(chunk)) })
  return { ...result, archive: Buffer.concat(parts) }
}

/** The names that the change puts into the layer. */
async function namesAfter(
  act: (merged: string) => void,
  options: Partial<PackOptions> = {},
): Promise<string[]> {
  using base = scratch()
  return namesOf((await change(base, act, options)).archive)
}

function makeNew(merged: string): void {
  writeFileSync(join(merged, 'new'), '')
}

function removeFour(merged: string): void {
  for (const name of ['d', 'h', 's', 'null']) rmSync(join(merged, name), { recursive: true })
}

describe('what is left out', () => {
  test('nothing happened: an empty layer', async () => {
    using base = scratch()
    expect(await change(base, () => {})).toMatchObject({ entries: 0, bytes: 1024 })
  })

  test('files of every type that were copied up and are as they were', async () => {
    using base = scratch()
    const result = await change(base, (merged) => {
      chmodSync(join(merged, 'd/e/f/g'), 0o644)
      chmodSync(join(merged, 'd/a'), 0o644)
      chownSync(join(merged, 'null'), 0, 0)
      setXattr(join(merged, 'd/b'), 'user.x', Buffer.from('1'))
      chmodSync(join(merged, 'd/e'), 0o755)
    })
    expect(result).toMatchObject({ entries: 0, unchanged: 4 })
  })

  test('a file that was written to and got its time back, with the same contents', async () => {
    const names = await namesAfter((merged) => {
      writeFileSync(join(merged, 'd/a'), 'a')
      setTimes(AT_FDCWD, join(merged, 'd/a'), { mtime: 2n })
    })
    expect(names).toEqual([])
  })

  test('one name of a hard-linked file, copied up', async () => {
    expect(await namesAfter((merged) => chmodSync(join(merged, 'h'), 0o644))).toEqual([])
  })

  test('a file that came and went leaves only the time of its directory', async () => {
    const names = await namesAfter((merged) => {
      writeFileSync(join(merged, 'd/temporary'), '')
      rmSync(join(merged, 'd/temporary'))
    })
    expect(names).toEqual(['d'])
  })

  test('the root, when only its time changed', async () => {
    expect(await namesAfter(makeNew)).toEqual(['new'])
    expect(await namesAfter(makeNew, { root: 'emit' })).toEqual(['', 'new'])
    expect(await namesAfter((merged) => chmodSync(merged, 0o700))).toEqual([''])
  })
})

describe('what is written', () => {
  test.each<[string, (path: string) => void]>([
    [
      'contents of the same length, with the time set back',
      (path) => {
        writeFileSync(path, 'A')
        setTimes(AT_FDCWD, path, { mtime: 2n })
      },
    ],
    ['a nanosecond of its time', (path) => setTimes(AT_FDCWD, path, { mtime: 3n })],
    ['its mode', (path) => chmodSync(path, 0o600)],
    ['its owner', (path) => chownSync(path, 1, 0)],
    ['its attributes', (path) => setXattr(path, 'user.new', Buffer.alloc(0))],
    ['its length', (path) => truncateSync(path, 2)],
    [
      'its type',
      (path) => {
        rmSync(path)
        symlinkSync('a', path)
        setTimes(AT_FDCWD, path, { mtime: 2n })
      },
    ],
  ])('a file for %s', async (_, act) => {
    const names = await namesAfter((merged) => {
      act(join(merged, 'd/a'))
      setTimes(AT_FDCWD, join(merged, 'd'), { mtime: 1n })
    })
    expect(names).toEqual(['d', 'd/a'])
  })

  test('a device that became another of the same time', async () => {
    const names = await namesAfter((merged) => {
      rmSync(join(merged, 'null'))
      makeTree(merged, [{ type: 'char', path: 'null', device: [1, 5] }])
    })
    expect(names).toEqual(['null'])
  })

  test('the directories above a change, and no others', async () => {
    const names = await namesAfter((merged) => {
      chmodSync(join(merged, 'd/a'), 0o644)
      writeFileSync(join(merged, 'd/e/f/g'), 'other')
    })
    expect(names).toEqual(['d', 'd/e', 'd/e/f', 'd/e/f/g'])
  })

  test('a directory whose mode alone changed', async () => {
    expect(await namesAfter((merged) => chmodSync(join(merged, 'd/e'), 0o700))).toEqual(['d', 'd/e'])
  })

  test('both names of a new hard link to an old file', async () => {
    using base = scratch()
    const { archive } = await change(base, (merged) => linkSync(join(merged, 'd/a'), join(merged, 'z')))
    const entries = await entriesOf(archive)
    expect(entries.map(({ path, type, link }) => [String(path), type, link?.toString()])).toEqual([
      ['d', 'directory', undefined],
      ['d/a', 'file', undefined],
      ['z', 'hardlink', 'd/a'],
    ])
  })
})

describe('deletions', () => {
  test('a file, a symlink, a device, a whole tree: one whiteout each, the same bytes whenever it happens', async () => {
    using base = scratch()
    const first = await change(base, removeFour)
    expect(await namesOf(first.archive)).toEqual(['.wh.d', '.wh.h', '.wh.null', '.wh.s'])
    expect(first).toMatchObject({ entries: 4, whiteouts: 4, opaque: 0 })
    expect((await change(base, removeFour)).archive.equals(first.archive)).toBe(true)
    const [entry] = await entriesOf(first.archive)
    expect(entry).toMatchObject({ type: 'file', mode: 0, uid: 0, gid: 0, size: 0, mtimeNs: 0n })
  })

  test('a directory that replaced one of the same name is opaque', async () => {
    using base = scratch()
    const result = await change(base, (merged) => {
      rmSync(join(merged, 'd'), { recursive: true })
      mkdirSync(join(merged, 'd'))
      writeFileSync(join(merged, 'd/new'), '')
    })
    expect(await namesOf(result.archive)).toEqual(['d', 'd/.wh..wh..opq', 'd/new'])
    expect(result).toMatchObject({ opaque: 1, whiteouts: 0 })
  })

  test('what a replaced directory holds is new, even when it equals what was there', async () => {
    const names = await namesAfter((merged) => {
      rmSync(join(merged, 'd'), { recursive: true })
      makeTree(merged, lowerNodes.slice(0, 2))
    })
    expect(names).toEqual(['d', 'd/.wh..wh..opq', 'd/a'])
  })

  test('a new directory is not opaque, nor one that replaced a file or a symlink', async () => {
    const names = await namesAfter((merged) => {
      for (const name of ['h', 's']) rmSync(join(merged, name))
      for (const name of ['h', 's', 'new', 'new/er']) mkdirSync(join(merged, name))
    })
    expect(names).toEqual(['h', 'new', 'new/er', 's'])
  })

  test('a file that replaced a directory', async () => {
    const names = await namesAfter((merged) => {
      rmSync(join(merged, 'd'), { recursive: true })
      writeFileSync(join(merged, 'd'), '')
    })
    expect(names).toEqual(['d'])
  })

  test('a renamed file is a deleted one and a new one', async () => {
    expect(await namesAfter((merged) => renameSync(join(merged, 'h'), join(merged, 'z')))).toEqual([
      '.wh.h',
      'z',
    ])
  })

  test('a file of the longest name', async () => {
    using base = scratch()
    const name = 'n'.repeat(255)
    makeTree(base.directory('lower'), [{ type: 'file', path: name }])
    const { archive } = await change(base, (merged) => rmSync(join(merged, name)))
    expect(await namesOf(archive)).toEqual([`.wh.${name}`])
  })

  test('of a name in a lower layer below another', async () => {
    using base = scratch()
    const [top, bottom] = [base.directory('top'), base.directory('bottom')]
    makeTree(top, [
      { type: 'directory', path: 'd', mtimeNs: 5n },
      { type: 'file', path: 'd/top' },
    ])
    makeTree(bottom, [
      { type: 'directory', path: 'd' },
      { type: 'file', path: 'd/bottom' },
      { type: 'file', path: 'd/kept' },
    ])
    using mount = overlay(base, [top, bottom])
    rmSync(join(mount.merged, 'd/bottom'))
    chmodSync(join(mount.merged, 'd/kept'), 0o644)
    setTimes(AT_FDCWD, join(mount.merged, 'd'), { mtime: 5n })
    const { archive } = await packed(mount.upperFd, { lower: { rootFd: mount.lowerFd } })
    expect(await namesOf(archive)).toEqual(['d', 'd/.wh.bottom'])
  })

  test('of a name that the layer below had deleted and this one made again', async () => {
    using base = scratch()
    const [top, bottom] = [base.directory('top'), base.directory('bottom')]
    makeTree(top, [{ type: 'char', path: 'd', device: [0, 0] }])
    makeTree(bottom, [
      { type: 'directory', path: 'd' },
      { type: 'file', path: 'd/f' },
    ])
    using mount = overlay(base, [top, bottom])
    mkdirSync(join(mount.merged, 'd'))
    const { archive } = await packed(mount.upperFd, { lower: { rootFd: mount.lowerFd } })
    expect(await namesOf(archive)).toEqual(['d'])
    // The directory of a single layer as the lower: what it deletes is not there.
    using single = overlay(base, [top])
    mkdirSync(join(single.merged, 'd'))
    const alone = await packed(single.upperFd, { lower: { rootFd: single.lowerFd } })
    expect(await namesOf(alone.archive)).toEqual(['d'])
  })
})

test('any changes: the layer applied to the same lower gives the same tree', async () => {
  const paths = [
    'd',
    'd/a',
    'd/b',
    'd/e',
    'd/e/f',
    'd/e/f/g',
    'h',
    'i',
    's',
    'null',
    'new',
    'd/new',
    'new/er',
    'd/e/x',
  ]
  const step = fc.record({
    kind: fc.constantFrom<keyof typeof acts>(
      'write',
      'remove',
      'remove',
      'mkdir',
      'mkdir',
      'chmod',
      'rename',
      'link',
      'symlink',
      'touch',
      'xattr',
      'copy',
    ),
    path: fc.constantFrom(...paths),
    other: fc.constantFrom(...paths),
  })
  using base = scratch()
  const lower = base.directory('lower')
  makeTree(lower, lowerNodes)
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12, size: 'max' }), async (steps) => {
      using run = scratch()
      using mount = overlay(run, [lower])
      for (const { kind, path, other } of steps)
        attempt(() => acts[kind](join(mount.merged, path), join(mount.merged, other)))
      const { archive } = await packed(mount.upperFd, { lower: { rootFd: mount.lowerFd }, root: 'emit' })
      const layer = run.directory('layer')
      await unpack(archive, layer)
      using again = overlay(run, [layer, lower])
      const options = { links: false }
      expect(describeTree(`/proc/self/fd/${again.lowerFd}/.`, options)).toEqual(
        describeTree(mount.merged, options),
      )
    }),
    { numRuns: 80 },
  )
})

const acts = {
  write: (path: string) => writeFileSync(path, 'new'),
  remove: (path: string) => rmSync(path, { recursive: true }),
  mkdir: (path: string) => mkdirSync(path),
  chmod: (path: string) => chmodSync(path, 0o2711),
  rename: (path: string, other: string) => renameSync(path, other),
  link: (path: string, other: string) => linkSync(path, other),
  symlink: (path: string) => symlinkSync('../d', path),
  touch: (path: string) => utimesSync(path, 5, 5),
  xattr: (path: string) => setXattr(path, 'user.new', Buffer.from('1')),
  copy: (path: string, other: string) => writeFileSync(other, readFileSync(path)),
}

/** A change that the kernel refuses (no such file, a directory that is not empty) is no change. */
function attempt(act: () => void): void {
  try {
    act()
  } catch (error) {
    if (!(typeof error === 'object' && error !== null && 'code' in error) || isErrno(error, 'EIO'))
      throw error
  }
}
