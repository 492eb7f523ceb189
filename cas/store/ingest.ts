/**
 * A layer on its way in. In one pass, each file's contents go to the store unless it has them, the recipe is written, the DiffId computed and the
 * layer's tree built, from which the driver makes what it mounts. Nothing of it is visible before `commit.ts` has recorded it.
 */
import { createHash } from 'node:crypto'
import { readSync } from 'node:fs'
import type { ContentWriter } from '../contents/types.ts'
import type { Driver, IndexImage } from '../drivers/types.ts'
import { HOLE, isZero } from '../hashing/files.ts'
import type { TarDigest } from '../hashing/tar-digest.ts'
import { createApplier, type AppliedLayer } from '../layer/apply.ts'
import { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { RecipeWriter } from '../recipe/write.ts'
import { hasAlignedHoles, tarError, type TarEntry } from '../tar/entry.ts'
import { encodeHeader, END, padding, TarReader, type TarOutputEntry } from '../tar/index.ts'
import type { LayerSink } from '../tar/pack.ts'

/** A layer that has come in whole. */
export interface IncomingLayer {
  /** Of a large layer of our own making it is still being computed. */
  readonly diffId: DiffId | Promise<DiffId>
  /** When it has been: packed, for those who begin like this one. */
  readonly midstates?: () => Uint8Array
  /** Of the tar, in bytes. */
  readonly size: number
  readonly root: Pick<AppliedLayer, 'opaqueRoot' | 'hasRoot'>
  /** What the driver mounts. After the contents' locations are final. */
  readonly index: (driver: Driver) => Promise<IndexImage | undefined>
  readonly contents: ContentWriter
  /** Under a temporary name. */
  readonly recipe: RecipeWriter
}

/** Takes a tar as it comes, in parts of any size. Errors: those of `TarReader` and of `createApplier`. */
export interface TarIngest {
  feed(chunk: Buffer): void
  finish(): IncomingLayer & { readonly diffId: DiffId }
}

/** Takes a layer of our own making, entry by entry. */
export interface EntryIngest extends LayerSink {
  /** Returns where in the tar its header begins. */
  entry(entry: TarOutputEntry): number
  data(chunk: Uint8Array): void
  /** The whole of a file; false when the store does not have it. */
  stored(digest: Uint8Array): boolean
  end(): IncomingLayer
}

/** `recipe` is the path of a file to be made. The caller disposes both writers, however it ends. */
export interface IngestParts {
  readonly contents: ContentWriter
  readonly recipe: RecipeWriter
}

export function startTarIngest(parts: IngestParts): TarIngest {
  const layer = new Incoming(parts)
  const hash = createHash('sha256')
  let chunk: Buffer = Buffer.alloc(0)
  /** How much of it is in the recipe. */
  let seen = 0
  const literalTo = (end: number): void => {
    if (end > seen) layer.literal(chunk.subarray(seen, end))
    seen = end
  }
  const reader = new TarReader({
    entry: (entry) => layer.entry(entry),
    data: (part, offset) => {
      literalTo(part.byteOffset - chunk.byteOffset)
      layer.data(part, offset)
      seen += part.length
    },
    end: () => layer.endEntry(),
  })
  return {
    feed: (bytes) => {
      chunk = bytes
      seen = 0
      hash.update(bytes)
      reader.feed(bytes)
      literalTo(bytes.length)
    },
    finish: () => {
      reader.finish()
      return { ...layer.finish(), diffId: diffIdOf(hash.digest('hex')) }
    },
  }
}

/** The caller disposes `digest` after the layer's `diffId` is there, or when there will be none. */
export function startEntryIngest(parts: IngestParts, digest: TarDigest): EntryIngest {
  const layer = new Incoming(parts, digest)
  let name: TarOutputEntry['path'] = ''
  let size = 0
  /** Of the file's contents. */
  let position = 0
  const take = (length: number): number => {
    if (position + length > size) throw changed(name, 'its contents are longer than its size')
    const from = position
    position += length
    return from
  }
  const endEntry = (): void => {
    if (position !== size) throw changed(name, `${size - position} bytes of its contents are missing`)
    layer.endEntry()
    layer.zeros(padding(size).length)
    size = 0
    position = 0
  }
  const end = (): IncomingLayer => {
    endEntry()
    layer.zeros(END.length)
    const ended = digest.end()
    const diffId = typeof ended === 'string' ? diffIdOf(ended) : ended.then(diffIdOf)
    // Told to whoever commits the layer, later.
    if (typeof diffId !== 'string') diffId.catch(() => {})
    return { ...layer.finish(), diffId, midstates: () => digest.midstates }
  }
  return {
    entry: (entry) => {
      endEntry()
      const start = layer.bytes
      layer.literal(encodeHeader(entry))
      layer.entry(entry)
      name = entry.path
      size = entry.type === 'file' ? entry.size : 0
      return start
    },
    data: (bytes) => {
      layer.data(bytes, take(bytes.length))
    },
    dataFrom: (fd, from, length) => {
      const offset = take(length)
      const read = layer.dataFrom(fd, from, length, offset)
      if (read < length) throw changed(name, 'it is shorter than it was when it was opened')
    },
    zeros: (length) => {
      layer.hole(length, take(length))
    },
    stored: (content) => {
      const isKnown = layer.stored(content)
      if (isKnown) take(size)
      return isKnown
    },
    get bytes() {
      return layer.bytes
    },
    end,
  }
}

const PART = 1024 * 1024
const zeros = Buffer.alloc(HOLE)
/** Files whose holes cannot be kept are kept whole; those of a layer are together no larger than this. */
const MOST_UNALIGNED = 64 * 1024 * 1024
/** A larger file is hashed while it is copied; contents of smaller ones when they have been kept. */
const LARGE = 4 * 1024 * 1024
let scratch: Buffer | undefined

/** What both have in common: where each byte goes. */
class Incoming {
  readonly #contents: ContentWriter
  readonly #recipe: RecipeWriter
  readonly #tree = new LayerTree()
  readonly #applier = createApplier(this.#tree)
  /** Of what is made here. */
  readonly #digest: TarDigest | undefined
  /** Of the present file. */
  #inode: number | undefined
  #isOpen = false
  #runStart = 0
  #runEnd = 0
  #fileSize = 0
  /** Is it looked at for holes? Those of a sparse entry are known. */
  #findsHoles = false
  /** At the end of what was seen, in a block that was all zeros so far. */
  #pendingZeros = 0
  #isLarge = false
  /** All of a file whose holes are not where the index image can have some. */
  #whole: Buffer | undefined
  #wholeBytes = 0

  constructor({ contents, recipe }: IngestParts, digest?: TarDigest) {
    this.#contents = contents
    this.#recipe = recipe
    this.#digest = digest
  }

  get bytes(): number {
    return this.#recipe.tarBytes + (this.#isOpen ? this.#runEnd - this.#runStart : 0)
  }

  literal(bytes: Uint8Array): void {
    this.#endRun()
    this.#recipe.literal(bytes)
    this.#digest?.literal(bytes)
  }

  zeros(length: number): void {
    this.#endRun()
    this.#recipe.zeros(length)
    this.#digest?.zeros(length)
  }

  entry(entry: TarEntry | TarOutputEntry): void {
    this.#inode = this.#applier.entry(entry)
    if (this.#inode === undefined) return
    this.#tree.setSize(this.#inode, entry.size)
    this.#fileSize = entry.size
    this.#isLarge = entry.size > LARGE
    this.#findsHoles = entry.size >= HOLE && !('sparse' in entry)
    if (!hasAlignedHoles(entry)) this.#keepWhole(entry)
  }

  #keepWhole(entry: TarEntry | TarOutputEntry): void {
    this.#wholeBytes += entry.size
    if (this.#wholeBytes > MOST_UNALIGNED) {
      throw tarError(
        'TAR_SPARSE',
        'its holes do not end at blocks, and the layer is too large for such files to be kept whole',
        { name: textOf(entry.path) },
      )
    }
    this.#whole = Buffer.alloc(entry.size)
  }

  data(bytes: Uint8Array, offset: number): void {
    if (this.#isLarge) this.#digest?.literal(bytes)
    this.#keep(bytes, offset)
  }

  #keep(bytes: Uint8Array, offset: number): void {
    this.#whole?.set(bytes, offset)
    if (!this.#findsHoles) {
      this.#append(bytes, offset)
      return
    }
    for (let at = 0; at < bytes.length;) {
      const position = offset + at
      const part = bytes.subarray(at, at + HOLE - (position % HOLE))
      at += part.length
      if (this.#zerosFrom(position) && isZero(part)) this.#addZeros(part.length, position)
      else this.#append(part, position)
    }
  }

  dataFrom(fd: number, from: number, length: number, offset: number): number {
    if (!this.#findsHoles) {
      this.#beginAt(offset)
      const read = this.#contents.appendFrom(fd, from, length)
      this.#runEnd += read
      return read
    }
    const buffer = (scratch ??= Buffer.allocUnsafeSlow(PART))
    let done = 0
    while (done < length) {
      const read = readSync(fd, buffer, 0, Math.min(PART, length - done), from + done)
      if (read === 0) break
      this.data(buffer.subarray(0, read), offset + done)
      done += read
    }
    return done
  }

  /** In a file, at `offset`. */
  hole(length: number, offset: number): void {
    if (this.#isLarge) this.#digest?.zeros(length)
    for (let at = 0; at < length; at += zeros.length) this.#keep(zeros.subarray(0, length - at), offset + at)
  }

  stored(digest: Uint8Array): boolean {
    const content = this.#contents.find(digest)
    if (content === undefined) return false
    this.#isLarge = false
    this.#run(content, this.#contents.list.size(content), 0)
    return true
  }

  endEntry(): void {
    // The last block is not whole.
    if (this.#pendingZeros > 0) this.#append(new Uint8Array(0), this.#fileSize)
    this.#findsHoles = false
    this.#endRun()
    this.#isLarge = false
    if (this.#whole !== undefined && this.#inode !== undefined) {
      this.#contents.begin()
      this.#contents.append(this.#whole)
      const content = this.#contents.end()
      this.#recipe.keep(this.#contents.list.digest(content), this.#whole.length)
      this.#tree.addPiece(this.#inode, 0, this.#whole.length, content)
    }
    this.#whole = undefined
    this.#inode = undefined
  }

  finish(): Omit<IncomingLayer, 'diffId'> {
    this.#endRun()
    // Not all of this object is needed until then.
    const tree = this.#tree
    const contents = this.#contents
    return {
      size: this.#recipe.tarBytes,
      root: this.#applier.finish(),
      index: (driver) => driver.index(tree, contents.list),
      contents,
      recipe: this.#recipe,
    }
  }

  #append(bytes: Uint8Array, offset: number): void {
    const pending = this.#pendingZeros
    this.#pendingZeros = 0
    this.#beginAt(offset - pending)
    if (pending > 0) this.#contents.append(zeros.subarray(0, pending))
    this.#contents.append(bytes)
    this.#runEnd += pending + bytes.length
  }

  /** Is all of this block, up to here, zeros? */
  #zerosFrom(position: number): boolean {
    return position % HOLE === this.#pendingZeros
  }

  #addZeros(length: number, position: number): void {
    this.#pendingZeros += length
    if (this.#pendingZeros < HOLE) return
    this.#pendingZeros = 0
    this.#endRun()
    this.#recipe.zeros(HOLE)
    if (!this.#isLarge) this.#digest?.zeros(HOLE)
    this.#runStart = this.#runEnd = position + length
  }

  #beginAt(offset: number): void {
    if (this.#isOpen && offset === this.#runEnd) return
    this.#endRun()
    this.#contents.begin()
    this.#isOpen = true
    this.#runStart = offset
    this.#runEnd = offset
  }

  #endRun(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    const length = this.#runEnd - this.#runStart
    if (length === 0) return
    this.#run(this.#contents.end(), length, this.#runStart)
  }

  #run(content: number, length: number, offset: number): void {
    this.#recipe.run(this.#contents.list.digest(content), length)
    if (!this.#isLarge) this.#digest?.content(content)
    if (this.#inode !== undefined && this.#whole === undefined)
      this.#tree.addPiece(this.#inode, offset, length, content)
  }
}

export function diffIdOf(sha256: string): DiffId {
  return `sha256:${sha256}` as DiffId
}

function changed(name: TarOutputEntry['path'], message: string) {
  return tarError('TAR_FILE_CHANGED', message, { name: textOf(name) })
}

function textOf(name: TarOutputEntry['path']): string {
  return typeof name === 'string' ? name : name.toString('latin1')
}
