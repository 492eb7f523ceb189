/**
 * A layer on its way in. In one pass, each file's contents go to the store unless it has them, the recipe is written, the DiffId computed and the
 * layer's tree built, from which the driver makes what it mounts. Nothing of it is visible before `commit.ts` has recorded it.
 */
import { createHash } from 'node:crypto'
import type { ContentReader } from '../contents/reader.ts'
import type { ContentWriter } from '../contents/types.ts'
import { createApplier, type AppliedLayer } from '../layer/apply.ts'
import { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { RecipeWriter } from '../recipe/write.ts'
import { hasAlignedHoles, tarError, type TarEntry } from '../tar/entry.ts'
import { encodeHeader, END, padding, TarReader, type TarOutputEntry } from '../tar/index.ts'
import type { LayerSink } from '../tar/pack.ts'

/** A layer that has come in whole. */
export interface IncomingLayer {
  readonly diffId: DiffId
  /** Of the tar, in bytes. */
  readonly size: number
  readonly tree: LayerTree
  readonly applied: AppliedLayer
  readonly contents: ContentWriter
  /** Under a temporary name. */
  readonly recipe: RecipeWriter
}

/** Takes a tar as it comes, in parts of any size. Errors: those of `TarReader` and of `createApplier`. */
export interface TarIngest {
  feed(chunk: Buffer): void
  finish(): IncomingLayer
}

/** Takes a layer of our own making, entry by entry. */
export interface EntryIngest extends LayerSink {
  data(chunk: Uint8Array): void
  /** The whole of a file, which the store has: `find` of the content writer has said so. */
  stored(digest: Uint8Array): void
  end(): IncomingLayer
}

/** `recipe` is the path of a file to be made. The caller disposes both writers, however it ends. */
interface Parts {
  readonly contents: ContentWriter
  readonly recipe: RecipeWriter
}

export function startTarIngest(parts: Parts): TarIngest {
  const layer = new Incoming(parts)
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
      layer.hash.update(bytes)
      reader.feed(bytes)
      literalTo(bytes.length)
    },
    finish: () => {
      reader.finish()
      return layer.finish()
    },
  }
}

export function startEntryIngest(parts: Parts, reader: ContentReader): EntryIngest {
  const layer = new Incoming(parts)
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
    const pad = padding(size)
    layer.hash.update(pad)
    layer.zeros(pad.length)
    size = 0
    position = 0
  }
  const end = (): IncomingLayer => {
    endEntry()
    layer.hash.update(END)
    layer.zeros(END.length)
    return layer.finish()
  }
  return {
    entry: (entry) => {
      endEntry()
      const header = encodeHeader(entry)
      layer.hash.update(header)
      layer.literal(header)
      layer.entry(entry)
      name = entry.path
      size = entry.type === 'file' ? entry.size : 0
    },
    data: (bytes) => {
      const offset = take(bytes.length)
      layer.hash.update(bytes)
      layer.data(bytes, offset)
    },
    dataFrom: (fd, from, length) => {
      const offset = take(length)
      const read = layer.dataFrom(fd, from, length, offset)
      if (read < length) throw changed(name, 'it is shorter than it was when it was opened')
    },
    zeros: (length) => {
      take(length)
      layer.hole(length)
    },
    stored: (digest) => {
      take(size)
      layer.stored(digest, reader)
    },
    get bytes() {
      return layer.bytes
    },
    end,
  }
}

const PART = 1024 * 1024
const zeros = Buffer.alloc(64 * 1024)
/** A file whose holes cannot be kept is kept whole, up to this size. */
const MOST_UNALIGNED = 64 * 1024 * 1024
let part: Buffer | undefined

/** What both have in common: where each byte goes. */
class Incoming {
  readonly hash = createHash('sha256')
  readonly #contents: ContentWriter
  readonly #recipe: RecipeWriter
  readonly #tree = new LayerTree()
  readonly #applier = createApplier(this.#tree)
  /** Of the present file. */
  #inode: number | undefined
  #isOpen = false
  #runStart = 0
  #runEnd = 0
  /** All of a file whose holes are not where the index image can have some. */
  #whole: Buffer | undefined

  constructor({ contents, recipe }: Parts) {
    this.#contents = contents
    this.#recipe = recipe
  }

  get bytes(): number {
    return this.#recipe.tarBytes + (this.#isOpen ? this.#runEnd - this.#runStart : 0)
  }

  literal(bytes: Uint8Array): void {
    this.#endRun()
    this.#recipe.literal(bytes)
  }

  zeros(length: number): void {
    this.#endRun()
    this.#recipe.zeros(length)
  }

  entry(entry: TarEntry | TarOutputEntry): void {
    this.#inode = this.#applier.entry(entry)
    if (this.#inode === undefined) return
    this.#tree.setSize(this.#inode, entry.size)
    if (!hasAlignedHoles(entry)) this.#keepWhole(entry)
  }

  #keepWhole(entry: TarEntry | TarOutputEntry): void {
    if (entry.size > MOST_UNALIGNED) {
      throw tarError('TAR_SPARSE', 'its holes do not end at blocks, and it is too large to be kept whole', {
        name: textOf(entry.path),
      })
    }
    this.#whole = Buffer.alloc(entry.size)
  }

  data(bytes: Uint8Array, offset: number): void {
    this.#beginAt(offset)
    this.#contents.append(bytes)
    this.#runEnd += bytes.length
    this.#whole?.set(bytes, offset)
  }

  dataFrom(fd: number, from: number, length: number, offset: number): number {
    this.#beginAt(offset)
    const read = this.#contents.appendFrom(fd, from, length, (bytes) => this.hash.update(bytes))
    this.#runEnd += read
    return read
  }

  /** In a file. */
  hole(length: number): void {
    this.#endRun()
    for (let rest = length; rest > 0; rest -= zeros.length) {
      this.hash.update(rest < zeros.length ? zeros.subarray(0, rest) : zeros)
    }
    this.#recipe.zeros(length)
  }

  stored(digest: Uint8Array, reader: ContentReader): void {
    const content = this.#contents.find(digest)
    if (content === undefined) throw new Error('this content is not stored')
    const { list } = this.#contents
    const size = list.size(content)
    const bytes = (part ??= Buffer.allocUnsafeSlow(PART))
    for (let at = 0; at < size; at += PART) {
      const some = bytes.subarray(0, Math.min(PART, size - at))
      reader.read(digest, list.location(content), at, some)
      this.hash.update(some)
    }
    this.#recipe.run(digest, size)
    if (this.#inode !== undefined) this.#tree.addPiece(this.#inode, 0, size, content)
  }

  endEntry(): void {
    this.#endRun()
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

  finish(): IncomingLayer {
    this.#endRun()
    return {
      diffId: `sha256:${this.hash.digest('hex')}` as DiffId,
      size: this.#recipe.tarBytes,
      tree: this.#tree,
      applied: this.#applier.finish(),
      contents: this.#contents,
      recipe: this.#recipe,
    }
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
    const content = this.#contents.end()
    this.#recipe.run(this.#contents.list.digest(content), length)
    if (this.#inode !== undefined && this.#whole === undefined) {
      this.#tree.addPiece(this.#inode, this.#runStart, length, content)
    }
  }
}

function changed(name: TarOutputEntry['path'], message: string) {
  return tarError('TAR_FILE_CHANGED', message, { name: textOf(name) })
}

function textOf(name: TarOutputEntry['path']): string {
  return typeof name === 'string' ? name : name.toString('latin1')
}
