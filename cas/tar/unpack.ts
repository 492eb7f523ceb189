/**
 * A layer's tar into an empty directory, in overlayfs form. The archive is hostile: nothing it says reaches outside the directory, whatever its
 * symlinks, hard links and `..` are; what cannot be represented is refused by name. On an error the caller removes the directory.
 *
 * Whiteouts, as the OCI image-spec has it (layer.md), apply to lower layers only: where one layer holds a whiteout and an entry of one
 * name, in whatever order, the entry stays and what the lower layers have under that name is hidden (a directory becomes opaque). containerd
 * with overlayfs does the same when the whiteout comes first, and fails when it comes second.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  openSync,
} from 'node:fs'
import { chmodSync, writeSync } from 'node:fs'
import {
  isErrno,
  makedev,
  mkdirat,
  inInitialUserNamespace,
  mknodat,
  overlayPrefix,
  setTimes,
  setXattr,
  symlinkat,
  unlinkat,
} from '../../linux/index.ts'
import { TbuildError } from '../../errors.ts'
import { quoteName, tarError, type TarEntry } from './entry.ts'
import { inDirectory, pathOf } from './names.ts'
import { Parents, type Directory } from './parents.ts'
import type { TarHandler } from './reader.ts'
import {
  DEFAULT_ACL,
  deletedName,
  linkTargetError,
  malformedCapabilitiesError,
  meaningOf,
  refuseDotDot,
  refuseReservedDirectory,
  refuseWhiteoutDevice,
  refuseXattr,
} from './rules.ts'
import { isWhiteoutDevice, lstatAt, openDirectory, removeTree } from './tree.ts'

export interface UnpackOptions {
  /**
   * `'overlay'` (default): a layer; `.wh.` names become whiteouts, and other reserved names are refused. `'none'`: any archive, as ADD and
   * import take it; `.wh.` names are ordinary ones, as in Docker.
   */
  readonly whiteouts?: 'overlay' | 'none'
  /** Everything gets this owner, instead of the archive's. */
  readonly owner?: { readonly uid: number; readonly gid: number }
}

export interface UnpackResult {
  /** Entries of the archive that were applied, whiteouts included. */
  readonly entries: number
  readonly whiteouts: number
  /** Of file contents, holes included. */
  readonly bytes: number
  /** The layer hides all below it. overlayfs heeds no opaque mark on a layer's root: the caller must drop the lower layers. */
  readonly opaqueRoot: boolean
  /** Attributes that this kernel or file system does not take (user.* of a symlink, security.* of a module not loaded). */
  readonly skippedXattrs: number
  /** Names that AUFS used to keep at a layer's root (`.wh..wh.plnk` and so on), which Docker skips too. */
  readonly skippedEntries: number
}

export interface Unpacker {
  /** To be given to a `TarReader`. */
  readonly handler: TarHandler
  /** Sets the directories' modes and times. The directory is complete after it, but not yet durable. */
  finish(): UnpackResult
  /** Releases descriptors; after an error. Harmless after `finish`. */
  close(): void
}

/**
 * `dirFd` is open on the directory (O_PATH or read-only) and stays the caller's.
 * Errors: `TAR_PATH` (`..`, an entry below a file, a file as the root), `TAR_LINK` (a hard link whose target is not in this archive, or is
 * a directory), `TAR_DEVICE` (0/0, which would be a whiteout; in a user namespace any, but for a layer's), `TAR_XATTR` (`trusted.*`, `user.overlay.*`, malformed
 * capabilities), `TAR_RESERVED_NAME`, `TAR_WHITEOUT`, or the errno's name with the entry's in the message.
 */
export function createUnpacker(dirFd: number, options: UnpackOptions = {}): Unpacker {
  const unpacker = new DirectoryUnpacker(dirFd, options)
  return {
    handler: {
      entry: (entry) => unpacker.entry(entry),
      data: (chunk, offset) => unpacker.data(chunk, offset),
      end: () => unpacker.end(),
    },
    finish: () => unpacker.finish(),
    close: () => unpacker.close(),
  }
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, S_IFCHR, S_IFBLK, S_IFIFO } = constants
const HOLE = 4096
const zeros = Buffer.alloc(HOLE)

interface DirectoryMetadata {
  readonly mode: number
  readonly mtimeNs: bigint
  /** Inherited by whatever is made in its directory, so it has to wait until all is made. */
  readonly defaultAcl?: Buffer | undefined
}

interface OpenFile {
  readonly fd: number
  readonly parent: Directory
  readonly name: string
  readonly entry: TarEntry
  /** End of what was written. */
  end: number
}

