/**
 * What a fault run needs to know of a workload. A scenario is a module that exports `scenario`; it runs in a child process under the tracer
 * (run.ts), and in the checker's process when a broken run is tried again.
 *
 * What it was told by the store it tells on, as facts: `key` has this `value` now (`null`: it is gone). The checker holds the store to them after
 * a fault. Keys are the scenario's and its checker's own business; those of the store's are in check.ts.
 */
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Facts } from './facts.ts'

const SCENARIOS = join(import.meta.dirname, 'scenarios')
/** Beside every scenario with the machine's own driver; a store keeps its contents in one of two kinds, and shows layers in one of three. */
const OTHER_DRIVERS = ['ingest@objects', 'commit@objects', 'gc@objects', 'equal@objects', 'commit@copy']

/** Called at once when the fact holds, and synchronously: the order in the record is the promise. */
export interface Tell {
  /** From now on the key may have this value, or the one it had. */
  begin(key: string, value: string | null): void
  /** The store said that it is so: a kill -9 does not undo it, but a power cut may. */
  done(key: string, value: string | null): void
  /** The store said that it is durable: nothing undoes it. */
  durable(key: string, value: string | null): void
}

export interface Run {
  /** The store's directory. It need not be there yet. */
  readonly path: string
  /** For contents: the same seed gives the same, so that a second run repeats the first. */
  readonly seed: number
  readonly tell: Tell
}

export interface Problem {
  /**
   * lost: a fact does not hold. corrupt: what is there is not what it should be, or the store cannot be used. left: harmless, but nobody
   * takes it away. unclear: an error of the disk was not told as such.
   */
  readonly kind: 'lost' | 'corrupt' | 'left' | 'unclear'
  readonly what: string
}

/** A store's directory as a fault left it. The checker may change it: it is made anew for the next one. */
export interface State {
  readonly path: string
  readonly facts: Facts
  /** After a power cut, not a mere kill. */
  readonly powerCut: boolean
}

export type Checker = (state: State) => Promise<readonly Problem[]>

export interface Scenario {
  /** Makes what the run starts from; not recorded, and durable. */
  readonly prepare?: (run: Run) => Promise<void>
  /** Can be repeated on what is left of a broken run. */
  readonly run: (run: Run) => Promise<void>
  readonly check: Checker
}

/** Of the layer store: `gc`, and `gc@objects` for one with that driver. */
export function allScenarios(): string[] {
  const own = readdirSync(SCENARIOS).filter((name) => name !== 'make.ts' && name.endsWith('.ts'))
  return [...own.map((name) => basename(name, '.ts')), ...OTHER_DRIVERS]
}

export function moduleOf(scenario: string): string {
  const [name = '', driver] = scenario.split('@')
  return join(SCENARIOS, `${name}.ts${driver === undefined ? '' : `?driver=${driver}`}`)
}

/** `module`: path of the file. */
export async function loadScenario(module: string): Promise<Scenario> {
  const { scenario } = (await import(module)) as { scenario?: Scenario }
  if (scenario === undefined) throw new Error(`${module} exports no scenario`)
  return scenario
}
