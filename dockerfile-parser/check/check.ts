import { parseAll } from '../parse.ts'
import { formatPlatform } from '../platform.ts'
import { globalScope, platformArgs } from '../scope.ts'
import { DockerfileError, errorAt, indexLines } from '../source.ts'
import { findStage, stagesOf, type Stage } from '../stages.ts'
import { nearest } from '../suggest.ts'
import { parseMount } from '../mount.ts'
import { decode } from '../text.ts'
import type { Dockerfile, Instruction } from '../types.ts'
import { attempt, type CheckContext, type CheckOptions } from './context.ts'
import { checkDefaultImages, checkFrom, startStage, triggersOf, type StageState } from './from.ts'
import { configOfComments, readConfig, type CheckConfig } from './options.ts'
import { checkImageReference } from './own.ts'
import { Reporter, type Finding, type Place } from './report.ts'
import { StageChecker } from './stage.ts'
import { checkEmptyLines, checkStages, checkWritten, commentsOf } from './written.ts'

export interface CheckResult {
  readonly file: string
  readonly source: string
  /** By place. */
  readonly findings: readonly Finding[]
  /** Why the file cannot be built at all, as far as that can be seen without building; then findings may be missing. */
  readonly errors: readonly DockerfileError[]
  /** `error=true` was asked for, and one of BuildKit's checks found something: a build has to fail with this. */
  readonly failure?: DockerfileError | undefined
}

const LINUX = { os: 'linux', architecture: 'amd64', variant: '' } as const
/** Each suggestion compares a name with all others; a file of nothing but undefined variables must not take long. */
const MAX_SUGGESTIONS = 300

/**
 * Checks a Dockerfile without building it: BuildKit's build checks by the same names, a few of ours, and all the mistakes that a build
 * would stop at. Reads nothing and throws nothing for a mistake in the file: mistakes are part of the result.
 */
export function check(text: string | Uint8Array | Dockerfile, options: CheckOptions = {}): CheckResult {
  const errors: DockerfileError[] = []
  const source = typeof text === 'string' || text instanceof Uint8Array ? text : text.source
  const given = typeof text === 'string' || text instanceof Uint8Array ? undefined : text.file
  const file = options.file ?? given ?? 'Dockerfile'
  const parsed = attempt({ errors }, () => parseAll(source, file))
  if (parsed === undefined) return { file, source: decode(source).text, findings: [], errors }
  const { tree } = parsed
  const buildArgs = options.buildArgs ?? new Map<string, string>()
  const config = attempt({ errors }, () => readConfig(tree, buildArgs))
  if (config === undefined) return { file, source: tree.source, findings: [], errors }
  const reporter = new Reporter(tree, config, options.own ?? true)

  const lines = indexLines(tree.source)
  const comments = commentsOf(tree)
  const places = new Map<Instruction, Place>()
  for (const { instruction } of parsed.instructions)
    places.set(instruction, {
      line: instruction.range.start.line,
      local: configOfComments(comments.get(instruction)?.texts ?? []),
    })
  const placeOf = (instruction: Instruction): Place => places.get(instruction) ?? { line: 0 }

  errors.push(...parsed.errors)
  // What follows an instruction that is wrong is not looked at, as in a build.
  const firstError = parsed.errors[0]?.source?.range.start.offset ?? Infinity
  for (const one of parsed.instructions) {
    const { instruction } = one
    checkEmptyLines(lines, one, placeOf(instruction), reporter)
    if (instruction.range.start.offset < firstError)
      checkWritten(instruction, placeOf(instruction), comments.get(instruction), reporter)
  }
  if (parsed.errors.length === 0) {
    attempt({ errors }, () => {
      const { globalArgs, stages } = stagesOf(tree)
      checkStages(stages, placeOf, reporter)
      const target = findTarget(tree, stages, options.target)
      const buildPlatform = options.buildPlatform ?? LINUX
      const targetPlatform = options.targetPlatform ?? buildPlatform
      const platform = platformArgs(buildPlatform, targetPlatform, stages[target]!.name)
      const scope = globalScope(tree, globalArgs, platform, buildArgs)
      const syntax = new Map(parsed.instructions.map((one) => [one.instruction, one]))
      let suggestions = 0
      const context: CheckContext = {
        tree,
        lines,
        options: { ...options, baseImage: remembering(options.baseImage) },
        reporter,
        errors,
        buildArgs,
        buildPlatform,
        targetPlatform,
        scope,
        stages,
        copied: 0,
        target,
        parsed: (instruction) => syntax.get(instruction),
        place: placeOf,
        nearest: (word, names) => (++suggestions > MAX_SUGGESTIONS ? undefined : nearest(word, names)),
      }
      checkDefaultImages(context, globalArgs, platform)
      goThroughStages(context)
    })
  }
  const findings = reporter.findings.toSorted(
    (a, b) => a.range.start.offset - b.range.start.offset || (a.rule < b.rule ? -1 : a.rule > b.rule ? 1 : 0),
  )
  errors.sort((a, b) => (a.source?.range.start.offset ?? 0) - (b.source?.range.start.offset ?? 0))
  const failure = failureOf(tree, config, findings)
  return { file, source: tree.source, findings, errors, failure }
}

