/**
 * Finds, and where need be makes, the directory that an archive's entry goes into. Symlinks of the same archive are followed as a process
 * chrooted there would follow them: an absolute target starts at the root, `..` stops there. Real paths are cached with their descriptors.
 */
import { closeSync, constants } from 'node:fs'
import {
  isErrno,
  mkdirat,
  openat2,
  readlinkat,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
} from '../../linux/index.ts'
import { tarError } from './entry.ts'
import { pathOf } from './names.ts'
import { MAX_SYMLINKS, notDirectoryError, refuseTooLong, tooManySymlinksError } from './rules.ts'
import { isWhiteoutDevice, lstatAt, openDirectory } from './tree.ts'

export interface Directory {
  readonly fd: number
  /** Real path under the root, as a byte string; '' is the root. */
  readonly path: string
}

/** Called when a missing parent was made; `replaced` when a whiteout stood there. */
export type OnImplicit = (directory: Directory, replaced: boolean) => void

const OPEN_DIRECTORIES = 64
const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants

export class Parents {
  readonly #rootFd: number
  readonly #onImplicit: OnImplicit
  readonly #removeWhiteout: (parent: Directory, name: string) => void
  /** By real path, least recently used first. */
  readonly #open = new Map<string, Directory>()
  /** From paths that lead through symlinks to real ones; so many symlinks. */
  readonly #aliases = new Map<string, { readonly real: string; readonly symlinks: number }>()
  #last: { path: string; directory: Directory } | undefined
  #symlinks = 0

  constructor(
    rootFd: number,
    onImplicit: OnImplicit,
    removeWhiteout: (parent: Directory, name: string) => void,
  ) {
    this.#rootFd = rootFd
    this.#onImplicit = onImplicit
    this.#removeWhiteout = removeWhiteout
  }

  /** The directory at `path`, which has no `..`. Errors: `TAR_PATH`. The descriptor is valid until the next call. */
  find(path: string, options: { readonly create: boolean }): Directory | undefined {
    if (this.#last !== undefined && this.#last.path === path) return this.#last.directory
    this.#symlinks = 0
    const directory = this.#resolve(path, options.create)
    if (directory !== undefined) this.#last = { path, directory }
    return directory
  }

  /** To be called when a directory or a symlink was removed or replaced. */
  forget(): void {
    for (const directory of this.#open.values()) closeSync(directory.fd)
    this.#open.clear()
    this.#aliases.clear()
    this.#last = undefined
  }

  #resolve(path: string, create: boolean): Directory | undefined {
    const alias = this.#aliases.get(path)
    const real = alias?.real ?? path
    const known = this.#open.get(real)
    if (known !== undefined) {
      // What is remembered counts as what is followed: no archive passes or fails for what happens to be open.
      this.#countSymlinks(alias?.symlinks ?? 0, path)
      this.#open.delete(real)
      this.#open.set(real, known)
      return known
    }
    if (path === '') return this.#keep(openDirectory(this.#rootFd, ''), '')
    const before = this.#symlinks
    const slash = path.lastIndexOf('/')
    const parent = this.#resolve(slash < 0 ? '' : path.slice(0, slash), create)
    if (parent === undefined) return undefined
    const directory = this.#step(parent, path.slice(slash + 1), create)
    if (directory !== undefined && directory.path !== path) {
      if (this.#aliases.size > 4096) this.#aliases.clear()
      this.#aliases.set(path, { real: directory.path, symlinks: this.#symlinks - before })
    }
    return directory
  }

  #step(parent: Directory, name: string, create: boolean): Directory | undefined {
    const path = parent.path === '' ? name : `${parent.path}/${name}`
    refuseTooLong(path.length, name, () => path)
    const known = this.#open.get(path)
    if (known !== undefined) return known
    const opened = this.#tryOpen(parent, name)
    if (opened !== undefined) return this.#keep(opened, path)
    const stats = lstatAt(parent.fd, name)
    if (stats?.isSymbolicLink() === true) return this.#follow(parent, name, create)
    const replaced = stats !== undefined && isWhiteoutDevice(stats)
    if (!create && (stats === undefined || replaced)) return undefined
    if (stats !== undefined && !replaced) throw notDirectoryError(path)
    if (replaced) this.#removeWhiteout(parent, name)
    mkdirat(parent.fd, pathOf(name), 0o755)
    const fd = this.#tryOpen(parent, name)
    if (fd === undefined) throw tarError('TAR_PATH', 'it vanished while it was being made', { name: path })
    const made = this.#keep(fd, path)
    this.#onImplicit(made, replaced)
    return made
  }

  #tryOpen(parent: Directory, name: string): number | undefined {
    try {
      return openat2(parent.fd, pathOf(name), {
        flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
        resolve: RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
      })
    } catch (error) {
      if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined
      throw error
    }
  }

  #follow(parent: Directory, name: string, create: boolean): Directory | undefined {
    this.#countSymlinks(1, parent.path === '' ? name : `${parent.path}/${name}`)
    const target = readlinkat(parent.fd, pathOf(name)).toString('latin1')
    let path = target.startsWith('/') ? '' : parent.path
    for (const part of target.split('/')) {
      if (part === '' || part === '.') continue
      if (part === '..') {
        path = path.slice(0, Math.max(0, path.lastIndexOf('/')))
        continue
      }
      const next = this.#resolve(path === '' ? part : `${path}/${part}`, create)
      if (next === undefined) return undefined
      path = next.path
    }
    return this.#resolve(path, create)
  }

  #countSymlinks(count: number, path: string): void {
    this.#symlinks += count
    if (this.#symlinks > MAX_SYMLINKS) throw tooManySymlinksError(path)
  }

  #keep(fd: number, path: string): Directory {
    const directory = { fd, path }
    this.#open.set(path, directory)
    if (this.#open.size > OPEN_DIRECTORIES) {
      for (const [oldest, { fd: oldFd }] of this.#open) {
        closeSync(oldFd)
        this.#open.delete(oldest)
        break
      }
      this.#last = undefined
    }
    return directory
  }
}
