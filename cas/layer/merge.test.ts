/**
 * The kernel is the judge: layers are unpacked and mounted over one another, and so is their merged tree, written out as one directory, in their place.
 */
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { AT_FDCWD, setTimes } from '../../linux/index.ts'
import { TbuildError } from '../../errors.ts'
import { archiveOf, scratch, unpack, type Described, type Scratch } from '../tar/testing.ts'
import { mergeTrees } from './merge.ts'
import {
  apply,
  arbitraryEntries,
  describeLayer,
  describeOverlay,
  writeTree,
  type Applied,
} from './testing.ts'
import { LayerTree } from './tree.ts'

const merged = (layers: readonly Applied[]): Pick<Applied, 'tree' | 'contents'> => {
  const firsts = layers.map((_, i) =>
    layers.slice(0, i).reduce((sum, { contents }) => sum + contents.length, 0),
  )
  const tree = mergeTrees(
    layers.map((applied) => ({ tree: applied.tree, opaqueRoot: applied.layer.opaqueRoot })),
    (layer, content) => (firsts[layer] ?? 0) + content,
  )
  return { tree, contents: layers.flatMap(({ contents }) => contents) }
}

/** Unpacked by the other way, so that a mistake of the applier shows. */
async function onDisk(base: Scratch, name: string, archive: Buffer): Promise<string> {
  const directory = base.directory(name)
  await unpack(archive, directory)
  if (!apply(archive).layer.hasRoot) setTimes(AT_FDCWD, directory, { mtime: 0n })
  return directory
}

interface View {
  readonly from: number
  readonly to: number
  readonly isOpaque: boolean
  readonly lines: readonly string[]
}

/** For every split of `layers` into some below, some merged and some above: what is shown, and what the same layers one by one show. */
async function views(layers: readonly (readonly Described[])[]): Promise<[merged: View[], expected: View[]]> {
  using base = scratch()
  const empty = base.directory('empty')
  setTimes(AT_FDCWD, empty, { mtime: 0n })
  const archives = layers.map((entries) => archiveOf(...entries))
  const applied = archives.map((archive) => apply(archive))
  const directories: string[] = []
  for (const [i, archive] of archives.entries()) directories.push(await onDisk(base, `${i}`, archive))
  const marks = applied.map(({ layer }) => layer.opaqueRoot)
  const lines = shown(directories, marks, empty)
  const [found, expected]: [View[], View[]] = [[], []]
  for (let from = 0; from < layers.length; from++) {
    for (let to = from + 1; to <= layers.length; to++) {
      const one = merged(applied.slice(from, to))
      const directory = base.directory(`${from}-${to}`)
      writeTree(one, directory)
      const isOpaque = one.tree.isOpaque(LayerTree.ROOT)
      const around = <T>(all: readonly T[], between: T): T[] => [
        ...all.slice(0, from),
        between,
        ...all.slice(to),
      ]
      const stack = shown(around(directories, directory), around(marks, isOpaque), empty)
      found.push({ from, to, isOpaque, lines: stack })
      expected.push({ from, to, isOpaque: marks.slice(from, to).includes(true), lines })
    }
  }
  return [found, expected]
}

/** Bottom first; overlayfs does not heed an opaque root, so what it hides is not mounted. */
function shown(directories: readonly string[], isOpaque: readonly boolean[], empty: string): string[] {
  const lowest = Math.max(0, isOpaque.lastIndexOf(true))
  return describeOverlay(directories.slice(lowest).toReversed(), empty)
}

const symlink = (path: string, link: string): Described => ({ path, type: 'symlink', link })
const hardlink = (path: string, link: string): Described => ({ path, type: 'hardlink', link })

