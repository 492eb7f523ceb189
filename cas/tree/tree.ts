/**
 * A directory tree, read by descriptor. Paths are byte strings (one character a byte, as 'latin1' decodes), relative to the root, without a
 * leading `/`; '' is the root. Nothing leads out of the tree: directories are opened by openat2(2) below the root's descriptor,
 * symlinks are followed by hand, inside.
 */
import { closeSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno, readlinkat, statOf, type Stat } from '../../linux/index.ts'
import type { StatCache } from '../store/types.ts'
import { readAttributes } from '../tar/attributes.ts'
import { inDirectory, pathOf } from '../tar/names.ts'
import { listDirectory, lstatAt, openDirectory, openFile } from '../tar/tree.ts'

export type { Stat }

/** Directories kept open: a walk needs its ancestors, and comes back to siblings. */
const OPEN_DIRECTORIES = 64
/** path_resolution(7). */
const MOST_SYMLINKS = 40

export interface Tree extends Disposable {
  /** The descriptor of its root. */
  readonly root: number
  /** lstat(2); `undefined` when there is nothing, or something on the way is no directory. */
  lstat(path: string): Stat | undefined
  /** Names in the order of their bytes. */
  list(path: string): readonly string[]
  /** The same, and lstat(2) of each that is still there. */
  entries(path: string): readonly TreeEntry[]
  readlink(path: string): string
  /** A regular file, for reading; the caller closes it. */
  open(path: string): number
  /** fstat(2) of what is open. */
  stat(fd: number): Stat
  /** What a layer keeps: user.*, file capabilities, ACLs. Quicker of a file that is open. */
  xattrs(file: string | number): ReadonlyMap<string, Buffer>
}

export interface TreeEntry {
  readonly name: string
  readonly stats: Stat
}

/** `rootFd` stays the caller's. `names`: what is in a directory may be known without listing it. */
export function openTree(rootFd: number, names?: Pick<StatCache, 'names'>): Tree {
  const directories = new Map<string, number>()
  const directory = (path: string): number => {
    const known = directories.get(path)
    if (known !== undefined) {
      // Most recently used last.
      directories.delete(path)
      directories.set(path, known)
      return known
    }
    const fd = openDirectory(rootFd, path)
    directories.set(path, fd)
    if (directories.size > OPEN_DIRECTORIES) {
      const [oldest, oldestFd] = directories.entries().next().value ?? ['', -1]
      directories.delete(oldest)
      closeSync(oldestFd)
    }
    return fd
  }
  const place = (path: string): readonly [fd: number, name: string] => {
    const slash = path.lastIndexOf('/')
    return [directory(slash < 0 ? '' : path.slice(0, slash)), path === '' ? '.' : path.slice(slash + 1)]
  }
  const namesIn = (fd: number): readonly string[] =>
    names === undefined ? listDirectory(fd) : names.names(fd, () => listDirectory(fd))
  return {
    root: rootFd,
    lstat: (path) => {
      try {
        const [fd, name] = place(path)
        return lstatAt(fd, name)
      } catch (error) {
        if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG')) return undefined
        throw error
      }
    },
    list: (path) => namesIn(directory(path)),
    entries: (path) => {
      const fd = directory(path)
      const entries: TreeEntry[] = []
      for (const name of namesIn(fd)) {
        const stats = lstatAt(fd, name)
        if (stats !== undefined) entries.push({ name, stats })
      }
      return entries
    },
    readlink: (path) => {
      const [fd, name] = place(path)
      return readlinkat(fd, pathOf(name)).toString('latin1')
    },
    open: (path) => {
      const [fd, name] = place(path)
      return openFile(fd, name)
    },
    stat: statOf,
    xattrs: (file) => {
      if (typeof file === 'number') return readAttributes(file).layer
      const [fd, name] = place(file)
      return readAttributes(inDirectory(fd, name)).layer
    },
    [Symbol.dispose]: () => {
      for (const fd of directories.values()) closeSync(fd)
      directories.clear()
    },
  }
}

/** What `resolveInTree` needs to know. */
export interface Walkable<Stats extends { isDirectory(): boolean; isSymbolicLink(): boolean }> {
  lstat(path: string): Stats | undefined
  readlink(path: string): string
}

export interface Resolved<Stats> {
  /** Without symlinks, as far as it exists; the rest as it was given. */
  readonly path: string
  readonly stats: Stats | undefined
}

/**
 * Where `path` leads inside the tree, as chroot(2) would have it: `..` of the root is the root, absolute symlinks begin there; but `..` of what is no directory
 * is where that is. With
 * `followLast: false` a symlink at the end is the answer itself. What does not exist is taken literally.
 * Throws `PATH_LOOP` (too many symlinks), `PATH_NOT_DIRECTORY` (something on the way is a file).
 */
export function resolveInTree<Stats extends { isDirectory(): boolean; isSymbolicLink(): boolean }>(
  tree: Walkable<Stats>,
  path: string,
  { followLast = true } = {},
): Resolved<Stats> {
  const pending = path.split('/').toReversed()
  const done: string[] = []
  let stats = tree.lstat('')
  let symlinks = 0
  while (pending.length > 0) {
    const name = pending.pop() ?? ''
    if (name === '' || name === '.') continue
    if (name === '..') {
      done.pop()
      stats = tree.lstat(done.join('/'))
      continue
    }
    if (stats !== undefined && !stats.isDirectory()) {
      throw new TbuildError('PATH_NOT_DIRECTORY', `/${show(done.join('/'))} is not a directory.`)
    }
    done.push(name)
    stats = stats && tree.lstat(done.join('/'))
    if (stats?.isSymbolicLink() !== true || (!followLast && !pending.some(isName))) continue
    if (++symlinks > MOST_SYMLINKS)
      throw new TbuildError('PATH_LOOP', `/${show(path).replace(/^\/+/, '')}: too many symbolic links.`)
    const target = tree.readlink(done.join('/'))
    done.pop()
    if (target.startsWith('/')) done.length = 0
    pending.push(...target.split('/').toReversed())
    stats = tree.lstat(done.join('/'))
  }
  return { path: done.join('/'), stats }
}

function isName(part: string): boolean {
  return part !== '' && part !== '.'
}

/** A byte string as text, for messages. */
export function show(path: string): string {
  return Buffer.from(path, 'latin1').toString()
}

/** Text as a byte string. */
export function bytesOf(text: string): string {
  return Buffer.from(text).toString('latin1')
}
