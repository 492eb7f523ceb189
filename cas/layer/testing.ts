/** For tests only: archives as trees in memory, what is in a tree and in a directory in one form, and trees made on disk. */
import {
  chmodSync,
  closeSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeSync,
  ftruncateSync,
  constants,
} from 'node:fs'
import * as fc from 'fast-check'
import {
  AT_FDCWD,
  getXattr,
  listXattrs,
  makedev,
  mknodat,
  mountOverlay,
  setTimes,
  setXattr,
} from '../../linux/index.ts'
import { TarReader } from '../tar/index.ts'
import { capability, defaultAcl, type Described } from '../tar/testing.ts'
import { createApplier, type AppliedLayer } from './apply.ts'
import { LayerTree } from './tree.ts'

export interface Applied {
  readonly tree: LayerTree
  readonly layer: AppliedLayer
  /** By their numbers. */
  readonly contents: readonly Buffer[]
}

export function apply(archive: Buffer): Applied {
  const tree = new LayerTree()
  const contents: Buffer[] = []
  const applier = createApplier(tree)
  let inode: number | undefined
  const reader = new TarReader({
    entry: (entry) => {
      inode = applier.entry(entry)
    },
    data: (chunk, offset) => {
      if (inode === undefined) return
      tree.addPiece(inode, offset, chunk.length, contents.push(Buffer.from(chunk)) - 1)
    },
    end: () => {},
  })
  reader.feed(archive)
  reader.finish()
  return { tree, layer: applier.finish(), contents }
}

interface Shown {
  readonly path: string
  readonly type: string
  readonly mode: number
  readonly owner: string
  readonly mtimeNs: bigint
  /** Contents, target or device. */
  readonly says: string
  /** First of the inode's names, when there are several. */
  readonly first: string | undefined
  readonly xattrs: ReadonlyMap<string, Buffer>
  readonly isOpaque: boolean
  readonly holdsWhiteouts: boolean
}

function show(shown: Shown): string {
  const { path, type, mode, owner, mtimeNs, says, first, xattrs, isOpaque, holdsWhiteouts } = shown
  if (type === 'whiteout') return `${JSON.stringify(path)} whiteout`
  const attributes = [...xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1))
  const more = [
    ...(first === undefined || first === path ? [] : [`is ${JSON.stringify(first)}`]),
    ...attributes.map(([name, value]) => `${name}=${value.toString('hex')}`),
    ...(holdsWhiteouts ? ['with whiteouts'] : []),
    ...(isOpaque ? ['opaque'] : []),
  ]
  return [JSON.stringify(path), type, mode.toString(8), owner, `@${mtimeNs}`, says, ...more].join(' ')
}

/** A line for each name, the root first. */
export function describeLayer({ tree, contents }: Pick<Applied, 'tree' | 'contents'>): string[] {
  const lines: string[] = []
  const names = new Map<number, string[]>()
  const pending: [path: string, inode: number][] = [['', LayerTree.ROOT]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [path, inode] = next
    names.set(inode, [...(names.get(inode) ?? []), path])
    const type = tree.type(inode)
    const says: Readonly<Record<string, () => string>> = {
      file: () => JSON.stringify(contentsOf(tree, contents, inode).toString('latin1')),
      symlink: () => JSON.stringify(tree.target(inode)),
      char: () => tree.device(inode).join(':'),
      block: () => tree.device(inode).join(':'),
    }
    lines.push(
      show({
        path,
        type,
        mode: tree.mode(inode),
        owner: `${tree.uid(inode)}:${tree.gid(inode)}`,
        mtimeNs: mtimeOf(tree, inode),
        says: says[type]?.() ?? '',
        first: names.get(inode)?.[0],
        xattrs: tree.xattrs(inode),
        isOpaque: tree.isOpaque(inode),
        holdsWhiteouts: tree.holdsWhiteouts(inode),
      }),
    )
    if (type !== 'directory') continue
    for (const [name, child] of tree.children(inode).toReversed()) {
      pending.push([path === '' ? name : `${path}/${name}`, child])
    }
  }
  for (let inode = 0; inode < tree.inodes; inode++) {
    if (tree.links(inode) !== (names.get(inode)?.length ?? 0))
      lines.push(`inode ${inode} has ${tree.links(inode)} links`)
  }
  return lines
}

function mtimeOf(tree: LayerTree, inode: number): bigint {
  return BigInt(tree.mtimeSeconds(inode)) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds(inode))
}

function contentsOf(tree: LayerTree, contents: readonly Buffer[], inode: number): Buffer {
  const bytes = Buffer.alloc(tree.size(inode))
  for (const { offset, content } of tree.pieces(inode)) contents[content]?.copy(bytes, offset)
  return bytes
}

