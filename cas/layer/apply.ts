/**
 * A layer's tar as a tree in memory: what cas/tar/unpack.ts makes of the same entries on disk, name by name, and the same refusals. The archive is
 * hostile; here nothing can lead out of the tree, but what is made of it is mounted, so it is looked at as closely.
 *
 * What file systems differ in is not imitated: the largest size, the latest time, how many links or attributes an inode may have.
 */
import { noXattrs, tarError, TAR_LIMITS, type TarEntry } from '../tar/entry.ts'
import { cleanPath } from '../tar/names.ts'
import {
  deletedName,
  linkTargetError,
  meaningOf,
  refuseDotDot,
  refuseTooLong,
  refuseWhiteoutDevice,
  refuseXattr,
} from '../tar/rules.ts'
import type { TarOutputEntry } from '../tar/writer.ts'
import { Parents } from './parents.ts'
import { LayerTree, type NewInode } from './tree.ts'
import { takenXattrs } from './xattrs.ts'

export interface Applier {
  /**
   * An entry of the layer, in the archive's order. For a regular file returns the inode to which pieces are to be added; otherwise `undefined`.
   * Errors: as `createUnpacker`; after one the tree is of no more use.
   */
  entry(entry: TarEntry | TarOutputEntry): number | undefined
  finish(): AppliedLayer
}

export interface AppliedLayer {
  /** Entries of the archive that were applied, whiteouts included. */
  readonly entries: number
  readonly whiteouts: number
  /** Of file contents, holes included. */
  readonly bytes: number
  /** The layer hides all below it: its root is opaque, which overlayfs does not heed. The lower layers must be dropped. */
  readonly opaqueRoot: boolean
  /** There is an entry for the root itself. */
  readonly hasRoot: boolean
  /** Names that AUFS used to keep at a layer's root. */
  readonly skippedEntries: number
  /** Attributes that no file of such a type can have. */
  readonly skippedXattrs: number
}

/** What a layer may make us hold in memory, without its files' contents. */
export interface LayerLimits {
  /** Directories that are only on the way to a file are some, too. */
  readonly inodes: number
  /** Of names, link targets and extended attributes, and some for each entry. */
  readonly bytes: number
}

/** A few GB at most. Compressed, such layers may have a few MB; no honest one comes near. */
const LIMITS: LayerLimits = { inodes: 10_000_000, bytes: 512 * 1024 * 1024 }

const ENTRY_BYTES = 32

/** `tree` must be empty. */
export function createApplier(tree: LayerTree, limits: LayerLimits = LIMITS): Applier {
  const applier = new TreeApplier(tree, limits)
  return { entry: (entry) => applier.entry(entry), finish: () => applier.finish() }
}

const WHITEOUT: NewInode = { type: 'whiteout', mode: 0o600, uid: 0, gid: 0, mtimeNs: 0n, xattrs: noXattrs }

class TreeApplier {
  readonly #tree: LayerTree
  readonly #parents: Parents
  #name = ''
  #entries = 0
  #whiteouts = 0
  #bytes = 0
  #skippedEntries = 0
  #skippedXattrs = 0
  readonly #limits: LayerLimits
  #held = 0

  constructor(tree: LayerTree, limits: LayerLimits) {
    this.#tree = tree
    this.#limits = limits
    this.#parents = new Parents(tree)
  }

  entry(entry: TarEntry | TarOutputEntry): number | undefined {
    const path = byteString(entry.path)
    this.#name = path
    if (path === '') {
      if (entry.type !== 'directory')
        throw tarError('TAR_PATH', 'the root is not a directory', { name: path })
      this.#entries++
      this.#setDirectory(LayerTree.ROOT, entry)
      return undefined
    }
    refuseDotDot(path, path)
    if (entry.xattrs.size > 0) for (const xattr of entry.xattrs.keys()) refuseXattr(xattr, path)
    const slash = path.lastIndexOf('/')
    const meaning = meaningOf(path)
    if (meaning === 'skipped') {
      this.#skippedEntries++
      return undefined
    }
    if (meaning === 'entry') refuseWhiteoutDevice(entry, path)
    this.#hold(ENTRY_BYTES + path.length - slash + (entry.link?.length ?? 0))
    this.#entries++
    const parent = this.#parents.ofEntry(path, slash)
    if (meaning === 'opaque') this.#tree.setOpaque(parent)
    else if (meaning === 'whiteout') this.#whiteout(parent, deletedName(path))
    else return this.#make(entry, parent, slash < 0 ? path : path.slice(slash + 1))
    return undefined
  }

  finish(): AppliedLayer {
    return {
      entries: this.#entries,
      whiteouts: this.#whiteouts,
      bytes: this.#bytes,
      opaqueRoot: this.#tree.isOpaque(LayerTree.ROOT),
      hasRoot: this.#tree.isExplicit(LayerTree.ROOT),
      skippedEntries: this.#skippedEntries,
      skippedXattrs: this.#skippedXattrs,
    }
  }

  #hold(bytes: number): void {
    this.#held += bytes
    if (this.#held <= this.#limits.bytes && this.#tree.inodes <= this.#limits.inodes) return
    throw tarError('TAR_TOO_LARGE', 'a layer of so many names or attributes is not held in memory', {
      name: this.#name,
    })
  }

