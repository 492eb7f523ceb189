/**
 * The digest of a tar whose beginning is another's: from there on it is hashed on this thread, in turns, while the hash thread, as soon as it is there, verifies the contents that
 * are read for it; when all is hashed, both do.
 */
import { createHash } from 'node:crypto'
import { damagedContent, MOST_AHEAD, type AheadReader, type ContentReader } from '../contents/reader.ts'
import type { ContentWriter } from '../contents/types.ts'
import type { Operation } from '../recipe/read.ts'
import { Fingerprint, packMidstate, type Midstate } from './midstates.ts'
import { hashZeros, partsOf } from './read.ts'
import { CONTENT, ZEROS } from './operations.ts'
import { canContinue, createSha256, type Sha256 } from './sha256.ts'
import type { DigestedTar, HashThread } from './thread.ts'
import { VerifyList } from './verify.ts'

export interface ContinuedTar {
  /** Where it goes on; only where `canContinue`. */
  readonly place?: Midstate | undefined
  /** What follows. */
  readonly operations: Iterable<Operation>
  readonly contents: ContentWriter
  /** Those of the contents that are to be verified; what was written just now is not. */
  readonly unverified: readonly number[]
  readonly reader: ContentReader
  readonly thread: () => HashThread
  /** Lets the event loop have a turn, when one is due. */
  readonly breathe: () => Promise<void> | undefined
}

/** Fewer parts than that are verified in the time in which a thread starts. */
const FEW_PARTS = 10

/** The digest, and midstates behind the place. Throws `STORE_CORRUPT`. */
export async function continueDigest(tar: ContinuedTar): Promise<DigestedTar> {
  const { place, operations, reader, breathe } = tar
  const list = VerifyList.of(tar.contents.list, tar.unverified)
  const isAlone = list.parts < FEW_PARTS ? () => true : tar.thread().verify(list)
  try {
    // First whoever asks for it does what can go on meanwhile.
    await new Promise(setImmediate)
    const hash = canContinue() ? createSha256(place) : undefined
    const digest = new Staged(hash ?? createHash('sha256'))
    const fingerprint = hash && new Fingerprint(place)
    const midstates: Buffer[] = []
    const ahead = reader.ahead()
    for (const operation of operations) {
      let reached: Buffer | undefined
      if (operation.kind === 'literal') {
        fingerprint?.literal(operation.bytes)
        digest.update(operation.bytes)
      } else if (operation.kind === 'zeros') {
        reached = fingerprint?.operation(ZEROS, operation.length)
        hashZeros(digest, operation.length)
      } else if (operation.kind === 'run') {
        reached = fingerprint?.operation(CONTENT, operation.length, operation.digest)
        const pending = hashContent(tar, ahead, operation.digest, digest) ?? breathe()
        if (pending !== undefined) await pending
      }
      if (reached === undefined || hash === undefined || fingerprint === undefined) continue
      digest.flush()
      midstates.push(packMidstate({ fingerprint: reached, state: hash.state(), bytes: fingerprint.bytes }))
    }
    digest.flush()
    const verifyNext = list.verifier(reader)
    while (verifyNext()) await breathe()
    while (!list.isDone && !isAlone()) await list.wait()
    list.check(reader)
    return { sha256: digest.hash.digest().toString('hex'), midstates: Buffer.concat(midstates) }
  } finally {
    list.stop()
  }
}

const STAGE = 256 * 1024

/** Gathers small parts: to hash each by itself takes longer than to copy it. */
class Staged {
  readonly hash: Pick<Sha256, 'update' | 'digest'>
  readonly #buffer = Buffer.allocUnsafeSlow(STAGE)
  #filled = 0

  constructor(hash: Pick<Sha256, 'update' | 'digest'>) {
    this.hash = hash
  }

  update(bytes: Uint8Array): void {
    if (this.#filled + bytes.length > STAGE) this.flush()
    if (bytes.length > STAGE) {
      this.hash.update(bytes)
      return
    }
    this.#buffer.set(bytes, this.#filled)
    this.#filled += bytes.length
  }

  flush(): void {
    this.hash.update(this.#buffer.subarray(0, this.#filled))
    this.#filled = 0
  }
}

/** Large ones in turns. */
function hashContent(
  { contents, reader, breathe }: ContinuedTar,
  ahead: AheadReader,
  digest: Buffer,
  hash: Pick<Sha256, 'update'>,
): Promise<void> | undefined {
  const content = contents.find(digest)
  if (content === undefined) throw damagedContent(digest)
  const { list } = contents
  const size = list.size(content)
  if (size <= MOST_AHEAD) {
    hash.update(ahead.read(digest, list.location(content), size, true))
    return undefined
  }
  const hashParts = async (): Promise<void> => {
    for (const part of partsOf(reader, digest, list.location(content), size)) {
      hash.update(part)
      await breathe()
    }
  }
  return hashParts()
}
