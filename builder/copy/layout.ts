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
import { find, noXattrs, writeContents, xattrsOf, type Found, type FoundIn } from './source.ts'

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
  readonly excludes?: ((path: string, isDirectory: boolean) => boolean) | undefined
  /** As an archive is unpacked: an entry replaces whatever has its name. */
  readonly replace?: boolean | undefined
  /** The source's `name` holds directories, which are made like those of the source; a directory is copied as itself. */
  readonly parents?: boolean | undefined
}

export interface CopySource {
  readonly tree: Tree
  readonly path: string
  /** What was looked at already. */
  readonly found?: FoundIn | undefined
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
}

/** `nowNs`: the time of the build; with `clamp` no later time is written. */
export function createLayout(
  parent: Tree,
  { nowNs, clamp }: { readonly nowNs: bigint; readonly clamp: boolean },
): Layout {
  const planned = new Map<string, Planned>()
  /** Directories that the parent does not have: below them nobody needs to look there. */
  const fresh = new Set<string>()
  let copies = 0

  const lookup = (path: string): Planned | undefined => {
    const own = planned.get(path)
    if (own !== undefined) return own
    if (fresh.has(parentOf(path))) return undefined
    // What a planned file hides is not there; a planned directory merges with the parent's.
    for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
      const above = planned.get(path.slice(0, slash))
      if (above !== undefined && above.type !== 'directory') return undefined
    }
    return existing(parent, path)
  }
  const view = {
    lstat: (path: string) => {
      const entry = lookup(path)
      return (
        entry && {
          isDirectory: () => entry.type === 'directory',
          isSymbolicLink: () => entry.type === 'symlink',
          entry,
        }
      )
    },
    readlink: (path: string) => planned.get(path)?.link ?? parent.readlink(path),
  }

  const touch = (path: string): void => {
    const own = planned.get(path)
    const entry = own ?? lookup(path)
    if (entry === undefined) return
    entry.mtimeNs = nowNs
    if (own === undefined) planned.set(path, entry)
  }
  /** `there`: what `lookup` found. */
  const put = (path: string, entry: Planned, there: Planned | undefined): void => {
    checkName(path, entry)
    if (entry.type === 'directory' && there === undefined) fresh.add(path)
    planned.set(path, entry)
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
      for (const key of planned.keys()) if (key.startsWith(`${path}/`)) planned.delete(key)
    }
    put(path, entry, there)
  }

  const merge = (
    source: CopySource,
    target: string,
    relative: string,
    options: CopyOptions,
    copy: number,
  ): void => {
    for (const name of source.tree.list(source.path)) {
      const to = join(target, name)
      const path = join(relative, name)
      const found = look(source, join(source.path, name))
      if (found === undefined) continue
      if (options.excludes?.(path, found.type === 'directory') === true) continue
      const entry = planFor(found, options, copy)
      if (found.type !== 'directory') {
        place(to, entry, options)
        continue
      }
      const there = lookup(to)
      if (there !== undefined && there.type !== 'directory' && options.replace !== true) throw overFile(to)
      if (there === undefined || there.type !== 'directory') put(to, { ...entry }, there)
      merge({ ...source, path: found.path }, to, path, options, copy)
      // Only now: making names in it has touched it.
      planned.set(to, entry)
    }
  }

  const copyWithParents = (
    source: CopySource & { readonly name: string },
    found: Found,
    into: string,
    options: CopyOptions,
    copy: number,
  ): void => {
    const above = parentOf(source.name)
    // The directories of the name are those above the source, as many as there are.
    let at = into
    const parts = source.path.split('/')
    const names = above === '' ? [] : above.split('/')
    for (const [index, name] of names.entries()) {
      at = join(at, name)
      const there = lookup(at)
      if (there !== undefined && there.type !== 'directory') throw overFile(at)
      if (there !== undefined) continue
      const from = parts.slice(0, parts.length - names.length + index).join('/')
      const seen = find(source.tree, from)
      put(at, seen === undefined ? directory(options.owner) : planFor(seen, options, copy), undefined)
    }
    const to = join(into, source.name)
    const entry = planFor(found, options, copy)
    if (found.type !== 'directory') {
      place(to, entry, options)
      return
    }
    const there = lookup(to)
    if (there !== undefined && there.type !== 'directory') throw overFile(to)
    if (there === undefined && to !== '') put(to, { ...entry }, undefined)
    merge(source, to, '', options, copy)
    if (to !== '') planned.set(to, entry)
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
      const found = look(source, source.path)
      if (found === undefined) return
      const copy = ++copies
      if (options.parents === true) {
        copyWithParents(source, found, makeDirectory(destination, options.owner), options, copy)
        return
      }
      if (found.type !== 'directory') {
        place(target(destination, source.name, options), planFor(found, options, copy), options)
        return
      }
      const resolved = resolveInTree(view, destination)
      if (resolved.stats !== undefined && !resolved.stats.isDirectory()) throw overFile(resolved.path)
      const into = makeDirectory(destination, options.owner)
      merge(source, into, '', options, copy)
      const top = lookup(into)
      if (top === undefined || into === '') return
      // The root of a tree is nobody's file: its time says nothing.
      top.mtimeNs = source.path === '' ? nowNs : found.stats.mtimeNs
      planned.set(into, top)
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
      for (const path of planned.keys()) {
        for (let above = parentOf(path); above !== '' && !planned.has(above); above = parentOf(above)) {
          const entry = existing(parent, above)
          if (entry !== undefined) planned.set(above, entry)
        }
      }
      planned.delete('')
      const links = new Map<string, string>()
      for (const path of [...planned.keys()].toSorted(byWalk)) {
        const entry = planned.get(path)
        if (entry === undefined) continue
        const first = entry.inode === undefined ? undefined : links.get(entry.inode)
        if (entry.inode !== undefined && first === undefined) links.set(entry.inode, path)
        writer.entry(outputOf(entry, path, first, clamp ? nowNs : undefined))
        if (entry.type === 'file' && first === undefined) {
          if (entry.from instanceof Uint8Array) writer.data(entry.from)
          else if (entry.from !== undefined) await writeContents(entry.from, writer)
        }
        await writer.breathe()
      }
    },
  }
}

