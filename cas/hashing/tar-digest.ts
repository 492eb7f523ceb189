/**
 * The digest of a tar that is being made of literal bytes and of contents of the store. What is small is hashed when the tar ends, by the caller; what is
 * large goes to the hash thread as it comes.
 */
import type { ContentReader } from '../contents/reader.ts'
import type { ContentWriter } from '../contents/types.ts'
import { OperationHash, OperationWriter } from './operations.ts'
import type { DigestedTar, HashThread, TarJob } from './thread.ts'

export interface DigestOptions {
  /** What the tar is made of. */
  readonly contents: ContentWriter
  readonly reader: () => ContentReader
  /** `undefined`: another thread's reader could not read the contents. */
  readonly thread: (() => HashThread) | undefined
  /** Midstates of the store's layers, packed. */
  readonly known: () => Uint8Array
}

/** Hashed in the time in which a thread starts. */
const SMALL = 16 * 1024 * 1024
/** So that hashing does not begin when all else is done. */
const MOST_UNSENT = 4 * 1024 * 1024

export class TarDigest implements Disposable {
  readonly #options: DigestOptions
  readonly #writer = new OperationWriter((batch) => this.#take(batch))
  #bytes = 0
  /** Of the contents that the writer has not sent. */
  #unsent = 0
  #hash: OperationHash | undefined
  #job: TarJob | undefined
  /** Of a tar that may still prove to be small. */
  #batches: Uint8Array<ArrayBuffer>[] = []
  #midstates: Uint8Array = new Uint8Array(0)

  constructor(options: DigestOptions) {
    this.#options = options
  }

  literal(bytes: Uint8Array): void {
    this.#writer.literal(bytes)
    this.#bytes += bytes.length
  }

  zeros(length: number): void {
    this.#writer.zeros(length)
    this.#bytes += length
  }

  /** By its number. What was not written just now is verified, since damage must not get into a digest that would be right for it. */
  content(content: number): void {
    const { contents } = this.#options
    this.#writer.content(contents.list, content, contents.isOwn(content))
    this.#count(contents.list.size(content))
  }

  #count(length: number): void {
    this.#bytes += length
    this.#unsent += length
    if (this.#unsent >= MOST_UNSENT) this.#writer.flush()
  }

  /** In hexadecimal digits. Of a large tar it takes a while. Throws `STORE_CORRUPT`. */
  end(): string | Promise<string> {
    this.#writer.flush()
    if (this.#job !== undefined) return this.#settle(this.#job.end())
    for (const batch of this.#batches) this.#update(batch)
    this.#hash ??= new OperationHash(this.#options.reader())
    return this.#hash.digest()
  }

  /** Packed; none of a small tar. When `end` has told the digest. */
  get midstates(): Uint8Array {
    return this.#midstates
  }

  async #settle(digested: Promise<DigestedTar>): Promise<string> {
    const { sha256, midstates } = await digested
    this.#midstates = midstates
    return sha256
  }

  [Symbol.dispose](): void {
    this.#job?.[Symbol.dispose]()
  }

  #take(batch: Uint8Array<ArrayBuffer>): void {
    const { contents, thread } = this.#options
    // Whoever hashes it reads it.
    contents.flush()
    this.#unsent = 0
    if (thread === undefined) {
      this.#update(batch)
      return
    }
    this.#batches.push(batch)
    if (this.#bytes < SMALL) return
    this.#job ??= thread().tar(this.#options.known())
    for (const one of this.#batches) this.#job.send(one)
    this.#batches = []
  }

  #update(batch: Uint8Array<ArrayBuffer>): void {
    this.#hash ??= new OperationHash(this.#options.reader())
    this.#hash.update(batch)
  }
}
