/**
 * Where the digest of a tar stood, every few MiB: a tar that begins as another one did is hashed, and its contents are read, only from where they part.
 * Most new layers are an older one with a few files changed.
 *
 * What a tar is made of up to some place is known by a fingerprint: a chain of SHA-256 over its operations, literal bytes and digests of contents. So two
 * tars with one fingerprint have the same bytes, as surely as two contents with one digest.
 *
 * Packed: for each place 32 bytes of fingerprint, 32 of the digest's state, 8 for where it is in the tar (a number as float64).
 */
import { createHash, type Hash } from 'node:crypto'
import { createSha256, STATE_BYTES, SHA256_BLOCK, type Sha256 } from './sha256.ts'

const FINGERPRINT_BYTES = 32
const BYTES_AT = FINGERPRINT_BYTES + STATE_BYTES
const RECORD = BYTES_AT + 8
/** Less is hashed in 2 ms. */
const STEP = 4 * 1024 * 1024

/** Of a place that is found by where it is in its tar alone, since what led there was not gone through. */
export const NO_FINGERPRINT: Uint8Array = Buffer.alloc(FINGERPRINT_BYTES)

/** A place in a tar. */
export interface Midstate {
  readonly fingerprint: Uint8Array
  readonly state: Uint8Array
  /** Of the tar up to here. */
  readonly bytes: number
}

/** Of several layers, by fingerprint. */
export class Midstates {
  readonly #states = new Map<string, Buffer>()

  constructor(packed: Uint8Array) {
    const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
    for (let at = 0; at < bytes.length; at += RECORD) {
      const fingerprint = bytes.toString('latin1', at, at + FINGERPRINT_BYTES)
      this.#states.set(fingerprint, bytes.subarray(at + FINGERPRINT_BYTES, at + BYTES_AT))
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
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER)
  readonly #view = new DataView(this.#buffer.buffer)
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
    this.#next = stepAfter(this.#bytes)
    this.#flush()
    const fingerprint = this.#hash.digest()
    this.#hash = createHash('sha256').update(fingerprint)
    return fingerprint
  }

  #frame(kind: number, length: number, digest?: Uint8Array): void {
    if (this.#filled + FRAME > BUFFER) this.#flush()
    const at = this.#filled
    this.#view.setFloat64(at, kind, true)
    this.#view.setFloat64(at + 8, length, true)
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

/** Where the next midstate is taken, or soon after. */
export function stepAfter(bytes: number): number {
  return (Math.floor(bytes / STEP) + 1) * STEP
}

export function packMidstate({ fingerprint, state, bytes }: Midstate): Buffer {
  const record = Buffer.alloc(RECORD)
  record.set(fingerprint)
  record.set(state, FINGERPRINT_BYTES)
  record.writeDoubleLE(bytes, BYTES_AT)
  return record
}

/** Of one layer: those up to `end` in its tar, packed, and the last of them. */
export function midstatesUpTo(
  packed: Uint8Array,
  end: number,
): { readonly packed: Uint8Array; readonly last: Midstate } | undefined {
  const bytes = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
  let length = 0
  while (length < bytes.length && bytes.readDoubleLE(length + BYTES_AT) <= end) length += RECORD
  if (length === 0) return undefined
  const last = bytes.subarray(length - RECORD, length)
  return {
    packed: bytes.subarray(0, length),
    last: {
      fingerprint: last.subarray(0, FINGERPRINT_BYTES),
      state: last.subarray(FINGERPRINT_BYTES, BYTES_AT),
      bytes: last.readDoubleLE(BYTES_AT),
    },
  }
}

/** A digest of one layer's tar that says, after all of it, whether midstates are the tar's. */
export interface Comparison extends Pick<Sha256, 'update' | 'digest'> {
  readonly isSame: boolean
}

/** Only where `canContinue`. */
export function createComparison(packed: Uint8Array): Comparison {
  const records = Buffer.from(packed.buffer, packed.byteOffset, packed.length)
  const hash = createSha256()
  let at = 0
  let bytes = 0
  let isSame = records.length % RECORD === 0
  const placeOf = (): number => (at < records.length ? records.readDoubleLE(at + BYTES_AT) : Infinity)
  return {
    update: (part) => {
      let from = 0
      while (isSame && placeOf() <= bytes + part.length) {
        const to = placeOf() - bytes
        isSame = to >= from && to % 1 === 0 && (bytes + to) % SHA256_BLOCK === 0
        if (!isSame) break
        hash.update(part.subarray(from, to))
        from = to
        const state = records.subarray(at + FINGERPRINT_BYTES, at + BYTES_AT)
        isSame = hash.state().equals(state)
        at += RECORD
      }
      hash.update(part.subarray(from))
      bytes += part.length
    },
    digest: () => hash.digest(),
    get isSame() {
      return isSame && at === records.length
    },
  }
}
