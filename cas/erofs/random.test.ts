import * as fc from 'fast-check'
import { expect, test } from '@jest/globals'
import { LayerTree } from '../layer/tree.ts'
import { splitTime } from '../tar/number.ts'
import { editErofs, type ImageEdit } from './edit.ts'
import { describeMount, describeTree, imageBytes, mountTree, scratch, TreeBuilder, UUID } from './testing.ts'

interface Step {
  /** Among the directories so far. */
  readonly parent: number
  readonly name: string
  readonly type: 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'whiteout' | 'link' | 'unlink'
  readonly mode: number
  readonly owner: readonly [uid: number, gid: number]
  readonly mtimeNs: bigint
  readonly xattrs: readonly (readonly [name: string, value: Buffer])[]
  readonly device: readonly [major: number, minor: number]
  readonly target: string
  /** Of a file: how far each piece is from the one before and how long it is, in blocks; the last one's odd bytes. */
  readonly pieces: readonly (readonly [gap: number, blocks: number])[]
  readonly odd: number
  readonly opaque: boolean
}

const byte = fc.integer({ min: 1, max: 255 }).filter((code) => code !== 0x2f)
const text = (minLength: number, maxLength: number): fc.Arbitrary<string> =>
  fc.array(byte, { minLength, maxLength, size: 'max' }).map((codes) => String.fromCharCode(...codes))
const name = fc
  .oneof(
    text(1, 3),
    text(1, 40),
    text(200, 255),
    fc.constantFrom('!', '-', '.-', '...', '..a', '.a', '\u00ff', 'a', 'b', 'c'),
  )
  .filter((value) => value !== '.' && value !== '..')
const buffer = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength, size: 'max' }).map((bytes) => Buffer.from(bytes))
const attribute = fc.tuple(
  fc.constantFrom('user.a', 'user.b', 'trusted.c', 'security.d', `user.${'n'.repeat(200)}`),
  fc.oneof(fc.constant(Buffer.from('often')), buffer(10), buffer(600)),
)
const step: fc.Arbitrary<Step> = fc.record({
  parent: fc.nat(),
  name,
  type: fc.constantFrom(
    ...(['file', 'file', 'file', 'directory', 'directory', 'symlink', 'symlink'] as const),
    ...(['char', 'block', 'fifo', 'whiteout', 'link', 'unlink'] as const),
  ),
  mode: fc.integer({ min: 0, max: 0o7777 }),
  owner: fc.tuple(fc.integer({ min: 0, max: 0xffff_fffe }), fc.integer({ min: 0, max: 0xffff_fffe })),
  mtimeNs: fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }),
  xattrs: fc.oneof({ arbitrary: fc.constant([]), weight: 2 }, fc.array(attribute, { maxLength: 4 })),
  device: fc.tuple(fc.integer({ min: 1, max: 0xfff }), fc.integer({ min: 0, max: 0xf_ffff })),
  target: fc.oneof(text(1, 30), text(400, 700), text(1000, 4095)),
  pieces: fc.array(fc.tuple(fc.nat(20), fc.nat(5)), { maxLength: 4 }),
  odd: fc.nat(511),
  opaque: fc.boolean(),
})

function build(steps: readonly Step[]): TreeBuilder {
  const built = new TreeBuilder()
  const directories = [LayerTree.ROOT]
  const others: number[] = []
  for (const { parent, name: as, type, target, device, pieces, odd, opaque, ...more } of steps) {
    const alive = directories.filter((inode) => built.tree.links(inode) > 0)
    const directory = alive[parent % alive.length] ?? LayerTree.ROOT
    if (type === 'unlink') {
      const children = built.tree.children(directory)
      const child = children[odd % children.length]
      if (child !== undefined) built.tree.unlink(directory, child[0])
      continue
    }
    if (built.tree.lookup(directory, as) !== undefined) continue
    const { mode, owner, mtimeNs } = more
    const attributes = { mode, uid: owner[0], gid: owner[1], mtimeNs }
    // The kernel keeps user.* from what is neither a file nor a directory, and gives it to nobody.
    const keepsUser = type === 'file' || type === 'directory'
    const xattrs = new Map(more.xattrs.filter(([key]) => keepsUser || !key.startsWith('user.')))
    if (type === 'link') {
      const linked = others.filter((inode) => built.tree.links(inode) > 0)
      const inode = linked[odd % linked.length]
      if (inode !== undefined) built.tree.link(directory, as, inode)
    } else if (type === 'directory') {
      const inode = built.directory(directory, as, { ...attributes, xattrs })
      if (opaque) built.tree.setOpaque(inode)
      directories.push(inode)
    } else if (type === 'file') {
      others.push(
        built.file(directory, as, spans(pieces, odd), {
          ...attributes,
          xattrs,
          ...sizeOf(pieces, odd, opaque),
        }),
      )
    } else {
      const [major, minor] = device
      others.push(
        built.add(directory, as, {
          ...attributes,
          xattrs,
          type,
          ...(type === 'symlink' ? { target } : { major, minor }),
        }),
      )
    }
  }
  return built
}

