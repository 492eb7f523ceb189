/**
 * `--call=outline`: what a target can be given. Its stage and those it needs are gone through as a build would, but no image is looked at: variables that
 * come from a base image's config are not known here.
 */
import { posix } from 'node:path'
import {
  expand,
  findStage,
  globalScope,
  locate,
  parseMount,
  platformArgs,
  stagesToBuild,
  type Arg,
  type Dockerfile,
  type Instruction,
  type Platform,
  type Run,
  type Stage,
  type Word,
} from '../../dockerfile-parser/index.ts'
import { TbuildError } from '../../errors.ts'
import { commentsOf, describe, locationOf } from './comments.ts'
import type { Argument, Need, Outline } from './types.ts'

export interface OutlineOptions {
  readonly target: string | undefined
  readonly buildArgs: ReadonlyMap<string, string>
  readonly platform: Platform
  /** Stages that a named context stands in for: nothing of them counts. */
  readonly namedContexts: ReadonlySet<string>
}

/** An ARG before the first FROM counts when something refers to it, if only another one. */
interface GlobalArgument {
  readonly argument: Argument
  readonly needs: ReadonlySet<string>
}

/** Throws DockerfileError; TbuildError `TARGET_NOT_FOUND`. */
export function outlineOf(tree: Dockerfile, source: Uint8Array, options: OutlineOptions): Outline {
  const { globalArgs, stages } = stagesToBuild(tree)
  const target = options.target ? findStage(stages, options.target) : stages.at(-1)
  if (target === undefined)
    throw new TbuildError('TARGET_NOT_FOUND', `there is no stage ${JSON.stringify(options.target)}`, {
      hint: '--call=targets lists the stages',
    })
  const comments = commentsOf(tree)
  const platform = platformArgs(options.platform, options.platform, target.name)
  const { values } = globalScope(tree, globalArgs, platform, options.buildArgs)
  const globals = globalsOf(tree, globalArgs, platform, values, (arg, name) =>
    describe(comments.get(arg), name),
  )
  const found: Found = { args: new Map(), secrets: new Map(), ssh: new Map() }
  const context: Context = {
    tree,
    stages,
    options,
    values,
    globals,
    found,
    comments,
    environments: new Map(),
  }
  visit(context, target)
  const { name } = target
  const description = name === undefined ? undefined : describe(comments.get(target.from), name)
  return {
    ...(name !== undefined && { name }),
    ...(description && { description }),
    args: listed(found.args),
    secrets: listed(found.secrets),
    ssh: listed(found.ssh),
    sources: [Buffer.from(source).toString('base64')],
  }
}

interface Found {
  readonly args: Map<string, Argument>
  readonly secrets: Map<string, Need>
  readonly ssh: Map<string, Need>
}

interface Context {
  readonly tree: Dockerfile
  readonly stages: readonly Stage[]
  readonly options: OutlineOptions
  /** What FROM sees. */
  readonly values: ReadonlyMap<string, string>
  readonly globals: ReadonlyMap<string, GlobalArgument>
  readonly found: Found
  readonly comments: ReadonlyMap<Instruction, readonly string[]>
  /** Of the stages that were gone through: what is set at their ends. */
  readonly environments: Map<number, ReadonlyMap<string, string>>
}

/** In the order of their lines; `undefined` when there are none, so that JSON leaves them out. */
function listed<T extends Argument | Need>(found: ReadonlyMap<string, T>): readonly T[] | undefined {
  const line = ({ location }: T): number => location.ranges[0]?.start.line ?? 0
  const list = [...found.values()].toSorted((a, b) => line(a) - line(b))
  return list.length === 0 ? undefined : list
}

function globalsOf(
  tree: Dockerfile,
  globalArgs: readonly Arg[],
  platform: ReadonlyMap<string, string>,
  values: ReadonlyMap<string, string>,
  description: (arg: Arg, name: string) => string | undefined,
): ReadonlyMap<string, GlobalArgument> {
  const globals = new Map<string, GlobalArgument>()
  for (const arg of globalArgs) {
    for (const { name, value: given, range } of arg.args) {
      const known = (variable: string): string | undefined =>
        globals.has(variable) || platform.has(variable) ? values.get(variable) : undefined
      const needs =
        given === undefined ? new Set<string>() : referred(tree, { raw: given.raw, range }, known).matched
      globals.set(name, { argument: argumentOf(arg, name, values.get(name), description(arg, name)), needs })
    }
  }
  return globals
}

function argumentOf(
  arg: Arg,
  name: string,
  value: string | undefined,
  description: string | undefined,
): Argument {
  return {
    name,
    ...(description && { description }),
    ...(value && { value }),
    location: locationOf(arg.range),
  }
}

