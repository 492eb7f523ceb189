/**
 * What a tar is made of, for whoever computes its digest: literal bytes, zeros, and contents of the store, by where they are. Packed into buffers that pass from one thread to another without a copy.
 *
 * An operation: its kind (8 bytes, a number as float64, as are all fields) and length; of a content also segment, block, 1 if it was written just now, and
 * its sha256; of a literal then its bytes, up to a multiple of 8.
 */
import { createHash } from 'node:crypto'
import type { AheadReader, ContentReader } from '../contents/reader.ts'
import { DIGEST_BYTES, type ContentList } from '../contents/list.ts'
import { Fingerprint, Midstates, packMidstate } from './midstates.ts'
import { readContent } from './read.ts'
import { canContinue, createSha256, type Sha256 } from './sha256.ts'
import { Staged } from './staged.ts'

const LITERAL = 0
export const ZEROS = 1
export const CONTENT = 2
const HEAD = 16
const CONTENT_BYTES = 5 * 8 + DIGEST_BYTES
/** A message to another thread costs 100 us; what waits is in memory. */
const BATCH = 256 * 1024
/** Most tars are small. */
const FIRST_BATCH = 64 * 1024

/** Collects operations. A batch that is full goes to `send`, and is its own from then on. */
export class OperationWriter {
  readonly #send: (batch: Uint8Array<ArrayBuffer>) => void
  #bytes = new Uint8Array(0)
  #view = new Float64Array(0)
  #length = 0
  #next = FIRST_BATCH

  constructor(send: (batch: Uint8Array<ArrayBuffer>) => void) {
    this.#send = send
  }

  literal(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      this.#reserve(HEAD + 8)
      const part = bytes.subarray(at, at + this.#bytes.length - this.#length - HEAD)
      this.#put(LITERAL, part.length)
      this.#bytes.set(part, this.#length)
      this.#length += aligned(part.length)
      at += part.length
    }
  }

  zeros(length: number): void {
    if (length === 0) return
    this.#reserve(HEAD)
    this.#put(ZEROS, length)
  }