/** The same of a directory. `isMerged`: of an overlay, where inodes have no stable numbers. */
export function describeDirectory(root: string, { isMerged = false } = {}): string[] {
  const lines: string[] = []
  const firsts = new Map<bigint, string>()
  const pending = ['']
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const full = Buffer.from(path === '' ? root : `${root}/${path}`, 'latin1')
    const stats = lstatSync(full, { bigint: true })
    const { ino, mode, uid, gid, mtimeNs, rdev } = stats
    const type = typeOf(Number(mode & BigInt(constants.S_IFMT)), rdev)
    if (!isMerged && type !== 'directory' && !firsts.has(ino)) firsts.set(ino, path)
    const device = `${(rdev >> 8n) & 0xfffn}:${(rdev & 0xffn) | ((rdev >> 12n) & 0xfff00n)}`
    const says: Readonly<Record<string, () => string>> = {
      file: () => JSON.stringify(readFileSync(full, 'latin1')),
      symlink: () => JSON.stringify(readlinkSync(full, 'latin1')),
      char: () => device,
      block: () => device,
    }
    const xattrs = new Map(listXattrs(full).map((name) => [name, getXattr(full, name) ?? Buffer.alloc(0)]))
    const isOpaque = xattrs.delete('trusted.overlay.opaque')
    const holdsWhiteouts = xattrs.delete('trusted.overlay.origin')
    lines.push(
      show({
        path,
        type,
        mode: Number(mode & 0o7777n),
        owner: `${uid}:${gid}`,
        mtimeNs,
        says: says[type]?.() ?? '',
        first: firsts.get(ino),
        xattrs,
        isOpaque: isOpaque && !isMerged,
        holdsWhiteouts: holdsWhiteouts && !isMerged,
      }),
    )
    if (type !== 'directory') continue
    // The default order compares 16-bit units, which for byte strings is the order of bytes.
    // oxlint-disable-next-line unicorn/require-array-sort-compare
    const names = readdirSync(full, 'latin1').toSorted().toReversed()
    for (const name of names) pending.push(path === '' ? name : `${path}/${name}`)
  }
  return lines
}

function typeOf(format: number, rdev: bigint): string {
  const { S_IFREG, S_IFDIR, S_IFLNK, S_IFCHR, S_IFBLK, S_IFIFO } = constants
  if (format === S_IFCHR && rdev === 0n) return 'whiteout'
  const types = new Map([
    [S_IFREG, 'file'],
    [S_IFDIR, 'directory'],
    [S_IFLNK, 'symlink'],
    [S_IFCHR, 'char'],
    [S_IFBLK, 'block'],
    [S_IFIFO, 'fifo'],
  ])
  return types.get(format) ?? String(format)
}

/** The tree as a lower of overlayfs, in an empty directory. */
export function writeTree({ tree, contents }: Pick<Applied, 'tree' | 'contents'>, root: string): void {
  const firsts = new Map<number, Buffer>()
  const directories: [full: Buffer, inode: number][] = []
  const pending: [path: string, inode: number][] = [['', LayerTree.ROOT]]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [path, inode] = next
    const full = Buffer.from(path === '' ? root : `${root}/${path}`, 'latin1')
    const first = firsts.get(inode)
    if (first !== undefined) {
      linkSync(first, full)
      continue
    }
    firsts.set(inode, full)
    makeInode(tree, contents, inode, full)
    if (!tree.isDirectory(inode)) {
      setAttributes(tree, inode, full)
      continue
    }
    directories.push([full, inode])
    for (const [name, child] of tree.children(inode))
      pending.push([path === '' ? name : `${path}/${name}`, child])
  }
  // When all is inside: what is made takes a directory's default ACL, and changes its time.
  for (const [full, inode] of directories.toReversed()) setAttributes(tree, inode, full)
}

function makeInode(tree: LayerTree, contents: readonly Buffer[], inode: number, full: Buffer): void {
  const { S_IFCHR, S_IFBLK, S_IFIFO } = constants
  const type = tree.type(inode)
  switch (type) {
    case 'file': {
      const fd = openSync(full, 'wx')
      ftruncateSync(fd, tree.size(inode))
      for (const { offset, content } of tree.pieces(inode)) {
        const bytes = contents[content] ?? Buffer.alloc(0)
        writeSync(fd, bytes, 0, bytes.length, offset)
      }
      closeSync(fd)
      break
    }
    case 'directory':
      if (inode !== LayerTree.ROOT) mkdirSync(full)
      if (tree.isOpaque(inode)) setXattr(full, 'trusted.overlay.opaque', Buffer.from('y'))
      if (tree.holdsWhiteouts(inode)) setXattr(full, 'trusted.overlay.origin', Buffer.alloc(0))
      break
    case 'symlink':
      symlinkSync(Buffer.from(tree.target(inode), 'latin1'), full)
      break
    case 'whiteout':
    case 'char':
    case 'block':
      mknodat(AT_FDCWD, full, (type === 'block' ? S_IFBLK : S_IFCHR) | 0o600, makedev(...tree.device(inode)))
      break
    case 'fifo':
      mknodat(AT_FDCWD, full, S_IFIFO | 0o600)
      break
  }
}