function spans(pieces: Step['pieces'], odd: number): [offset: number, bytes: Buffer][] {
  let offset = 0
  return pieces.map(([gap, blocks], i) => {
    const start = offset + gap * 512
    const length = blocks * 512 + (i === pieces.length - 1 ? odd : 0)
    offset = start + length
    return [start, Buffer.alloc(length, `${i} of ${pieces.length}, ${odd} `)]
  })
}

/** Some end with a hole, for which the last piece must be whole blocks. */
function sizeOf(pieces: Step['pieces'], odd: number, hole: boolean): { readonly size?: number } {
  const end = pieces.reduce((sum, [gap, blocks]) => sum + (gap + blocks) * 512, 0)
  return hole && (odd === 0 || pieces.length === 0) ? { size: end + 70_001 } : {}
}

test('any tree is the same tree through a mount, and equal ones are equal bytes', () => {
  using base = scratch()
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 80, size: 'max' }),
      fc.integer({ min: 1, max: 4 }),
      (steps, devices) => {
        const built = build(steps)
        using image = mountTree(base, built, devices)
        expect(describeMount(image.root)).toEqual(describeTree(built))
        const options = { devices: [{ blocks: 1 }], locate: () => ({ device: 1, block: 0 }) }
        expect(imageBytes(build(steps).tree, options).equals(imageBytes(built.tree, options))).toBe(true)
      },
    ),
    { numRuns: 120 },
  )
})

/** Of all names. */
function pathsOf(tree: LayerTree): Map<string, number> {
  const paths = new Map<string, number>()
  const visit = (directory: number, above: string): void => {
    for (const [child, inode] of tree.children(directory)) {
      paths.set(above + child, inode)
      if (tree.isDirectory(inode)) visit(inode, `${above}${child}/`)
    }
  }
  visit(LayerTree.ROOT, '')
  return paths
}

function isWhole(tree: LayerTree, inode: number): boolean {
  const [piece, ...others] = tree.pieces(inode)
  const size = tree.size(inode)
  return (
    tree.type(inode) === 'file' &&
    tree.links(inode) === 1 &&
    size > 0 &&
    others.length === 0 &&
    piece?.length === size
  )
}

test('an image that is edited is the image of the edited tree', () => {
  let edited = 0
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 80, size: 'max' }),
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 2 ** 33 }), fc.bigInt(-(2n ** 62n), 2n ** 62n))),
      fc.integer({ min: 1, max: 12 }),
      (steps, changes, devices) => {
        const { tree } = build(steps)
        const some = Array.from({ length: devices }, (_, i) => ({ blocks: 2 ** 20 + i }))
        const places = new Map<number, { device: number; block: number }>()
        const locate = (content: number) => places.get(content) ?? { device: 1, block: content }
        const image = imageBytes(tree, { devices: some, locate })
        const paths = [...pathsOf(tree)]
        const edits: ImageEdit[] = []
        for (const [i, [which, size, mtimeNs]] of changes.entries()) {
          const [path, inode] = paths[which % paths.length] ?? ['', LayerTree.ROOT]
          if (!tree.isDirectory(inode) && !isWhole(tree, inode)) continue
          const mtime = splitTime(mtimeNs)
          const attributes = { mode: tree.mode(inode), uid: tree.uid(inode), gid: tree.gid(inode) }
          tree.setAttributes(inode, { ...attributes, mtimeNs, xattrs: tree.xattrs(inode) })
          if (tree.isDirectory(inode)) {
            if (path !== '') edits.push({ path, mtime })
            continue
          }
          const place = { device: devices, block: 2 ** 20 + i }
          tree.setSize(inode, size)
          places.set(tree.pieces(inode)[0]?.content ?? 0, place)
          edits.push({ path, mtime, contents: { size, ...place } })
        }
        if (paths.length === 0) return
        const ends = edits.map(({ contents }) => contents && contents.block + Math.ceil(contents.size / 512))
        const longer = some.with(devices - 1, {
          blocks: Math.max(2 ** 20 + devices - 1, ...ends.map((end) => end ?? 0)),
        })
        const changed = imageBytes(tree, { devices: longer, locate })
        expect(editErofs(image, { uuid: UUID, devices, edits })).toBe(true)
        expect(image.equals(changed)).toBe(true)
        edited += edits.length
      },
    ),
    { numRuns: 300 },
  )
  expect(edited).toBeGreaterThan(100)
})