function remembering(find: CheckOptions['baseImage']): CheckOptions['baseImage'] {
  if (find === undefined) return undefined
  const known = new Map<string, ReturnType<typeof find>>()
  return (name, platform) => {
    const key = `${name} ${formatPlatform(platform)}`
    if (!known.has(key)) known.set(key, find(name, platform))
    return known.get(key)
  }
}

function findTarget(tree: Dockerfile, stages: readonly Stage[], target: string | undefined): number {
  if (target === undefined || target === '') return stages.length - 1
  const found = findStage(stages, target)
  if (found !== undefined) return found.index
  const names = stages.flatMap(({ name }) => (name === undefined ? [] : [name]))
  const meant = nearest(target, names)
  throw errorAt(
    tree,
    stages[0]!.from.range,
    'TARGET_NOT_FOUND',
    `there is no stage ${JSON.stringify(target)}`,
    meant !== undefined
      ? `did you mean ${meant}?`
      : names.length === 0
        ? 'no stage of this Dockerfile has a name'
        : `its stages are: ${names.join(', ')}`,
  )
}

function goThroughStages(context: CheckContext): void {
  const { stages, options } = context
  // All FROMs come first, as in a build: they tell what is built on what.
  const byName = new Map<string, number>()
  const froms = stages.map((stage) => {
    const from = checkFrom(context, stage)
    const base = from === undefined ? undefined : byName.get(from.image)
    if (stage.name !== undefined) byName.set(stage.name, stage.index)
    return { from, base }
  })
  const all = options.stages === undefined ? options.target === undefined : options.stages === 'all'
  const needed = all ? undefined : neededStages(context, (index) => froms[index]?.base)
  const states: (StageState | undefined)[] = []
  for (const stage of stages) {
    const { from, base } = froms[stage.index]!
    if (from === undefined) continue
    if (needed !== undefined && !needed.has(stage.index)) continue
    // It is replaced as a whole.
    if (stage.name !== undefined && options.namedContexts?.has(stage.name) === true) continue
    const below = base === undefined ? undefined : states[base]
    if (base !== undefined && below === undefined) continue
    if (base === undefined && options.namedContexts?.has(from.image) !== true)
      checkImageReference(context, context.place(stage.from), stage.from.image.range, from.image)
    const state = startStage(context, stage.from, below, from.image, from.platform)
    states[stage.index] = state
    new StageChecker(context, stage, state).run(triggersOf(context, below, from.image, from.platform))
  }
}

/** The target and all that it is built on or copies from. */
function neededStages(
  { tree, stages, target }: CheckContext,
  baseOf: (index: number) => number | undefined,
): ReadonlySet<number> {
  const needed = new Set<number>()
  const pending = [target]
  for (let index = pending.pop(); index !== undefined; index = pending.pop()) {
    if (needed.has(index)) continue
    needed.add(index)
    const base = baseOf(index)
    if (base !== undefined) pending.push(base)
    for (const instruction of stages[index]!.instructions) {
      const inner = instruction.kind === 'ONBUILD' ? instruction.instruction : instruction
      for (const name of namesIn(tree, inner)) {
        const stage = findStage(stages, name)
        if (stage !== undefined) pending.push(stage.index)
      }
    }
  }
  return needed
}

function namesIn(tree: Dockerfile, instruction: Instruction): readonly string[] {
  if (instruction.kind === 'COPY') return instruction.from === undefined ? [] : [instruction.from.raw]
  if (instruction.kind !== 'RUN') return []
  return instruction.mounts.flatMap((word) => {
    const mount = attempt({ errors: [] }, () => parseMount(tree, word, () => ''))
    return mount?.from === undefined ? [] : [mount.from]
  })
}

function failureOf(
  { file }: Dockerfile,
  config: CheckConfig,
  findings: readonly Finding[],
): DockerfileError | undefined {
  if (!config.error) return undefined
  const found = findings.filter(({ level }) => level === 'warning')
  const first = found[0]
  if (first === undefined) return undefined
  const names = [...new Set(found.map(({ rule }) => rule))]
  const { range, frame } = first
  return new DockerfileError('CHECKS_FAILED', `lint violation found for rules: ${names.join(', ')}`, {
    hint: 'mend them, or leave them out by # check=skip=...',
    source: { file, line: range.start.line, frame, range },
  })
}
