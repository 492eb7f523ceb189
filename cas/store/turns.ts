/** Long work on the main thread: the event loop has a turn now and then, so that progress shows and Ctrl-C is heard. */
const TURN_MS = 20

/**
 * To be called often; what it returns, if anything, is to be awaited. `atTurn` is called at each turn. Throws, now or then, the signal's reason when that is
 * aborted.
 */
export function createTurns(
  signal: AbortSignal | undefined,
  atTurn: () => void = () => {},
): () => Promise<void> | undefined {
  signal?.throwIfAborted()
  let last = performance.now()
  const turn = async (): Promise<void> => {
    atTurn()
    await new Promise(setImmediate)
    signal?.throwIfAborted()
    last = performance.now()
  }
  return () => (performance.now() - last < TURN_MS ? undefined : turn())
}
