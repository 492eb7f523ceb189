/**
 * Finds, and where need be makes, the directory that an archive's entry goes into, as cas/tar/parents.ts does it on disk: symlinks of the same archive
 * are followed as a process chrooted there would follow them. No recursion: a path may have 2,000 components, and a symlink on it as many.
 */
import { noXattrs } from '../tar/entry.ts'
import {
  MAX_SYMLINKS,
  notDirectoryError,
  refuseReservedDirectory,
  refuseTooLong,
  tooManySymlinksError,
} from '../tar/rules.ts'
import { LayerTree, type NewInode } from './tree.ts'

/** Where a symlink led, and how many were followed from it on, itself included. */
interface Followed {
  readonly directory: number
  readonly symlinks: number
}

/** Stands among the names still to walk: here a symlink's target ends. */
interface TargetEnd {
  readonly symlink: string
  /** Symlinks before it. */
  readonly before: number
}

const MOST_REMEMBERED = 4096
const IMPLICIT: NewInode = { type: 'directory', mode: 0o755, uid: 0, gid: 0, mtimeNs: 0n, xattrs: noXattrs }

export class Parents {
  readonly #tree: LayerTree
  /** Of directories. */
  #parentOf = new Uint32Array(64)
  #pathLength = new Uint16Array(64)
  /** Of paths, with symlinks or without. */
  readonly #known = new Map<string, number>()
  readonly #followed = new Map<string, Followed>()
  #lastPath = ''
  #last = LayerTree.ROOT

  constructor(tree: LayerTree) {
    this.#tree = tree
  }

  /** The directory in which `path` (clean, without `..`) stands. `entryPath` is for messages. Errors: `TAR_PATH`, `TAR_NAME_TOO_LONG`, `TAR_RESERVED_NAME`. */
  ofEntry(path: string, slash: number): number {
    if (slash < 0) return LayerTree.ROOT
    // Most entries stand where the one before them does.
    if (slash === this.#lastPath.length && path.startsWith(this.#lastPath)) return this.#last
    return this.#find(path.slice(0, slash), path) ?? LayerTree.ROOT
  }

  /** The directory at `path`, if it is there. Errors: as `ofEntry`. */
  existing(path: string): number | undefined {
    return path === '' ? LayerTree.ROOT : this.#find(path, undefined)
  }

  /** A new directory; the name must be free. Errors: `TAR_NAME_TOO_LONG`. */
  make(parent: number, name: string): number {
    const length = this.#lengthBelow(parent, name)
    const inode = this.#tree.create(IMPLICIT)
    this.#tree.link(parent, name, inode)
    if (inode >= this.#parentOf.length) this.#grow(inode)
    this.#parentOf[inode] = parent
    this.#pathLength[inode] = length
    return inode
  }

  /** `path` leads to this directory: what comes next is likely to be inside. */
  remember(path: string, directory: number): void {
    if (this.#known.size >= MOST_REMEMBERED) this.#known.clear()
    this.#known.set(path, directory)
  }

  /** To be called when a directory or a symlink was removed or replaced. */
  forget(): void {
    this.#known.clear()
    this.#followed.clear()
    this.#lastPath = ''
    this.#last = LayerTree.ROOT
  }

  /** Missing directories are made when there is an entry that they are for. */
  #find(path: string, entryPath: string | undefined): number | undefined {
    let directory = this.#known.get(path)
    if (directory === undefined) {
      directory = this.#walk(path, entryPath)
      if (directory === undefined) return undefined
      this.remember(path, directory)
    }
    this.#lastPath = path
    this.#last = directory
    return directory
  }

  #walk(path: string, entryPath: string | undefined): number | undefined {
    const tree = this.#tree
    const pending: (string | TargetEnd)[] = path.split('/').toReversed()
    let directory = LayerTree.ROOT
    let symlinks = 0
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (typeof next !== 'string') {
        this.#remember(next.symlink, { directory, symlinks: symlinks - next.before })
        continue
      }
      if (next === '' || next === '.') continue
      if (next === '..') {
        directory = this.#parentOf[directory] ?? LayerTree.ROOT
        continue
      }
      this.#lengthBelow(directory, next)
      const inode = tree.lookup(directory, next)
      const type = inode === undefined ? 'whiteout' : tree.type(inode)
      if (inode !== undefined && type === 'directory') {
        directory = inode
      } else if (inode !== undefined && type === 'symlink') {
        // By its directory too: a symlink may have several names.
        const symlink = `${directory}/${inode}`
        const known = this.#followed.get(symlink)
        symlinks += known?.symlinks ?? 1
        if (symlinks > MAX_SYMLINKS) throw tooManySymlinksError(this.#pathOf(directory, next))
        if (known !== undefined) {
          directory = known.directory
          continue
        }
        const target = tree.target(inode)
        pending.push({ symlink, before: symlinks - 1 }, ...target.split('/').toReversed())
        if (target.startsWith('/')) directory = LayerTree.ROOT
      } else if (type === 'whiteout') {
        if (entryPath === undefined) return undefined
        directory = this.#makeMissing(directory, next, inode !== undefined, entryPath)
      } else {
        throw notDirectoryError(this.#pathOf(directory, next))
      }
    }
    return directory
  }

  /** A directory that takes the place of a whiteout hides what the lower layers have there. */
  #makeMissing(parent: number, name: string, isDeleted: boolean, entryPath: string): number {
    refuseReservedDirectory(name, entryPath)
    if (isDeleted) this.#tree.unlink(parent, name)
    const made = this.make(parent, name)
    if (isDeleted) this.#tree.setOpaque(made)
    return made
  }

  #remember(symlink: string, followed: Followed): void {
    if (this.#followed.size >= MOST_REMEMBERED) this.#followed.clear()
    this.#followed.set(symlink, followed)
  }

  #lengthBelow(parent: number, name: string): number {
    const above = this.#pathLength[parent] ?? 0
    const length = above === 0 ? name.length : above + 1 + name.length
    refuseTooLong(length, name, () => this.#pathOf(parent, name))
    return length
  }

  /** Looks through directories for their names: for messages only. */
  #pathOf(directory: number, name: string): string {
    const parts = [name]
    for (let inode = directory; inode !== LayerTree.ROOT; inode = this.#parentOf[inode] ?? LayerTree.ROOT) {
      const parent = this.#parentOf[inode] ?? LayerTree.ROOT
      parts.push(this.#tree.children(parent).find(([, child]) => child === inode)?.[0] ?? '')
    }
    return parts.toReversed().join('/')
  }

  #grow(inode: number): void {
    const length = Math.max(inode + 1, this.#parentOf.length * 2)
    const parentOf = new Uint32Array(length)
    parentOf.set(this.#parentOf)
    this.#parentOf = parentOf
    const pathLength = new Uint16Array(length)
    pathLength.set(this.#pathLength)
    this.#pathLength = pathLength
  }
}
