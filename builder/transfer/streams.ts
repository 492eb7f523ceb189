/** Ways to read one stream: by two readers, with a count, and in parts that follow each other. */
import { PassThrough } from 'node:stream'

/**
 * Hands each chunk to both readers, at the pace of the slower. When one fails, or the source does, the other's stream fails with the
 * same error; a reader that has had enough may stop. Chunks are shared: nobody may write into them.
 */
export async function toBoth<A, B>(
  source: AsyncIterable<Uint8Array>,
  first: (stream: AsyncIterable<Uint8Array>) => Promise<A>,
  second: (stream: AsyncIterable<Uint8Array>) => Promise<B>,
): Promise<[A, B]> {
  const sides = [side(), side()] as const
  let failure: { readonly error: unknown } | undefined
  const fail = (error: unknown): void => {
    failure ??= { error }
    for (const one of sides) one.destroy(error instanceof Error ? error : new Error(String(error)))
  }
  const guarded = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work
    } catch (error) {
      fail(error)
      throw error
    }
  }
  const pump = async (): Promise<void> => {
    try {
      for await (const chunk of source) {
        for (const one of sides) if (!one.destroyed && !one.write(chunk)) await writable(one)
        if (failure !== undefined) return
      }
      for (const one of sides) if (!one.destroyed) one.end()
    } catch (error) {
      fail(error)
    }
  }
  const results = await Promise.allSettled([guarded(first(sides[0])), guarded(second(sides[1])), pump()])
  if (failure !== undefined) throw failure.error
  return [(results[0] as PromiseFulfilledResult<A>).value, (results[1] as PromiseFulfilledResult<B>).value]
}

function side(): PassThrough {
  // Object mode hands the chunks on as they are; otherwise those that wait are copied into one.
  const stream = new PassThrough({ objectMode: true, highWaterMark: 16 })
  // The reader is told by its iteration.
  stream.on('error', () => {})
  return stream
}

async function writable(stream: PassThrough): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  stream.once('drain', resolve)
  stream.once('close', resolve)
  await promise
  stream.off('drain', resolve)
  stream.off('close', resolve)
}

const STEP = 1024 * 1024

/** Passes chunks on, and tells how many bytes have gone by about every MiB. Stops at the signal. */
export async function* counted(
  source: AsyncIterable<Uint8Array>,
  tell: (bytes: number) => void,
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let bytes = 0
  let told = 0
  for await (const chunk of source) {
    signal?.throwIfAborted()
    yield chunk
    bytes += chunk.length
    if (bytes - told < STEP) continue
    told = bytes
    tell(bytes)
  }
  if (bytes > told) tell(bytes)
}

/** Opens one stream at any offset; see `sequential`. */
export interface Sequential {
  readonly open: (offset: number) => AsyncGenerator<Uint8Array>
  readonly close: () => Promise<void>
}

/**
 * A stream that can only be read from its start, opened at offsets. An upload in chunks asks for one part after the other: each goes on where
 * the last one stopped, so all of it is read (and verified) once. An earlier offset starts anew.
 */
export function sequential(source: () => AsyncIterable<Uint8Array>): Sequential {
  let iterator: AsyncIterator<Uint8Array> | undefined
  /** The chunk that was read last, and where it starts: the reader may have used a part of it only. */
  let chunk: Uint8Array | undefined
  let start = 0
  const close = async (): Promise<void> => {
    const closing = iterator
    iterator = undefined
    chunk = undefined
    start = 0
    await closing?.return?.()
  }
  return {
    close,
    open: async function* (offset) {
      if (iterator === undefined || offset < start) {
        await close()
        iterator = source()[Symbol.asyncIterator]()
      }
      let from = offset
      for (;;) {
        if (chunk !== undefined && from < start + chunk.length) {
          const part: Uint8Array = chunk.subarray(from - start)
          from = start + chunk.length
          yield part
          continue
        }
        start += chunk?.length ?? 0
        chunk = undefined
        const next: IteratorResult<Uint8Array> = await iterator.next()
        if (next.done === true) return
        chunk = next.value
      }
    },
  }
}
