/**
 * What a tar is made of, for whoever computes its digest: literal bytes, zeros, and contents of the store, by where they are. Also contents that will be
 * part of it, in no order, to be verified ahead. Packed into buffers that pass from one thread to another without a copy.
 *
 * An operation: its kind (8 bytes, a number as float64, as are all fields) and length; of a content also segment, block, what is known of it, and
 * its sha256; of a literal then its bytes, up to a multiple of 8.
 */
import { createHash, type Hash } from 'node:crypto'
import {
  damagedContent,
  MOST_VERIFIED,
  type ContentReader,
  type VerifyingReader,
} from '../contents/reader.ts'
import { DIGEST_BYTES, type Location } from '../contents/list.ts'

const LITERAL = 0
const ZEROS = 1
const CONTENT = 2
const AHEAD = 3
/** What is known of a content: nothing yet; that it was verified ahead; that it was written just now. */
export type Known = 'unverified' | 'verified' | 'written'
const KNOWN: readonly Known[] = ['unverified', 'verified', 'written']
const HEAD = 16
const CONTENT_BYTES = 5 * 8 + DIGEST_BYTES
/** A message to another thread costs 100 us; what waits is in memory. */
const BATCH = 256 * 1024
/** Most tars are small. */
const FIRST_BATCH = 64 * 1024
const PART = 1024 * 1024
const zeros = Buffer.alloc(64 * 1024)

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

  content(digest: Uint8Array, length: number, location: Location, known: Known): void {
    this.#content(CONTENT, digest, length, location, known)
  }

  ahead(digest: Uint8Array, length: number, location: Location): void {
    this.#content(AHEAD, digest, length, location, 'unverified')
  }

  #content(
    kind: number,
    digest: Uint8Array,
    length: number,
    { segment, block }: Location,
    known: Known,
  ): void {
    this.#reserve(CONTENT_BYTES)
    this.#put(kind, length)
    const at = this.#length / 8
    this.#view[at] = segment
    this.#view[at + 1] = block
    this.#view[at + 2] = KNOWN.indexOf(known)
    this.#bytes.set(digest, this.#length + 24)
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

/** Hashes batches, which must come in their order. */
export class OperationHash {
  readonly #hash = createHash('sha256')
  readonly #reader: ContentReader
  readonly #verifying: VerifyingReader
  #ahead: VerifyingReader | undefined
  #part: Buffer | undefined

  constructor(reader: ContentReader) {
    this.#reader = reader
    this.#verifying = reader.verifying()
  }

  /** Throws `STORE_CORRUPT` for a content that is not what its digest says. */
  update(batch: Uint8Array<ArrayBuffer>): void {
    const view = new Float64Array(batch.buffer)
    for (let at = 0; at < batch.length;) {
      const kind = view[at / 8]
      const length = view[at / 8 + 1] ?? 0
      at += HEAD
      if (kind === LITERAL) {
        this.#hash.update(batch.subarray(at, at + length))
        at += aligned(length)
      } else if (kind === ZEROS) {
        for (let done = 0; done < length; done += zeros.length)
          this.#hash.update(zeros.subarray(0, length - done))
      } else {
        const digest = batch.subarray(at + 24, at + 24 + DIGEST_BYTES)
        const location = { segment: view[at / 8] ?? 0, block: view[at / 8 + 1] ?? 0 }
        const known = KNOWN[view[at / 8 + 2] ?? 0]
        // What was read ahead for the one may be older than what is right for the other.
        if (kind === AHEAD)
          this.#read(digest, length, location, known, (this.#ahead ??= this.#reader.verifying()))
        else
          this.#read(digest, length, location, known, this.#verifying, (part) => {
            this.#hash.update(part)
          })
        at += CONTENT_BYTES - HEAD
      }
    }
  }

  /** In hexadecimal digits. */
  digest(): string {
    return this.#hash.digest('hex')
  }

  #read(
    digest: Uint8Array,
    size: number,
    location: Location,
    known: Known | undefined,
    verifying: VerifyingReader,
    take?: (part: Buffer) => void,
  ): void {
    if (known !== 'written' && size <= MOST_VERIFIED) {
      const bytes = verifying(digest, location, size, known === 'verified')
      take?.(bytes)
      return
    }
    const found: Hash | undefined = known === 'unverified' ? createHash('sha256') : undefined
    for (let at = 0; at < size; at += PART) {
      const part = (this.#part ??= Buffer.allocUnsafeSlow(PART)).subarray(0, Math.min(PART, size - at))
      this.#reader.read(digest, location, at, part)
      found?.update(part)
      take?.(part)
    }
    if (found?.digest().equals(digest) === false) throw damagedContent(digest)
  }
}

function aligned(length: number): number {
  return Math.ceil(length / 8) * 8
}