function referred(tree: Dockerfile, word: Word, lookup: (name: string) => string | undefined) {
  return locate(tree, word.range, () => expand(word.raw, { lookup, escape: tree.escape }))
}

/** Of a name that several stages declare the first one that is met counts: this stage, what it stands on, what it copies from. */
function visit(context: Context, stage: Stage): ReadonlyMap<string, string> {
  const known = context.environments.get(stage.index)
  if (known !== undefined) return known
  const env = new Map<string, string>()
  context.environments.set(stage.index, env)
  const { tree, stages, options, values, found } = context
  if (stage.name !== undefined && options.namedContexts.has(stage.name)) return env
  const global = (name: string): string | undefined => values.get(name)
  const image = referred(tree, stage.from.image, global)
  const platform = stage.from.platform && referred(tree, stage.from.platform, global)
  const base = stages.findLast(({ index, name }) => index < stage.index && name === image.text.toLowerCase())
  // What the base sets is seen here; what it can be given is told after this stage's own.
  const own: Found = { args: new Map(), secrets: new Map(), ssh: new Map() }
  const below = base === undefined ? [] : [...visitInto(context, base, own)]
  for (const [name, value] of below) env.set(name, value)
  const mine: Found = { args: new Map(), secrets: new Map(), ssh: new Map() }
  for (const name of [...image.matched, ...(platform?.matched ?? [])]) useGlobal(context, mine, name)
  const needed: Stage[] = []
  for (const instruction of stage.instructions) step(context, mine, env, instruction, needed)
  for (const part of [mine, own]) merge(found, part)
  for (const other of needed) visit(context, other)
  return env
}

function visitInto(context: Context, stage: Stage, found: Found): ReadonlyMap<string, string> {
  return visit({ ...context, found }, stage)
}

function merge(into: Found, from: Found): void {
  for (const [name, value] of from.args) if (!into.args.has(name)) into.args.set(name, value)
  for (const [name, value] of from.secrets) if (!into.secrets.has(name)) into.secrets.set(name, value)
  for (const [name, value] of from.ssh) if (!into.ssh.has(name)) into.ssh.set(name, value)
}

function useGlobal({ globals }: Context, { args }: Found, name: string): void {
  const pending = [name]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const global = globals.get(next)
    if (global === undefined || args.has(next)) continue
    args.set(next, global.argument)
    pending.push(...global.needs)
  }
}

function step(
  context: Context,
  found: Found,
  env: Map<string, string>,
  instruction: Instruction,
  needed: Stage[],
): void {
  const { tree, stages } = context
  const text = (word: Word): string => referred(tree, word, (name) => env.get(name)).text
  const need = (from: string | undefined): void => {
    const stage = from === undefined ? undefined : findStage(stages, from)
    if (stage !== undefined) needed.push(stage)
  }
  if (instruction.kind === 'ARG') declare(context, found, env, instruction)
  else if (instruction.kind === 'ENV') {
    const pairs = instruction.pairs.map(({ name, value }) => [text(name), text(value)] as const)
    for (const [name, value] of pairs) env.set(name, value)
  } else if (instruction.kind === 'COPY') need(instruction.from?.raw)
  else if (instruction.kind === 'RUN') for (const from of mounts(tree, found, env, instruction)) need(from)
}

function declare(context: Context, found: Found, env: Map<string, string>, arg: Arg): void {
  const { tree, options, values, comments } = context
  const lookup = (name: string): string | undefined => env.get(name)
  for (const { name, value: given } of arg.args) {
    const own = options.buildArgs.get(name) ?? (given && referred(tree, given, lookup).text)
    const value = own ?? values.get(name)
    if (value !== undefined) env.set(name, value)
    // Without a value of its own it is the global one, which is told as it stands there; a platform's is none of the user's.
    if (own === undefined && values.has(name)) {
      useGlobal(context, found, name)
    } else found.args.set(name, argumentOf(arg, name, value, describe(comments.get(arg), name)))
  }
}

/** Notes what a RUN is given; returns what it mounts from. */
function mounts(tree: Dockerfile, found: Found, env: ReadonlyMap<string, string>, run: Run): string[] {
  const from: string[] = []
  for (const word of run.mounts) {
    const mount = parseMount(tree, word, (name) => env.get(name))
    if (mount.from !== undefined) from.push(mount.from)
    if (mount.type !== 'secret' && mount.type !== 'ssh') continue
    const name =
      mount.type === 'ssh'
        ? mount.id || 'default'
        : mount.source || mount.id || posix.basename(mount.target ?? '')
    const needs = mount.type === 'ssh' ? found.ssh : found.secrets
    const required = mount.required && { required: true as const }
    if (!needs.has(name)) needs.set(name, { name, ...required, location: locationOf(run.range) })
  }
  return from
}
