/**
 * What a COPY, ADD or WORKDIR changes, worked out in memory on top of the parent's tree and then written as a layer: no overlay is mounted
 * for writing and no file is made. The rules are those of the copy that BuildKit does on a mounted snapshot:
 * - a directory's contents are copied, not the directory; what is there already is merged with, and takes on the source's mode, owner
 *   and time, but for the top one, which takes on the time only;
 * - a file replaces what is no directory; a directory never replaces a file, nor a file a directory;
 * - missing parents are made, 0755, owned as `--chown` says; a directory in which a name is made or replaced gets the time of the build;
 * - hard links among the files of one source stay hard links.
 */
import { TbuildError } from '../../errors.ts'
import {
  resolveInTree,
  show,
  type LayerWriter,
  type TarEntryType,
  type TarOutputEntry,
  type Tree,
} from '../../cas/index.ts'
import { directoriesAbove, find, noXattrs, walk, type Excludes, type Found } from './found.ts'
import type { Walked } from './listing.ts'
import { storedOf, writeContents } from './source.ts'

export interface Owner {
  readonly uid: number
  readonly gid: number
}

export interface CopyOptions {
  /** Of everything copied or made; default: the source's own. */
  readonly owner?: Owner | undefined
  /** From the source's mode to the copy's (07777). */
  readonly mode?: ((mode: number, isDirectory: boolean) => number) | undefined
  /** Is this path, relative to the source, left out? */
  readonly excludes?: Excludes | undefined
  /** As an archive is unpacked: an entry replaces whatever has its name. */
  readonly replace?: boolean | undefined
  /** The source's `name` holds directories, which are made like those of the source; a directory is copied as itself. */
  readonly parents?: boolean | undefined
}

export interface CopySource {
  readonly tree: Tree
  readonly path: string
  /** What is there, if it was looked at already. */
  readonly walked?: Walked | undefined
}

export interface Layout {
  /** Makes a directory and its missing parents; one that is there stays as it is. Its real path. */
  makeDirectory(path: string, owner?: Owner): string
  /** `destination` is absolute; with a `/` at its end it is a directory, made if need be. `name`: what a file is called in it. */
  copy(source: CopySource & { readonly name: string }, destination: string, options: CopyOptions): void
  /** A file of our own making, as a source. */
  copyBytes(bytes: Uint8Array, name: string, destination: string, options: CopyOptions): void
  /** Writes the layer. */
  write(writer: LayerWriter): Promise<void>
}

interface Planned {
  readonly type: TarEntryType
  mode: number
  uid: number
  gid: number
  mtimeNs: bigint
  readonly size: number
  readonly link: string | undefined
  readonly major: number
  readonly minor: number
  /** Same for all names of one file. */
  inode: string | undefined
  /** Whose attributes and contents it has, or these. */
  readonly from: Found | Uint8Array | undefined
  /** Whose time, where that is another's. */
  timeOf: Found | undefined
}

/** One COPY, for what is planned of its source. */
interface Copy {
  readonly options: CopyOptions
  readonly number: number
}

/** A name of the layer. A directory that is copied whole to where nothing is costs nothing until it is written, or something is copied into it, too. */
class Node {
  /** `undefined`: as in the parent; only something below it is changed. */
  entry: Planned | undefined
  /** The parent has no such directory: nobody needs to look there for what is below it. */
  isFresh = false
  #children: Map<string, Node> | undefined
  #whole: { readonly found: Found; readonly copy: Copy } | undefined

  get children(): Map<string, Node> {
    const whole = this.#whole
    this.#whole = undefined
    this.#children ??= new Map()
    if (whole === undefined) return this.#children
    for (const child of whole.found.children) this.#children.set(child.name, nodeFor(child, whole.copy))
    return this.#children
  }

  /** Holds what this directory does, and nothing else. */
  holdWhole(found: Found, copy: Copy): void {
    this.#whole = { found, copy }
  }

  get whole(): { readonly found: Found; readonly copy: Copy } | undefined {
    return this.#whole
  }

  get isEmpty(): boolean {
    return this.#whole === undefined && (this.#children?.size ?? 0) === 0
  }