test('what an edit cannot say makes it fail: other types, several names or pieces, no such name, no room for devices', () => {
  const built = new TreeBuilder()
  const directory = built.directory(LayerTree.ROOT, 'd')
  built.file(directory, 'whole', [[0, 'x']])
  built.file(directory, 'empty')
  built.tree.link(directory, 'second', built.file(directory, 'first', [[0, 'x']]))
  built.file(directory, 'pieces', [
    [0, Buffer.alloc(512, 1)],
    [1024, Buffer.alloc(512, 1)],
  ])
  built.add(directory, 'link', { type: 'symlink', target: 'whole' })
  const devices = [{ blocks: 100 }]
  const locate = (block: number) => ({ device: devices.length, block })
  const mtime = { seconds: 1, nanoseconds: 2 }
  const contents = { size: 5, device: 1, block: 7 }
  const edit = (one: Partial<ImageEdit>, count = 1, image?: Buffer): boolean =>
    editErofs(image ?? imageBytes(built.tree, { devices, locate }), {
      uuid: UUID,
      devices: count,
      edits: [{ path: 'd/whole', mtime, ...one }],
    })
  expect(edit({ contents })).toBe(true)
  expect(edit({ path: 'd' })).toBe(true)
  for (const path of [
    'd/empty',
    'd/first',
    'd/second',
    'd/pieces',
    'd/link',
    'd',
    'd/none',
    'none/whole',
    'd/whole/x',
    '',
  ])
    expect(edit({ path, contents })).toBe(false)
  for (const path of ['d/whole', 'd/link', 'd/none']) expect(edit({ path })).toBe(false)
  expect(edit({ contents: { ...contents, size: 0 } })).toBe(false)
  expect(edit({ contents: { ...contents, size: 2 ** 42 } })).toBe(false)
  expect(edit({ contents }, 3)).toBe(true)
  expect(edit({ contents }, 4)).toBe(false)
  expect(edit({ path: 'd' }, 0)).toBe(true)
  const damaged = imageBytes(built.tree, { devices, locate })
  damaged[1100] = 0xff
  expect(edit({ contents }, 1, damaged)).toBe(false)
  expect(edit({ contents }, 1, Buffer.alloc(100))).toBe(false)
})

test('a damaged image is edited or not, and nothing else happens', () => {
  const built = new TreeBuilder()
  let directory = LayerTree.ROOT
  for (const level of ['a', 'b', 'c']) {
    directory = built.directory(directory, level)
    for (let i = 0; i < 100; i++) built.file(directory, `file-${i}`, [[0, `${level} ${i}`]])
  }
  const devices = [{ blocks: 1000 }]
  const image = imageBytes(built.tree, { devices, locate: (block) => ({ device: 1, block }) })
  const mtime = { seconds: 1, nanoseconds: 2 }
  const edits = ['a/file-7', 'a/b/file-50', 'a/b/c/file-99'].map((path) => ({
    path,
    mtime,
    contents: { size: 700, device: 1, block: 5 },
  }))
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(image.length - 1), fc.nat(255)), { minLength: 1 }), (flips) => {
      const damaged = Buffer.from(image)
      for (const [at, value] of flips) damaged[at] = value
      // Its length stays, whatever is in it.
      expect(typeof editErofs(damaged, { uuid: UUID, devices: 1, edits })).toBe('boolean')
    }),
    { numRuns: 1000 },
  )
  for (let length = 0; length < image.length; length += 777)
    expect(typeof editErofs(Buffer.from(image.subarray(0, length)), { uuid: UUID, devices: 1, edits })).toBe(
      'boolean',
    )
})
