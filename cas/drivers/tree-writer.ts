/**
 * A layer's tree as a directory. In overlayfs form, with files that have no data of their own: empty inodes of the right size, with attributes that name each one's
 * data in a data-only lower (Documentation/filesystems/overlayfs.rst, "Data-only lower layers"); what is one content there is never written again. Or several
 * layers as one directory with all data, which needs no overlayfs.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  openSync,
  writeSync,
} from 'node:fs'
import {
  inInitialUserNamespace,
  isErrno,
  makedev,
  mkdirat,
  mknodat,
  overlayPrefix,
  removeXattr,
  setTimes,
  setXattr,
  symlinkat,
} from '../../linux/index.ts'
import type { ReadLayer } from '../layer/read.ts'
import { LayerTree } from '../layer/tree.ts'
import { readAttributes } from '../tar/attributes.ts'
import { inDirectory, pathOf } from '../tar/names.ts'
import { listDirectory, lstatAt, openDirectory, removeTree } from '../tar/tree.ts'

/** By the tree's numbers of contents. */
export interface TreeData {
  /** Path of a content's file in the data-only lower; absolute there. Without it all data is written. */
  path?(content: number): string
  read(content: number, offset: number, into: Buffer): void
}

const TURN_MS = 20

/**
 * An ordinary user's overlay shows data of the bottommost layer's files only. So there each layer has an overlay of its own, of its `contents`, and roots are made of
 * these ("Nesting overlayfs mounts": what is for the outer one has overlayfs's prefix twice). `deletions` are what the inner one would keep for itself: a directory of
 * nothing else, to be put above it. `all` is both in one. `whole`: no layer but all of a root, with all data and without marks.
 */
export type TreePart = 'all' | 'contents' | 'deletions' | 'whole'

/** `root` is open on an empty directory. The event loop has a turn every 20 ms. */
export function writeTree(root: number, tree: LayerTree, data: TreeData, part: TreePart): Promise<void> {
  return write(new TreeWriter(root, tree, data, part, undefined))
}

/** A layer, in a whole tree of those below it, as overlayfs would show them. What it leaves when it fails is of no use. */
export function applyLayer(
  root: number,
  { tree, applied }: ReadLayer,
  read: TreeData['read'],
): Promise<void> {
  if (applied.opaqueRoot) for (const name of listDirectory(root)) removeTree(root, root, name)
  const kept = dropXattrs(`/proc/self/fd/${root}/.`)
  const over = { keptOfRoot: applied.hasRoot ? undefined : kept }
  return write(new TreeWriter(root, tree, { read }, 'whole', over))
}

async function write(writer: TreeWriter): Promise<void> {
  let last = performance.now()
  while (writer.step()) {
    if (performance.now() - last < TURN_MS) continue
    await new Promise(setImmediate)
    last = performance.now()
  }
  writer.finish()
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, S_IFCHR, S_IFBLK, S_IFIFO } = constants
const PART = 1024 * 1024
const BILLION = 1_000_000_000n
const none = Buffer.alloc(0)
/** ext4 has one block for all attributes of an inode: where there is hardly room for ours, the data is written. */
const MOST_XATTR_BYTES = 2048

const CAPABILITY = 'security.capability'

/** In a tree that is there. */
interface Over {
  /** The root's attributes, where the layer says nothing of it. */
  readonly keptOfRoot: ReadonlyMap<string, Buffer> | undefined
}

class TreeWriter {
  readonly #root: number
  readonly #tree: LayerTree
  readonly #data: TreeData
  readonly #over: Over | undefined
  readonly #part: TreePart
  /** With `deletions`: the directories that are made. */
  readonly #deleting: ReadonlySet<number>
  readonly #prefix = overlayPrefix()
  /** Their attributes are set when all is inside: what is made takes a directory's default ACL, and changes its time. */
  readonly #directories: [path: string, inode: number][] = []
  readonly #pending: [path: string, inode: number][] = [['', LayerTree.ROOT]]
  /** The first name of an inode that has several. */
  readonly #firsts = new Map<number, { readonly directory: string; readonly name: string }>()
  #buffer: Buffer | undefined
  #fd = -1
  #path = ''
  #rest: [name: string, inode: number][] = []

