/**
 * A file system in memory that knows what of it is durable. It follows a recording; at any point it tells the tree as a process would see it, which is what a
 * kill -9 leaves (the page cache survives), and keeps what is needed to tell what a power cut may leave (power-cut.ts):
 * of each file the contents when it was last synced and what was done to it since, and of each directory the same of its names.
 *
 * What a sync promises here is the least that any file system does: of a file its data and size, not its name; of a directory its names. A rename is
 * atomic. Calls outside the store are not recorded, so the store's own directory counts as durable once it is made. Attributes are taken as they are.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { getXattr, listXattrs } from '../../linux/index.ts'
import type { Operation } from './log.ts'
import type { Recording } from './record.ts'
import { pathBytes, type Tree, type TreeNode } from './tree.ts'

/** `at`: the operation's number. */
export type DataChange = { readonly at: number } & (
  | { readonly name: 'write'; readonly offset: number; readonly data: Buffer }
  | { readonly name: 'punch'; readonly offset: number; readonly length: number }
  | { readonly name: 'truncate'; readonly size: number }
)

export interface NameChange {
  readonly at: number
  readonly names: readonly (readonly [string, Inode | undefined])[]
  /** The other directory of a rename: both change, or none. */
  readonly partner?: Inode
}

/** A file's bytes, growing. */
export class Bytes {
  #buffer: Buffer
  #size: number

  constructor(initial: Buffer) {
    this.#buffer = initial
    this.#size = initial.length
  }

  /** A view until the next change. */
  view(): Buffer {
    return this.#buffer.subarray(0, this.#size)
  }

  get size(): number {
    return this.#size
  }

