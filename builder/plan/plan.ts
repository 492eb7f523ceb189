/** Dockerfile to plan: the wanted stage and all that it needs; no other stage enters. */
import {
  errorAt,
  findStage,
  formatPlatform,
  parse,
  parsePlatform,
  stagesToBuild,
  type Dockerfile,
  type From,
  type Stage,
} from '../../dockerfile-parser/index.ts'
import type { Image, ImageConfig } from '../../cas/index.ts'
import type { ContextDirectory, ContextFinder, NamedContext } from '../contexts.ts'
import { isErrorWithSource, withSource } from '../errors.ts'
import { applyInstruction } from './instructions.ts'
import { standIn } from './stand-in.ts'
import { takingsOf } from './takings.ts'
import { childState, startState, type StageState } from './state.ts'
import type { Base, Source, StagePlan } from './types.ts'
import { buildPlatform, createVariables, expandAt, machinePlatform, type Variables } from './variables.ts'

export interface PlanOptions {
  readonly target: string | undefined
  readonly buildArgs: ReadonlyMap<string, string>
  readonly network: 'host' | 'none'
  /** Stages that run again: all, or those of these names. */
  readonly noCache?: boolean | readonly string[] | undefined
  /** The image of that name, from the store or a registry. */
  readonly findImage: (name: string) => Promise<Image>
  /** What `--build-context` has put in the place of that name. */
  readonly findContext?: ContextFinder | undefined
}

export interface Plan {
  readonly target: StagePlan
  /** Those that the target needs and the target itself: in the Dockerfile's order, but each after those that it needs. */
  readonly stages: readonly StagePlan[]
  /** Those of `noCache` that name no stage. */
  readonly unknownStages: readonly string[]
}

/** What the instructions of a stage are gone through with. */
export interface PlanContext {
  readonly tree: Dockerfile
  readonly stage: Stage
  readonly variables: Variables
  readonly network: 'host' | 'none'
  /**
   * What a `from` names, of COPY or of a mount: a context that stands in for the stage or the image, a stage (of several of that name the last, wherever
   * it stands), an image.
   */
  source(name: string, range: From['range']): Promise<Source>
}

