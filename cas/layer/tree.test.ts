import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { noXattrs } from '../tar/entry.ts'
import { LayerTree, type NewInode } from './tree.ts'

const attributes = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, xattrs: noXattrs }
const file: NewInode = { ...attributes, type: 'file' }
const directory: NewInode = { ...attributes, type: 'directory' }
const ROOT = LayerTree.ROOT

describe('names', () => {
  test('any order of linking, removing and linking again leaves what a map would', () => {
    const name = fc.constantFrom(
      'a',
      'b',
      'c',
      'constructor',
      '__proto__',
      'gr\xfc\xdf',
      'a name of more than 13 bytes',
    )
    const step = fc.tuple(fc.nat(2), name, fc.boolean())
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100, size: 'max' }), (steps) => {
        const tree = new LayerTree()
        const directories = [ROOT, ...['x', 'y'].map((text) => make(tree, ROOT, text, directory))]
        const expected = directories.map(() => new Map<string, number>())
        for (const [at, text, isLinked] of steps) {
          const parent = directories[at] ?? ROOT
          if (!isLinked || expected[at]?.has(text) === true) {
            tree.unlink(parent, text)
            expected[at]?.delete(text)
          } else {
            expected[at]?.set(text, make(tree, parent, text, file))
          }
        }
        for (const [at, names] of expected.entries()) {
          const parent = directories[at] ?? ROOT
          const found = tree
            .children(parent)
            .filter(([text]) => parent !== ROOT || (text !== 'x' && text !== 'y'))
          expect(found).toEqual([...names].toSorted(([a], [b]) => (a < b ? -1 : 1)))
          for (const [text, inode] of names) expect(tree.lookup(parent, text)).toBe(inode)
        }
      }),
    )
  })

  test('come in the order of their bytes', () => {
    const tree = new LayerTree()
    for (const name of ['b', '\xff', 'a', 'B', 'a.b', 'a-b', 'ab']) make(tree, ROOT, name, file)
    expect(tree.children(ROOT).map(([name]) => name)).toEqual(['B', 'a', 'a-b', 'a.b', 'ab', 'b', '\xff'])
  })

  test('of 100,000 files are all found again, and nothing else', () => {
    const tree = new LayerTree()
    const inodes = Array.from({ length: 100_000 }, (_, i) => make(tree, ROOT, `${i}`, file))
    expect(inodes.filter((inode, i) => tree.lookup(ROOT, `${i}`) !== inode)).toEqual([])
    expect(tree.lookup(ROOT, '100000')).toBeUndefined()
    expect(tree.lookup(inodes[0] ?? -1, '0')).toBeUndefined()
  })
})

