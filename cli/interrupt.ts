import { constants } from 'node:os'

/** A signal ended the command: exit status 128 + n. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly signal: NodeJS.Signals
  readonly exitCode: number

  constructor(signal: NodeJS.Signals) {
    super(`Interrupted by ${signal}`)
    this.signal = signal
    this.exitCode = 128 + constants.signals[signal]
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Work that a signal stops in good order: the first one aborts it and its cleanup is waited for; a second one ends the process at
 * once, which is safe too (containers die with us, leases come free, nothing half written is visible).
 *
 * Throws `Interrupted` in place of whatever the abort made the work throw.
 */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const stop = (signal: NodeJS.Signals): void => {
    const reason = new Interrupted(signal)
    if (controller.signal.aborted) process.exit(reason.exitCode)
    controller.abort(reason)
  }
  for (const signal of SIGNALS) process.on(signal, stop)
  try {
    return await work(controller.signal)
  } catch (error) {
    controller.signal.throwIfAborted()
    throw error
  } finally {
    for (const signal of SIGNALS) process.removeListener(signal, stop)
  }
}
