/** For tests only: contents laid out in segment files, images of trees over them, and what a tree and a mount say, in one form. */
import {
  closeSync,
  constants,
  lstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeSync,
  type Dirent,
} from 'node:fs'
import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getXattr, listXattrs, makedev, mountErofs } from '../../linux/index.ts'
import { LayerTree, type NewInode } from '../layer/tree.ts'
import { writeErofs, type ErofsOptions } from './index.ts'

export const UUID = Buffer.from('00112233445566778899aabbccddeeff', 'hex')

export interface Scratch extends Disposable {
  readonly path: string
}

/** Not on tmpfs, which cannot back a mount. */
export function scratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), 'tbuild-erofs-'))
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) }
}

/** A tree, and the contents that its pieces name. */
export interface Built {
  readonly tree: LayerTree
  readonly contents: readonly Buffer[]
}

/** Makes trees by hand: attributes that are not given are these. */
export class TreeBuilder implements Built {
  readonly tree = new LayerTree()
  readonly contents: Buffer[] = []

  add(parent: number, name: string, inode: Partial<NewInode> & Pick<NewInode, 'type'>): number {
    const defaults = { mode: 0o644, uid: 0, gid: 0, mtimeNs: 0n, xattrs: new Map<string, Buffer>() }
    const number = this.tree.create({ ...defaults, ...inode })
    this.tree.link(parent, name, number)
    return number
  }

  directory(parent: number, name: string, inode: Partial<NewInode> = {}): number {
    return this.add(parent, name, { mode: 0o755, ...inode, type: 'directory' })
  }

  /** `pieces` at offsets, in order; by default a size up to the last one's end. */
  file(
    parent: number,
    name: string,
    pieces: readonly (readonly [offset: number, bytes: Buffer | string])[] = [],
    inode: Partial<NewInode> & { readonly size?: number } = {},
  ): number {
    const number = this.add(parent, name, { ...inode, type: 'file' })
    const parts = pieces.map(([offset, bytes]) => [offset, Buffer.from(bytes)] as const)
    const end = parts.reduce((_, [offset, content]) => offset + content.length, 0)
    this.tree.setSize(number, inode.size ?? end)
    for (const [offset, content] of parts)
      this.tree.addPiece(number, offset, content.length, this.contents.push(content) - 1)
    return number
  }
}

export interface Image extends Disposable {
  readonly path: string
  readonly bytes: number
  readonly segments: readonly string[]
  /** The mount's descriptor; the mount lives until this is disposed. */
  readonly mount: number
  /** A path to its root. */
  readonly root: string
}

/** Lays contents out in `devices` segments by turns, with other bytes between them, writes the image, and mounts it. */
export function mountTree(base: Scratch, { tree, contents }: Built, devices = 1): Image {
  const directory = mkdtempSync(join(base.path, 'image-'))
  const segments = Array.from({ length: devices }, (_, i) => join(directory, `segment-${i + 1}`))
  const fds = segments.map((path) => openSync(path, 'w+'))
  const blocks = segments.map((_, i) => i)
  const places = contents.map((content, i) => {
    const device = i % devices
    const block = blocks[device] ?? 0
    const padded = Buffer.alloc(Math.ceil(content.length / 512) * 512, 0xee)
    content.copy(padded)
    writeSync(fds[device] ?? -1, padded, 0, padded.length, block * 512)
    blocks[device] = block + padded.length / 512 + 1
    return { device: device + 1, block }
  })
  const path = join(directory, 'image')
  const image = openSync(path, 'w+')
  const bytes = writeImage(image, tree, {
    devices: blocks.map((count) => ({ blocks: count })),
    locate: (content) => places[content] ?? { device: 0, block: 0 },
  })
  const mount = mountErofs(image, fds)
  for (const fd of [image, ...fds]) closeSync(fd)
  return { path, bytes, segments, mount, root: rootOf(mount), [Symbol.dispose]: () => closeSync(mount) }
}

export function rootOf(mount: number): string {
  return `/proc/self/fd/${mount}/.`
}

/** Into a file. Each part is overwritten afterwards, as the writer may do. */
export function writeImage(
  fd: number,
  tree: LayerTree,
  options: Pick<ErofsOptions, 'devices' | 'locate'>,
): number {
  let position = 0
  const sink = (chunk: Buffer): void => {
    writeSync(fd, chunk, 0, chunk.length, position)
    position += chunk.length
    chunk.fill(0xdd)
  }
  const length = writeErofs(tree, { uuid: UUID, sink, ...options })
  if (length !== position) throw new Error(`${position} bytes came, ${length} were said`)
  return length
}

/** In memory. */
export function imageBytes(tree: LayerTree, options: Partial<ErofsOptions> = {}): Buffer {
  const parts: Buffer[] = []
  const sink = (chunk: Buffer): void => void parts.push(Buffer.from(chunk))
  writeErofs(tree, { uuid: UUID, devices: [], locate: () => ({ device: 0, block: 0 }), sink, ...options })
  return Buffer.concat(parts)
}