  empty(): void {
    this.#whole = undefined
    this.#children = undefined
  }
}

/** Where nothing is. */
function nodeFor(found: Found, copy: Copy): Node {
  const node = new Node()
  node.entry = planFor(found, copy)
  if (found.type === 'directory') {
    node.isFresh = true
    node.holdWhole(found, copy)
  }
  return node
}

/** `nowNs`: the time of the build; with `clamp` no later time is written. */
export function createLayout(
  parent: Tree,
  { nowNs, clamp }: { readonly nowNs: bigint; readonly clamp: boolean },
): Layout {
  const root = new Node()
  let copies = 0

  /** What will be at a path, or is there in the parent. */
  const lookup = (path: string): Planned | undefined => {
    let node = root
    for (const name of partsOf(path)) {
      // What a planned file hides is not there; a planned directory merges with the parent's.
      if (node.entry !== undefined && node.entry.type !== 'directory') return undefined
      const child = node.children.get(name)
      if (child === undefined) return node.isFresh ? undefined : existing(parent, path)
      node = child
    }
    return node.entry ?? existing(parent, path)
  }
  const nodeAt = (path: string): Node => {
    let node = root
    for (const name of partsOf(path)) {
      let child = node.children.get(name)
      if (child === undefined) node.children.set(name, (child = new Node()))
      node = child
    }
    return node
  }
  const view = {
    lstat: (path: string) => {
      const entry = lookup(path)
      return (
        entry && {
          isDirectory: () => entry.type === 'directory',
          isSymbolicLink: () => entry.type === 'symlink',
        }
      )
    },
    readlink: (path: string) => lookup(path)?.link ?? '',
  }

  const touch = (path: string): void => {
    const node = nodeAt(path)
    node.entry ??= existing(parent, path)
    if (node.entry !== undefined) {
      node.entry.mtimeNs = nowNs
      node.entry.timeOf = undefined
    }
  }
  /** `there`: what `lookup` found. */
  const put = (path: string, entry: Planned, there: Planned | undefined): void => {
    const node = nodeAt(path)
    if (entry.type === 'directory' && there === undefined) node.isFresh = true
    node.entry = entry
    touch(parentOf(path))
  }
  const directory = (owner: Owner | undefined): Planned => ({
    type: 'directory',
    mode: 0o755,
    uid: owner?.uid ?? 0,
    gid: owner?.gid ?? 0,
    mtimeNs: nowNs,
    size: 0,
    link: undefined,
    major: 0,
    minor: 0,
    inode: undefined,
    from: undefined,
    timeOf: undefined,
  })

  const makeDirectory = (path: string, owner?: Owner): string => {
    const resolved = resolveInTree(view, path)
    if (resolved.stats !== undefined) {
      if (!resolved.stats.isDirectory()) {
        throw new TbuildError('COPY_NOT_DIRECTORY', `/${show(resolved.path)} is not a directory.`)
      }
      return resolved.path
    }
    let at = ''
    for (const name of resolved.path.split('/')) {
      at = join(at, name)
      if (lookup(at) === undefined) put(at, directory(owner), undefined)
    }
    return resolved.path
  }

  /** A name in a directory that is there. */
  const place = (path: string, entry: Planned, options: CopyOptions): void => {
    const there = lookup(path)
    if (there?.type === 'directory' && entry.type !== 'directory') {
      if (options.replace !== true) {
        throw new TbuildError(
          'COPY_OVER_DIRECTORY',
          `/${show(path)} is a directory; it cannot be replaced with a file.`,
        )
      }
      nodeAt(path).empty()
    }
    put(path, entry, there)
  }

  const merge = (source: Found, target: string, copy: Copy): void => {
    const into = nodeAt(target)
    if (into.isFresh && into.isEmpty) {
      into.holdWhole(source, copy)
      return
    }
    const { options } = copy
    for (const found of source.children) {
      const to = join(target, found.name)
      const entry = planFor(found, copy)
      if (found.type !== 'directory') {
        place(to, entry, options)
        continue
      }
      const there = lookup(to)
      if (there !== undefined && there.type !== 'directory' && options.replace !== true) throw overFile(to)
      if (there?.type !== 'directory') put(to, { ...entry }, there)
      merge(found, to, copy)
      // Only now: making names in it has touched it.
      nodeAt(to).entry = entry
    }
  }

  const copyWithParents = (
    source: CopySource & { readonly name: string },
    found: Found,
    into: string,
    copy: Copy,
  ): void => {
    const { options } = copy
    const { tree, path, name, walked } = source
    const above = walked?.above ?? directoriesAbove(tree, path, name)
    const names = name.split('/')
    let at = into
    for (const [index, seen] of above.entries()) {
      at = join(at, names[index] ?? '')
      const there = lookup(at)
      if (there !== undefined && there.type !== 'directory') throw overFile(at)
      if (there !== undefined) continue
      put(at, seen === undefined ? directory(options.owner) : planFor(seen, copy), undefined)
    }
    const to = join(into, name)
    const entry = planFor(found, copy)
    if (found.type !== 'directory') {
      place(to, entry, options)
      return
    }
    const there = lookup(to)
    if (there !== undefined && there.type !== 'directory') throw overFile(to)
    if (there === undefined && to !== '') put(to, { ...entry }, undefined)
    merge(found, to, copy)
    if (to !== '') nodeAt(to).entry = entry
  }

  const target = (destination: string, name: string, options: CopyOptions): string => {
    if (destination.endsWith('/')) makeDirectory(destination, options.owner)
    const resolved = resolveInTree(view, destination)
    if (resolved.stats?.isDirectory() === true) return join(resolved.path, name)
    makeDirectory(parentOf(resolved.path), options.owner)
    return resolved.path
  }

  return {
    makeDirectory,
    copy: (source, destination, options) => {
      const found = source.walked?.all[0] ?? lookThrough(source, options.excludes)
      if (found === undefined) return
      const copy: Copy = { options, number: ++copies }
      if (options.parents === true) {
        copyWithParents(source, found, makeDirectory(destination, options.owner), copy)
        return
      }
      if (found.type !== 'directory') {
        place(target(destination, source.name, options), planFor(found, copy), options)
        return
      }
      const resolved = resolveInTree(view, destination)
      if (resolved.stats !== undefined && !resolved.stats.isDirectory()) throw overFile(resolved.path)
      const into = makeDirectory(destination, options.owner)
      merge(found, into, copy)
      if (into === '') return
      touch(into)
      const top = nodeAt(into).entry
      // The root of a tree is nobody's file: its time says nothing.
      if (top !== undefined && source.path !== '') {
        top.mtimeNs = found.stats.mtimeNs
        top.timeOf = found
      }
    },
    copyBytes: (bytes, name, destination, options) => {
      const mode = options.mode?.(0o644, false) ?? 0o644
      const entry: Planned = {
        ...directory(options.owner),
        type: 'file',
        mode,
        size: bytes.length,
        from: bytes,
      }
      place(target(destination, name, options), entry, options)
    },
    write: async (writer) => {
      /** Where the first name of each file of several names is. */
      const links = new Map<string, string>()
      const writeOne = (path: string, entry: Planned): Promise<void> | undefined => {
        checkName(path, entry)
        const first = entry.inode === undefined ? undefined : links.get(entry.inode)
        if (entry.inode !== undefined && first === undefined) links.set(entry.inode, path)
        const start = writer.entry(outputOf(entry, path, first, clamp ? nowNs : undefined))
        if (entry.timeOf !== undefined) entry.timeOf.start = start
        if (entry.type !== 'file' || first !== undefined || entry.from === undefined) return undefined
        if (entry.from instanceof Uint8Array) writer.data(entry.from)
        else if (!storedOf(entry.from, writer)) return writeContents(entry.from, writer)
        return undefined
      }
      // A directory comes before what is in it, names in the order of their bytes.
      const writeWhole = async (source: Found, above: string, copy: Copy): Promise<void> => {
        for (const found of source.children) {
          const path = join(above, found.name)
          const contents = writeOne(path, planFor(found, copy))
          if (contents !== undefined) await contents
          if (found.children.length > 0) await writeWhole(found, path, copy)
          const turn = writer.breathe()
          if (turn !== undefined) await turn
        }
      }
      const writeBelow = async (node: Node, above: string): Promise<void> => {
        const { whole } = node
        if (whole !== undefined) {
          await writeWhole(whole.found, above, whole.copy)
          return
        }
        for (const [name, child] of [...node.children].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
          const path = join(above, name)
          const entry = child.entry ?? existing(parent, path)
          if (entry !== undefined) await writeOne(path, entry)
          await writeBelow(child, path)
          await writer.breathe()
        }
      }
      await writeBelow(root, '')
    },
  }
}

