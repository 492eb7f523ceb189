/** Reading what is to be copied: contents into a layer, and the digest that a cache key needs. */
import { createHash, hash as digestOf } from 'node:crypto'
import { closeSync } from 'node:fs'
import {
  type Intake,
  type KnownFile,
  type LayerWriter,
  type StatCache,
  type Taken,
  type Tree,
} from '../../cas/index.ts'
import { find, relativeTo, walk, type Excludes, type Found } from './found.ts'
import type { Walked } from './listing.ts'

const PART = 1024 * 1024
const TURN_MS = 20
/** Characters that are hashed at a time. */
const LINES = 64 * 1024

export const noXattrs: ReadonlyMap<string, Buffer> = new Map()

/** Those that a layer keeps. */
export function xattrsOf({ tree, path, known }: Found): ReadonlyMap<string, Buffer> {
  return known?.isPlain === true ? noXattrs : tree.xattrs(path)
}

/** Has the layer the contents of a file that was digested from the store? Else they must be written. */
export function storedOf({ known }: Found, writer: LayerWriter): boolean {
  return known !== undefined && writer.stored(known.digest)
}

/** Writes a file's contents. `SOURCE_CHANGED` when it is not the file that was looked at before. */
export async function writeContents(file: Found, writer: LayerWriter): Promise<void> {
  const { size } = file.stats
  const fd = file.open()
  try {
    for (let at = 0; at < size; at += PART) {
      writer.dataFrom(fd, at, Math.min(PART, size - at))
      if (at > 0) await writer.breathe()
    }
  } finally {
    closeSync(fd)
  }
}

export interface DigestOptions {
  /** Owners are part of the contents (they are not when a copy sets them). */
  readonly owners: boolean
  readonly excludes?: Excludes | undefined
  readonly signal?: AbortSignal | undefined
  /** Takes the contents of what is read. */
  readonly intake: () => Intake
  /** Files that were digested before and are unchanged are not opened. */
  readonly statCache?: StatCache | undefined
}

/** What a COPY takes. */
export interface SourceDigest {
  readonly digest: string
  /** By the source: what is there, all of it, a directory before what is in it. */
  readonly walked: readonly Walked[]
}

/**
 * Digest of what a COPY of these sources takes: names, types, modes, owners, attributes, links, contents; not modification times, so that a
 * fresh checkout of the same files is the same. Each entry is one line; its fields are such that no two trees have the same lines.
 */
export async function digestSources(
  sources: readonly { readonly tree: Tree; readonly path: string; readonly name: string }[],
  options: DigestOptions,
): Promise<SourceDigest> {
  const expect = createExpectation(options)
  let last = performance.now()
  const isTurnDue = (): boolean => performance.now() - last > TURN_MS
  const takeTurn = async (): Promise<void> => {
    await new Promise(setImmediate)
    options.signal?.throwIfAborted()
    last = performance.now()
  }
  const walked: Walked[] = []
  for (const { tree, path, name } of sources) {
    const all: Found[] = []
    walked.push({ name, all })
    const top = find(tree, path)
    if (top === undefined) continue
    for (const found of walk(top, options.excludes)) {
      if (found.type === 'file') {
        found.known = lookAt(found, options)
        expect(found.known)
      }
      all.push(found)
      if (isTurnDue()) await takeTurn()
    }
  }
  // Only now: many files are read at a time.
  const hash = createHash('sha256')
  const inodes = new Map<string, number>()
  let lines = ''
  for (const { name, all } of walked) {
    lines += `source ${JSON.stringify(name)}\n`
    const top = all[0]?.path ?? ''
    for (const found of all) {
      if (found.known !== undefined && isTaken(found.known))
        options.statCache?.remember(found.stats, found.known)
      lines += `${lineOf(found, relativeTo(top, found.path), options.owners, inodes)}\n`
      if (lines.length < LINES) continue
      hash.update(lines)
      lines = ''
      if (isTurnDue()) await takeTurn()
    }
  }
  hash.update(lines)
  return { digest: `sha256:${hash.digest('hex')}`, walked }
}

/** To see whether one is new, files are read one by one. */
const MOST_LOOKED_AT = 8

/**
 * As soon as one file is new there will be a layer with those that come after it, and the store can verify what it has of them. Those before it are likely to
 * be the beginning of an older layer, which nobody needs to read.
 */
function createExpectation({ intake }: DigestOptions): (file: KnownFile) => void {
  let isExpected = false
  let lookedAt = 0
  return (file) => {
    if (!isTaken(file)) {
      if (isExpected) intake().expect(file.digest)
    } else if (!isExpected && lookedAt++ < MOST_LOOKED_AT) isExpected = file.isNew
  }
}

/** No cache knew it. */
function isTaken(file: KnownFile): file is Taken {
  return 'isNew' in file
}

/** With nothing but what most files have. */
export function isUsual({ known, stats }: Found): boolean {
  return known?.isPlain === true && stats.nlink === 1
}

/** `inodes`: those of several names that came before. */
export function lineOf(found: Found, relative: string, owners: boolean, inodes: Map<string, number>): string {
  const { tree, path, type, stats, known } = found
  // Of the top directory only what is in it is copied.
  if (relative === '' && type === 'directory') return 'directory'
  if (known !== undefined && isUsual(found)) {
    // As below; most files are such.
    const owner = owners ? `${stats.uid},${stats.gid},` : ''
    return `["file",${JSON.stringify(relative)},${stats.mode},${owner}${stats.size},"${known.digest.toString('hex')}"]`
  }
  const fields: unknown[] = [type, relative, stats.mode]
  if (owners) fields.push(stats.uid, stats.gid)
  if (known !== undefined) fields.push(stats.size, known.digest.toString('hex'))
  if (type === 'symlink') fields.push(tree.readlink(path))
  if (type === 'char' || type === 'block') fields.push(`${stats.major}:${stats.minor}`)
  for (const [name, value] of xattrsOf(found)) fields.push(name, value.toString('base64'))
  if (type === 'file' && stats.nlink > 1) {
    // Which names are one file, not which inode it is.
    const inode = `${stats.dev}:${stats.ino}`
    const number = inodes.get(inode) ?? inodes.size
    inodes.set(inode, number)
    fields.push(`link ${number}`)
  }
  return JSON.stringify(fields)
}

const EMPTY = digestOf('sha256', '', 'buffer')

function lookAt(found: Found, options: DigestOptions): KnownFile {
  const known = options.statCache?.find(found.stats)
  if (known !== undefined) return known
  if (found.stats.size > 0) return options.intake().take(found)
  const fd = found.open()
  try {
    const taken: Taken = { digest: EMPTY, isPlain: found.tree.xattrs(fd).size === 0, isNew: false }
    return taken
  } finally {
    closeSync(fd)
  }
}
