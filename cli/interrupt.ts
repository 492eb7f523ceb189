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

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const
const STOPPING: ReadonlySet<NodeJS.Signals> = new Set(['SIGINT', 'SIGTERM', 'SIGHUP'])

/** From now on signals go there, and stop nothing here. */
export type Redirect = (to: (signal: NodeJS.Signals) => void) => void

/**
 * Work that a signal stops in good order: the first one aborts it and its cleanup is waited for; a second one ends the process at
 * once, which is safe too (containers die with us, leases come free, nothing half written is visible).
 *
 * Throws `Interrupted` in place of whatever the abort made the work throw.
 */
export async function interruptible<T>(
  work: (signal: AbortSignal, redirect: Redirect) => Promise<T>,
): Promise<T> {
  const controller = new AbortController()
  let target = (signal: NodeJS.Signals): void => {
    const reason = new Interrupted(signal)
    if (controller.signal.aborted || !STOPPING.has(signal)) process.exit(reason.exitCode)
    controller.abort(reason)
  }
  // One listener for all: taking a listener off and putting another on loses a signal that comes between.
  const listener = (signal: NodeJS.Signals): void => target(signal)
  for (const signal of SIGNALS) process.on(signal, listener)
  try {
    return await work(controller.signal, (to) => (target = to))
  } catch (error) {
    controller.signal.throwIfAborted()
    throw error
  } finally {
    for (const signal of SIGNALS) process.removeListener(signal, listener)
  }
}