function look(source: CopySource, path: string): Found | undefined {
  return source.found?.get(source.tree)?.get(path) ?? find(source.tree, path)
}

function existing(tree: Tree, path: string): Planned | undefined {
  const found = find(tree, path)
  return found && plan(found)
}

function planFor(found: Found, options: CopyOptions, copy: number): Planned {
  const entry = plan(found)
  if (options.owner !== undefined) {
    entry.uid = options.owner.uid
    entry.gid = options.owner.gid
  }
  if (options.mode !== undefined && entry.type !== 'symlink')
    entry.mode = options.mode(entry.mode, entry.type === 'directory')
  const { nlink, dev, ino } = found.stats
  if (entry.type === 'file' && nlink > 1) entry.inode = `${copy}:${dev}:${ino}`
  return entry
}

function plan(found: Found): Planned {
  const { type, stats, tree, path } = found
  return {
    type,
    mode: stats.mode,
    uid: stats.uid,
    gid: stats.gid,
    mtimeNs: stats.mtimeNs,
    size: type === 'file' ? stats.size : 0,
    link: type === 'symlink' ? tree.readlink(path) : undefined,
    major: stats.major,
    minor: stats.minor,
    inode: undefined,
    from: found,
  }
}

function outputOf(
  entry: Planned,
  path: string,
  hardlink: string | undefined,
  latest: bigint | undefined,
): TarOutputEntry {
  const { type, mode, uid, gid, size, link, major, minor, from } = entry
  const mtimeNs = latest !== undefined && entry.mtimeNs > latest ? latest : entry.mtimeNs
  const same = { path, mode, uid, gid, mtimeNs, major, minor }
  if (hardlink !== undefined) return { ...same, type: 'hardlink', link: hardlink, size: 0, xattrs: noXattrs }
  const xattrs = from === undefined || from instanceof Uint8Array ? noXattrs : xattrsOf(from)
  return { ...same, type, size, xattrs, ...(link !== undefined && { link }) }
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

/** Depth first, names by their bytes: `/` sorts before everything. */
function byWalk(a: string, b: string): number {
  const [x, y] = [a.replaceAll('/', '\0'), b.replaceAll('/', '\0')]
  return x < y ? -1 : x > y ? 1 : 0
}
