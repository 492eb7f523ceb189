import type { Sha256 } from './sha256.ts'

const STAGE = 256 * 1024

/** Gathers small parts of what is hashed: to hash each by itself takes longer than to copy it. */
export class Staged {
  readonly #hash: Pick<Sha256, 'update' | 'digest'>
  readonly #buffer = Buffer.allocUnsafeSlow(STAGE)
  #filled = 0

  constructor(hash: Pick<Sha256, 'update' | 'digest'>) {
    this.#hash = hash
  }

  update(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > STAGE) this.flush()
    if (bytes.length > STAGE) {
      this.#hash.update(bytes)
      return
    }
    this.#buffer.set(bytes, this.#filled)
    this.#filled += bytes.length
  }

  zeros(length: number): void {
    for (let done = 0; done < length;) {
      if (this.#filled === STAGE) this.flush()
      const end = Math.min(STAGE, this.#filled + length - done)
      this.#buffer.fill(0, this.#filled, end)
      done += end - this.#filled
      this.#filled = end
    }
  }

  /** What came is hashed. */
  flush(): void {
    this.#hash.update(this.#buffer.subarray(0, this.#filled))
    this.#filled = 0
  }

  /** Ends it. */
  digest(): string {
    this.flush()
    return this.#hash.digest().toString('hex')
  }
}