/** What the source holds, where no digest has looked through it. */
function lookThrough({ tree, path }: CopySource, excludes: Excludes | undefined): Found | undefined {
  const top = find(tree, path)
  // Each of them fills in its children.
  if (top !== undefined) for (const _ of walk(top, excludes));
  return top
}

function existing(tree: Tree, path: string): Planned | undefined {
  const found = find(tree, path)
  return found && plan(found)
}

function planFor(found: Found, { options, number }: Copy): Planned {
  const entry = plan(found)
  if (options.owner !== undefined) {
    entry.uid = options.owner.uid
    entry.gid = options.owner.gid
  }
  if (options.mode !== undefined && entry.type !== 'symlink')
    entry.mode = options.mode(entry.mode, entry.type === 'directory')
  const { nlink, dev, ino } = found.stats
  if (entry.type === 'file' && nlink > 1) entry.inode = `${number}:${dev}:${ino}`
  return entry
}

function plan(found: Found): Planned {
  const { type, stats, link } = found
  return {
    type,
    mode: stats.mode,
    uid: stats.uid,
    gid: stats.gid,
    mtimeNs: stats.mtimeNs,
    size: type === 'file' ? stats.size : 0,
    link,
    major: stats.major,
    minor: stats.minor,
    inode: undefined,
    from: found,
    timeOf: found,
  }
}