const FORMATS: Readonly<Record<string, number>> = {
  file: constants.S_IFREG,
  directory: constants.S_IFDIR,
  symlink: constants.S_IFLNK,
  char: constants.S_IFCHR,
  whiteout: constants.S_IFCHR,
  block: constants.S_IFBLK,
  fifo: constants.S_IFIFO,
}

/** What stat(2), listxattr(2) and reading are to say of each name, a line each. */
export function describeTree({ tree, contents }: Built): string[] {
  const lines: string[] = []
  const firsts = new Map<number, string>()
  const visit = (path: string, inode: number): void => {
    const type = tree.type(inode)
    const children = tree.isDirectory(inode) ? tree.children(inode) : []
    const subdirectories = children.filter(([, child]) => tree.isDirectory(child)).length
    if (!firsts.has(inode)) firsts.set(inode, path)
    const xattrs = new Map(tree.xattrs(inode))
    if (tree.isOpaque(inode) && inode !== LayerTree.ROOT)
      xattrs.set('trusted.overlay.opaque', Buffer.from('y'))
    if (tree.holdsWhiteouts(inode) && inode !== LayerTree.ROOT)
      xattrs.set('trusted.overlay.origin', Buffer.alloc(0))
    lines.push(
      line(path, {
        mode: (FORMATS[type] ?? 0) | tree.mode(inode),
        owner: [tree.uid(inode), tree.gid(inode)],
        time: String(
          BigInt(tree.mtimeSeconds(inode)) * 1_000_000_000n + BigInt(tree.mtimeNanoseconds(inode)),
        ),
        links: tree.isDirectory(inode) ? 2 + subdirectories : tree.links(inode),
        first: firsts.get(inode),
        device: String(makedev(...tree.device(inode))),
        size: type === 'file' ? tree.size(inode) : type === 'symlink' ? tree.target(inode).length : 0,
        target: tree.target(inode),
        contents: type === 'file' ? digest(contentsOf(tree, contents, inode)) : '',
        xattrs: hex(xattrs),
      }),
    )
    for (const [name, child] of children) visit(`${path}/${name}`, child)
  }
  visit('', LayerTree.ROOT)
  return lines
}

/** The same of a directory. */
export function describeMount(root: string): string[] {
  const lines: string[] = []
  const firsts = new Map<bigint, string>()
  const visit = (path: string, entry: Dirent | undefined): void => {
    const full = Buffer.from(`${root}${path}`, 'latin1')
    const stats = lstatSync(full, { bigint: true })
    if (!firsts.has(stats.ino)) firsts.set(stats.ino, path)
    const [isFile, isDirectory] = [stats.isFile(), stats.isDirectory()]
    const xattrs = new Map(listXattrs(full).map((name) => [name, getXattr(full, name) ?? Buffer.alloc(0)]))
    lines.push(
      line(path, {
        mode: Number(stats.mode),
        owner: [Number(stats.uid), Number(stats.gid)],
        time: String(stats.mtimeNs),
        links: Number(stats.nlink),
        first: firsts.get(stats.ino),
        device: String(stats.rdev),
        size: isDirectory ? 0 : Number(stats.size),
        target: stats.isSymbolicLink() ? readlinkSync(full, 'latin1') : '',
        contents: isFile ? digest(readFileSync(full)) : '',
        xattrs: hex(xattrs),
      }),
    )
    if (entry !== undefined && typeOf(entry) !== typeOf(stats))
      lines.push(`${path} is listed as another type`)
    if (!isDirectory) return
    const entries = readdirSync(full, { encoding: 'latin1', withFileTypes: true })
    for (const child of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1)))
      visit(`${path}/${child.name}`, child)
  }
  visit('', undefined)
  return lines
}

function line(path: string, said: Readonly<Record<string, unknown>>): string {
  return `${JSON.stringify(path)} ${JSON.stringify(said)}`
}

type Typed = Pick<
  Dirent,
  'isFile' | 'isDirectory' | 'isSymbolicLink' | 'isCharacterDevice' | 'isBlockDevice' | 'isFIFO'
>

function typeOf(entry: Typed): string {
  return [
    entry.isFile(),
    entry.isDirectory(),
    entry.isSymbolicLink(),
    entry.isCharacterDevice(),
    entry.isBlockDevice(),
    entry.isFIFO(),
  ].join()
}

function hex(xattrs: ReadonlyMap<string, Buffer>): [name: string, value: string][] {
  const said = [...xattrs].map(([name, value]): [string, string] => [
    name,
    value.length > 100 ? digest(value) : value.toString('hex'),
  ])
  return said.toSorted(([a], [b]) => (a < b ? -1 : 1))
}

function contentsOf(tree: LayerTree, contents: readonly Buffer[], inode: number): Buffer {
  const bytes = Buffer.alloc(tree.size(inode))
  for (const { offset, content } of tree.pieces(inode)) contents[content]?.copy(bytes, offset)
  return bytes
}

function digest(bytes: Buffer): string {
  return `${bytes.length}:${createHash('sha256').update(bytes).digest('hex')}`
}
