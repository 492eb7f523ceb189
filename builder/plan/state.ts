/** A stage's state while its instructions are gone through: variables, config, what was said so far. */
import type { ContainerConfig } from '../../cas/index.ts'
import type { HistoryItem, Step } from './types.ts'

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

export const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export interface StageState {
  readonly config: Mutable<ContainerConfig>
  author: string | undefined
  /** What a RUN sees: the config's Env, and arguments with a value; who was set last wins. */
  readonly env: Map<string, string>
  /** Declared arguments, for the history of RUN. */
  readonly args: Map<string, string | undefined>
  readonly steps: Step[]
  readonly history: HistoryItem[]
  /** This stage had a CMD of its own, which a later ENTRYPOINT leaves alone. */
  hasCmd: boolean
}

/** Of a stage on top of an image's config. */
export function startState(config: ContainerConfig): StageState {
  const env = new Map<string, string>()
  for (const entry of config.Env ?? []) setEntry(env, entry)
  const state: StageState = {
    config: structuredClone(config),
    author: undefined,
    env,
    args: new Map(),
    steps: [],
    history: [],
    hasCmd: false,
  }
  if (!env.has('PATH')) setEnv(state, 'PATH', DEFAULT_PATH.slice('PATH='.length))
  return state
}

/** Of a stage on top of another: it inherits variables, arguments too. */
export function childState(parent: StageState): StageState {
  return {
    config: structuredClone(parent.config),
    author: parent.author,
    env: new Map(parent.env),
    args: new Map(parent.args),
    steps: [],
    history: [],
    hasCmd: false,
  }
}

export function setEnv(state: StageState, name: string, value: string): void {
  state.env.set(name, value)
  const entries = [...(state.config.Env ?? [])]
  const at = entries.findIndex((entry) => entry.startsWith(`${name}=`) || entry === name)
  if (at < 0) entries.push(`${name}=${value}`)
  else entries[at] = `${name}=${value}`
  state.config.Env = entries
}

function setEntry(env: Map<string, string>, entry: string): void {
  const at = entry.indexOf('=')
  if (at < 0) env.set(entry, '')
  else env.set(entry.slice(0, at), entry.slice(at + 1))
}