  apply(change: DataChange): void {
    switch (change.name) {
      case 'write':
        this.#reserve(change.offset + change.data.length)
        this.#size = Math.max(this.#size, change.offset + change.data.length)
        change.data.copy(this.#buffer, change.offset)
        break
      case 'punch':
        this.#buffer.fill(
          0,
          Math.min(change.offset, this.#size),
          Math.min(change.offset + change.length, this.#size),
        )
        break
      case 'truncate':
        this.#reserve(change.size)
        // Beyond the end there are always zeros.
        if (change.size < this.#size) this.#buffer.fill(0, change.size, this.#size)
        this.#size = change.size
        break
    }
  }

  #reserve(size: number): void {
    if (size <= this.#buffer.length) return
    const larger = Buffer.alloc(Math.max(size, this.#buffer.length * 2, 4096))
    this.#buffer.copy(larger)
    this.#buffer = larger
  }
}

export interface Inode {
  readonly id: number
  readonly kind: TreeNode['kind']
  mode: number
  uid: number
  gid: number
  mtime: number | undefined
  readonly target: string
  readonly rdev: number
  readonly xattrs: Map<string, Buffer>
  /** Of attributes; of contents it is how many changes there were. */
  version: number
  /** Numbers of the operations that a sync of it makes an ordered journal write, as that journal's order has them. */
  readonly journal: number[]
  // Of files
  bytes: Bytes
  durableBytes: Bytes
  pendingData: DataChange[]
  changes: number
  // Of directories
  names: Map<string, Inode>
  durableNames: Map<string, Inode>
  pendingNames: NameChange[]
}

export class Model {
  /** Holds one name, `.`: the store's directory. */
  readonly top: Inode
  /** All operations on names before this one are in an ordered journal for good. */
  forced = 0
  readonly #byNumber = new Map<number, Inode>()
  #count = 0

  constructor({ directory, inodes }: Pick<Recording, 'directory' | 'inodes'>) {
    this.top = this.#inode('directory')
    if ('.' in inodes) this.#load(join(directory, 'base'), '.', inodes)
  }

  /** `at`: the operation's number. */
  apply(operation: Operation, at: number): void {
    switch (operation.name) {
      case 'create':
      case 'tmpfile':
      case 'mkdir':
      case 'symlink':
      case 'mknod': {
        const inode = this.#make(operation)
        this.#byNumber.set(operation.ino, inode)
        inode.mtime = operation.name === 'mkdir' ? undefined : operation.time
        if (operation.name !== 'tmpfile') this.#setNames(at, [[operation.path, inode]])
        break
      }
      case 'link': {
        const inode = this.#byNumber.get(operation.ino)
        if (inode !== undefined) this.#setNames(at, [[operation.path, inode]])
        break
      }
      case 'unlink':
      case 'rmdir':
        this.#setNames(at, [[operation.path, undefined]])
        break
      case 'rename': {
        const inode = this.find(operation.path)
        const changes = [[operation.path, undefined] as const, [operation.to, inode] as const]
        // Two names of one file: rename(2) does nothing.
        if (inode !== undefined && this.find(operation.to) !== inode) this.#setNames(at, changes)
        break
      }
      case 'exchange': {
        const [from, to] = [this.find(operation.path), this.find(operation.to)]
        this.#setNames(at, [
          [operation.path, to],
          [operation.to, from],
        ])
        break
      }
      case 'write':
      case 'punch':
      case 'truncate': {
        const inode = this.fileOf(operation) ?? this.#appear(operation, at)
        this.#change(inode, changeOf(operation, at), operation.time)
        break
      }
      case 'attr':
      case 'xattr':
      case 'rmxattr':
        this.#setAttributes(operation)
        break
      case 'fsync':
      case 'fdatasync':
        this.#sync(this.fileOf(operation), operation.entry)
        break
      case 'sync':
        for (const inode of this.#reachable()) this.#sync(inode, operation.entry)
        this.forced = Math.max(this.forced, operation.entry)
        break
      case 'marks':
      case 'fault':
        break
    }
  }

  /** As every process sees it. Contents are views, until the next `apply`. */
  tree(): Tree {
    return treeOf(
      this.top.names,
      (inode) => inode.names,
      (inode) => ({ content: inode.bytes.view(), key: `${inode.changes}` }),
    )
  }

  find(path: string): Inode | undefined {
    let inode = this.top.names.get('.')
    if (path === '.') return inode
    for (const name of path.split('/')) inode = inode?.names.get(name)
    return inode
  }

  /** The file that an operation is on. */
  fileOf({ ino, path }: { readonly ino: number; readonly path: string }): Inode | undefined {
    return this.#byNumber.get(ino) ?? this.find(path)
  }

  #inode(kind: Inode['kind'], fields: Partial<Inode> = {}): Inode {
    return {
      id: this.#count++,
      kind,
      mode: 0o755,
      uid: 0,
      gid: 0,
      mtime: undefined,
      target: '',
      rdev: 0,
      xattrs: new Map(),
      version: 0,
      journal: [],
      bytes: new Bytes(Buffer.alloc(0)),
      durableBytes: new Bytes(Buffer.alloc(0)),
      pendingData: [],
      changes: 0,
      names: new Map(),
      durableNames: new Map(),
      pendingNames: [],
      ...fields,
    }
  }

  #make(
    operation: Operation & { readonly name: 'create' | 'tmpfile' | 'mkdir' | 'symlink' | 'mknod' },
  ): Inode {
    const { mode, uid, gid } = operation
    if (operation.name === 'mkdir') return this.#inode('directory', { mode, uid, gid })
    if (operation.name === 'symlink')
      return this.#inode('symlink', { mode, uid, gid, target: operation.target })
    if (operation.name === 'mknod') return this.#inode('special', { mode, uid, gid, rdev: operation.rdev })
    return this.#inode('file', { mode, uid, gid })
  }

  #setNames(at: number, changes: readonly (readonly [string, Inode | undefined])[]): void {
    const byDirectory = new Map<Inode, [string, Inode | undefined][]>()
    for (const [path, inode] of changes) {
      const [directory, name] = this.#parentOf(path, at)
      if (inode === undefined) directory.names.delete(name)
      else directory.names.set(name, inode)
      inode?.journal.push(at)
      byDirectory.set(directory, [...(byDirectory.get(directory) ?? []), [name, inode]])
    }
    const directories = [...byDirectory.keys()]
    for (const [directory, names] of byDirectory) {
      const partner = directories.find((other) => other !== directory)
      directory.pendingNames.push({ at, names, ...(partner && { partner }) })
      directory.journal.push(at)
    }
    if (directories.includes(this.top)) persistNames(this.top, Number.POSITIVE_INFINITY)
  }

  /** An overlay makes the directories above what is written without a call of anyone's. */
  #parentOf(path: string, at: number): readonly [Inode, string] {
    if (path === '.') return [this.top, '.']
    const slash = path.lastIndexOf('/')
    const parent = slash < 0 ? '.' : path.slice(0, slash)
    let directory = this.find(parent)
    if (directory === undefined) {
      directory = this.#inode('directory')
      this.#setNames(at, [[parent, directory]])
    }
    return [directory, path.slice(slash + 1)]
  }