  #whiteout(parent: number, name: string): void {
    this.#whiteouts++
    const inode = this.#tree.lookup(parent, name)
    if (inode === undefined) this.#tree.link(parent, name, this.#tree.create(WHITEOUT))
    else if (this.#tree.isDirectory(inode)) this.#tree.setOpaque(inode)
  }

  #make(entry: TarEntry | TarOutputEntry, parent: number, name: string): number | undefined {
    if (entry.type === 'directory') {
      this.#makeDirectory(entry, parent, name)
      return undefined
    }
    if (name.length > TAR_LIMITS.name) refuseTooLong(0, name, () => this.#name)
    if (entry.type === 'hardlink') {
      this.#link(byteString(entry.link), parent, name)
      return undefined
    }
    // Looked at first, for an entry that is refused may not replace anything.
    const { type, uid, gid, mtimeNs, major, minor } = entry
    const mode = type === 'symlink' ? 0o777 : entry.mode & 0o7777
    const target = type === 'symlink' ? { target: this.#symlinkTarget(entry.link) } : undefined
    const xattrs = this.#xattrs(entry, noXattrs)
    this.#remove(parent, name)
    const inode = this.#tree.create({ type, mode, uid, gid, mtimeNs, xattrs, major, minor, ...target })
    this.#tree.link(parent, name, inode)
    if (type !== 'file') return undefined
    this.#tree.setSize(inode, entry.size)
    this.#bytes += entry.size
    return inode
  }

  #symlinkTarget(link: Buffer | string | undefined): string {
    const target = typeof link === 'string' ? link : (link?.toString('latin1') ?? '')
    // As symlink(2) has it.
    if (target === '') throw tarError('ENOENT', 'a symlink without a target', { name: this.#name })
    if (target.length > TAR_LIMITS.path) {
      throw tarError('ENAMETOOLONG', 'its link target is longer than Linux allows', { name: this.#name })
    }
    return target
  }

  /** A directory that replaces something else of this archive hides what the lower layers have there. */
  #makeDirectory(entry: TarEntry | TarOutputEntry, parent: number, name: string): void {
    const there = this.#tree.lookup(parent, name)
    let directory = there
    if (directory === undefined || !this.#tree.isDirectory(directory)) {
      this.#remove(parent, name)
      directory = this.#parents.make(parent, name)
      if (there !== undefined) this.#tree.setOpaque(directory)
    }
    this.#parents.remember(this.#name, directory)
    this.#setDirectory(directory, entry)
  }

  /** What is inside stays, and so do attributes that only the earlier entry has, as on disk. */
  #setDirectory(directory: number, entry: TarEntry | TarOutputEntry): void {
    const { uid, gid, mtimeNs } = entry
    const xattrs = this.#xattrs(entry, this.#tree.xattrs(directory))
    this.#tree.setAttributes(directory, { mode: entry.mode & 0o7777, uid, gid, mtimeNs, xattrs })
    this.#tree.setExplicit(directory)
  }

  /** The target keeps its owner, mode and time: what the header of a further name says is the same, or a lie. */
  #link(target: string, parent: number, name: string): void {
    const tree = this.#tree
    refuseDotDot(target, this.#name)
    const slash = target.lastIndexOf('/')
    const targetName = target.slice(slash + 1)
    const directory = this.#parents.existing(target.slice(0, Math.max(0, slash)))
    const inode = directory === undefined ? undefined : tree.lookup(directory, targetName)
    if (directory === undefined || inode === undefined || tree.type(inode) === 'whiteout') {
      throw linkTargetError(target, 'is not in this archive', this.#name)
    }
    if (tree.isDirectory(inode)) throw linkTargetError(target, 'is a directory', this.#name)
    if (directory === parent && targetName === name) return
    this.#remove(parent, name)
    if (tree.lookup(directory, targetName) === undefined) {
      throw tarError('ENOENT', "the hard link takes the place of its target's directory", {
        name: this.#name,
      })
    }
    tree.link(parent, name, inode)
  }

  /** What an entry of this archive left at that name goes, whatever it is. */
  #remove(parent: number, name: string): void {
    const inode = this.#tree.lookup(parent, name)
    if (inode === undefined) return
    const type = this.#tree.type(inode)
    this.#tree.unlink(parent, name)
    if (type === 'directory' || type === 'symlink') this.#parents.forget()
  }

  #xattrs(
    entry: TarEntry | TarOutputEntry,
    earlier: ReadonlyMap<string, Buffer>,
  ): ReadonlyMap<string, Buffer> {
    if (entry.xattrs.size === 0 && earlier.size === 0) return noXattrs
    const { xattrs, skipped } = takenXattrs(entry, earlier, this.#name)
    for (const [name, value] of xattrs) this.#hold(name.length + value.length)
    this.#skippedXattrs += skipped
    return xattrs
  }
}

function byteString(name: Buffer | string | undefined): string {
  return cleanPath(typeof name === 'string' ? name : (name?.toString('latin1') ?? ''))
}