describe('as overlayfs shows it', () => {
  test.each<[string, Described[][]]>([
    ['a file over a file', [[{ path: 'f', contents: '1' }], [{ path: 'f', contents: '2' }]]],
    ['a file deleted', [[{ path: 'd/f' }, { path: 'd/g' }], [{ path: 'd/.wh.f' }]]],
    [
      'a file deleted and made again',
      [[{ path: 'f', contents: '1' }], [{ path: '.wh.f' }], [{ path: 'f', contents: '2' }]],
    ],
    ['a directory deleted and made again', [[{ path: 'd/f' }], [{ path: '.wh.d' }], [{ path: 'd/g' }]]],
    [
      'a directory deleted, made again, deleted in',
      [[{ path: 'd/f' }], [{ path: '.wh.d' }], [{ path: 'd/g' }], [{ path: 'd/.wh.g' }]],
    ],
    ['a directory over a file over a directory', [[{ path: 'x/f' }], [{ path: 'x' }], [{ path: 'x/g' }]]],
    [
      'a directory over a symlink over a directory',
      [[{ path: 'x/f' }, { path: 'd/h' }], [symlink('x', 'd')], [{ path: 'x/g' }]],
    ],
    ['a file over a directory', [[{ path: 'x/f' }], [{ path: 'x' }]]],
    [
      'an opaque directory',
      [
        [{ path: 'd/f' }, { path: 'd/e/g' }],
        [{ path: 'd/.wh..wh..opq' }, { path: 'd/h' }],
        [{ path: 'd/e/i' }],
      ],
    ],
    [
      'a directory opaque further up and further down',
      [
        [{ path: 'a/b/c/f' }],
        [{ path: 'a/b/c/g' }, { path: 'a/b/c/.wh..wh..opq' }],
        [{ path: 'a/b/h' }, { path: 'a/.wh..wh..opq' }],
        [{ path: 'a/b/c/i' }],
      ],
    ],
    [
      'a whiteout below an opaque directory',
      [[{ path: 'd/f' }], [{ path: 'd/.wh..wh..opq' }, { path: 'd/.wh.f' }]],
    ],
    [
      'an opaque root',
      [[{ path: 'f' }, { path: 'd/e' }], [{ path: '.wh..wh..opq' }, { path: 'd/g' }], [{ path: 'd/.wh.g' }]],
    ],
    [
      'two opaque roots',
      [[{ path: 'f' }], [{ path: '.wh..wh..opq' }, { path: 'g' }], [{ path: '.wh..wh..opq' }, { path: 'h' }]],
    ],
    [
      'attributes of the topmost directory, be it implicit',
      [
        [
          { path: './', mode: 0o700, uid: 1 },
          { path: 'd/', mode: 0o700, uid: 5, mtimeNs: 7n, xattrs: new Map([['user.a', Buffer.from('1')]]) },
        ],
        [{ path: 'd/f' }],
      ],
    ],
    [
      'attributes of the topmost directory, explicit',
      [
        [{ path: 'd/f' }],
        [
          { path: './', mode: 0o711 },
          { path: 'd/', mode: 0o700, gid: 5, mtimeNs: 7n },
        ],
      ],
    ],
    ['what whiteouts were deleted by', [[{ path: '.wh.f' }], [{ path: '.wh.f' }], [{ path: 'd/.wh.f' }]]],
  ])('%s', async (_, layers) => {
    const [alone, expectedAlone] = await views(layers)
    expect(alone).toEqual(expectedAlone)
    const [over, expectedOver] = await views([
      [
        { path: 'f', contents: 'base' },
        { path: 'd/f', contents: 'base' },
        { path: 'x/base' },
        { path: 'a/b/c/base' },
      ],
      ...layers,
    ])
    expect(over).toEqual(expectedOver)
  })

  test('any layers that collide', async () => {
    const layer = arbitraryEntries({ isHostile: false }).map((entries) => {
      const kept: Described[] = []
      for (const entry of entries) if (isTaken([...kept, entry])) kept.push(entry)
      return kept
    })
    const root = fc.constantFrom<Described[][]>(
      [],
      [],
      [],
      [{ path: '.wh..wh..opq' }],
      [{ path: './', mode: 0o700, mtimeNs: 3n }],
    )
    const layers = fc.array(fc.tuple(layer, root), { minLength: 2, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(layers, async (drawn) => {
        const [found, expected] = await views(drawn.map(([entries, more]) => [...entries, ...more]))
        expect(found).toEqual(expected)
      }),
      { numRuns: 60 },
    )
  })
})

function isTaken(entries: readonly Described[]): boolean {
  try {
    apply(archiveOf(...entries))
    return true
  } catch (error) {
    if (error instanceof TbuildError) return false
    throw error
  }
}

function describeMerged(...layers: readonly Described[][]): string[] {
  return describeLayer(merged(layers.map((entries) => apply(archiveOf(...entries))))).slice(1)
}

describe('hard links', () => {
  test('stay within a layer, over directories; one that is replaced or deleted leaves the others, with right counts', () => {
    const links = [{ path: 'a', contents: 'x' }, hardlink('b', 'a'), hardlink('c', 'a'), hardlink('d/e', 'a')]
    expect(describeMerged(links, [{ path: 'b', contents: 'y' }, { path: '.wh.c' }])).toEqual([
      '"a" file 644 0:0 @0 "x"',
      '"b" file 644 0:0 @0 "y"',
      '"c" whiteout',
      '"d" directory 755 0:0 @0 ',
      '"d/e" file 644 0:0 @0 "x" is "a"',
    ])
  })

  test('of inodes that have one number in two layers are not confused', () => {
    expect(
      describeMerged(
        [{ path: 'a', contents: '1' }, hardlink('b', 'a')],
        [{ path: 'c', contents: '2' }, hardlink('d', 'c')],
      ),
    ).toEqual([
      '"a" file 644 0:0 @0 "1"',
      '"b" file 644 0:0 @0 "1" is "a"',
      '"c" file 644 0:0 @0 "2"',
      '"d" file 644 0:0 @0 "2" is "c"',
    ])
  })
})

test('what is merged already is not changed by another merge', () => {
  const layers = [
    [{ path: 'a/f' }, hardlink('g', 'a/f'), { path: '.wh.x' }],
    [{ path: 'a/.wh..wh..opq' }, { path: 'a/.wh.f' }, { path: 'h' }],
  ]
  const once = merged(layers.map((entries) => apply(archiveOf(...entries))))
  const again = mergeTrees([{ tree: once.tree, opaqueRoot: false }], (_, content) => content)
  expect(describeLayer({ ...once, tree: again })).toEqual(describeLayer(once))
})

test('marks are kept only where there may be something below', () => {
  const layers = [
    [
      { path: 'd/.wh..wh..opq' },
      { path: 'd/.wh.f' },
      { path: 'd/e/.wh..wh..opq' },
      { path: '.wh.g' },
      { path: 'e/.wh..wh..opq' },
    ],
    [{ path: 'd/e/.wh.h' }, { path: 'd/.wh.i' }, { path: 'g/.wh.j' }, { path: 'g/k' }],
  ].map((entries) => apply(archiveOf(...entries)))
  expect(describeLayer(merged(layers)).slice(1)).toEqual([
    '"d" directory 755 0:0 @0  opaque',
    '"d/e" directory 755 0:0 @0 ',
    '"e" directory 755 0:0 @0  opaque',
    '"g" directory 755 0:0 @0  opaque',
    '"g/k" file 644 0:0 @0 ""',
  ])
})

test('a tree of 2,000 levels, and 600 layers', () => {
  const deep = apply(archiveOf({ path: `${'d/'.repeat(2000)}f` }))
  const more = Array.from({ length: 600 }, (_, i) =>
    apply(archiveOf({ path: `d/${i}` }, { path: `d/.wh.${i - 1}` })),
  )
  const { tree } = merged([deep, ...more])
  const d = tree.lookup(LayerTree.ROOT, 'd') ?? -1
  const files = tree.children(d).filter(([, inode]) => tree.type(inode) === 'file')
  expect(files.map(([name]) => name)).toEqual(['599'])
  expect(tree.inodes).toBe(2 + 2000 + 600 + 1)
})
