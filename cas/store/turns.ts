/** Long work on the main thread: the event loop has a turn now and then, so that progress shows and Ctrl-C is heard. */
const TURN_MS = 20

/** To be called often. `atTurn` is called at each turn. Both throw the signal's reason when it is aborted. */
export function createTurns(
  signal: AbortSignal | undefined,
  atTurn: () => void = () => {},
): () => Promise<void> {
  signal?.throwIfAborted()
  let last = performance.now()
  return async () => {
    if (performance.now() - last < TURN_MS) return
    atTurn()
    await new Promise(setImmediate)
    signal?.throwIfAborted()
    last = performance.now()
  }
}
