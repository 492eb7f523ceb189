/**
 * Does `work` on every item, at most `limit` at a time. After the first failure nothing more is begun, what runs is told by its signal, and
 * when all of it has ended that first failure is thrown.
 */
export async function eachLimited<T>(
  items: readonly T[],
  limit: number,
  signal: AbortSignal | undefined,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failing = new AbortController()
  const combined = signal === undefined ? failing.signal : AbortSignal.any([signal, failing.signal])
  let failure: { readonly error: unknown } | undefined
  let next = 0
  const worker = async (): Promise<void> => {
    while (next < items.length && failure === undefined) {
      const item = items[next++] as T
      try {
        combined.throwIfAborted()
        await work(item, combined)
      } catch (error) {
        failure ??= { error }
        failing.abort(error)
      }
    }
  }
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker))
  if (failure !== undefined) throw failure.error
}