  constructor(root: number, tree: LayerTree, data: TreeData, part: TreePart, over: Over | undefined) {
    this.#root = root
    this.#tree = tree
    this.#data = data
    this.#over = over
    this.#part = part
    this.#deleting = part === 'deletions' ? deletingDirectories(tree) : new Set()
  }

  /** Makes one name; false when there is none left. */
  step(): boolean {
    try {
      const next = this.#rest.pop()
      if (next !== undefined) {
        this.#make(...next)
        return true
      }
      this.#close()
      const directory = this.#pending.pop()
      if (directory === undefined) return false
      const [path, inode] = directory
      this.#directories.push([path, inode])
      this.#fd = openDirectory(this.#root, path)
      this.#path = path
      this.#rest = this.#tree.children(inode).toReversed()
      return true
    } catch (error) {
      this.#close()
      throw error
    }
  }

  finish(): void {
    for (const [path, inode] of this.#directories.toReversed()) {
      const fd = openDirectory(this.#root, path)
      try {
        if (path === '' && this.#over?.keptOfRoot !== undefined) {
          for (const [name, value] of this.#over.keptOfRoot) setXattr(`/proc/self/fd/${fd}/.`, name, value)
          continue
        }
        fchownSync(fd, this.#tree.uid(inode), this.#tree.gid(inode))
        const self = `/proc/self/fd/${fd}/.`
        if (this.#part !== 'whole') this.#mark(inode, self)
        this.#setXattrs(inode, self)
        fchmodSync(fd, this.#tree.mode(inode))
        setTimes(fd, '.', { mtime: this.#mtime(inode) })
      } finally {
        closeSync(fd)
      }
    }
  }

  #mark(inode: number, self: string): void {
    const part = this.#part
    const outer = part === 'contents' ? `${this.#prefix}overlay.` : this.#prefix
    if (this.#tree.isOpaque(inode) && part !== 'deletions') setXattr(self, `${outer}opaque`, Buffer.from('y'))
    // See cas/erofs/xattrs.ts.
    if (this.#tree.holdsWhiteouts(inode) && part !== 'contents') setXattr(self, `${outer}origin`, none)
  }

  #close(): void {
    if (this.#fd >= 0) closeSync(this.#fd)
    this.#fd = -1
  }

  #make(name: string, inode: number): void {
    const tree = this.#tree
    const type = tree.type(inode)
    if (this.#over !== undefined && this.#isThere(name, inode)) return
    if (type === 'directory') {
      if (this.#part === 'deletions' && !this.#deleting.has(inode)) return
      mkdirat(this.#fd, pathOf(name), 0o700)
      this.#pending.push([this.#pathOf(name), inode])
      return
    }
    if (type === 'whiteout') {
      if (this.#part !== 'contents' && this.#part !== 'whole')
        mknodat(this.#fd, pathOf(name), S_IFCHR | 0o600)
      return
    }
    if (this.#part === 'deletions') return
    // Nobody but root of the initial namespace can make one.
    if ((type === 'char' || type === 'block') && !inInitialUserNamespace()) return
    if (tree.links(inode) > 1) {
      const first = this.#firsts.get(inode)
      if (first !== undefined) {
        this.#link(first, name)
        return
      }
      this.#firsts.set(inode, { directory: this.#path, name })
    }
    if (type === 'file') {
      this.#makeFile(name, inode)
      return
    }
    const mode = { char: S_IFCHR, block: S_IFBLK, fifo: S_IFIFO }
    if (type === 'symlink') symlinkat(pathOf(tree.target(inode)), this.#fd, pathOf(name))
    else mknodat(this.#fd, pathOf(name), mode[type] | 0o600, makedev(...tree.device(inode)))
    const path = inDirectory(this.#fd, name)
    lchownSync(path, tree.uid(inode), tree.gid(inode))
    this.#setXattrs(inode, path)
    if (type !== 'symlink') chmodSync(path, tree.mode(inode))
    setTimes(this.#fd, pathOf(name), { mtime: this.#mtime(inode) })
  }

  #pathOf(name: string): string {
    return this.#path === '' ? name : `${this.#path}/${name}`
  }

  /** A directory that is to be there, and is. Anything else of that name goes. */
  #isThere(name: string, inode: number): boolean {
    const there = lstatAt(this.#fd, name)
    if (there === undefined) return false
    if (!there.isDirectory() || !this.#tree.isDirectory(inode) || this.#tree.isOpaque(inode)) {
      removeTree(this.#root, this.#fd, this.#pathOf(name))
      return false
    }
    dropXattrs(inDirectory(this.#fd, name))
    this.#pending.push([this.#pathOf(name), inode])
    return true
  }

  #link(first: { readonly directory: string; readonly name: string }, name: string): void {
    const fd = openDirectory(this.#root, first.directory)
    try {
      linkSync(inDirectory(fd, first.name), inDirectory(this.#fd, name))
    } finally {
      closeSync(fd)
    }
  }

  #makeFile(name: string, inode: number): void {
    const tree = this.#tree
    const path = inDirectory(this.#fd, name)
    const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    try {
      const size = tree.size(inode)
      const content = this.#wholeContent(inode)
      if (content === undefined) this.#writeData(fd, inode)
      if (size > 0) ftruncateSync(fd, size)
      // Owner before attributes and mode: chown(2) clears security.capability, setuid and setgid. Root's files, too: a setgid directory gave them its group.
      fchownSync(fd, tree.uid(inode), tree.gid(inode))
      if (content !== undefined && this.#data.path !== undefined) {
        setXattr(path, `${this.#prefix}metacopy`, none)
        setXattr(path, `${this.#prefix}redirect`, Buffer.from(this.#data.path(content)))
      }
      this.#setXattrs(inode, path)
      fchmodSync(fd, tree.mode(inode))
      setTimes(this.#fd, pathOf(name), { mtime: this.#mtime(inode) })
    } finally {
      closeSync(fd)
    }
  }

  /** The file is this content, and can be left empty. */
  #wholeContent(inode: number): number | undefined {
    if (this.#data.path === undefined) return undefined
    const [piece, ...more] = this.#tree.pieces(inode)
    if (piece === undefined || more.length > 0) return undefined
    if (piece.offset !== 0 || piece.length !== this.#tree.size(inode)) return undefined
    let bytes = 0
    for (const [name, value] of this.#tree.xattrs(inode)) bytes += name.length + value.length
    return bytes > MOST_XATTR_BYTES ? undefined : piece.content
  }

  #writeData(fd: number, inode: number): void {
    for (const { offset, length, content } of this.#tree.pieces(inode)) {
      const buffer = (this.#buffer ??= Buffer.allocUnsafe(PART))
      for (let at = 0; at < length; at += PART) {
        const part = buffer.subarray(0, Math.min(PART, length - at))
        this.#data.read(content, at, part)
        for (let done = 0; done < part.length;)
          done += writeSync(fd, part, done, part.length - done, offset + at + done)
      }
    }
  }

  /**
   * Attributes that this file system does not take are left out, as when an archive is unpacked. Not file capabilities of a whole root that this process may not set:
   * with another one's rights they would be in what a COPY takes from it.
   */
  #setXattrs(inode: number, path: string | Buffer): void {
    for (const [name, value] of this.#tree.xattrs(inode)) {
      try {
        setXattr(path, name, value)
      } catch (error) {
        const isDenied = this.#part === 'whole' && name === CAPABILITY && isErrno(error, 'EPERM')
        if (isDenied || !isErrno(error, 'EOPNOTSUPP', 'EPERM', 'EINVAL')) throw error
      }
    }
  }

  #mtime(inode: number): bigint {
    return BigInt(this.#tree.mtimeSeconds(inode)) * BILLION + BigInt(this.#tree.mtimeNanoseconds(inode))
  }
}

/** Those in which something is deleted, and those on the way to them; none where nothing is. */
export function deletingDirectories(tree: LayerTree): ReadonlySet<number> {
  const found = new Set<number>()
  const parents = new Map<number, number>()
  const pending: number[] = [LayerTree.ROOT]
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    if (tree.holdsWhiteouts(directory)) {
      for (let at: number | undefined = directory; at !== undefined && !found.has(at); at = parents.get(at))
        found.add(at)
    }
    for (const [, inode] of tree.children(directory)) {
      if (tree.type(inode) !== 'directory') continue
      parents.set(inode, directory)
      pending.push(inode)
    }
  }
  return found
}

/** The layer's ones of a directory: it gets others, and what is made in it takes no default ACL. Returns them. */
function dropXattrs(path: string | Buffer): ReadonlyMap<string, Buffer> {
  const { layer } = readAttributes(path)
  for (const name of layer.keys()) removeXattr(path, name)
  return layer
}