  /** `content`: its number in the list. */
  content(list: ContentList, content: number, isOwn: boolean): void {
    this.#reserve(CONTENT_BYTES)
    this.#put(CONTENT, list.size(content))
    const at = this.#length / 8
    this.#view[at] = list.segment(content)
    this.#view[at + 1] = list.block(content)
    this.#view[at + 2] = isOwn ? 1 : 0
    list.copyDigest(content, this.#bytes, this.#length + 24)
    this.#length += CONTENT_BYTES - HEAD
  }

  /** Sends what there is. */
  flush(): void {
    if (this.#length > 0) this.#send(this.#bytes.subarray(0, this.#length))
    this.#bytes = new Uint8Array(0)
    this.#length = 0
  }

  #put(kind: number, length: number): void {
    this.#view[this.#length / 8] = kind
    this.#view[this.#length / 8 + 1] = length
    this.#length += HEAD
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes > this.#bytes.length) this.flush()
    if (this.#bytes.length > 0) return
    this.#bytes = Buffer.allocUnsafeSlow(this.#next)
    this.#next = BATCH
    this.#view = new Float64Array(this.#bytes.buffer)
  }
}

/** Some operations of a batch. */
interface Part {
  readonly batch: Uint8Array<ArrayBuffer>
  readonly from: number
  readonly to: number
}

/** Of operations that wait to see whether their tar's beginning is known. */
const MOST_PENDING = 8 * 1024 * 1024

/** Hashes batches, which must come in their order. */
export class OperationHash {
  #hash: Staged
  readonly #reader: ContentReader
  /** For contents that were there before, and those that were written since the last batch. */
  readonly #present: AheadReader
  #written: AheadReader | undefined
  readonly #fingerprint: Fingerprint | undefined
  readonly #known: Midstates | undefined
  /** What `#hash` hashes with. */
  #continued: Sha256 | undefined
  /** What came since the last place that was known, while all are. */
  #pending: Part[] | undefined
  #pendingBytes = 0
  readonly #midstates: Buffer[] = []

  /** `known`: packed midstates, one of which the tar may pass; then there are `midstates` of its own. */
  constructor(reader: ContentReader, known?: Uint8Array) {
    this.#reader = reader
    this.#present = reader.ahead()
    if (known === undefined || !canContinue()) {
      this.#hash = new Staged(createHash('sha256'))
      return
    }
    this.#fingerprint = new Fingerprint()
    this.#known = new Midstates(known)
    this.#continued = createSha256()
    this.#hash = new Staged(this.#continued)
    if (known.length > 0) this.#pending = []
  }

  /** Packed. */
  get midstates(): Uint8Array<ArrayBuffer> {
    return Buffer.concat(this.#midstates)
  }

  /** Throws `STORE_CORRUPT` for a content that is not what its digest says. */
  update(batch: Uint8Array<ArrayBuffer>): void {
    // All that it names is written by now.
    this.#written?.forget()
    const view = new Float64Array(batch.buffer)
    let from = 0
    for (let at = 0; at < batch.length;) {
      const fingerprint = this.#lookAt(batch, view, at)
      at = endOf(view, at)
      if (fingerprint === undefined) continue
      this.#arrive(fingerprint, { batch, from, to: at })
      from = at
    }
    this.#take({ batch, from, to: batch.length })
  }

  /** In hexadecimal digits. */
  digest(): string {
    this.#hashPending()
    return this.#hash.digest()
  }

  /** A fingerprint, where there may be a midstate. */
  #lookAt(batch: Uint8Array<ArrayBuffer>, view: Float64Array, at: number): Buffer | undefined {
    const { kind, length, data } = operationAt(view, at)
    if (kind === LITERAL) this.#fingerprint?.literal(batch.subarray(data, data + length))
    else
      return this.#fingerprint?.operation(kind, length, kind === CONTENT ? digestAt(batch, data) : undefined)
    return undefined
  }

  /** `last` is what led there. */
  #arrive(fingerprint: Buffer, last: Part): void {
    const state = this.#pending && this.#known?.find(fingerprint)
    if (state === undefined) {
      this.#hashPending()
      this.#hashPart(last)
    } else {
      this.#pending = []
      this.#pendingBytes = 0
      this.#continued = createSha256({ state, bytes: this.#fingerprint?.bytes ?? 0 })
      this.#hash = new Staged(this.#continued)
    }
    this.#hash.flush()
    const here = state ?? this.#continued?.state()
    const bytes = this.#fingerprint?.bytes ?? 0
    if (here !== undefined) this.#midstates.push(packMidstate({ fingerprint, state: here, bytes }))
  }

  #take(part: Part): void {
    if (this.#pending === undefined) {
      this.#hashPart(part)
      return
    }
    this.#pending.push(part)
    this.#pendingBytes += part.to - part.from
    if (this.#pendingBytes > MOST_PENDING) this.#hashPending()
  }

  /** From here on nothing is known of its kind. */
  #hashPending(): void {
    const pending = this.#pending ?? []
    this.#pending = undefined
    for (const part of pending) this.#hashPart(part)
  }

  #hashPart({ batch, from, to }: Part): void {
    const view = new Float64Array(batch.buffer)
    for (let at = from; at < to; at = endOf(view, at)) {
      const { kind, length, data } = operationAt(view, at)
      if (kind === LITERAL) {
        this.#hash.update(batch.subarray(data, data + length))
      } else if (kind === ZEROS) {
        this.#hash.zeros(length)
      } else if (kind === CONTENT) {
        this.#hashContent(batch, view, at)
      }
    }
  }

  #hashContent(batch: Uint8Array<ArrayBuffer>, view: Float64Array, at: number): void {
    const { length: size, data } = operationAt(view, at)
    const digest = digestAt(batch, data)
    const location = { segment: view[data / 8] ?? 0, block: view[data / 8 + 1] ?? 0 }
    const isOwn = view[data / 8 + 2] === 1
    const ahead = isOwn ? (this.#written ??= this.#reader.ahead()) : this.#present
    const take = (part: Buffer): void => {
      this.#hash.update(part)
    }
    readContent(this.#reader, ahead, digest, location, size, { isRight: isOwn, take })
  }
}

function operationAt(view: Float64Array, at: number) {
  return { kind: view[at / 8] ?? 0, length: view[at / 8 + 1] ?? 0, data: at + HEAD }
}

/** Of the operation that begins at `at`. */
function endOf(view: Float64Array, at: number): number {
  const { kind, length, data } = operationAt(view, at)
  if (kind === LITERAL) return data + aligned(length)
  return kind === ZEROS ? data : at + CONTENT_BYTES
}

/** Of a content, whose fields begin at `data`. */
function digestAt(batch: Uint8Array, data: number): Uint8Array {
  return batch.subarray(data + 24, data + 24 + DIGEST_BYTES)
}

function aligned(length: number): number {
  return Math.ceil(length / 8) * 8
}