class DirectoryUnpacker {
  readonly #rootFd: number
  readonly #options: UnpackOptions
  readonly #parents: Parents
  /** Modes, default ACLs and times are set when all is inside: deepest first. */
  readonly #directories = new Map<string, DirectoryMetadata>()
  #file: OpenFile | undefined
  #name = ''
  #entries = 0
  #whiteouts = 0
  #bytes = 0
  #opaqueRoot = false
  #skippedXattrs = 0
  #skippedEntries = 0

  constructor(dirFd: number, options: UnpackOptions) {
    this.#rootFd = dirFd
    this.#options = options
    this.#parents = new Parents(
      dirFd,
      (directory, replaced) => this.#implicitDirectory(directory, replaced),
      (parent, name) => unlinkat(parent.fd, pathOf(name)),
    )
  }

  entry(entry: TarEntry): void {
    this.#name = entry.path.toString('latin1')
    this.#guarded(() => this.#entry(entry, this.#name))
  }

  data(chunk: Buffer, offset: number): void {
    const file = this.#file
    if (file === undefined) return
    this.#guarded(() => writeData(file, chunk, offset))
  }

  end(): void {
    const file = this.#file
    if (file === undefined) return
    this.#file = undefined
    this.#guarded(() => this.#endFile(file))
  }

  finish(): UnpackResult {
    this.#parents.forget()
    const deepestFirst = [...this.#directories].toSorted(([a], [b]) => b.length - a.length)
    for (const [path, { mode, mtimeNs, defaultAcl }] of deepestFirst) {
      this.#name = path
      this.#guarded(() => {
        const fd = openDirectory(this.#rootFd, path)
        try {
          fchmodSync(fd, mode)
          if (defaultAcl !== undefined) this.#setXattr(`/proc/self/fd/${fd}/.`, DEFAULT_ACL, defaultAcl)
          setTimes(fd, '.', { mtime: mtimeNs })
        } finally {
          closeSync(fd)
        }
      })
    }
    this.close()
    return {
      entries: this.#entries,
      whiteouts: this.#whiteouts,
      bytes: this.#bytes,
      opaqueRoot: this.#opaqueRoot,
      skippedXattrs: this.#skippedXattrs,
      skippedEntries: this.#skippedEntries,
    }
  }

  close(): void {
    this.#parents.forget()
    if (this.#file !== undefined) closeSync(this.#file.fd)
    this.#file = undefined
  }

  #entry(entry: TarEntry, path: string): void {
    if (path === '') {
      if (entry.type !== 'directory') throw this.#error('TAR_PATH', 'the root is not a directory')
      this.#entries++
      this.#makeDirectory(entry, '')
      return
    }
    refuseDotDot(path, path)
    for (const xattr of entry.xattrs.keys()) refuseXattr(xattr, path)
    const slash = path.lastIndexOf('/')
    const name = path.slice(slash + 1)
    const parentPath = slash < 0 ? '' : path.slice(0, slash)
    if (this.#options.whiteouts !== 'none' && this.#isReserved(path, parentPath)) return
    refuseWhiteoutDevice(entry, path)
    this.#entries++
    if (entry.type === 'directory') this.#makeDirectory(entry, path)
    else this.#make(entry, this.#parent(parentPath), name)
  }

  /** Whiteouts are applied here; true when the entry is dealt with. */
  #isReserved(path: string, parentPath: string): boolean {
    const meaning = meaningOf(path)
    if (meaning === 'entry') return false
    if (meaning === 'skipped') {
      this.#skippedEntries++
      return true
    }
    this.#entries++
    if (meaning === 'opaque') this.#setOpaque(this.#parent(parentPath))
    else this.#whiteout(this.#parent(parentPath), deletedName(path))
    return true
  }

  #whiteout(parent: Directory, name: string): void {
    this.#whiteouts++
    try {
      mknodat(parent.fd, pathOf(name), S_IFCHR | 0o600, 0n)
      // See cas/erofs/xattrs.ts.
      setXattr(`/proc/self/fd/${parent.fd}/.`, `${overlayPrefix()}origin`, Buffer.alloc(0))
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
      if (lstatAt(parent.fd, name)?.isDirectory() !== true) return
      const directory = this.#parent(join(parent.path, name))
      this.#setOpaque(directory)
    }
  }

  #setOpaque(directory: Directory): void {
    if (directory.path === '') this.#opaqueRoot = true
    setXattr(`/proc/self/fd/${directory.fd}/.`, `${overlayPrefix()}opaque`, Buffer.from('y'))
  }

  #implicitDirectory(directory: Directory, replaced: boolean): void {
    // The entry's own name was looked at; a symlink's target is not known until it is followed.
    const name = directory.path.slice(directory.path.lastIndexOf('/') + 1)
    if (this.#options.whiteouts !== 'none') refuseReservedDirectory(name, this.#name)
    fchownSync(directory.fd, this.#options.owner?.uid ?? 0, this.#options.owner?.gid ?? 0)
    this.#directories.set(directory.path, { mode: 0o755, mtimeNs: 0n })
    if (replaced) this.#setOpaque(directory)
  }

  #makeDirectory(entry: TarEntry, path: string): void {
    const directory = path === '' ? this.#parent('') : this.#enter(path)
    const { uid, gid } = this.#options.owner ?? entry
    fchownSync(directory.fd, uid, gid)
    this.#setXattrs(entry, `/proc/self/fd/${directory.fd}/.`)
    const { mode, mtimeNs, xattrs } = entry
    this.#directories.set(directory.path, { mode, mtimeNs, defaultAcl: xattrs.get(DEFAULT_ACL) })
  }

  /** The real directory at `path`; one that replaces something else of this archive hides what the lower layers have there. */
  #enter(path: string): Directory {
    const slash = path.lastIndexOf('/')
    const parent = this.#parent(slash < 0 ? '' : path.slice(0, slash))
    const name = path.slice(slash + 1)
    let replaced = false
    try {
      mkdirat(parent.fd, pathOf(name), 0o700)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
      if (lstatAt(parent.fd, name)?.isDirectory() !== true) {
        this.#remove(parent, name)
        mkdirat(this.#parent(parent.path).fd, pathOf(name), 0o700)
        replaced = true
      }
    }
    const directory = this.#parent(join(parent.path, name))
    if (replaced && this.#options.whiteouts !== 'none') this.#setOpaque(directory)
    return directory
  }

  #make(entry: TarEntry, parent: Directory, name: string): void {
    if (entry.type === 'hardlink') {
      this.#link(entry, parent, name)
      return
    }
    if (isForeignDevice(entry)) {
      if (this.#options.whiteouts === 'none')
        throw this.#error('TAR_DEVICE', 'a device, which only root of the whole machine can make')
      this.#skippedEntries++
      return
    }
    let place = parent
    try {
      this.#create(entry, place, name)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
      this.#remove(parent, name)
      place = this.#parent(parent.path)
      this.#create(entry, place, name)
    }
    if (entry.type === 'file') return
    const { uid, gid } = this.#options.owner ?? entry
    const path = inDirectory(place.fd, name)
    lchownSync(path, uid, gid)
    this.#setXattrs(entry, path)
    if (entry.type !== 'symlink') chmodSync(path, entry.mode)
    setTimes(place.fd, pathOf(name), { mtime: entry.mtimeNs })
  }

  #create(entry: TarEntry, parent: Directory, name: string): void {
    switch (entry.type) {
      case 'file': {
        const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
        const fd = openSync(inDirectory(parent.fd, name), flags, 0o600)
        this.#file = { fd, parent, name, entry, end: 0 }
        break
      }
      case 'symlink':
        symlinkat(pathOf(entry.link?.toString('latin1') ?? ''), parent.fd, pathOf(name))
        break
      case 'char':
        mknodat(parent.fd, pathOf(name), S_IFCHR | 0o600, makedev(entry.major, entry.minor))
        break
      case 'block':
        mknodat(parent.fd, pathOf(name), S_IFBLK | 0o600, makedev(entry.major, entry.minor))
        break
      case 'fifo':
        mknodat(parent.fd, pathOf(name), S_IFIFO | 0o600)
        break
      case 'directory':
      case 'hardlink':
        break
    }
  }

  #endFile(file: OpenFile): void {
    const { fd, parent, name, entry } = file
    try {
      if (file.end < entry.size) ftruncateSync(fd, entry.size)
      const { uid, gid } = this.#options.owner ?? entry
      // Owner before attributes and mode: chown(2) clears security.capability, setuid and setgid.
      fchownSync(fd, uid, gid)
      if (entry.xattrs.size > 0) this.#setXattrs(entry, inDirectory(parent.fd, name))
      fchmodSync(fd, entry.mode)
      setTimes(parent.fd, pathOf(name), { mtime: entry.mtimeNs })
    } finally {
      closeSync(fd)
    }
    this.#bytes += entry.size
  }

  /** The target keeps its owner, mode and time: what the header of a further name says is the same, or a lie. */
  #link(entry: TarEntry, parent: Directory, name: string): void {
    const target = entry.link?.toString('latin1') ?? ''
    refuseDotDot(target, this.#name)
    const slash = target.lastIndexOf('/')
    const targetName = target.slice(slash + 1)
    const real = this.#parents.find(slash < 0 ? '' : target.slice(0, slash), { create: false })
    const stats = real === undefined || targetName === '' ? undefined : lstatAt(real.fd, targetName)
    if (real === undefined || stats === undefined || isWhiteoutDevice(stats)) {
      throw linkTargetError(target, 'is not in this archive', this.#name)
    }
    if (stats.isDirectory()) throw linkTargetError(target, 'is a directory', this.#name)
    if (real.path === parent.path && targetName === name) return
    const from = real.path
    const to = parent.path
    try {
      this.#linkNames(from, targetName, to, name)
    } catch (error) {
      if (!isErrno(error, 'EEXIST')) throw error
      this.#remove(this.#parent(to), name)
      this.#linkNames(from, targetName, to, name)
    }
  }

  #linkNames(from: string, targetName: string, to: string, name: string): void {
    // A descriptor of its own: looking up the other directory may close a cached one.
    const source = openDirectory(this.#rootFd, from)
    try {
      linkSync(inDirectory(source, targetName), inDirectory(this.#parent(to).fd, name))
    } finally {
      closeSync(source)
    }
  }

  /** What an entry of this archive left at that name goes, whatever it is. */
  #remove(parent: Directory, name: string): void {
    const stats = lstatAt(parent.fd, name)
    const path = join(parent.path, name)
    removeTree(this.#rootFd, parent.fd, path)
    if (stats?.isDirectory() === true) {
      for (const key of this.#directories.keys()) {
        if (key === path || key.startsWith(`${path}/`)) this.#directories.delete(key)
      }
    }
    if (stats?.isDirectory() === true || stats?.isSymbolicLink() === true) this.#parents.forget()
  }

  #parent(path: string): Directory {
    const directory = this.#parents.find(path, { create: true })
    if (directory === undefined) throw this.#error('TAR_PATH', 'its directory cannot be made')
    return directory
  }

  #setXattrs(entry: TarEntry, path: string | Buffer): void {
    for (const [name, value] of entry.xattrs) {
      refuseXattr(name, this.#name)
      if (name !== DEFAULT_ACL) this.#setXattr(path, name, value)
      else if (entry.type !== 'directory') this.#skippedXattrs++
    }
  }

  #setXattr(path: string | Buffer, name: string, value: Buffer): void {
    // The kernel looks at capabilities of some length only.
    if (name === 'security.capability' && value.length === 0) throw malformedCapabilitiesError(this.#name)
    try {
      setXattr(path, name, value)
    } catch (error) {
      if (name === 'security.capability' && isErrno(error, 'EINVAL'))
        throw malformedCapabilitiesError(this.#name)
      if (!isErrno(error, 'EOPNOTSUPP', 'EPERM', 'EINVAL')) throw error
      this.#skippedXattrs++
    }
  }

  /** Errors of the kernel get the entry's name. */
  #guarded(work: () => void): void {
    try {
      work()
    } catch (error) {
      if (error instanceof TbuildError && error.code.startsWith('TAR_')) throw error
      if (!isCoded(error)) throw error
      throw new TbuildError(error.code, `archive entry ${quoteName(this.#name)}: ${error.message}`, {
        cause: error,
      })
    }
  }

  #error(code: string, message: string) {
    return tarError(code, message, { name: this.#name })
  }
}

/** Of a layer it is left out; a container gets those that it needs anyway. */
function isForeignDevice({ type }: TarEntry): boolean {
  return (type === 'char' || type === 'block') && !inInitialUserNamespace()
}

function isCoded(error: unknown): error is { readonly code: string; readonly message: string } {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string'
}

/** Blocks of zeros are left out: they become holes. */
function writeData(file: OpenFile, chunk: Buffer, offset: number): void {
  let from = 0
  let at = 0
  while (at < chunk.length) {
    const length = Math.min(HOLE - ((offset + at) % HOLE), chunk.length - at)
    if (length === HOLE && chunk[at] === 0 && zeros.compare(chunk, at, at + HOLE) === 0) {
      if (from < at) writeAll(file.fd, chunk, from, at, offset)
      from = at + length
    }
    at += length
  }
  if (from < at) {
    writeAll(file.fd, chunk, from, at, offset)
    file.end = offset + at
  }
}

function writeAll(fd: number, chunk: Buffer, from: number, to: number, offset: number): void {
  for (let at = from; at < to;) at += writeSync(fd, chunk, at, to - at, offset + at)
}

function join(parent: string, name: string): string {
  return parent === '' ? name : `${parent}/${name}`
}
