/**
 * A directory tree into a tar of the canonical form (writer.ts): depth first, the names of each directory in the order of their bytes,
 * a directory before what is in it. Of an overlayfs upper only what differs from the lower layers is written: see `packUpper`.
 */
import { closeSync } from 'node:fs'
import {
  getXattr,
  isErrno,
  nextData,
  nextHole,
  overlayPrefix,
  readlinkat,
  statOf,
  type Stat,
} from '../../linux/index.ts'
import { readAttributes } from './attributes.ts'
import {
  noXattrs,
  TAR_LIMITS,
  tarError,
  WHITEOUT_OPAQUE,
  WHITEOUT_PREFIX,
  type TarEntryType,
} from './entry.ts'
import { hasNoNewName, isSameDirectory, isUntouched, type TreeCopy } from './copy-tree.ts'
import { isUnchanged, lstatLower, openLower, sameMetadata, type LowerLookup } from './lower.ts'
import { inDirectory, pathOf } from './names.ts'
import { isWhiteoutDevice, listDirectory, lstatAt, openDirectory, openFile } from './tree.ts'
import { TarWriter, type TarOutputEntry } from './writer.ts'

export type { LowerLookup } from './lower.ts'

/** Takes a layer, entry by entry, with its contents. `TarWriter` is one. */
export interface LayerSink {
  entry(entry: TarOutputEntry): void
  /** The next `length` bytes of the contents, from `position` of the descriptor. */
  dataFrom(fd: number, position: number, length: number): void
  zeros(length: number): void
  /** Of the archive, so far. */
  readonly bytes: number
}

interface CommonOptions {
  /** Gets the archive in parts of about 1 MiB, each valid during the call only; or a taker of entries, which is not told the end. */
  readonly sink: ((chunk: Buffer) => void) | LayerSink
  /** Later modification times become this one (SOURCE_DATE_EPOCH). */
  readonly clampMtimeNs?: bigint
  /** Looked at whenever the event loop gets its turn. */
  readonly signal?: AbortSignal
  /** The event loop gets a turn after so many bytes (default 8 MiB), or 20 ms. */
  readonly yieldEvery?: number
}

export interface PackOptions extends CommonOptions {
  /** Without it nothing is compared: all that the upper holds is written, and every opaque mark. */
  readonly lower?: LowerLookup
  /**
   * The root directory's own entry. `'omit'` (default): only when mode, owner or attributes differ from the lower's (its time changes with
   * nearly every step, and no other builder writes it); never without a lower. `'emit'`: always.
   */
  readonly root?: 'omit' | 'emit'
}

export interface PackDirectoryOptions extends CommonOptions {
  readonly root?: 'omit' | 'emit'
  /** Names that start with `.wh.` would delete files when the archive is used as a layer. Default `'refuse'`. */
  readonly reservedNames?: 'refuse' | 'keep'
}

export interface PackResult {
  /** Entries written; 0: an empty layer, of an end marker only. */
  readonly entries: number
  /** Length of the archive. */
  readonly bytes: number
  /** Of file contents, holes included. */
  readonly contentBytes: number
  readonly whiteouts: number
  readonly opaque: number
  /** Files that were copied up and are as they were. */
  readonly unchanged: number
  /** Sockets have no form in a tar; Docker leaves them out too. */
  readonly skippedSockets: number
}

