/**
 * SHA-256 that can stop and be taken up again: by OpenSSL's own functions (SHA256_Init(3)), which Node has inside. What node:crypto makes of them has no
 * way to its state.
 */
import { declareOwn } from '../../linux/index.ts'

/** Bytes of a state: eight words, and nothing else where the bytes so far are whole blocks of 64. */
export const STATE_BYTES = 32
export const SHA256_BLOCK = 64

export interface Sha256 {
  update(bytes: Uint8Array): void
  /** A copy. Only where `bytes` so far are whole blocks. */
  state(): Buffer
  /** Ends it. */
  digest(): Buffer
}

// SHA256_CTX: h[8], the length in bits (low, high), a block's data[16], num, md_len; words of 32 bits.
const CONTEXT_BYTES = 112
const BITS_AT = 8
const DATA_BYTES_AT = 26
const DIGEST_BYTES_AT = 27
const FIRST_WORDS = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a]

interface Functions {
  readonly init: (context: Uint8Array) => number
  readonly update: (context: Uint8Array, bytes: Uint8Array, length: number) => number
  readonly final: (digest: Uint8Array, context: Uint8Array) => number
}
let functions: Functions | 'none' | undefined

/** Whether a digest can be continued: Node's OpenSSL may not give these functions away, or keep its state in another form. */
export function canContinue(): boolean {
  functions ??= load() ?? 'none'
  return functions !== 'none'
}

/** From the beginning, or on from a `state` after so many `bytes`. Only where `canContinue`. */
export function createSha256(from?: { readonly state: Uint8Array; readonly bytes: number }): Sha256 {
  functions ??= load() ?? 'none'
  if (functions === 'none') throw new Error('this Node cannot continue a digest')
  const { init, update, final } = functions
  const context = Buffer.alloc(CONTEXT_BYTES)
  init(context)
  if (from !== undefined) {
    context.set(from.state)
    const bits = from.bytes * 8
    context.writeUInt32LE(bits % 2 ** 32, BITS_AT * 4)
    context.writeUInt32LE(Math.floor(bits / 2 ** 32), BITS_AT * 4 + 4)
  }
  return {
    update: (bytes) => void update(context, bytes, bytes.length),
    state: () => Buffer.from(context.subarray(0, STATE_BYTES)),
    digest: () => {
      const digest = Buffer.alloc(32)
      final(digest, context)
      return digest
    },
  }
}

function load(): Functions | undefined {
  const init = declareOwn('int SHA256_Init(void *)')
  const update = declareOwn('int SHA256_Update(void *, const void *, size_t)')
  const final = declareOwn('int SHA256_Final(void *, void *)')
  if (init === undefined || update === undefined || final === undefined) return undefined
  const context = new Uint32Array(CONTEXT_BYTES / 4)
  init(context)
  const isAsExpected =
    FIRST_WORDS.every((word, i) => context[i] === word) &&
    context[DATA_BYTES_AT] === 0 &&
    context[DIGEST_BYTES_AT] === 32
  return isAsExpected ? { init, update, final } : undefined
}
