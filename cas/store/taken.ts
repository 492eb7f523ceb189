import { DIGEST_BYTES } from '../contents/list.ts'
import type { Taken } from './types.ts'

/** A file that was taken. Its digest is one of several that stand together. */
export class TakenFile implements Taken {
  readonly #digests: Buffer
  readonly #at: number
  readonly isPlain: boolean
  readonly isNew: boolean

  /** @param at where in `digests` its digest begins */
  constructor(digests: Buffer, at: number, isPlain: boolean, isNew: boolean) {
    this.#digests = digests
    this.#at = at
    this.isPlain = isPlain
    this.isNew = isNew
  }

  get digest(): Buffer {
    return this.#digests.subarray(this.#at, this.#at + DIGEST_BYTES)
  }

  copyDigest(into: Uint32Array, at: number): void {
    for (let i = 0; i < DIGEST_BYTES / 4; i++) into[at + i] = this.#digests.readUInt32LE(this.#at + i * 4)
  }
}
