/** A directory tree in memory, as a fault may leave it, and how it gets onto a disk. */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeSync,
  type BigIntStats,
} from 'node:fs'
import { AT_FDCWD, mknodat, setXattr } from '../../linux/index.ts'

export interface TreeNode {
  readonly kind: 'file' | 'directory' | 'symlink' | 'special'
  /** Two names of one file have the same. */
  readonly id: number
  /** `mode` of a special file with its type. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Seconds since 1970; undefined: whatever it is. */
  readonly mtime: number | undefined
  readonly target: string
  readonly rdev: number
  readonly xattrs: ReadonlyMap<string, Buffer>
  /** Of a file; to be read at once, it may be a view of what changes. */
  readonly content: Buffer | undefined
  /** Of contents and attributes: the same key, the same node. */
  readonly key: string
}

/** Paths as in log.ts; parents come before what is in them. */
export type Tree = ReadonlyMap<string, TreeNode>

/** Bytes of a path below `root`; `path` is Latin-1. */
export function pathBytes(root: string, path: string): Buffer {
  return path === '.'
    ? Buffer.from(root)
    : Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path, 'latin1')])
}

interface Present {
  readonly key: string
  readonly id: number
  readonly stamp: string
}

/**
 * A directory that becomes one tree after another. Only what differs is written: from one state to the next that is a file or two. What a
 * checker changed in between is seen by inode, times and size, and made anew.
 */
export class Disk {
  readonly #root: string
  #present = new Map<string, Present>()

  /** `root`: not there yet, or empty. */
  constructor(root: string) {
    this.#root = root
  }

  show(tree: Tree): void {
    const next = new Map<string, Present>()
    const kept = new Set<string>()
    this.#keep('.', tree, kept)
    const names = new Map<number, string>()
    const made: string[] = []
    for (const [path, node] of tree) {
      const present = this.#present.get(path)
      if (present !== undefined && kept.has(path)) {
        next.set(path, present)
        names.set(node.id, path)
        continue
      }
      const first = names.get(node.id)
      if (first !== undefined && node.kind !== 'directory') {
        linkSync(pathBytes(this.#root, first), pathBytes(this.#root, path))
      } else {
        make(pathBytes(this.#root, path), node)
      }
      names.set(node.id, path)
      made.push(path)
    }
    // Last, and from the innermost: what is made in a directory changes its times.
    for (const path of made.toReversed()) {
      const node = tree.get(path)
      if (node === undefined) continue
      const bytes = pathBytes(this.#root, path)
      if (node.mtime !== undefined) lutimesSync(bytes, node.mtime, node.mtime)
      next.set(path, { key: node.key, id: node.id, stamp: stampOf(lstatSync(bytes, { bigint: true })) })
    }
    this.#present = next
  }

  /** Takes away what is not as the tree has it; notes what is. */
  #keep(path: string, tree: Tree, kept: Set<string>): void {
    const bytes = pathBytes(this.#root, path)
    const stats = lstatSync(bytes, { bigint: true, throwIfNoEntry: false })
    if (stats === undefined) return
    const node = tree.get(path)
    const present = this.#present.get(path)
    const isSame =
      node !== undefined &&
      present !== undefined &&
      node.key === present.key &&
      node.id === present.id &&
      stampOf(stats) === present.stamp
    if (!isSame) {
      rmSync(bytes, { recursive: true, force: true })
      return
    }
    kept.add(path)
    if (!stats.isDirectory()) return
    for (const name of readdirSync(bytes, 'latin1'))
      this.#keep(path === '.' ? name : `${path}/${name}`, tree, kept)
  }
}

/** Of a directory its inode only: what is in it is looked at by itself. */
function stampOf(stats: BigIntStats): string {
  if (stats.isDirectory()) return `${stats.ino} ${stats.mode} ${stats.uid} ${stats.gid}`
  return `${stats.ino} ${stats.mode} ${stats.uid} ${stats.gid} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}`
}

function make(path: Buffer, node: TreeNode): void {
  switch (node.kind) {
    case 'directory':
      mkdirSync(path)
      break
    case 'symlink':
      symlinkSync(Buffer.from(node.target, 'latin1'), path)
      break
    case 'special':
      mknodat(AT_FDCWD, path, node.mode, BigInt(node.rdev))
      break
    case 'file':
      writeSparse(path, node.content ?? Buffer.alloc(0))
      break
  }
  if (node.uid !== process.getuid?.() || node.gid !== process.getgid?.()) lchownSync(path, node.uid, node.gid)
  if (node.kind !== 'symlink') chmodSync(path, node.mode & 0o7777)
  for (const [name, value] of node.xattrs) setXattr(path, name, value)
}

const ZEROS = Buffer.alloc(4096)

/** Blocks of zeros become holes: what was punched stays punched. */
function writeSparse(path: Buffer, content: Buffer): void {
  const fd = openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
  try {
    let from = 0
    const flush = (to: number): void => {
      for (let at = from; at < to;) at += writeSync(fd, content, at, to - at, at)
    }
    for (let at = 0; at + 4096 <= content.length; at += 4096) {
      if (content[at] !== 0 || content.compare(ZEROS, 0, 4096, at, at + 4096) !== 0) continue
      flush(at)
      from = at + 4096
    }
    flush(content.length)
    if (fstatSync(fd).size < content.length) ftruncateSync(fd, content.length)
  } finally {
    closeSync(fd)
  }
}
