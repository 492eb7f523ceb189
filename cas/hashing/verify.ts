/**
 * Contents that several threads verify together: a list in shared memory, of which each takes the next part that nobody has.
 *
 * Head (4 bytes each): the next part, parts that are done. Then, for each part, its state (4) and where it ends in the list (4); for each content segment, block, size (8, as
 * float64) and its sha256.
 */
import type { ContentReader } from '../contents/reader.ts'
import { DIGEST_BYTES, type ContentList } from '../contents/list.ts'
import { readContent } from './read.ts'
import type { HashThread } from './thread.ts'

/** Bytes of contents, as far as one is not larger. */
const PART = 2 * 1024 * 1024
const NEXT = 0
const DONE = 1
const HEAD = 2
/** Of a part; 0 while it is not done. */
const RIGHT = 1
const WRONG = 2
const PLACE = 3
const LOOK_MS = 1

export class VerifyList {
  readonly shared: SharedArrayBuffer
  readonly #head: Int32Array<SharedArrayBuffer>
  readonly #states: Int32Array<SharedArrayBuffer>
  readonly #ends: Int32Array<SharedArrayBuffer>
  readonly #places: Float64Array<SharedArrayBuffer>
  readonly #digests: Buffer<SharedArrayBuffer>

  constructor(shared: SharedArrayBuffer, parts: number) {
    this.shared = shared
    this.#head = new Int32Array(shared, 0, HEAD)
    this.#states = new Int32Array(shared, HEAD * 4, parts)
    this.#ends = new Int32Array(shared, (HEAD + parts) * 4, parts)
    const placesAt = (HEAD + 2 * parts) * 4
    const count = (shared.byteLength - placesAt) / (PLACE * 8 + DIGEST_BYTES)
    this.#places = new Float64Array(shared, placesAt, count * PLACE)
    this.#digests = Buffer.from(shared, placesAt + count * PLACE * 8)
  }

  static of(contents: ContentList, numbers: readonly number[]): VerifyList {
    const ends: number[] = []
    let bytes = 0
    for (const [i, number] of numbers.entries()) {
      bytes += contents.size(number)
      if (bytes < PART && i + 1 < numbers.length) continue
      ends.push(i + 1)
      bytes = 0
    }
    const length = (HEAD + 2 * ends.length) * 4 + numbers.length * (PLACE * 8 + DIGEST_BYTES)
    const list = new VerifyList(new SharedArrayBuffer(length), ends.length)
    list.#ends.set(ends)
    for (const [i, number] of numbers.entries()) {
      list.#places[i * PLACE] = contents.segment(number)
      list.#places[i * PLACE + 1] = contents.block(number)
      list.#places[i * PLACE + 2] = contents.size(number)
      contents.copyDigest(number, list.#digests, i * DIGEST_BYTES)
    }
    return list
  }

  get parts(): number {
    return this.#states.length
  }

  get isDone(): boolean {
    return Atomics.load(this.#head, DONE) === this.parts
  }

  /** A part that nobody has; whoever takes it is to verify it. */
  take(): number | undefined {
    const part = Atomics.add(this.#head, NEXT, 1)
    return part < this.parts ? part : undefined
  }

  /** Verifies parts that nobody has, one each time that it is asked; false when there are none. What is wrong is told by `check`. */
  verifier(reader: ContentReader): () => boolean {
    const ahead = reader.ahead()
    return () => {
      const part = this.take()
      if (part === undefined) return false
      let state = RIGHT
      try {
        this.#verify(part, reader, ahead)
      } catch {
        state = WRONG
      }
      Atomics.store(this.#states, part, state)
      Atomics.add(this.#head, DONE, 1)
      return true
    }
  }

  /** Nobody takes a part any more. */
  stop(): void {
    Atomics.store(this.#head, NEXT, this.parts)
  }

  /** Some time passes. By a timer, which keeps the process: Atomics.waitAsync does not, and the thread is no reason to stay. */
  async wait(): Promise<void> {
    await new Promise((resolve) => void setTimeout(resolve, LOOK_MS))
  }

  /** Looks again at parts that were wrong, or that nobody has ended, and throws what is wrong: `STORE_CORRUPT`. */
  check(reader: ContentReader): void {
    for (const [part, state] of this.#states.entries())
      if (state !== RIGHT) this.#verify(part, reader, reader.ahead())
  }

  #verify(part: number, reader: ContentReader, ahead: ReturnType<ContentReader['ahead']>): void {
    for (let i = this.#ends[part - 1] ?? 0; i < (this.#ends[part] ?? 0); i++) {
      const at = i * PLACE
      const location = { segment: this.#places[at] ?? 0, block: this.#places[at + 1] ?? 0 }
      const digest = this.#digests.subarray(i * DIGEST_BYTES, (i + 1) * DIGEST_BYTES)
      readContent(reader, ahead, digest, location, this.#places[at + 2] ?? 0)
    }
  }
}

/** Contents that are verified by the thread, as soon as it is there, and by whoever waits for it. */
export class Verification implements Disposable {
  readonly #list: VerifyList
  /** Nobody else will end what was begun. */
  readonly #isAlone: () => boolean

  constructor(contents: ContentList, numbers: readonly number[], thread: HashThread) {
    this.#list = VerifyList.of(contents, numbers)
    this.#isAlone = thread.verify(this.#list)
  }

  /** Verifies what nobody has. Throws `STORE_CORRUPT`. */
  async finish(reader: ContentReader, breathe: () => Promise<void> | undefined): Promise<void> {
    const verifyNext = this.#list.verifier(reader)
    while (verifyNext()) await breathe()
    while (!this.#list.isDone && !this.#isAlone()) await this.#list.wait()
    this.#list.check(reader)
  }

  [Symbol.dispose](): void {
    this.#list.stop()
  }
}
