/**
 * The distinct contents of one layer, numbered in the order in which they came: digest, size, and where each is kept. In columns, as the layer's tree
 * is: 56 bytes each.
 */

/** Where a content is: `block` counts 512 bytes. Segment 0: a file of its own. */
export interface Location {
  readonly segment: number
  readonly block: number
}

export const DIGEST_BYTES = 32

export class ContentList {
  #count = 0
  #digests: Buffer<ArrayBuffer>
  #sizes: Float64Array<ArrayBuffer>
  #segments: Uint32Array<ArrayBuffer>
  #blocks: Uint32Array<ArrayBuffer>
  /** Open addressing by the digest's first bytes, which nobody can choose cheaply: number + 1. */
  #table: Uint32Array<ArrayBuffer>

  /** With room for so many, and then for more. */
  constructor(room = 64) {
    const length = 2 ** Math.max(6, Math.ceil(Math.log2(room + 1)))
    this.#digests = Buffer.from(new ArrayBuffer(length * DIGEST_BYTES))
    this.#sizes = new Float64Array(length)
    this.#segments = new Uint32Array(length)
    this.#blocks = new Uint32Array(length)
    this.#table = new Uint32Array(length * 2)
  }

  get count(): number {
    return this.#count
  }

  find(digest: Uint8Array): number | undefined {
    const number = (this.#table[this.#slot(digest)] ?? 0) - 1
    return number < 0 ? undefined : number
  }

  /** Number of a content that is new to the list. */
  add(digest: Uint8Array, size: number, { segment, block }: Location): number {
    if ((this.#count + 1) * 2 > this.#table.length) this.#growTable()
    const number = this.#count++
    if (number === this.#sizes.length) this.#grow()
    this.#digests.set(digest, number * DIGEST_BYTES)
    this.#sizes[number] = size
    this.#segments[number] = segment
    this.#blocks[number] = block
    this.#table[this.#slot(digest)] = number + 1
    return number
  }

  move(content: number, { segment, block }: Location): void {
    this.#segments[content] = segment
    this.#blocks[content] = block
  }

  /** A view, valid until the list grows. */
  digest(content: number): Buffer {
    return this.#digests.subarray(content * DIGEST_BYTES, (content + 1) * DIGEST_BYTES)
  }
  copyDigest(content: number, into: Uint8Array, at = 0): void {
    this.#digests.copy(into, at, content * DIGEST_BYTES, (content + 1) * DIGEST_BYTES)
  }
  size(content: number): number {
    return this.#sizes[content] ?? 0
  }
  segment(content: number): number {
    return this.#segments[content] ?? 0
  }
  block(content: number): number {
    return this.#blocks[content] ?? 0
  }
  location(content: number): Location {
    return { segment: this.segment(content), block: this.block(content) }
  }

  /** Of the digest at `at`. */
  #slot(digests: Uint8Array, at = 0): number {
    const mask = this.#table.length - 1
    let hash = 0
    for (let i = 3; i >= 0; i--) hash = (hash << 8) | (digests[at + i] ?? 0)
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const number = (this.#table[slot] ?? 0) - 1
      if (number < 0 || this.#isDigestOf(number, digests, at)) return slot
    }
  }

  #isDigestOf(number: number, digests: Uint8Array, at: number): boolean {
    const own = this.#digests
    const start = number * DIGEST_BYTES
    for (let i = 0; i < DIGEST_BYTES; i++) if (own[start + i] !== digests[at + i]) return false
    return true
  }

  #grow(): void {
    this.#digests = Buffer.from(grown(this.#digests))
    this.#sizes = new Float64Array(grown(this.#sizes))
    this.#segments = new Uint32Array(grown(this.#segments))
    this.#blocks = new Uint32Array(grown(this.#blocks))
  }

  #growTable(): void {
    this.#table = new Uint32Array(this.#table.length * 2)
    for (let number = 0; number < this.#count; number++)
      this.#table[this.#slot(this.#digests, number * DIGEST_BYTES)] = number + 1
  }
}

/** Twice as long. The memory of the old one is given back at once, not when it is collected. */
function grown(column: { readonly buffer: ArrayBufferLike; readonly byteLength: number }): ArrayBuffer {
  return (column.buffer as ArrayBuffer).transfer(column.byteLength * 2)
}
