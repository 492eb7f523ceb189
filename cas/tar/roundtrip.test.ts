/** What is packed, unpacked and packed again is the same, to the byte. */
import { expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { describeTree, gnuUnpack, makeTree, pack, richTree, scratch, unpack, type Node } from './testing.ts'

test('a tree of everything there is: packed, unpacked by us and by GNU tar, packed again', async () => {
  using base = scratch()
  const tree = base.directory('tree')
  makeTree(tree, richTree({ xattrs: true }))
  const archive = await pack(tree, { root: 'emit' })
  const [ours, theirs] = [base.directory('ours'), base.directory('theirs')]
  await unpack(archive, ours)
  gnuUnpack(archive, theirs)
  expect(describeTree(ours)).toEqual(describeTree(tree))
  expect(describeTree(theirs)).toEqual(describeTree(tree))
  expect((await pack(ours, { root: 'emit' })).equals(archive)).toBe(true)
})

test('any tree: packed, unpacked, packed again', async () => {
  await fc.assert(
    fc.asyncProperty(anyTree, async (nodes) => {
      using base = scratch()
      const tree = base.directory('tree')
      makeTree(tree, nodes)
      const archive = await pack(tree, { root: 'emit' })
      const out = base.directory('out')
      await unpack(archive, out)
      expect(describeTree(out)).toEqual(describeTree(tree))
      expect((await pack(out, { root: 'emit' })).equals(archive)).toBe(true)
    }),
    { numRuns: 100 },
  )
})

const byte = fc.integer({ min: 1, max: 255 }).map((value) => (value === 47 ? 255 : value))
const name = fc
  .array(byte, { minLength: 1, maxLength: 12 })
  .chain((bytes) =>
    fc.constantFrom(
      bytes,
      bytes,
      bytes,
      Array.from({ length: 255 }, (_, i) => bytes[i % bytes.length] ?? 1),
    ),
  )
  .map((bytes) => Buffer.from(bytes).toString('latin1'))
  .filter((text) => text !== '.' && text !== '..' && !text.startsWith('.wh.'))

interface Twig {
  readonly name: string
  readonly type: Node['type']
  readonly contents: Buffer
  readonly link: string
  readonly which: number
  readonly rest: Pick<Node, 'mode' | 'uid' | 'gid' | 'mtimeNs' | 'device'>
  readonly xattrs: Readonly<Record<string, Buffer>>
  readonly children: readonly Twig[]
}

const id = fc.oneof(fc.nat(70_000), fc.nat(0xffff_fffe))
const twigs = (one: fc.Arbitrary<Twig>): fc.Arbitrary<Twig[]> =>
  fc.array(one, { minLength: 1, maxLength: 8, size: 'max' })
const { twig } = fc.letrec<{ twig: Twig }>((tie) => ({
  twig: fc.record({
    name,
    type: fc.constantFrom<Node['type']>(
      'file',
      'file',
      'directory',
      'directory',
      'symlink',
      'hardlink',
      'char',
      'block',
      'fifo',
    ),
    contents: fc.oneof(
      fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
      fc.nat(20_000).map((size) => Buffer.alloc(size)),
    ),
    link: fc.oneof(name, fc.constantFrom('..', '/', 'a/../../b', 't'.repeat(3000))),
    which: fc.nat(100),
    rest: fc.record({
      mode: fc.nat(0o7777),
      uid: id,
      gid: id,
      // What ext4 can store.
      mtimeNs: fc.bigInt(-(2n ** 31n) * 1_000_000_000n, 15_000_000_000_000_000_000n),
      device: fc.tuple(fc.integer({ min: 1, max: 4095 }), fc.nat(0xfffff)),
    }),
    xattrs: fc.dictionary(
      fc.stringMatching(/^[a-z=%. ü]{1,8}$/),
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
      { maxKeys: 3 },
    ),
    children: fc.oneof({ maxDepth: 4, withCrossShrink: true }, fc.constant([]), twigs(tie('twig'))),
  }),
}))

const anyTree = twigs(twig).map((top) => {
  const nodes: Node[] = []
  const files: string[] = []
  const visit = (parent: string, siblings: readonly Twig[]): void => {
    for (const { name: own, type, children, contents, link, which, rest, xattrs } of new Map(
      siblings.map((one) => [one.name, one]),
    ).values()) {
      const path = Buffer.from(parent + own, 'latin1')
      const target = files[which % files.length]
      if (type === 'hardlink' && target === undefined) continue
      const made =
        type === 'hardlink'
          ? { link: Buffer.from(target ?? '', 'latin1') }
          : { link: Buffer.from(link, 'latin1') }
      const mayHold = type === 'file' || type === 'directory'
      const named = Object.entries(xattrs).map(([key, value]) => [`user.${key}`, value] as const)
      nodes.push({ type, path, contents, ...made, ...rest, xattrs: mayHold ? Object.fromEntries(named) : {} })
      if (type !== 'directory' && type !== 'hardlink') files.push(parent + own)
      if (type === 'directory') visit(`${parent}${own}/`, children)
    }
  }
  visit('', top)
  return nodes
})
