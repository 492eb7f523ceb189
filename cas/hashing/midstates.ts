/**
 * Where the digest of a tar stood, every few MiB: a tar that begins as another one did is hashed, and its contents are read, only from where they part.
 * Most new layers are an older one with a few files changed.
 *
 * What a tar is made of up to some place is known by a fingerprint: a chain of SHA-256 over its operations, literal bytes and digests of contents. So two
 * tars with one fingerprint have the same bytes, as surely as two contents with one digest.
 *
 * Packed: for each place 32 bytes of fingerprint, 32 of the digest's state.
 */
import { createHash, type Hash } from 'node:crypto'
import { STATE_BYTES, SHA256_BLOCK } from './sha256.ts'

const FINGERPRINT_BYTES = 32
const RECORD = FINGERPRINT_BYTES + STATE_BYTES
/** Less is hashed in 2 ms. */
const STEP = 4 * 1024 * 1024

/** Of several layers, by fingerprint. */
export class Midstates {
  readonly #states = new Map<string, Buffer>()

  constructor(packed: Uint8Array) {
    const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
    for (let at = 0; at < bytes.length; at += RECORD) {
      const fingerprint = bytes.toString('latin1', at, at + FINGERPRINT_BYTES)
      this.#states.set(fingerprint, bytes.subarray(at + FINGERPRINT_BYTES, at + RECORD))
    }
  }

  find(fingerprint: Buffer): Buffer | undefined {
    return this.#states.get(fingerprint.toString('latin1'))
  }
}

/** Each operation as one record of the chain; a literal's comes after its bytes, so that it does not matter in how many parts they came. */
const LITERAL = 0
const FRAME = 48
const BUFFER = 64 * 1024

/** Says of each place what led there. */
export class Fingerprint {
  #hash: Hash = createHash('sha256')
  readonly #buffer = Buffer.alloc(BUFFER)
  #filled = 0
  #literal = 0
  #bytes = 0
  #next = STEP

  /** Of the tar so far. */
  get bytes(): number {
    return this.#bytes
  }

  literal(bytes: Uint8Array): void {
    this.#put(bytes)
    this.#literal += bytes.length
    this.#bytes += bytes.length
  }

  /** Another kind of operation; `digest` where it has one. The fingerprint, where a state is to be kept. */
  operation(kind: number, length: number, digest?: Uint8Array): Buffer | undefined {
    if (this.#literal > 0) this.#frame(LITERAL, this.#literal)
    this.#literal = 0
    this.#frame(kind, length, digest)
    this.#bytes += length
    if (this.#bytes < this.#next || this.#bytes % SHA256_BLOCK !== 0) return undefined
    this.#next = (Math.floor(this.#bytes / STEP) + 1) * STEP
    this.#flush()
    const fingerprint = this.#hash.digest()
    this.#hash = createHash('sha256').update(fingerprint)
    return fingerprint
  }

  #frame(kind: number, length: number, digest?: Uint8Array): void {
    if (this.#filled + FRAME > BUFFER) this.#flush()
    const at = this.#filled
    this.#buffer.writeDoubleLE(kind, at)
    this.#buffer.writeDoubleLE(length, at + 8)
    if (digest === undefined) this.#buffer.fill(0, at + 16, at + FRAME)
    else this.#buffer.set(digest, at + 16)
    this.#filled += FRAME
  }

  #put(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > BUFFER) this.#flush()
    if (bytes.length > BUFFER) {
      this.#hash.update(bytes)
      return
    }
    this.#buffer.set(bytes, this.#filled)
    this.#filled += bytes.length
  }

  #flush(): void {
    this.#hash.update(this.#buffer.subarray(0, this.#filled))
    this.#filled = 0
  }
}

export function packMidstate(fingerprint: Buffer, state: Buffer): Buffer {
  return Buffer.concat([fingerprint, state])
}