export async function makePlan(tree: Dockerfile, options: PlanOptions): Promise<Plan> {
  const { globalArgs, stages } = stagesToBuild(tree)
  const wanted = findTarget(tree, stages, options.target)
  const variables = createVariables(tree, globalArgs, options.buildArgs, wanted.name)
  const { noCache = false } = options
  const runsAgain = new Set(
    typeof noCache === 'boolean' ? [] : noCache.map((name) => findStage(stages, name)),
  )
  const isNoCache = (stage: Stage): boolean => noCache === true || runsAgain.has(stage)
  const states = new Map<StagePlan, StageState>()
  const plans = new Map<number, Promise<StagePlan>>()

  /** `above`: the stages that wait for this one. */
  const planOf = (stage: Stage, above: readonly Stage[], range: From['range']): Promise<StagePlan> => {
    if (above.includes(stage)) throw circular(tree, range, [...above.slice(above.indexOf(stage)), stage])
    let plan = plans.get(stage.index)
    if (plan === undefined) {
      plan = makeStage(stage, [...above, stage])
      plans.set(stage.index, plan)
    }
    return plan
  }
  const image = (name: string, range: From['range']): Promise<Image> =>
    at(range, async () => checkImage(tree, range, name, await options.findImage(name)))
  const contextOf = (name: string | undefined, range: From['range']): Promise<NamedContext | undefined> =>
    at(range, async () => {
      const found = name === undefined || name === 'scratch' ? undefined : await options.findContext?.(name)
      if (found?.kind === 'image') checkImage(tree, range, found.name, found.image)
      return found
    })
  const at = async <T>(range: From['range'], work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      throw isErrorWithSource(error) ? error : withSource(error, tree, range)
    }
  }
  const directories = new Map<ContextDirectory, StagePlan>()
  /** A stage of which no instruction counts: what stands in for it does. */
  const standInStage = (
    context: NamedContext,
    { index, label, range, noCache: runAgain }: Pick<StagePlan, 'index' | 'label' | 'noCache'> & Place,
  ): StagePlan => {
    const { text, base, steps, history } = standIn(context, tree, range)
    const state = startState(baseConfig(base))
    const plan = {
      index,
      label,
      base,
      from: { text, tree, range },
      steps,
      history,
      config: state.config,
      author: undefined,
      noCache: runAgain,
    }
    states.set(plan, state)
    return plan
  }
  const directoryBase = (directory: ContextDirectory, range: From['range']): StagePlan => {
    let plan = directories.get(directory)
    if (plan === undefined) {
      const label = `context ${directory.name}`
      const place = { index: -1, label, range, noCache: noCache === true }
      plan = standInStage({ kind: 'directory', directory }, place)
      directories.set(directory, plan)
    }
    return plan
  }
  const baseOf = async (stage: Stage, name: string, above: readonly Stage[]): Promise<Base> => {
    const range = stage.from.image.range
    if (name === '') throw errorAt(tree, range, 'FROM_EMPTY', 'the base image is an empty name')
    const earlier = stages.findLast(
      ({ index, name: other }) => index < stage.index && other === name.toLowerCase(),
    )
    if (earlier !== undefined) return { kind: 'stage', stage: await planOf(earlier, above, range) }
    if (name === 'scratch') return { kind: 'scratch' }
    const named = await contextOf(name, range)
    if (named?.kind === 'directory') return { kind: 'stage', stage: directoryBase(named.directory, range) }
    return named ?? { kind: 'image', image: await image(name, range), name }
  }

  const makeStage = async (stage: Stage, above: readonly Stage[]): Promise<StagePlan> => {
    const { from } = stage
    const label = stage.name ?? (stages.length === 1 ? '' : `stage-${stage.index}`)
    const replaced = await contextOf(stage.name, from.range)
    const place = { index: stage.index, label, range: from.range, noCache: isNoCache(stage) }
    if (replaced !== undefined) return standInStage(replaced, place)
    const name = expandAt(tree, from.image.range, from.image.raw, variables.lookupGlobal)
    checkPlatform(tree, from, variables)
    const base = await baseOf(stage, name, above)
    const state = base.kind === 'stage' ? childState(need(states, base.stage)) : startState(baseConfig(base))
    const source = async (text: string, range: From['range']): Promise<Source> => {
      const named = findStage(stages, text)
      const context = await contextOf(named === undefined ? text : named.name, range)
      if (context?.kind === 'image') return { kind: 'image', image: context.image }
      if (context?.kind === 'directory') return { kind: 'context', directory: context.directory }
      if (context !== undefined) return { kind: 'stage', stage: standInStage(context, { ...place, range }) }
      if (named !== undefined) return { kind: 'stage', stage: await planOf(named, above, range) }
      // In the Dockerfile itself the parser has seen to it; not in a trigger.
      if (/^\d+$/.test(text)) throw noSuchNumber(tree, range, text)
      return { kind: 'image', image: await image(text, range) }
    }
    const context: PlanContext = { tree, stage, variables, network: options.network, source }
    // Triggers of the base come first, once: they are not handed on.
    const triggers = state.config.OnBuild ?? []
    delete state.config.OnBuild
    for (const trigger of triggers) await applyTrigger(context, state, trigger, name)
    for (const instruction of stage.instructions) await applyInstruction(context, state, instruction)
    const plan: StagePlan = {
      index: stage.index,
      label,
      base,
      from: { text: `FROM ${name}`, tree, range: from.range },
      steps: state.steps,
      history: state.history,
      config: state.config,
      author: state.author,
      noCache: isNoCache(stage) || (base.kind === 'stage' && base.stage.noCache),
    }
    states.set(plan, state)
    return plan
  }

  const target = await planOf(wanted, [], wanted.from.range)
  const unknownStages =
    typeof noCache === 'boolean' ? [] : noCache.filter((name) => findStage(stages, name) === undefined)
  return { target, stages: inOrder(await Promise.all(plans.values())), unknownStages }
}

