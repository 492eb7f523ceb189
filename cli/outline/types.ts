/** What `--call=outline` and `--call=targets` tell, in the form in which buildx prints it as JSON. */

/** Of BuildKit's protocol: lines from 1. */
export interface Location {
  readonly ranges: readonly {
    readonly start: { readonly line: number }
    readonly end: { readonly line: number }
  }[]
}

export interface Target {
  readonly name?: string
  readonly default?: true
  readonly description?: string
  readonly base?: string
  readonly platform?: string
  readonly location: Location
}

export interface TargetList {
  readonly targets: readonly Target[]
  /** The Dockerfile, in base64. */
  readonly sources: readonly string[]
}

export interface Argument {
  readonly name: string
  readonly description?: string
  readonly value?: string
  readonly location: Location
}

/** A secret or an agent that a RUN is given. */
export interface Need {
  readonly name: string
  readonly required?: true
  readonly location: Location
}

export interface Outline {
  readonly name?: string
  readonly description?: string
  readonly args?: readonly Argument[] | undefined
  readonly secrets?: readonly Need[] | undefined
  readonly ssh?: readonly Need[] | undefined
  readonly sources: readonly string[]
}
