/**
 * The digest of a tar whose beginning is another's: from there on it is hashed on this thread, in turns. Contents are verified as they are read for it; or, where they are many, by
 * the hash thread as soon as it is there, and when all is hashed, by both.
 */
import { createHash } from 'node:crypto'
import { damagedContent, MOST_AHEAD, type AheadReader, type ContentReader } from '../contents/reader.ts'
import type { ContentWriter } from '../contents/types.ts'
import type { Operation } from '../recipe/read.ts'
import { NO_FINGERPRINT, packMidstate, stepAfter, type Midstate } from './midstates.ts'
import { partsOf } from './read.ts'
import { canContinue, createSha256, SHA256_BLOCK } from './sha256.ts'
import { Staged } from './staged.ts'
import type { DigestedTar } from './thread.ts'
import type { Verification } from './verify.ts'

export interface ContinuedTar {
  /** Where it goes on; only where `canContinue`. */
  readonly place?: Midstate | undefined
  /** What follows. */
  readonly operations: Iterable<Operation>
  readonly contents: ContentWriter
  /** Has those of the contents that were not written just now, if they are many. */
  readonly verification?: Verification | undefined
  readonly reader: ContentReader
  /** Lets the event loop have a turn, when one is due. */
  readonly breathe: () => Promise<void> | undefined
}

/** The digest, and midstates behind the place, without fingerprints. Throws `STORE_CORRUPT`. */
export async function continueDigest(tar: ContinuedTar): Promise<DigestedTar> {
  const { place, operations, verification, reader, breathe } = tar
  // First whoever asks for it does what can go on meanwhile.
  await new Promise(setImmediate)
  const hash = canContinue() ? createSha256(place) : undefined
  const digest = new Staged(hash ?? createHash('sha256'))
  const midstates: Buffer[] = []
  let bytes = place?.bytes ?? 0
  let next = stepAfter(bytes)
  const ahead = reader.ahead()
  for (const operation of operations) {
    if (operation.kind === 'literal') {
      digest.update(operation.bytes)
      bytes += operation.bytes.length
      continue
    }
    if (operation.kind === 'keep') continue
    bytes += operation.length
    if (operation.kind === 'zeros') digest.zeros(operation.length)
    else {
      const pending = hashContent(tar, ahead, operation.digest, digest) ?? breathe()
      if (pending !== undefined) await pending
    }
    if (hash === undefined || bytes < next || bytes % SHA256_BLOCK !== 0) continue
    next = stepAfter(bytes)
    digest.flush()
    midstates.push(packMidstate({ fingerprint: NO_FINGERPRINT, state: hash.state(), bytes }))
  }
  digest.flush()
  await verification?.finish(reader, breathe)
  return { sha256: digest.digest(), midstates: Buffer.concat(midstates) }
}

/** Large ones in turns. */
function hashContent(
  { contents, reader, verification, breathe }: ContinuedTar,
  ahead: AheadReader,
  digest: Buffer,
  hash: Staged,
): Promise<void> | undefined {
  const content = contents.find(digest)
  if (content === undefined) throw damagedContent(digest)
  const { list } = contents
  const size = list.size(content)
  const isRight = verification !== undefined || contents.isOwn(content)
  if (size <= MOST_AHEAD) {
    hash.update(ahead.read(digest, list.location(content), size, isRight))
    return undefined
  }
  const hashParts = async (): Promise<void> => {
    const found = isRight ? undefined : createHash('sha256')
    for (const part of partsOf(reader, digest, list.location(content), size)) {
      hash.update(part)
      found?.update(part)
      await breathe()
    }
    if (found?.digest().equals(digest) === false) throw damagedContent(digest)
  }
  return hashParts()
}