describe('removal', () => {
  test('takes all below with it, but not the other names of what is there', () => {
    const tree = new LayerTree()
    const d = make(tree, ROOT, 'd', directory)
    const e = make(tree, d, 'e', directory)
    const f = make(tree, e, 'f', file)
    tree.link(ROOT, 'g', f)
    expect([tree.links(d), tree.links(e), tree.links(f)]).toEqual([1, 1, 2])
    tree.unlink(ROOT, 'd')
    expect([tree.links(d), tree.links(e), tree.links(f)]).toEqual([0, 0, 1])
    expect([tree.lookup(ROOT, 'd'), tree.lookup(d, 'e'), tree.lookup(e, 'f')]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
    expect(tree.children(ROOT)).toEqual([['g', f]])
  })

  test('of what is not there does nothing', () => {
    const tree = new LayerTree()
    tree.unlink(ROOT, 'a')
    make(tree, ROOT, 'a', file)
    tree.unlink(ROOT, 'a')
    tree.unlink(ROOT, 'a')
    expect(tree.children(ROOT)).toEqual([])
  })

  test('of a chain of 100,000 directories', () => {
    const tree = new LayerTree()
    let last = ROOT
    for (let i = 0; i < 100_000; i++) last = make(tree, last, 'd', directory)
    tree.unlink(ROOT, 'd')
    expect(tree.links(last)).toBe(0)
  })

  test("of a symlink's last name lets its target go, and not before", () => {
    const tree = new LayerTree()
    const s = make(tree, ROOT, 's', { ...attributes, type: 'symlink', target: '/x' })
    tree.link(ROOT, 't', s)
    tree.unlink(ROOT, 's')
    expect(tree.target(s)).toBe('/x')
    tree.unlink(ROOT, 't')
    expect(tree.target(s)).toBe('')
  })
})

describe('attributes', () => {
  test.each([
    0n,
    1n,
    -1n,
    1_700_000_000_123_456_789n,
    -1_000_000_000n,
    -1_500_000_001n,
    9_007_199_254_740_991_999_999_999n,
  ])('the time %i', (mtimeNs) => {
    const tree = new LayerTree()
    const inode = make(tree, ROOT, 'f', { ...file, mtimeNs })
    expect(tree.mtimeNanoseconds(inode)).toBeGreaterThanOrEqual(0)
    expect(BigInt(tree.mtimeSeconds(inode)) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds(inode))).toBe(
      mtimeNs,
    )
  })

  test('the largest owner, mode and device', () => {
    const tree = new LayerTree()
    const largest = {
      ...file,
      type: 'char',
      uid: 0xffff_fffe,
      gid: 0xffff_fffe,
      mode: 0o7777,
      major: 4095,
      minor: 0xf_ffff,
    } as const
    const inode = make(tree, ROOT, 'f', largest)
    expect([tree.uid(inode), tree.gid(inode), tree.mode(inode), tree.device(inode)]).toEqual([
      0xffff_fffe,
      0xffff_fffe,
      0o7777,
      [4095, 0xf_ffff],
    ])
  })

  test('equal sets of extended attributes are one, in whatever order they came', () => {
    const tree = new LayerTree()
    const [a, b] = [Buffer.from('1'), Buffer.from([0, 255])]
    const sets = [
      [],
      [
        ['user.a', a],
        ['user.b', b],
      ],
      [
        ['user.b', b],
        ['user.a', a],
      ],
      [['user.a', b]],
      [['user.a', a]],
    ] as const
    const inodes = sets.map((set, i) => make(tree, ROOT, `${i}`, { ...file, xattrs: new Map(set) }))
    expect(inodes.map((inode) => tree.xattrSet(inode))).toEqual([0, 1, 1, 2, 3])
    expect([...tree.xattrs(inodes[2] ?? -1)]).toEqual([
      ['user.a', a],
      ['user.b', b],
    ])
  })

  test('pieces of many files, in order', () => {
    const tree = new LayerTree()
    for (let i = 0; i < 1000; i++) {
      const inode = make(tree, ROOT, `${i}`, file)
      tree.setSize(inode, 2 ** 50)
      for (let k = 0; k < i % 4; k++) tree.addPiece(inode, k * 2 ** 40, i + 1, i * 4 + k)
    }
    for (let i = 0; i < 1000; i++) {
      const inode = tree.lookup(ROOT, `${i}`) ?? -1
      expect(tree.size(inode)).toBe(2 ** 50)
      const expected = Array.from({ length: i % 4 }, (_, k) => ({
        offset: k * 2 ** 40,
        length: i + 1,
        content: i * 4 + k,
      }))
      expect(tree.pieces(inode)).toEqual(expected)
    }
  })
})

test('a million files take less than 300 bytes each', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const used = async (): Promise<number> => {
    // What other tests left goes in several steps.
    for (let i = 0; i < 5; i++) {
      collect()
      await setImmediate()
    }
    const { heapUsed, external } = process.memoryUsage()
    return heapUsed + external
  }
  const count = 1_000_000
  const before = await used()
  const tree = new LayerTree()
  let parent = ROOT
  for (let i = 0; i < count; i++) {
    if (i % 10 === 0) {
      parent = make(tree, ROOT, `some-directory-${i}`, directory)
    } else {
      // Parts of a longer string, as names are parts of paths.
      const path = `usr/lib/node_modules/some-directory-${i}/dist/module-number-${i}.js`
      const inode = make(tree, parent, path.slice(path.lastIndexOf('/') + 1), { ...file, mtimeNs: BigInt(i) })
      tree.setSize(inode, i)
      tree.addPiece(inode, 0, i, i)
    }
  }
  const each = ((await used()) - before) / count
  process.stderr.write(`a tree of ${count} entries: ${each.toFixed(0)} bytes each\n`)
  expect(tree.inodes).toBe(count + 1)
  expect(each).toBeLessThan(300)
})

function make(tree: LayerTree, parent: number, name: string, inode: NewInode): number {
  const number = tree.create(inode)
  tree.link(parent, name, number)
  return number
}
