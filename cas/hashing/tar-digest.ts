/**
 * The digest of a tar that is being made of literal bytes and of contents of the store. What is small is hashed when the tar ends, by the caller; what is
 * large goes to the hash thread as it comes.
 */
import { DIGEST_BYTES } from '../contents/list.ts'
import { damagedContent, type ContentReader } from '../contents/reader.ts'
import type { ContentWriter } from '../contents/types.ts'
import { operationsOf, type Operation, type RecipeBlock } from '../recipe/read.ts'
import type { Midstate } from './midstates.ts'
import { OperationHash, OperationWriter, PLACE, readContent } from './operations.ts'
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
/** Bytes that are verified between turns of the event loop. */
const BETWEEN_TURNS = 4 * 1024 * 1024

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
  /** Contents that are verified here, while the thread does the rest. */
  readonly #own: number[] = []
  #midstates: Uint8Array = new Uint8Array(0)
  /** Where it goes on from: nothing of the tar that is before it comes here. */
  #from: { readonly place: Midstate; readonly midstates: Uint8Array } | undefined
  /** Nothing of it may prove to be known, so all must be read: the thread hashes, and what is there is verified here meanwhile. */
  #verifiesHere = false

  constructor(options: DigestOptions) {
    this.#options = options
  }

  /**
   * Before anything of the tar: that many bytes will come, of which nothing is known. With `place`, only where `canContinue`: they are what follows on it.
   * @param midstates packed, up to the place
   */
  expect(bytes: number, place?: Midstate, midstates?: Uint8Array): void {
    if (place !== undefined) this.#from = { place, midstates: midstates ?? new Uint8Array(0) }
    const { thread } = this.#options
    if (bytes < SMALL || thread === undefined) return
    this.#verifiesHere = true
    this.#begin(thread)
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
    const { list } = contents
    const known = contents.isOwn(content) ? 'written' : this.#verifiesHere ? 'verified' : 'unverified'
    if (known === 'verified') this.#own.push(content)
    this.#writer.content(list.digest(content), list.size(content), list.location(content), known)
    this.#count(list.size(content))
  }

  /** All that a block of a recipe stands for. Its contents are there. */
  block(path: string, block: RecipeBlock): void {
    this.#writer.flush()
    const { contents } = this.#options
    if (this.#job === undefined) {
      for (const operation of operationsOf(path, block)) this.operation(operation)
      return
    }
    const { digests } = block
    const places = new Float64Array((digests.length / DIGEST_BYTES) * PLACE)
    for (let at = 0, place = 0; at < digests.length; at += DIGEST_BYTES, place += PLACE) {
      const content = this.#find(digests.subarray(at, at + DIGEST_BYTES))
      places[place] = contents.list.segment(content)
      places[place + 1] = contents.list.block(content)
      places[place + 2] = 1
      this.#own.push(content)
    }
    this.#job.sendBlock(block.bytes, places)
  }

  operation(operation: Operation): void {
    if (operation.kind === 'literal') this.literal(operation.bytes)
    else if (operation.kind === 'zeros') this.zeros(operation.length)
    else if (operation.kind === 'run') this.content(this.#find(operation.digest))
  }

  #find(digest: Uint8Array): number {
    const content = this.#options.contents.find(digest)
    if (content === undefined) throw damagedContent(digest)
    return content
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
    const hash = this.#hashHere()
    this.#keep(hash.midstates)
    return hash.digest()
  }

  /** Packed; none of a small tar. When `end` has told the digest. */
  get midstates(): Uint8Array {
    return this.#midstates
  }

  async #settle(digested: Promise<DigestedTar>): Promise<string> {
    const [{ sha256, midstates }] = await Promise.all([digested, this.#verifyOwn()])
    this.#keep(midstates)
    return sha256
  }

  async #verifyOwn(): Promise<void> {
    const { list } = this.#options.contents
    const reader = this.#options.reader()
    const ahead = reader.ahead()
    let bytes = BETWEEN_TURNS
    for (const content of this.#own) {
      // First what others have begun.
      if (bytes >= BETWEEN_TURNS) {
        await new Promise(setImmediate)
        bytes = 0
      }
      readContent(reader, ahead, list.digest(content), list.location(content), list.size(content), false)
      bytes += list.size(content)
    }
  }

  #keep(midstates: Uint8Array): void {
    this.#midstates = Buffer.concat([this.#from?.midstates ?? new Uint8Array(0), midstates])
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
    if (this.#job === undefined && this.#bytes < SMALL) return
    const job = this.#begin(thread)
    for (const one of this.#batches) job.send(one)
    this.#batches = []
  }

  #begin(thread: () => HashThread): TarJob {
    if (this.#job !== undefined) return this.#job
    this.#job = thread().tar(this.#verifiesHere ? new Uint8Array(0) : this.#options.known())
    if (this.#from !== undefined) this.#job.continueFrom(this.#from.place)
    return this.#job
  }

  #update(batch: Uint8Array<ArrayBuffer>): void {
    this.#hashHere().update(batch)
  }

  /** Of a tar that needs no thread. */
  #hashHere(): OperationHash {
    if (this.#hash === undefined) {
      this.#hash = new OperationHash(this.#options.reader())
      if (this.#from !== undefined) this.#hash.continueFrom(this.#from.place)
    }
    return this.#hash
  }
}
