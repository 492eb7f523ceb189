/** Dockerfile to plan: the wanted stage and all that it needs; no other stage enters. */
import {
  errorAt,
  parse,
  stagesOf,
  type Dockerfile,
  type From,
  type Stage,
} from '../../dockerfile-parser/index.ts'
import type { Image, ImageConfig } from '../../cas/index.ts'
import { isErrorWithSource, withSource } from '../errors.ts'
import { applyInstruction } from './instructions.ts'
import { childState, startState, type StageState } from './state.ts'
import type { Base, Source, StagePlan } from './types.ts'
import { createVariables, expandAt, machinePlatform, platformArgs, type Variables } from './variables.ts'

export interface PlanOptions {
  readonly target: string | undefined
  readonly buildArgs: ReadonlyMap<string, string | undefined>
  readonly network: 'host' | 'none'
  /** The image of that name, from the store or a registry. */
  readonly findImage: (name: string) => Promise<Image>
}

export interface Plan {
  readonly target: StagePlan
  /** Those that the target needs and the target itself, in the Dockerfile's order. */
  readonly stages: readonly StagePlan[]
}

/** What the instructions of a stage are gone through with. */
export interface PlanContext {
  readonly tree: Dockerfile
  readonly stage: Stage
  readonly variables: Variables
  readonly platform: ReadonlyMap<string, string>
  readonly network: 'host' | 'none'
  /** `--from`, which only sees earlier stages. */
  source(name: string, range: From['range']): Promise<Source>
}

export async function makePlan(tree: Dockerfile, options: PlanOptions): Promise<Plan> {
  const { globalArgs, stages } = stagesOf(tree)
  const wanted = findTarget(tree, stages, options.target)
  const targetStage = wanted.name ?? ''
  const variables = createVariables(tree, globalArgs, options.buildArgs, targetStage)
  const platform = platformArgs(targetStage)
  const states = new Map<StagePlan, StageState>()
  const plans = new Map<number, Promise<StagePlan>>()

  const planOf = (stage: Stage): Promise<StagePlan> => {
    let plan = plans.get(stage.index)
    if (plan === undefined) {
      plan = makeStage(stage)
      plans.set(stage.index, plan)
    }
    return plan
  }
  const image = async (name: string, range: From['range']): Promise<Image> => {
    try {
      return checkImage(tree, range, name, await options.findImage(name))
    } catch (error) {
      throw isErrorWithSource(error) ? error : withSource(error, tree, range)
    }
  }
  const baseOf = async (stage: Stage, name: string): Promise<Base> => {
    const range = stage.from.image.range
    if (name === '') throw errorAt(tree, range, 'FROM_EMPTY', 'the base image is an empty name')
    const earlier = stages.findLast(
      ({ index, name: other }) => index < stage.index && other === name.toLowerCase(),
    )
    if (earlier !== undefined) return { kind: 'stage', stage: await planOf(earlier) }
    if (name === 'scratch') return { kind: 'scratch' }
    return { kind: 'image', image: await image(name, range), name }
  }

  const makeStage = async (stage: Stage): Promise<StagePlan> => {
    const { from } = stage
    const name = expandAt(tree, from.image.range, from.image.raw, variables.lookupGlobal)
    checkPlatform(tree, from, variables)
    const base = await baseOf(stage, name)
    const state = base.kind === 'stage' ? childState(need(states, base.stage)) : startState(baseConfig(base))
    const source = async (text: string, range: From['range']): Promise<Source> => {
      const earlier = stages.findLast(
        ({ index, name: other }) =>
          index < stage.index && (other === text.toLowerCase() || String(index) === text),
      )
      if (earlier !== undefined) return { kind: 'stage', stage: await planOf(earlier) }
      const later = stages.find(
        ({ index, name: other }) => other === text.toLowerCase() || String(index) === text,
      )
      if (later !== undefined) {
        throw errorAt(
          tree,
          range,
          'STAGE_ORDER',
          `stage ${text} does not come before this one`,
          'copy from an earlier stage',
        )
      }
      return { kind: 'image', image: await image(text, range) }
    }
    const context: PlanContext = { tree, stage, variables, platform, network: options.network, source }
    // Triggers of the base come first, once: they are not handed on.
    const triggers = state.config.OnBuild ?? []
    delete state.config.OnBuild
    for (const trigger of triggers) await applyTrigger(context, state, trigger, name)
    for (const instruction of stage.instructions) await applyInstruction(context, state, instruction)
    const plan: StagePlan = {
      index: stage.index,
      label: stage.name ?? (stages.length === 1 ? '' : `stage-${stage.index}`),
      base,
      from: { text: `FROM ${name}`, tree, range: from.range },
      steps: state.steps,
      history: state.history,
      config: state.config,
      author: state.author,
    }
    states.set(plan, state)
    return plan
  }

  const target = await planOf(wanted)
  const made = await Promise.all(plans.values())
  return { target, stages: made.toSorted((a, b) => a.index - b.index) }
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
  const found =
    target === undefined
      ? stages.at(-1)
      : (stages.find(({ name }) => name === target.toLowerCase()) ??
        stages.find(({ index }) => String(index) === target))
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
  const { os, architecture, variant } = machinePlatform()
  const accepted = [
    '',
    os,
    architecture,
    `${os}/${architecture}`,
    `${os}/${architecture}/${variant ?? 'v1'}`,
    'local',
  ]
  if (architecture === 'amd64') accepted.push('x86_64', 'linux/x86_64')
  else accepted.push('aarch64', 'linux/aarch64')
  if (accepted.includes(wanted.toLowerCase())) return
  throw errorAt(
    tree,
    from.platform.range,
    'PLATFORM_UNSUPPORTED',
    `the platform ${JSON.stringify(wanted)} is not this machine's`,
    `only ${os}/${architecture} can be built here`,
  )
}
