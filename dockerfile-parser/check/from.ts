/** Checks of FROM: its variables, its platform, its image; and what a stage begins with. */
import { quote } from '../dump.ts'
import { parseImageName } from '../imageName.ts'
import { parse } from '../parse.ts'
import { formatPlatform, parsePlatform, type Platform } from '../platform.ts'
import { expandIn, globalScope } from '../scope.ts'
import { errorAt } from '../source.ts'
import type { Stage } from '../stages.ts'
import type { Arg, Dockerfile, From, Instruction, Word } from '../types.ts'
import { attempt, placesOfVariables, type BaseImage, type CheckContext } from './context.ts'

/** What a stage hands on to stages that are built on it. */
export interface StageState {
  readonly env: Map<string, string>
  /** Names that ARG declared. */
  readonly args: Set<string>
  shell: readonly string[]
  workdirSet: boolean
  platform: Platform
  /** Run when a stage is built on this one. */
  readonly triggers: Trigger[]
  /** Image that nothing is known of, below. */
  unknownBase: string | undefined
  /** Package managers that have installed something here or below. */
  readonly installed: Set<string>
}

export interface Trigger {
  readonly tree: Dockerfile
  readonly instruction: Instruction
}

const MAX_COPIED = 2_000_000
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** Would each image's name be one if no build argument were given? */
export function checkDefaultImages(
  context: CheckContext,
  globalArgs: readonly Arg[],
  platform: ReadonlyMap<string, string>,
): void {
  const { tree, reporter, stages } = context
  const names: { readonly from: From; readonly text: string }[] = []
  const found = attempt({ errors: [] }, () => {
    const defaults = globalScope(tree, globalArgs, platform, new Map())
    for (const { from } of stages)
      names.push({ from, text: expandIn(tree, from.image, (name) => defaults.values.get(name)).text })
    return true
  })
  // The same mistake will be met with the arguments given.
  if (found === undefined) return
  for (const { from, text } of names)
    if (typeof parseImageName(text) === 'string')
      reporter.report(
        'InvalidDefaultArgInFrom',
        context.place(from),
        from.image.range,
        `Default value for ARG ${from.image.raw} results in empty or invalid base image name`,
        'give the ARG before FROM a default',
      )
}

/** The image's name with its variables, and the platform; undefined if there is none to go on with. */
export function checkFrom(
  context: CheckContext,
  { from, name }: Stage,
): { readonly image: string; readonly platform: Platform | undefined } | undefined {
  const { tree, errors } = context
  const image = expandFrom(context, from, from.image)
  if (image === undefined) return undefined
  if (image.text === '') {
    errors.push(
      errorAt(
        tree,
        from.image.range,
        'FROM_EMPTY',
        'the base image is an empty name',
        didYouMean(context, image.unmatched) ?? 'give the variable a value: ARG NAME=image before FROM',
      ),
    )
    return undefined
  }
  if (from.platform === undefined) return { image: image.text, platform: undefined }
  const written = expandFrom(context, from, from.platform)
  if (written === undefined) return undefined
  checkPlatformWord(context, from, from.platform, name ?? '', written)
  const platform = parsePlatform(written.text, context.targetPlatform)
  if (platform === undefined) {
    errors.push(
      errorAt(
        tree,
        from.platform.range,
        'PLATFORM_INVALID',
        written.text === '' ? 'the platform is empty' : `${quote(written.text)} is not a platform`,
        didYouMean(context, written.unmatched) ?? 'write for example linux/amd64, or $BUILDPLATFORM',
      ),
    )
    return undefined
  }
  return { image: image.text, platform }
}

function expandFrom(
  context: CheckContext,
  from: From,
  word: Word,
):
  | {
      readonly text: string
      readonly matched: ReadonlySet<string>
      readonly unmatched: ReadonlySet<string>
    }
  | undefined {
  const { tree, scope, reporter } = context
  const expansion = attempt(context, () => expandIn(tree, word, (name) => scope.values.get(name)))
  if (expansion === undefined) return undefined
  const places = expansion.unmatched.size > 0 ? placesOfVariables(context, word.range) : undefined
  for (const name of expansion.unmatched) {
    if (scope.declared.has(name)) continue
    const meant = context.nearest(name, scope.declared)
    reporter.report(
      'UndefinedArgInFrom',
      context.place(from),
      places?.get(name) ?? word.range,
      `FROM argument '${name}' is not declared${meant === undefined ? '' : ` (did you mean ${meant}?)`}`,
      `write ARG ${meant ?? name} before the first FROM`,
    )
  }
  return expansion
}

function didYouMean(context: CheckContext, unmatched: ReadonlySet<string>): string | undefined {
  for (const name of unmatched) {
    const meant = context.nearest(name, context.scope.declared)
    if (meant !== undefined) return `did you mean $${meant}?`
  }
  return undefined
}

