/** Reading what is to be copied: contents into a layer, and the digest that a cache key needs. */
import { hash } from 'node:crypto'
import { closeSync } from 'node:fs'
import {
  createTurns,
  TakenFile,
  type Intake,
  type KnownFile,
  type LayerWriter,
  type StatCache,
  type Taken,
  type Tree,
} from '../../cas/index.ts'
import { directoriesAbove, find, walk, type Excludes, type Found } from './found.ts'
import { Lister, listedOf, type Listing, type Walked } from './listing.ts'

const PART = 1024 * 1024
/** Entries, of which each takes microseconds. */
const BETWEEN_TURNS = 64

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
  /** A directory that is named is copied itself. */
  readonly itself: boolean
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
  readonly listing: Listing
  readonly walked: readonly Walked[]
}

/** Digest of what a COPY of these sources takes: see `Listing`. */
export async function digestSources(
  sources: readonly { readonly tree: Tree; readonly path: string; readonly name: string }[],
  options: DigestOptions,
): Promise<SourceDigest> {
  const breathe = createTurns(options.signal)
  const walked: Walked[] = []
  for (const { tree, path, name } of sources) {
    const all: Found[] = []
    walked.push({ name, above: options.itself ? directoriesAbove(tree, path, name) : [], all })
    const top = find(tree, path)
    if (top === undefined) continue
    for (const found of walk(top, options.excludes)) {
      if (found.type === 'file') found.known = lookAt(found, options)
      all.push(found)
      const turn = all.length % BETWEEN_TURNS === 0 ? breathe() : undefined
      if (turn !== undefined) await turn
    }
  }
  const entries = walked.reduce((sum, one) => sum + listedOf(one).length, 0)
  const lister = new Lister({ ...options, entries })
  for (const source of walked) {
    lister.source(source)
    for (const [i, found] of listedOf(source).entries()) {
      // Only now: many files are read at a time.
      if (found.known !== undefined && isTaken(found.known))
        options.statCache?.remember(found.stats, found.known)
      lister.entry(found)
      const turn = i % BETWEEN_TURNS === 0 ? breathe() : undefined
      if (turn !== undefined) await turn
    }
  }
  const listing = lister.end()
  return { digest: listing.digest, listing, walked }
}

/** No cache knew it. */
function isTaken(file: KnownFile): file is Taken {
  return 'isNew' in file
}

const EMPTY = hash('sha256', '', 'buffer')

function lookAt(found: Found, options: DigestOptions): KnownFile {
  const known = options.statCache?.find(found)
  if (known !== undefined) return known
  if (found.stats.size > 0) return options.intake().take(found)
  const fd = found.open()
  try {
    return new TakenFile(EMPTY, 0, found.tree.xattrs(fd).size === 0, false)
  } finally {
    closeSync(fd)
  }
}
