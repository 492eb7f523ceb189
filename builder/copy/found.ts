/** What a COPY takes, looked at once: a tree of names and of what stat(2) says of each, for its digest and then for its layer. */
import { closeSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import {
  show,
  type KnownFile,
  type SeenFile,
  type Stat,
  type TarEntryType,
  type Tree,
  type TreeEntry,
} from '../../cas/index.ts'

export const noXattrs: ReadonlyMap<string, Buffer> = new Map()
/** One for all: most files have none, and there are many. */
const noChildren: readonly Found[] = []

/** It is gone, or something else by now. */
const GONE = new Set(['ENOENT', 'ENOTDIR', 'ELOOP', 'EINVAL'])

/** Is this path, relative to the source, left out? */
export type Excludes = (path: string, isDirectory: boolean) => boolean

/** A name of a tree, and what it was when it was first looked at. What looks again throws `SOURCE_CHANGED`. */
export class Found implements SeenFile {
  readonly tree: Tree
  /** What stands before the name in the path: nothing, or a directory and `/`. */
  readonly #before: string
  /** The last part of the path. */
  readonly name: string
  readonly type: TarEntryType
  readonly stats: Stat
  /** Of a directory that was walked: what of it is taken, in the order of the names' bytes. */
  children: readonly Found[] = noChildren
  /** Of a file that was digested. */
  known: KnownFile | undefined = undefined
  /** Where the layer's tar says what it is, or only at what time, when it does. */
  start: number | undefined = undefined

  constructor(tree: Tree, before: string, name: string, type: TarEntryType, stats: Stat) {
    this.tree = tree
    this.#before = before
    this.name = name
    this.type = type
    this.stats = stats
  }

  get root(): number {
    return this.tree.root
  }

  /** Made when it is asked for: of most files that were copied before it never is. */
  get path(): string {
    return this.#before + this.name
  }

  /** Those that a layer keeps. */
  get xattrs(): ReadonlyMap<string, Buffer> {
    return this.known?.isPlain === true ? noXattrs : this.#look(() => this.tree.xattrs(this.path))
  }

  /** Where a symlink leads. */
  get link(): string | undefined {
    return this.type === 'symlink' ? this.#look(() => this.tree.readlink(this.path)) : undefined
  }

  /** Of a directory. */
  get entries(): readonly TreeEntry[] {
    return this.#look(() => this.tree.entries(this.path))
  }

  open(): number {
    const fd = this.#look(() => this.tree.open(this.path))
    try {
      this.check(fd)
      return fd
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /** That what is open is the file that was seen. */
  check(fd: number): void {
    const { stats } = this
    const now = this.tree.stat(fd)
    const isSame =
      now.ino === stats.ino &&
      now.size === stats.size &&
      now.mtimeNs === stats.mtimeNs &&
      now.ctimeNs === stats.ctimeNs
    if (!isSame) throw this.#changed()
  }

  #look<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? String(error.code) : ''
      throw GONE.has(code) ? this.#changed(error) : error
    }
  }

  #changed(cause?: unknown): TbuildError {
    return new TbuildError('SOURCE_CHANGED', `${show(this.path)} was changed while it was being copied.`, {
      hint: 'Build again when nothing writes to the context.',
      cause,
    })
  }
}

/** `undefined` when there is nothing, or nothing that a layer can have: a socket has no form in one. */
export function find(tree: Tree, path: string): Found | undefined {
  const stats = tree.lstat(path)
  if (stats === undefined || stats.type === 'socket') return undefined
  const nameAt = path.lastIndexOf('/') + 1
  return new Found(tree, path.slice(0, nameAt), path.slice(nameAt), stats.type, stats)
}

/**
 * The directories that `name`, which a source at `path` keeps of its path, has before its last part: as many as there are, from above. `undefined`: the
 * tree does not show it.
 */
export function directoriesAbove(tree: Tree, path: string, name: string): (Found | undefined)[] {
  const parts = path.split('/')
  const count = name.split('/').length - 1
  return Array.from({ length: count }, (_, index) =>
    find(tree, parts.slice(0, parts.length - count + index).join('/')),
  )
}

/** `top` and all below it, a directory before what is in it. */
export function* walk(top: Found, excludes: Excludes | undefined): Generator<Found, void> {
  const pending = [top]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (next.type === 'directory') {
      next.children = childrenOf(next, top.path, excludes)
      for (let i = next.children.length - 1; i >= 0; i--) pending.push(next.children[i] ?? next)
    }
    yield next
  }
}

function childrenOf(directory: Found, top: string, excludes: Excludes | undefined): readonly Found[] {
  const { tree, path } = directory
  const before = path === '' ? '' : `${path}/`
  const children: Found[] = []
  for (const { name, stats } of directory.entries) {
    if (stats.type === 'socket') continue
    const child = new Found(tree, before, name, stats.type, stats)
    if (excludes?.(relativeTo(top, child.path), child.type === 'directory') === true) continue
    children.push(child)
  }
  return children
}

/** `path` is `top` or below it. */
export function relativeTo(top: string, path: string): string {
  return top === '' ? path : path.slice(top.length + 1)
}