  /** An overlay copies a file up before it is first changed; what was in it is not known. */
  #appear({ ino, path }: { readonly ino: number; readonly path: string }, at: number): Inode {
    const inode = this.#inode('file', { mode: 0o600 })
    this.#byNumber.set(ino, inode)
    this.#setNames(at, [[path, inode]])
    return inode
  }

  #change(inode: Inode, change: DataChange, time: number): void {
    inode.bytes.apply(change)
    inode.pendingData.push(change)
    inode.changes++
    inode.mtime = time
    if (change.name === 'truncate') inode.journal.push(change.at)
  }

  #setAttributes(operation: Operation & { readonly name: 'attr' | 'xattr' | 'rmxattr' }): void {
    const inode = this.fileOf(operation)
    if (inode === undefined) return
    inode.version++
    if (operation.name === 'xattr') inode.xattrs.set(operation.attribute, operation.value)
    else if (operation.name === 'rmxattr') inode.xattrs.delete(operation.attribute)
    else {
      inode.mode = inode.kind === 'special' ? (inode.mode & ~0o7777) | operation.mode : operation.mode
      inode.uid = operation.uid
      inode.gid = operation.gid
      inode.mtime = operation.mtime
    }
  }

  #sync(inode: Inode | undefined, entry: number): void {
    if (inode === undefined) return
    const rest = inode.pendingData.filter(({ at }) => at >= entry)
    for (const change of inode.pendingData) if (change.at < entry) inode.durableBytes.apply(change)
    inode.pendingData = rest
    persistNames(inode, entry)
    const last = inode.journal.findLast((at) => at < entry)
    if (last !== undefined) this.forced = Math.max(this.forced, last + 1)
  }

  #reachable(): Inode[] {
    const found = new Set<Inode>([this.top])
    for (const inode of found) for (const child of inode.names.values()) found.add(child)
    return [...found]
  }

  #load(base: string, path: string, numbers: Recording['inodes']): void {
    const bytes = pathBytes(base, path)
    const stats = lstatSync(bytes)
    const { mode, uid, gid, rdev, mtimeMs } = stats
    const number = numbers[path] ?? -1
    let inode = this.#byNumber.get(number)
    if (inode === undefined) {
      const common = { uid, gid, mtime: mtimeMs / 1000, mode: mode & 0o7777 }
      if (stats.isDirectory()) inode = this.#inode('directory', { ...common, mtime: undefined })
      else if (stats.isSymbolicLink())
        inode = this.#inode('symlink', { ...common, target: readlinkSync(bytes, 'latin1') })
      else if (stats.isFile()) {
        const content = readFileSync(bytes)
        inode = this.#inode('file', {
          ...common,
          bytes: new Bytes(content),
          durableBytes: new Bytes(Buffer.from(content)),
        })
      } else inode = this.#inode('special', { ...common, mode, rdev })
      for (const name of listXattrs(bytes)) {
        const value = getXattr(bytes, name)
        if (value !== undefined) inode.xattrs.set(name, value)
      }
      this.#byNumber.set(number, inode)
    }
    const [directory, name] = this.#parentOf(path, -1)
    directory.names.set(name, inode)
    directory.durableNames.set(name, inode)
    if (!stats.isDirectory()) return
    for (const child of readdirSync(bytes, 'latin1')) {
      // Another process's memory: see tracer.c.
      if (!child.endsWith('-shm')) this.#load(base, path === '.' ? child : `${path}/${child}`, numbers)
    }
  }
}

/** Also in the other directories of its renames, with all that went before them there. */
function persistNames(directory: Inode, before: number): void {
  const done = directory.pendingNames.filter(({ at }) => at < before)
  if (done.length === 0) return
  directory.pendingNames = directory.pendingNames.filter(({ at }) => at >= before)
  applyNames(directory.durableNames, done)
  for (const { at, partner } of done) if (partner !== undefined) persistNames(partner, at + 1)
}

export function applyNames(names: Map<string, Inode>, changes: readonly NameChange[]): void {
  for (const change of changes) {
    for (const [name, inode] of change.names) {
      if (inode === undefined) names.delete(name)
      else names.set(name, inode)
    }
  }
}

/** `key` of the contents. */
export function treeOf(
  top: ReadonlyMap<string, Inode>,
  namesOf: (directory: Inode) => ReadonlyMap<string, Inode>,
  contentOf: (file: Inode) => { readonly content: Buffer; readonly key: string },
): Tree {
  const tree = new Map<string, TreeNode>()
  const add = (path: string, inode: Inode): void => {
    const { id, kind, mode, uid, gid, mtime, target, rdev, xattrs, version } = inode
    const { content, key } = kind === 'file' ? contentOf(inode) : { content: undefined, key: '' }
    tree.set(path, {
      id,
      kind,
      mode,
      uid,
      gid,
      mtime,
      target,
      rdev,
      xattrs,
      content,
      key: `${id} ${version} ${key}`,
    })
    if (kind !== 'directory') return
    for (const [name, child] of namesOf(inode)) add(path === '.' ? name : `${path}/${name}`, child)
  }
  const store = top.get('.')
  if (store !== undefined) add('.', store)
  return tree
}

function changeOf(
  operation: Operation & { readonly name: 'write' | 'punch' | 'truncate' },
  at: number,
): DataChange {
  if (operation.name === 'write') return { at, name: 'write', offset: operation.offset, data: operation.data }
  if (operation.name === 'punch')
    return { at, name: 'punch', offset: operation.offset, length: operation.length }
  return { at, name: 'truncate', size: operation.size }
}