function outputOf(
  entry: Planned,
  path: string,
  hardlink: string | undefined,
  latest: bigint | undefined,
): TarOutputEntry {
  const { mode, uid, gid, major, minor, from } = entry
  const mtimeNs = latest !== undefined && entry.mtimeNs > latest ? latest : entry.mtimeNs
  const isFirst = hardlink === undefined
  return {
    type: isFirst ? entry.type : 'hardlink',
    path,
    link: hardlink ?? entry.link,
    mode,
    uid,
    gid,
    size: isFirst ? entry.size : 0,
    mtimeNs,
    major,
    minor,
    xattrs: isFirst && from !== undefined && !(from instanceof Uint8Array) ? from.xattrs : noXattrs,
  }
}

/** What a layer cannot say, or says by another meaning. Throws `COPY_RESERVED_NAME`, `COPY_NAME_TOO_LONG`, `COPY_DEVICE`. */
function checkName(path: string, entry: Planned): void {
  const name = path.slice(path.lastIndexOf('/') + 1)
  if (name.startsWith('.wh.')) {
    throw new TbuildError(
      'COPY_RESERVED_NAME',
      `/${show(path)}: in a layer such a name means a deleted file.`,
      {
        hint: 'Give it another name, or leave it out with .dockerignore.',
      },
    )
  }
  if (name.length > 255 || path.length > 4095) {
    throw new TbuildError(
      'COPY_NAME_TOO_LONG',
      `/${show(path).slice(0, 60)}...: Linux has no names over 255 bytes, nor paths over 4095.`,
    )
  }
  if (entry.type === 'char' && entry.major === 0 && entry.minor === 0) {
    throw new TbuildError(
      'COPY_DEVICE',
      `/${show(path)}: a 0/0 character device is how overlayfs marks a deleted file.`,
    )
  }
}

function overFile(path: string): TbuildError {
  return new TbuildError(
    'COPY_OVER_FILE',
    `/${show(path)} is not a directory; a directory cannot be copied onto it.`,
  )
}

function parentOf(path: string): string {
  const slash = path.lastIndexOf('/')
  return slash < 0 ? '' : path.slice(0, slash)
}

function join(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}

/** None of the root. */
function partsOf(path: string): readonly string[] {
  return path === '' ? [] : path.split('/')
}
