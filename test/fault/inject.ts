/**
 * Real faults: the scenario's process is killed at its N-th call that changes the disk, or the call fails with an errno. Then the store is checked, and the
 * scenario run again on what is left.
 */
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Thrown } from './failure.ts'
import type { Fault, Operation } from './log.ts'
import { randomFrom, spread } from './random.ts'
import { copy, type Recording } from './record.ts'
import { judge, type Failure, type ReplayOptions, type Tally } from './replay.ts'
import type { Problem } from './scenario.ts'
import { runTraced, type Injection, type Traced } from './trace.ts'

export type InjectOptions = Omit<ReplayOptions, 'retryEvery'>

export async function killForReal(recording: Recording, options: InjectOptions): Promise<Tally> {
  const random = randomFrom(options.seed, 'real')
  const injections = spread(recording.log.calls, options.limit, random).map((at): Injection => ({
    fault: 'kill',
    at,
  }))
  return injectAll(recording, injections, options)
}

/** A third each: no room once, no room from then on, EIO once. */
export async function failForReal(recording: Recording, options: InjectOptions): Promise<Tally> {
  const { calls, allocating } = recording.log
  const third = (offset: number): number | undefined =>
    options.limit && Math.floor((options.limit + offset) / 3)
  const points = (count: number, offset: number, kind: string): number[] =>
    spread(count, third(offset), randomFrom(options.seed, kind))
  const injections: Injection[] = [
    ...points(allocating, 0, 'full once').map((at) => ({ fault: 'ENOSPC', at }) as const),
    ...points(allocating, 1, 'full').map((at) => ({ fault: 'ENOSPC', stays: true, at }) as const),
    ...points(calls, 2, 'EIO').map((at) => ({ fault: 'EIO', at }) as const),
  ]
  return injectAll(recording, injections, options)
}

async function injectAll(
  recording: Recording,
  injections: readonly Injection[],
  options: InjectOptions,
): Promise<Tally> {
  const { directory, scenario, part: [number, parts] = [0, 1], only } = options
  const store = join(directory, 'store')
  const failures: Failure[] = []
  let states = 0
  for (const injection of injections.filter((_, index) => index % parts === number)) {
    const at = nameOf(injection)
    if (only !== undefined && only !== at) continue
    rmSync(store, { recursive: true, force: true })
    const base = join(recording.directory, 'base')
    if (existsSync(base)) copy(base, store)
    const traced = await runTraced(
      recording.module,
      { store, log: join(directory, 'log'), seed: recording.seed },
      injection,
    )
    const { operations } = traced.log
    const fault = operations.find(isFault)
    // Threads take turns as they like: this run had fewer calls.
    if (fault === undefined) continue
    states++
    const marks = operations.flatMap((operation) => (operation.name === 'marks' ? operation.marks : []))
    const unclear = injection.fault === 'kill' ? [] : endOf(traced)
    const judged = await judge({
      path: store,
      recording,
      marks,
      isPowerCut: false,
      isRetried: true,
      scenario,
    })
    const problems = [...unclear, ...judged]
    if (problems.length > 0) failures.push({ at: `${at} (${fault.call} ${fault.path})`, problems })
  }
  if (only === undefined) rmSync(store, { recursive: true, force: true })
  return { states, failures }
}

function nameOf({ fault, stays, at }: Injection): string {
  return fault === 'kill' ? `real ${at}` : `${fault}${stays === true ? '+' : ''} ${at}`
}

function isFault(operation: Operation): operation is Operation & Fault {
  return operation.name === 'fault'
}

/** fs.rmSync and SQLite say it in words only. */
const SAYS_ERRNO =
  /\b(ENOSPC|EIO|No space left on device|Input\/output error|disk I\/O error|database or disk is full)\b/i

/** A process that meets an error ends with it, and says which; or it does without what failed. */
function endOf({ status, stderr, timedOut }: Traced): Problem[] {
  if (timedOut) return [{ kind: 'unclear', what: 'the process hangs' }]
  if (status === 0) return []
  const line = stderr.trimEnd().split('\n').at(-1) ?? ''
  try {
    const thrown = JSON.parse(line) as Thrown
    if (status === 1 && (thrown.code !== '' || SAYS_ERRNO.test(thrown.message))) return []
  } catch {
    // Not one of ours: it is told as it stands.
  }
  return [{ kind: 'unclear', what: `the process ends with status ${status}: ${stderr.slice(-500)}` }]
}