/**
 * The difference that an overlayfs upper makes, as a layer. 0/0 devices (or empty files marked `overlay.whiteout`) become `.wh.NAME`; opaque
 * directories get a `.wh..wh..opq` where the lower has a directory of that name (overlayfs marks every new directory, as an
 * optimisation). Left out: what was copied up but is unchanged in type, mode, owner, size, time, attributes and contents, and directories that
 * are unchanged and hold no change. Directories above a change are written. A name of several (hard links) is always written.
 *
 * `upperFd` may be O_PATH; paths need not fit a system call. Nobody may write below it meanwhile.
 * Errors: `TAR_RESERVED_NAME` (a file called `.wh.*`), `TAR_NAME_TOO_LONG` (a path over 4095 bytes, which no tool could unpack), `TAR_OVERLAY`
 * (redirect or metacopy attributes: the upper was not written with `redirect_dir=nofollow,metacopy=off`), `TAR_FILE_CHANGED`.
 *
 * Or the difference between the lower and what was a copy of it (`LowerLookup.copy`), in the same form. Of files that nobody has touched only the inode is looked
 * at. A directory in the place of another is opaque, as overlayfs would have it; hard links are joined where overlayfs would have broken them.
 */
export function packUpper(upperFd: number, options: PackOptions): Promise<PackResult> {
  return new Packer(upperFd, options, true, true).run()
}

/** A whole tree, as it is. Whiteouts have no meaning here. Errors: as `packUpper`. */
export function packDirectory(dirFd: number, options: PackDirectoryOptions): Promise<PackResult> {
  return new Packer(dirFd, options, false, options.reservedNames !== 'keep').run()
}

const PART = 1024 * 1024
/** Directories held open on the way down; deeper ones are reopened from the root. */
const OPEN_DIRECTORIES = 128

/** A directory on the way down. */
interface Frame {
  readonly path: string
  fd: number | undefined
  lowerFd: number | undefined
  readonly hasLower: boolean
  readonly names: readonly string[]
  next: number
  /** The directory's own entry, while it is not known whether it is needed. */
  pending: TarOutputEntry | undefined
}

class Packer {
  readonly #rootFd: number
  readonly #options: PackOptions
  readonly #overlay: boolean
  /** All of a tree, not an upper. */
  readonly #copy: TreeCopy | undefined
  readonly #refuseReserved: boolean
  readonly #writer: LayerSink
  readonly #stack: Frame[] = []
  /** First names of inodes that have several. */
  readonly #links = new Map<string, string>()
  /** By inode, of a copy: see `hasNoNewName`. */
  readonly #noNewName = new Map<string, boolean>()
  readonly #count = { entries: 0, contentBytes: 0, whiteouts: 0, opaque: 0, unchanged: 0, skippedSockets: 0 }
  #lastYield = performance.now()
  #yieldAt: number
  #ticks = 0

  constructor(rootFd: number, options: PackOptions, overlay: boolean, refuseReserved: boolean) {
    this.#rootFd = rootFd
    this.#options = options
    this.#copy = options.lower?.copy
    this.#overlay = overlay && this.#copy === undefined
    this.#refuseReserved = refuseReserved
    this.#writer = typeof options.sink === 'function' ? new TarWriter(options.sink, PART) : options.sink
    this.#yieldAt = this.#yieldEvery
  }

