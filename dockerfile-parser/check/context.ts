import type { IgnoreMatcher } from '../ignoreMatcher.ts'
import type { ParsedInstruction } from '../parse.ts'
import type { Platform } from '../platform.ts'
import type { GlobalScope } from '../scope.ts'
import { DockerfileError, type LineIndex } from '../source.ts'
import type { Stage } from '../stages.ts'
import type { Dockerfile, Instruction, Range } from '../types.ts'
import type { Place, Reporter } from './report.ts'

/** What a check may know of a base image. */
export interface BaseImage {
  /** `NAME=value` */
  readonly env: readonly string[]
  readonly shell?: readonly string[] | undefined
  readonly onBuild?: readonly string[] | undefined
  readonly platform?: Platform | undefined
}

export interface CheckOptions {
  /** For messages only. */
  readonly file?: string | undefined
  /** `--build-arg`. BUILDKIT_DOCKERFILE_CHECK among them replaces the file's `# check=`. */
  readonly buildArgs?: ReadonlyMap<string, string> | undefined
  /** Stage to build. Without it all stages are checked, with it those that it needs. */
  readonly target?: string | undefined
  /** Overrides what `target` says. At the end of a build only `needed` stages are of interest. */
  readonly stages?: 'all' | 'needed' | undefined
  /** Of the machine that builds; linux/amd64 without it. */
  readonly buildPlatform?: Platform | undefined
  /** Of the image; that of the machine without it. */
  readonly targetPlatform?: Platform | undefined
  /**
   * What is known of the image; undefined for nothing, and then a note with each finding that depends on it says so. An image
   * is not asked for twice.
   */
  readonly baseImage?: ((name: string, platform: Platform) => BaseImage | undefined) | undefined
  /** The context's ignore patterns, for CopyIgnoredFile. */
  readonly ignore?: { readonly matcher: IgnoreMatcher; readonly file: string } | undefined
  /** Names of `--build-context`: no stage or image of such a name is looked at. */
  readonly namedContexts?: ReadonlySet<string> | undefined
  /** False: only BuildKit's checks. */
  readonly own?: boolean | undefined
}

export interface CheckContext {
  readonly tree: Dockerfile
  readonly lines: LineIndex
  readonly options: CheckOptions
  readonly reporter: Reporter
  readonly errors: DockerfileError[]
  readonly buildArgs: ReadonlyMap<string, string>
  readonly buildPlatform: Platform
  readonly targetPlatform: Platform
  readonly scope: GlobalScope
  readonly stages: readonly Stage[]
  /** Variables that stages have taken over from stages below. */
  copied: number
  /** Number of the stage that is built. */
  readonly target: number
  parsed(instruction: Instruction): ParsedInstruction | undefined
  place(instruction: Instruction): Place
  /** A name that was probably meant. */
  nearest(word: string, names: Iterable<string>): string | undefined
}

/** Runs work whose mistakes are the user's: they are kept, and undefined is given. */
export function attempt<T>(context: { readonly errors: DockerfileError[] }, work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof DockerfileError)) throw error
    context.errors.push(error)
    return undefined
  }
}

/** Where in a range each variable is used first. Linear, however many there are. */
export function placesOfVariables(
  { tree, lines }: { readonly tree: Dockerfile; readonly lines: LineIndex },
  range: Range,
): ReadonlyMap<string, Range> {
  const places = new Map<string, Range>()
  const text = tree.source.slice(range.start.offset, range.end.offset)
  for (const match of text.matchAll(/\$(?:\{([\p{L}\p{Nd}_]+)\}?|([\p{L}\p{Nd}_]+))/gu)) {
    const name = match[1] ?? match[2]!
    if (places.has(name)) continue
    const start = range.start.offset + match.index
    places.set(name, lines.range(start, start + match[0].length))
  }
  return places
}