function checkPlatformWord(
  context: CheckContext,
  from: From,
  word: Word,
  stageName: string,
  written: {
    readonly text: string
    readonly matched: ReadonlySet<string>
    readonly unmatched: ReadonlySet<string>
  },
): void {
  const { scope, reporter } = context
  const place = context.place(from)
  const { matched, unmatched, text } = written
  if (
    matched.size === 1 &&
    unmatched.size === 0 &&
    matched.has('TARGETPLATFORM') &&
    text === scope.values.get('TARGETPLATFORM')
  )
    reporter.report(
      'RedundantTargetPlatform',
      place,
      word.range,
      `Setting platform to predefined ${word.raw} in FROM is redundant as this is the default behavior`,
      'leave --platform out',
    )
  if (matched.size > 0 || unmatched.size > 0) return
  const platform = parsePlatform(text, context.targetPlatform)
  if (platform === undefined) return
  // A stage that is named for its platform is meant to be of that one.
  if (stageName.includes(platform.os) || stageName.includes(platform.architecture)) return
  reporter.report(
    'FromPlatformFlagConstDisallowed',
    place,
    word.range,
    `FROM --platform flag should not use constant value ${quote(text)}`,
    'write --platform=$BUILDPLATFORM, leave it out, or name the stage for its platform',
  )
}

/** What a stage begins with: the state of the stage it is built on, or of its image. */
export function startStage(
  context: CheckContext,
  from: From,
  base: StageState | undefined,
  image: string,
  platform: Platform | undefined,
): StageState {
  if (base !== undefined) {
    // Each stage of 30,000 with a variable more would copy 450 million; from some point on they share, and may see too much.
    context.copied += base.env.size + base.args.size
    const share = context.copied > MAX_COPIED
    return {
      env: share ? base.env : new Map(base.env),
      args: share ? base.args : new Set(base.args),
      shell: base.shell,
      workdirSet: base.workdirSet,
      platform: base.platform,
      triggers: [],
      unknownBase: base.unknownBase,
      installed: new Set(base.installed),
    }
  }
  const wanted = platform ?? context.targetPlatform
  const isScratch = image === 'scratch'
  const known = isScratch ? undefined : knownImage(context, from, image, wanted)
  const env = new Map<string, string>()
  for (const pair of known?.env ?? []) {
    const equals = pair.indexOf('=')
    env.set(equals < 0 ? pair : pair.slice(0, equals), equals < 0 ? '' : pair.slice(equals + 1))
  }
  if (!env.has('PATH')) env.set('PATH', DEFAULT_PATH)
  return {
    env,
    args: new Set(),
    shell: known?.shell ?? [],
    workdirSet: false,
    platform: wanted,
    triggers: [],
    unknownBase: isScratch || known !== undefined ? undefined : image,
    installed: new Set(),
  }
}

function knownImage(
  context: CheckContext,
  from: From,
  name: string,
  wanted: Platform,
): BaseImage | undefined {
  const { tree, options, reporter, errors } = context
  if (options.namedContexts?.has(name) === true) return undefined
  const parsed = parseImageName(name)
  if (typeof parsed === 'string') {
    errors.push(
      errorAt(
        tree,
        from.image.range,
        'IMAGE_NAME_INVALID',
        `${quote(name)} is not an image's name: ${parsed}`,
        'a stage is named exactly as it is in lower case; an image is registry/name:tag in lower case',
      ),
    )
    return undefined
  }
  const known = options.baseImage?.(name, wanted)
  const actual = known?.platform
  if (actual !== undefined && (actual.os !== wanted.os || actual.architecture !== wanted.architecture))
    reporter.report(
      'InvalidBaseImagePlatform',
      context.place(from),
      from.image.range,
      `Base image ${name} was pulled with platform ${quote(formatPlatform(actual))}, expected ${quote(formatPlatform(wanted))} for current build`,
    )
  return known
}

/** The base's triggers, which run first in the stage that is built on it. */
export function triggersOf(
  context: CheckContext,
  base: StageState | undefined,
  image: string,
  platform: Platform | undefined,
): readonly Trigger[] {
  if (base !== undefined) return base.triggers
  const { options, targetPlatform } = context
  const known = image === 'scratch' ? undefined : options.baseImage?.(image, platform ?? targetPlatform)
  const triggers: Trigger[] = []
  for (const text of known?.onBuild ?? []) {
    attempt(context, () => {
      const tree = parse(`FROM scratch\n${text}\n`, { file: `ONBUILD of ${image}` })
      for (const instruction of tree.instructions.slice(1)) triggers.push({ tree, instruction })
    })
  }
  return triggers
}