  async run(): Promise<PackResult> {
    try {
      this.#enterRoot()
      for (let frame = this.#stack.at(-1); frame !== undefined; frame = this.#stack.at(-1)) {
        const name = frame.names[frame.next++]
        if (name === undefined) this.#leave()
        else await this.#name(frame, name)
        if (this.#isYieldDue()) await this.#yield()
      }
      const bytes = this.#writer instanceof TarWriter ? this.#writer.finish() : this.#writer.bytes
      return { ...this.#count, bytes }
    } finally {
      for (const frame of this.#stack) closeFrame(frame)
    }
  }

  #enterRoot(): void {
    const fd = openDirectory(this.#rootFd, '')
    const lowerRoot = this.#options.lower?.rootFd
    const lowerFd = lowerRoot === undefined ? undefined : openLower(lowerRoot, '')
    this.#push('', fd, lowerFd)
    const stats = lstatAt(fd, '.')
    if (stats === undefined) return
    const attributes = readAttributes(inDirectory(fd, '.'))
    const lower = lstatLower(lowerFd, '.')
    const differs =
      lowerFd !== undefined &&
      lower !== undefined &&
      !sameMetadata(stats, lower, attributes.layer, inDirectory(lowerFd, '.'))
    if (this.#options.root === 'emit' || differs) {
      this.#emit(this.#describe(stats, 'directory', '', attributes.layer))
    }
  }

  async #name(frame: Frame, name: string): Promise<void> {
    const fd = this.#fdOf(frame)
    const path = frame.path === '' ? name : `${frame.path}/${name}`
    const stats = lstatAt(fd, name)
    if (this.#copy !== undefined && (stats === undefined || isWhiteoutDevice(stats))) {
      const lower = lstatLower(this.#lowerFdOf(frame), name)
      if (lower !== undefined && lower.type !== 'socket') this.#emitWhiteout(frame, name)
      return
    }
    if (stats === undefined)
      throw tarError('TAR_FILE_CHANGED', 'it vanished while the tree was read', { name: path })
    if (this.#overlay && isWhiteoutDevice(stats)) {
      this.#emitWhiteout(frame, name)
      return
    }
    if (this.#isUntouched(frame, name, stats)) return
    if (stats.type === 'socket') {
      this.#count.skippedSockets++
      return
    }
    const file = stats.isFile() ? openFile(fd, name) : undefined
    try {
      const { layer, overlay } = readAttributes(file ?? inDirectory(fd, name))
      if (this.#copy === undefined && overlay.includes('whiteout') && stats.isFile() && stats.size === 0) {
        this.#emitWhiteout(frame, name)
        return
      }
      this.#check(path, name, overlay)
      if (stats.isDirectory()) this.#directory(frame, name, path, stats, layer, overlay)
      else if (this.#needsEntry(frame, name, stats, layer))
        await this.#leaf(fd, name, path, stats, layer, file)
      else this.#count.unchanged++
    } finally {
      if (file !== undefined) closeSync(file)
    }
  }

  #isUntouched(frame: Frame, name: string, stats: Stat): boolean {
    if (this.#copy === undefined || stats.isDirectory()) return false
    const lower = lstatLower(this.#lowerFdOf(frame), name)
    return lower !== undefined && isUntouched(this.#copy, stats, lower)
  }

  #check(path: string, name: string, overlay: readonly string[]): void {
    if (this.#refuseReserved && name.startsWith(WHITEOUT_PREFIX)) {
      throw tarError('TAR_RESERVED_NAME', 'in a layer such a name means a deleted file', { name: path })
    }
    if (path.length > TAR_LIMITS.path) {
      throw tarError('TAR_NAME_TOO_LONG', `a path of ${path.length} bytes cannot be unpacked again`, {
        name: path,
      })
    }
    if (this.#overlay && (overlay.includes('redirect') || overlay.includes('metacopy'))) {
      throw tarError('TAR_OVERLAY', 'overlayfs redirected it, which a layer cannot express', { name: path })
    }
  }

  /** Several names for one inode are news to the lower layers even when nothing else is; in a copy of them only if one of the names is. */
  #needsEntry(frame: Frame, name: string, stats: Stat, layer: ReadonlyMap<string, Buffer>): boolean {
    if (!frame.hasLower || (stats.nlink > 1 && !this.#hasNoNewName(stats))) return true
    return !isUnchanged(this.#fdOf(frame), name, stats, layer, this.#lowerFdOf(frame))
  }

  /** Asked once for each inode: one may have very many names. */
  #hasNoNewName(stats: Stat): boolean {
    if (this.#copy === undefined) return false
    const inode = `${stats.dev}:${stats.ino}`
    const known = this.#noNewName.get(inode)
    if (known !== undefined) return known
    const answer = hasNoNewName(this.#copy, this.#rootFd, stats)
    this.#noNewName.set(inode, answer)
    return answer
  }

  #directory(
    frame: Frame,
    name: string,
    path: string,
    stats: Stat,
    layer: ReadonlyMap<string, Buffer>,
    overlay: readonly string[],
  ): void {
    const fd = this.#fdOf(frame)
    const lowerParent = this.#lowerFdOf(frame)
    const lowerStats = lstatLower(lowerParent, name)
    const hasLower = lowerParent !== undefined && lowerStats?.isDirectory() === true
    const marked =
      this.#copy === undefined
        ? this.#isMarked(fd, name, overlay)
        : hasLower && !isSameDirectory(this.#copy, fd, name, stats, lowerStats)
    const opaque = marked && (hasLower || this.#options.lower === undefined)
    const same =
      hasLower &&
      !opaque &&
      lowerStats.mtimeNs === stats.mtimeNs &&
      sameMetadata(stats, lowerStats, layer, inDirectory(lowerParent, name))
    const entry = this.#describe(stats, 'directory', path, layer)
    if (!same) this.#emit(entry)
    const below = openDirectory(fd, name)
    const lowerFd = hasLower && !marked ? openLower(lowerParent, name) : undefined
    this.#push(path, below, lowerFd, same ? entry : undefined)
    if (!opaque) return
    this.#count.opaque++
    this.#emit(marker(`${path}/${WHITEOUT_OPAQUE}`))
  }

  #isMarked(fd: number, name: string, overlay: readonly string[]): boolean {
    // 'x' says only that whiteouts in it may be in attribute form.
    return (
      this.#overlay &&
      overlay.includes('opaque') &&
      getXattr(inDirectory(fd, name), `${overlayPrefix()}opaque`)?.toString('latin1') === 'y'
    )
  }

  async #leaf(
    fd: number,
    name: string,
    path: string,
    stats: Stat,
    layer: ReadonlyMap<string, Buffer>,
    file: number | undefined,
  ): Promise<void> {
    if (stats.nlink > 1) {
      const inode = `${stats.dev}:${stats.ino}`
      const first = this.#links.get(inode)
      if (first !== undefined) {
        this.#emit({ ...this.#describe(stats, 'hardlink', path, noXattrs), link: first })
        return
      }
      this.#links.set(inode, path)
    }
    if (file !== undefined) {
      await this.#file(file, path, stats, layer)
    } else if (stats.isSymbolicLink()) {
      const link = readlinkat(fd, pathOf(name)).toString('latin1')
      this.#emit({ ...this.#describe(stats, 'symlink', path, layer), link })
    } else if (stats.type !== 'socket') {
      this.#emit(this.#describe(stats, stats.type, path, layer))
    }
  }

  async #file(fd: number, path: string, stats: Stat, layer: ReadonlyMap<string, Buffer>): Promise<void> {
    const now = statOf(fd)
    if (!now.isFile()) throw tarError('TAR_FILE_CHANGED', 'it is no longer a file', { name: path })
    const { size } = now
    this.#emit({ ...this.#describe(stats, 'file', path, layer), size })
    this.#count.contentBytes += size
    if (now.blocks * 512 < size) await this.#sparseContents(fd, size)
    else await this.#contents(fd, 0, size)
  }

  async #contents(fd: number, from: number, to: number): Promise<void> {
    for (let at = from; at < to;) {
      const length = Math.min(PART, to - at)
      this.#writer.dataFrom(fd, at, length)
      at += length
      if (at < to && this.#isYieldDue()) await this.#yield()
    }
  }

  async #sparseContents(fd: number, size: number): Promise<void> {
    for (let at = 0; at < size;) {
      const data = Math.min(dataAfter(fd, at) ?? size, size)
      for (let rest = data - at; rest > 0;) {
        const length = Math.min(PART, rest)
        this.#writer.zeros(length)
        rest -= length
        if (this.#isYieldDue()) await this.#yield()
      }
      const hole = data === size ? size : Math.min(nextHole(fd, data) ?? size, size)
      await this.#contents(fd, data, hole)
      at = hole
    }
  }

  #emitWhiteout(frame: Frame, name: string): void {
    this.#count.whiteouts++
    this.#emit(marker(`${frame.path === '' ? '' : `${frame.path}/`}${WHITEOUT_PREFIX}${name}`))
  }

  #emit(entry: TarOutputEntry): void {
    for (const frame of this.#stack) {
      if (frame.pending === undefined) continue
      this.#count.entries++
      this.#writer.entry(frame.pending)
      frame.pending = undefined
    }
    this.#count.entries++
    this.#writer.entry(entry)
  }

  #describe(
    stats: Stat,
    type: TarEntryType,
    path: string,
    xattrs: ReadonlyMap<string, Buffer>,
  ): TarOutputEntry {
    const clamp = this.#options.clampMtimeNs
    return {
      type,
      path,
      mode: stats.mode,
      uid: stats.uid,
      gid: stats.gid,
      size: 0,
      mtimeNs: clamp !== undefined && stats.mtimeNs > clamp ? clamp : stats.mtimeNs,
      major: stats.major,
      minor: stats.minor,
      xattrs,
    }
  }

  #push(path: string, fd: number, lowerFd: number | undefined, pending?: TarOutputEntry): void {
    const names = this.#copy === undefined ? listDirectory(fd) : namesOfBoth(fd, lowerFd)
    this.#stack.push({ path, fd, lowerFd, hasLower: lowerFd !== undefined, names, next: 0, pending })
    const far = this.#stack.at(-1 - OPEN_DIRECTORIES)
    if (far !== undefined) closeFrame(far)
  }

  #leave(): void {
    const frame = this.#stack.pop()
    if (frame !== undefined) closeFrame(frame)
  }

  #fdOf(frame: Frame): number {
    return (frame.fd ??= openDirectory(this.#rootFd, frame.path))
  }

  #lowerFdOf(frame: Frame): number | undefined {
    const { lower } = this.#options
    if (!frame.hasLower || lower === undefined) return undefined
    return (frame.lowerFd ??= openLower(lower.rootFd, frame.path))
  }

  get #yieldEvery(): number {
    return this.#options.yieldEvery ?? 8 * 1024 * 1024
  }

  #isYieldDue(): boolean {
    if (this.#writer.bytes >= this.#yieldAt) return true
    return (++this.#ticks & 31) === 0 && performance.now() - this.#lastYield > 20
  }

  async #yield(): Promise<void> {
    await new Promise(setImmediate)
    this.#options.signal?.throwIfAborted()
    this.#lastYield = performance.now()
    this.#yieldAt = this.#writer.bytes + this.#yieldEvery
  }
}

function closeFrame(frame: Frame): void {
  if (frame.fd !== undefined) closeSync(frame.fd)
  if (frame.lowerFd !== undefined) closeSync(frame.lowerFd)
  frame.fd = undefined
  frame.lowerFd = undefined
}

/** In the order of their bytes. */
function namesOfBoth(fd: number, lowerFd: number | undefined): string[] {
  const names = new Set(listDirectory(fd))
  const most = names.size
  for (const name of lowerFd === undefined ? [] : listDirectory(lowerFd)) names.add(name)
  // As `listDirectory` sorts.
  // oxlint-disable-next-line unicorn/require-array-sort-compare
  return names.size === most ? [...names] : [...names].toSorted()
}

/** Whiteouts and opaque marks: empty files of nobody's and no time, so that equal deletions are equal bytes. */
function marker(path: string): TarOutputEntry {
  return {
    type: 'file',
    path,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtimeNs: 0n,
    major: 0,
    minor: 0,
    xattrs: noXattrs,
  }
}

/** Where file systems do not know SEEK_DATA, all is data. */
function dataAfter(fd: number, at: number): number | undefined {
  try {
    return nextData(fd, at)
  } catch (error) {
    if (isErrno(error, 'EINVAL')) return at
    throw error
  }
}
