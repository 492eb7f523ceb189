/** What a command says of itself: its options as a table, from which parsing, types and `--help` all come. */
import type { DriverName } from '../../cas/index.ts'

interface Described {
  /** One letter. */
  readonly short?: string
  readonly help: string
  /** Not in `--help`: it is there for those who come from another tool. */
  readonly hidden?: true
}
/** Given or not. */
export interface FlagOption extends Described {
  readonly kind: 'flag'
}
/** Takes a value; the last one counts. */
export interface ValueOption extends Described {
  readonly kind: 'value'
  /** Its placeholder in `--help`, e.g. `DIR`. */
  readonly value: string
  readonly choices?: readonly string[]
}
/** Takes a value each time it is given. */
export interface ListOption extends Described {
  readonly kind: 'list'
  readonly value: string
}
/** Known of another tool, but not done here: giving it is an error that says what to do instead. `help` is that advice. */
export interface RefusedOption extends Described {
  readonly kind: 'refused'
  /** Its placeholder; absent when it takes none. */
  readonly value?: string
  /** Values that ask for what is so anyway (`--provenance=false`): these are let through. */
  readonly accepts?: readonly string[]
}
export type Option = FlagOption | ValueOption | ListOption | RefusedOption
/** By long name, without `--`. */
export type OptionTable = Readonly<Record<string, Option>>

export type Values<T extends OptionTable> = {
  readonly [K in keyof T]: T[K] extends FlagOption
    ? boolean
    : T[K] extends ListOption
      ? readonly string[]
      : T[K] extends RefusedOption
        ? undefined
        : string | undefined
}

export interface Call<T extends OptionTable> {
  readonly options: Values<T>
  readonly args: readonly string[]
}

export interface Command<T extends OptionTable = OptionTable> {
  /** What follows the command's name, e.g. `[OPTIONS] CONTEXT`. */
  readonly usage: string
  /** A paragraph below the summary in `--help`. */
  readonly description?: string
  readonly options: T
  readonly examples: readonly (readonly [command: string, what: string])[]
  readonly arguments: { readonly least: number; readonly most: number }
  /** What follows the first argument is not looked at: `run IMAGE ls -l`. */
  readonly stopAtFirst?: true
  /** The exit status; 0 when nothing is returned. */
  run(call: Call<T>): Promise<number | void>
}

/** Names the option table's exact type, so that `run` gets its values typed. */
export function defineCommand<const T extends OptionTable>(command: Command<T>): Command<T> {
  return command
}

/** Of every command that touches the store. */
export const STORE_OPTION = {
  store: {
    kind: 'value',
    value: 'DIR',
    help: 'The store (default: TBUILD_STORE, else /var/lib/tbuild for root)',
  },
  driver: {
    kind: 'value',
    value: 'NAME',
    choices: ['erofs', 'objects', 'copy'] satisfies readonly DriverName[],
    help: 'How layers are kept (default: what works best)',
  },
} as const satisfies OptionTable

/** Which Dockerfile: of `build` and `check`. */
export const DOCKERFILE_OPTIONS = {
  file: {
    kind: 'value',
    short: 'f',
    value: 'FILE',
    help: 'The Dockerfile (default: Dockerfile in the context)',
  },
  'build-arg': {
    kind: 'list',
    value: 'KEY[=VALUE]',
    help: 'Set an ARG; without a value, from the environment',
  },
} as const satisfies OptionTable

/** What a container may use: of `build` (each RUN) and `run`. */
export const LIMIT_OPTIONS = {
  memory: { kind: 'value', short: 'm', value: 'SIZE', help: 'Most memory, e.g. 64m or 1g' },
  cpus: { kind: 'value', value: 'N', help: 'Most processors, e.g. 0.5' },
  'pids-limit': { kind: 'value', value: 'N', help: 'Most processes and threads' },
} as const satisfies OptionTable