interface Place {
  readonly range: From['range']
}

/** `stages` begins and ends with the same one. */
function circular(tree: Dockerfile, range: From['range'], stages: readonly Stage[]) {
  const names = stages.map(({ name, index }) => name ?? `stage ${index}`)
  return errorAt(
    tree,
    range,
    'STAGE_CIRCLE',
    `the stage needs itself: ${names.join(' needs ')}`,
    'copy from a stage that does not need this one',
  )
}

function noSuchNumber(tree: Dockerfile, range: From['range'], text: string) {
  return errorAt(tree, range, 'INVALID_STAGE_INDEX', `there is no stage number ${text}`)
}

function inOrder(plans: readonly StagePlan[]): StagePlan[] {
  const ordered = new Set<StagePlan>()
  const visit = (plan: StagePlan): void => {
    if (ordered.has(plan)) return
    if (plan.base.kind === 'stage') visit(plan.base.stage)
    for (const { source } of plan.steps.flatMap(takingsOf)) if (source.kind === 'stage') visit(source.stage)
    ordered.add(plan)
  }
  for (const plan of plans.toSorted((a, b) => a.index - b.index)) visit(plan)
  return [...ordered]
}

/** Errors show the trigger, which stands in no file of the user's. */
async function applyTrigger(
  context: PlanContext,
  state: StageState,
  trigger: string,
  image: string,
): Promise<void> {
  const tree = parse(`FROM scratch\n${trigger}\n`, { file: `ONBUILD of ${image}` })
  for (const instruction of tree.instructions.slice(1))
    await applyInstruction({ ...context, tree }, state, instruction)
}

function need<K, V>(map: ReadonlyMap<K, V>, key: K): V {
  const value = map.get(key)
  if (value === undefined) throw new Error('a stage was used before it was planned')
  return value
}

function findTarget(tree: Dockerfile, stages: readonly Stage[], target: string | undefined): Stage {
  const found = target === undefined || target === '' ? stages.at(-1) : findStage(stages, target)
  if (found !== undefined) return found
  const names = stages.flatMap(({ name }) => (name === undefined ? [] : [name]))
  throw errorAt(
    tree,
    stages[0]?.from.range ?? need(new Map(), ''),
    'TARGET_NOT_FOUND',
    `there is no stage ${JSON.stringify(target)}`,
    names.length === 0 ? 'no stage of this Dockerfile has a name' : `its stages are: ${names.join(', ')}`,
  )
}

function baseConfig(base: Base): NonNullable<ImageConfig['config']> {
  return base.kind === 'image' ? (base.image.config.config ?? {}) : { WorkingDir: '/' }
}

function checkImage(tree: Dockerfile, range: From['range'], name: string, image: Image): Image {
  const { os, architecture } = image.config
  const here = machinePlatform()
  if (os === here.os && architecture === here.architecture) return image
  throw errorAt(
    tree,
    range,
    'PLATFORM_MISMATCH',
    `the image ${name} is for ${os}/${architecture}, this machine is ${here.os}/${here.architecture}`,
  )
}

function checkPlatform(tree: Dockerfile, from: From, variables: Variables): void {
  if (from.platform === undefined) return
  const wanted = expandAt(tree, from.platform.range, from.platform.raw, variables.lookupGlobal)
  const here = buildPlatform()
  const parsed = wanted === '' || wanted === 'local' ? here : parsePlatform(wanted, here)
  if (parsed !== undefined && formatPlatform(parsed) === formatPlatform(here)) return
  throw errorAt(
    tree,
    from.platform.range,
    'PLATFORM_UNSUPPORTED',
    `the platform ${JSON.stringify(wanted)} is not this machine's`,
    `only ${formatPlatform(here)} can be built here`,
  )
}
