/** The image on its way out: one buffer, filled from start to end and handed on whenever it is full. */

const CAPACITY = 1024 * 1024

export class ImageOutput {
  readonly #sink: (chunk: Buffer) => void
  readonly #buffer = Buffer.allocUnsafeSlow(CAPACITY)
  readonly view = new DataView(this.#buffer.buffer)
  #filled = 0
  #flushed = 0

  constructor(sink: (chunk: Buffer) => void) {
    this.#sink = sink
  }

  /** Bytes so far. */
  get position(): number {
    return this.#flushed + this.#filled
  }

  /** Room for so many bytes in one piece, zeroed; returns where it begins in `view`. It is gone with the next call of anything here. */
  reserve(length: number): number {
    if (this.#filled + length > CAPACITY) this.flush()
    const start = this.#filled
    this.#filled += length
    this.#buffer.fill(0, start, this.#filled)
    return start
  }

  /** A byte string into reserved room. */
  text(at: number, text: string): void {
    for (let i = 0; i < text.length; i++) this.#buffer[at + i] = text.charCodeAt(i)
  }

  bytes(bytes: Uint8Array): void {
    for (let start = 0; start < bytes.length;) {
      if (this.#filled === CAPACITY) this.flush()
      const part = bytes.subarray(start, start + CAPACITY - this.#filled)
      this.#buffer.set(part, this.#filled)
      this.#filled += part.length
      start += part.length
    }
  }

  /** Zeros up to a position. */
  padTo(position: number): void {
    const missing = position - this.position
    if (missing < 0) throw new Error(`EROFS image: at ${this.position}, past ${position}`)
    for (let rest = missing; rest > 0; rest -= CAPACITY) this.reserve(Math.min(rest, CAPACITY))
  }

  flush(): void {
    if (this.#filled === 0) return
    this.#sink(this.#buffer.subarray(0, this.#filled))
    this.#flushed += this.#filled
    this.#filled = 0
  }
}