function setAttributes(tree: LayerTree, inode: number, full: Buffer): void {
  lchownSync(full, tree.uid(inode), tree.gid(inode))
  for (const [name, value] of tree.xattrs(inode)) setXattr(full, name, value)
  if (tree.type(inode) !== 'symlink') chmodSync(full, tree.mode(inode))
  setTimes(AT_FDCWD, full, { mtime: mtimeOf(tree, inode) })
}

/** What the kernel shows of these directories, topmost first. */
export function describeOverlay(lowers: readonly string[], empty: string): string[] {
  // overlayfs without an upper wants two.
  const fds = [...lowers, empty].map((path) => openSync(path, constants.O_RDONLY | constants.O_DIRECTORY))
  const mount = mountOverlay({ lowers: fds })
  try {
    return describeDirectory(`/proc/self/fd/${mount}/.`, { isMerged: true })
  } finally {
    for (const fd of [mount, ...fds]) closeSync(fd)
  }
}

// Archives that a property is checked with

const NAMES = [
  'a',
  'b',
  'c',
  'a/b',
  'a/c',
  'b/a',
  'a/b/c',
  'b/a/c',
  'c/b/a',
  'a/a/a/a',
  'b/c/long name of a file',
]
const MARKS = [
  '.wh.a',
  '.wh.b',
  'a/.wh.b',
  'b/.wh.a',
  'a/b/.wh.c',
  'c/.wh.b',
  'a/.wh..wh..opq',
  'b/.wh..wh..opq',
  'a/b/.wh..wh..opq',
]
const HOSTILE = [
  '',
  '.wh..wh..opq',
  '.wh..wh.plnk',
  'a/.wh..wh.x',
  '.wh.',
  'b/.wh...',
  '.wh.a/b',
  'c/.wh.b/a',
  'a/../b',
  '../c',
  '/a//./b',
]
const TARGETS = [
  'a',
  'b',
  'c',
  'a/b',
  'b/a',
  '..',
  '../..',
  '/',
  '/a',
  './/b/',
  '../c/d',
  '.wh.x',
  'd/e',
  'a/../b',
  '/c/b/a',
]
const XATTRS: readonly (readonly [string, Buffer])[] = [
  ['user.a', Buffer.from('1')],
  ['user.b', Buffer.from('2')],
  ['user.', Buffer.from('3')],
  ['system.nothing', Buffer.from('4')],
  ['nothing', Buffer.from('5')],
  ['security.tbuild', Buffer.from('6')],
  ['security.capability', capability],
  ['system.posix_acl_access', defaultAcl],
  ['system.posix_acl_default', defaultAcl],
  ['system.posix_acl_access', defaultAcl.subarray(0, 12)],
  ['system.posix_acl_access', Buffer.from('0200000001000600ffffffff04000400ffffffff20000400ffffffff', 'hex')],
  [
    'system.posix_acl_default',
    Buffer.from('02000000010006000000000004000400000000002000040000000000', 'hex'),
  ],
  ['system.posix_acl_default', Buffer.from('02000000', 'hex')],
]

/** Entries that collide, and with `isHostile` some that no layer may hold. */
export function arbitraryEntries({ isHostile }: { readonly isHostile: boolean }): fc.Arbitrary<Described[]> {
  const name = fc.oneof(
    { arbitrary: fc.constantFrom(...NAMES), weight: 12 },
    { arbitrary: fc.constantFrom(...MARKS), weight: 4 },
    ...(isHostile ? [{ arbitrary: fc.constantFrom(...HOSTILE), weight: 1 }] : []),
  )
  const type = fc.constantFrom(
    'file',
    'file',
    'directory',
    'directory',
    'directory',
    'symlink',
    'hardlink',
    'fifo',
    'char',
  )
  const entry = fc
    .record({
      path: name,
      type,
      link: fc.oneof(fc.constantFrom(...TARGETS), fc.constantFrom(...NAMES)),
      contents: fc.constantFrom('', 'x', 'some contents'),
      mode: fc.constantFrom(0o644, 0o755, 0o4711, 0o1777, 0),
      uid: fc.nat(3),
      gid: fc.nat(3),
      mtimeNs: fc.constantFrom(0n, 1_700_000_000_123_456_789n, -1n),
      minor: isHostile ? fc.nat(3) : fc.constant(3),
      xattrs: fc.oneof(
        { arbitrary: fc.constant([]), weight: 3 },
        { arbitrary: fc.subarray([...XATTRS], { maxLength: 3 }), weight: 1 },
      ),
    })
    .map(({ link, contents, minor, xattrs, ...more }): Described => {
      const { type: kind } = more
      return {
        ...more,
        ...(kind === 'symlink' || kind === 'hardlink' ? { link } : {}),
        ...(kind === 'file' ? { contents } : {}),
        ...(kind === 'char' ? { major: minor === 0 ? 0 : 1, minor } : {}),
        xattrs: new Map(xattrs),
      }
    })
  return fc.array(entry, { minLength: 2, maxLength: 16, size: 'max' })
}
