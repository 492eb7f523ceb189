/**
 * Cuts a zstd stream at the ends of its frames (RFC 8878, section 3). Node's decompressor takes what follows a frame *in one chunk* for
 * rubbish and drops it without an error (seen on 24.21), and many layers have many frames: pzstd writes them, zstd:chunked has one a file.
 * Given a chunk that ends with the frame, it goes on with the next one.
 */
export async function* cutAtFrames(source: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const walker = new FrameWalker()
  for await (const chunk of source) {
    let start = 0
    for (let at = 0; at < chunk.length;) {
      at = walker.advance(chunk, at)
      if (!walker.atFrameEnd) continue
      yield chunk.subarray(start, at)
      start = at
    }
    if (start < chunk.length) yield chunk.subarray(start)
  }
}

type Part = 'magic' | 'skippableSize' | 'descriptor' | 'blockHeader' | 'broken'

const ZSTD = 0xfd2fb528
/** The low four bits are free. */
const SKIPPABLE = 0x184d2a50
const PART_BYTES: Readonly<Record<Part, number>> = {
  magic: 4,
  skippableSize: 4,
  descriptor: 1,
  blockHeader: 3,
  broken: Infinity,
}
const DICTIONARY_BYTES = [0, 1, 2, 4] as const
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const

/** Walks over headers and blocks without decoding them. What is malformed is left for the decompressor to refuse. */
class FrameWalker {
  /** The bytes up to here were a whole number of frames. */
  atFrameEnd = true
  #part: Part = 'magic'
  /** Read of the part so far, as a little-endian number. */
  #value = 0
  #read = 0
  /** Bytes to pass over before the part. */
  #skip = 0
  #checksum = false

  /** Takes bytes up to a frame's end or the chunk's; returns where it stopped. */
  advance(chunk: Uint8Array, from: number): number {
    let at = from
    this.atFrameEnd = false
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const length = Math.min(this.#skip, chunk.length - at)
        this.#skip -= length
        at += length
      } else {
        this.#value += (chunk[at] ?? 0) * 2 ** (8 * this.#read)
        this.#read++
        at++
        if (this.#read === PART_BYTES[this.#part]) this.#take()
      }
      if (this.#skip === 0 && this.#read === 0 && this.#part === 'magic') {
        this.atFrameEnd = true
        break
      }
      if (this.#part === 'broken') return chunk.length
    }
    return at
  }

  #take(): void {
    const value = this.#value
    this.#value = 0
    this.#read = 0
    switch (this.#part) {
      case 'magic':
        if (value === ZSTD) this.#part = 'descriptor'
        else this.#part = value - (value % 16) === SKIPPABLE ? 'skippableSize' : 'broken'
        break
      case 'skippableSize':
        this.#skip = value
        this.#part = 'magic'
        break
      case 'descriptor': {
        const single = (value & 0x20) !== 0
        this.#checksum = (value & 4) !== 0
        const contentSize = CONTENT_SIZE_BYTES[(value >> 6) as 0 | 1 | 2 | 3]
        this.#skip = DICTIONARY_BYTES[(value & 3) as 0 | 1 | 2 | 3] + (single ? 0 : 1)
        this.#skip += single && contentSize === 0 ? 1 : contentSize
        this.#part = 'blockHeader'
        break
      }
      case 'blockHeader': {
        const type = (value >> 1) & 3
        // An RLE block is one byte, however large it becomes.
        this.#skip = type === 1 ? 1 : value >> 3
        if (type === 3) this.#part = 'broken'
        else if ((value & 1) !== 0) {
          this.#skip += this.#checksum ? 4 : 0
          this.#part = 'magic'
        }
        break
      }
      case 'broken':
        break
    }
  }
}
