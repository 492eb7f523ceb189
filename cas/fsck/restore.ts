/** A layer that is lost, from the compressed form in which it came or went, if the store has that. */
import { pipeline, Readable, type Transform } from 'node:stream'
import { createGunzip, createZstdDecompress } from 'node:zlib'
import { isErrno } from '../../linux/index.ts'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { BlobStore, LayerStore } from '../store/types.ts'

/** Whether it is stored now. */
export async function restoreLayer(
  { db }: StoreContext,
  blobs: BlobStore,
  layers: LayerStore,
  diffId: DiffId,
): Promise<boolean> {
  const rows = db.all('SELECT digest FROM compressed WHERE diff_id = ? ORDER BY digest', diffId)
  // An uncompressed one is a blob of that digest.
  for (const digest of [...rows.map((row) => String(row['digest'])), diffId] as BlobDigest[]) {
    if (blobs.size(digest) === undefined) continue
    try {
      await layers.ingestTar(unpacked(blobs.stream(digest)), { expected: diffId })
      return true
    } catch (error) {
      // Whatever else: it is not what it should be.
      if (isErrno(error, 'ENOSPC', 'EDQUOT', 'EROFS', 'EACCES')) throw error
    }
  }
  return false
}

async function* unpacked(source: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array, void, undefined> {
  const input = source[Symbol.asyncIterator]()
  const first = await input.next()
  if (first.done === true) return
  async function* all(): AsyncGenerator<Buffer, void, undefined> {
    for (let next = first; next.done !== true; next = await input.next()) yield next.value
  }
  const unpacker = unpackerOf(first.value)
  if (unpacker === undefined) {
    yield* all()
    return
  }
  // Errors come out where it is read.
  pipeline(Readable.from(all()), unpacker, () => {})
  for await (const chunk of unpacker) yield chunk as Buffer
}

function unpackerOf(start: Buffer): Transform | undefined {
  if (start.subarray(0, 2).equals(Buffer.from([0x1f, 0x8b]))) return createGunzip()
  if (start.subarray(0, 4).equals(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]))) return createZstdDecompress()
  return undefined
}
