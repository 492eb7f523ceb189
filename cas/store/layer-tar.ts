/** A layer's tar, from its recipe and its contents: what is exported and pushed. Verified as it streams. */
import { createHash } from 'node:crypto'
import { TbuildError } from '../../errors.ts'
import { locatorOf } from '../contents/lookup.ts'
import type { DiffId } from '../oci.ts'
import { readRecipe } from '../recipe/read.ts'
import { corrupt } from './blobs.ts'
import type { StoreContext } from './context.ts'
import { recipePath } from './paths.ts'

const PART = 1024 * 1024
const zeros = Buffer.alloc(64 * 1024)

/**
 * In parts of 1 MiB, each the caller's own. `STORE_CORRUPT` at the end when it is not what the DiffId says, or earlier.
 * @param hash a new SHA-256
 */
export async function* streamLayer(
  context: StoreContext,
  diffId: DiffId,
  hash: { update(bytes: Uint8Array): unknown; digest(): Buffer } = createHash('sha256'),
): AsyncGenerator<Buffer, void, undefined> {
  let part = Buffer.allocUnsafe(PART)
  let filled = 0
  const parts = tarParts(context, diffId)
  for (const { length, fill } of parts) {
    for (let at = 0; at < length;) {
      const count = Math.min(length - at, PART - filled)
      fill(part.subarray(filled, filled + count), at)
      filled += count
      at += count
      if (filled < PART) continue
      hash.update(part)
      yield part
      part = Buffer.allocUnsafe(PART)
      filled = 0
    }
  }
  const last = part.subarray(0, filled)
  hash.update(last)
  if (`sha256:${hash.digest().toString('hex')}` !== diffId) throw corrupt(diffId)
  if (filled > 0) yield last
}

interface Part {
  readonly length: number
  /** The bytes from `at` on. */
  readonly fill: (into: Buffer, at: number) => void
}

function* tarParts(context: StoreContext, diffId: DiffId): Generator<Part, void, undefined> {
  const { db, paths } = context
  const find = locatorOf(db)
  for (const operation of readRecipe(recipePath(paths, diffId))) {
    switch (operation.kind) {
      case 'literal': {
        const { bytes } = operation
        yield { length: bytes.length, fill: (into, at) => void bytes.copy(into, 0, at, at + into.length) }
        break
      }
      case 'zeros':
        yield {
          length: operation.length,
          fill: (into) => {
            for (let at = 0; at < into.length; at += zeros.length) zeros.copy(into, at)
          },
        }
        break
      case 'run': {
        const { digest, length } = operation
        const location = find(digest)
        if (location === undefined) {
          throw new TbuildError(
            'STORE_CORRUPT',
            `The content sha256:${digest.toString('hex')} of ${diffId} is missing.`,
          )
        }
        let known = location
        const fill = (into: Buffer, at: number): void => {
          try {
            context.reader().read(digest, known, at, into)
          } catch (error) {
            // Compaction may have moved it since, and removed the segment.
            const now = find(digest)
            if (now === undefined || (now.segment === known.segment && now.block === known.block)) throw error
            known = now
            context.reader().read(digest, known, at, into)
          }
        }
        yield { length, fill }
        break
      }
      case 'keep':
        break
    }
  }
}
