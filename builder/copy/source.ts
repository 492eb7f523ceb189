/** Reading what is to be copied: contents into a layer, and the digest that a cache key needs. */
import { createHash, hash } from 'node:crypto'
import { closeSync, fstatSync, type BigIntStats } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import {
  show,
  type Intake,
  type KnownFile,
  type LayerWriter,
  type StatCache,
  type TarEntryType,
  type Tree,
} from '../../cas/index.ts'

const PART = 1024 * 1024
const TURN_MS = 20

/** `undefined` for a socket, which has no form in a layer. */
export function typeOf(stats: BigIntStats): TarEntryType | undefined {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  if (stats.isSymbolicLink()) return 'symlink'
  if (stats.isFIFO()) return 'fifo'
  if (stats.isCharacterDevice()) return 'char'
  return stats.isBlockDevice() ? 'block' : undefined
}

/** Writes a file's contents; `digest` when it is known. `SOURCE_CHANGED` when it is not the file that was looked at before. */
export function contentsOf(
  tree: Tree,
  path: string,
  seen: BigIntStats,
  digest: Buffer | undefined,
): (writer: LayerWriter) => Promise<void> {
  return async (writer) => {
    if (digest !== undefined && writer.stored(digest)) return
    const fd = openUnchanged(tree, path, seen)
    try {
      const size = Number(seen.size)
      for (let at = 0; at < size; at += PART) {
        writer.dataFrom(fd, at, Math.min(PART, size - at))
        if (at > 0) await writer.breathe()
      }
    } finally {
      closeSync(fd)
    }
  }
}

function openUnchanged(tree: Tree, path: string, seen: BigIntStats): number {
  const fd = tree.open(path)
  const now = fstatSync(fd, { bigint: true })
  if (
    now.ino === seen.ino &&
    now.size === seen.size &&
    now.mtimeNs === seen.mtimeNs &&
    now.ctimeNs === seen.ctimeNs
  )
    return fd
  closeSync(fd)
  throw new TbuildError('SOURCE_CHANGED', `${show(path)} was changed while it was being copied.`, {
    hint: 'Build again when nothing writes to the context.',
  })
}

export interface DigestOptions {
  /** Owners are part of the contents (they are not when a copy sets them). */
  readonly owners: boolean
  readonly excludes?: ((path: string, isDirectory: boolean) => boolean) | undefined
  readonly signal?: AbortSignal | undefined
  /** Takes the contents of what is read. */
  readonly intake: () => Intake
  /** Files that were digested before and are unchanged are not opened. */
  readonly statCache?: StatCache | undefined
}

/** What a COPY takes, and by path what is known of its files. */
export interface SourceDigest {
  readonly digest: string
  readonly files: ReadonlyMap<string, KnownFile>
}

/**
 * Digest of what a COPY of these sources takes: names, types, modes, owners, attributes, links, contents; not modification times, so that a
 * fresh checkout of the same files is the same. Each entry is one line; its fields are such that no two trees have the same lines.
 */
export async function digestSources(
  sources: readonly { readonly tree: Tree; readonly path: string; readonly name: string }[],
  options: DigestOptions,
): Promise<SourceDigest> {
  const files = new Map<string, KnownFile>()
  const all = createHash('sha256')
  const inodes = new Map<string, number>()
  let last = performance.now()
  for (const source of sources) {
    all.update(`source ${JSON.stringify(source.name)}\n`)
    const pending: { path: string; relative: string }[] = [{ path: source.path, relative: '' }]
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      const { path, relative } = next
      const stats = source.tree.lstat(path)
      const type = stats && typeOf(stats)
      if (stats === undefined || type === undefined) continue
      if (relative !== '' && options.excludes?.(relative, type === 'directory') === true) continue
      const file = type === 'file' ? lookAt(source.tree, path, stats, options) : undefined
      if (file !== undefined) files.set(path, file)
      all.update(`${line(source.tree, path, relative, stats, type, file, options.owners, inodes)}\n`)
      if (type === 'directory') {
        for (const name of source.tree.list(path).toReversed()) {
          pending.push({
            path: path === '' ? name : `${path}/${name}`,
            relative: relative === '' ? name : `${relative}/${name}`,
          })
        }
      }
      if (performance.now() - last > TURN_MS) {
        await new Promise(setImmediate)
        options.signal?.throwIfAborted()
        last = performance.now()
      }
    }
  }
  return { digest: `sha256:${all.digest('hex')}`, files }
}

function line(
  tree: Tree,
  path: string,
  relative: string,
  stats: BigIntStats,
  type: TarEntryType,
  file: KnownFile | undefined,
  owners: boolean,
  inodes: Map<string, number>,
): string {
  // Of the top directory only what is in it is copied.
  if (relative === '' && type === 'directory') return 'directory'
  const fields: unknown[] = [type, relative, Number(stats.mode & 0o7777n)]
  if (owners) fields.push(Number(stats.uid), Number(stats.gid))
  if (file !== undefined) fields.push(Number(stats.size), file.digest.toString('hex'))
  if (type === 'symlink') fields.push(tree.readlink(path))
  if (type === 'char' || type === 'block') fields.push(String(stats.rdev))
  if (file?.isPlain !== true) {
    for (const [name, value] of tree.xattrs(path)) fields.push(name, value.toString('base64'))
  }
  if (type === 'file' && stats.nlink > 1n) {
    // Which names are one file, not which inode it is.
    const inode = `${stats.dev}:${stats.ino}`
    const number = inodes.get(inode) ?? inodes.size
    inodes.set(inode, number)
    fields.push(`link ${number}`)
  }
  return JSON.stringify(fields)
}

const EMPTY = hash('sha256', '', 'buffer')

function lookAt(tree: Tree, path: string, seen: BigIntStats, options: DigestOptions): KnownFile {
  const known = options.statCache?.find(seen)
  if (known !== undefined) return known
  const file = { digest: digestFile(tree, path, seen, options), isPlain: tree.xattrs(path).size === 0 }
  options.statCache?.remember(seen, file)
  return file
}

function digestFile(tree: Tree, path: string, seen: BigIntStats, options: DigestOptions): Buffer {
  if (seen.size === 0n) return EMPTY
  const fd = openUnchanged(tree, path, seen)
  try {
    return options.intake().take(fd, Number(seen.size))
  } finally {
    closeSync(fd)
  }
}
