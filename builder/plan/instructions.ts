/** What each instruction does to a stage's state: to the config at once, or as a step. */
import {
  encode,
  errorAt,
  expandWord,
  expandWords,
  isProxyArg,
  isSignal,
  locate,
  parsePortSpec,
  portsOf,
  type Add,
  type Command,
  type Copy,
  type Dockerfile,
  type Healthcheck,
  type Instruction,
  type Range,
  type Run,
  type Word,
} from '../../dockerfile-parser/index.ts'
import { withSource } from '../errors.ts'
import { parseRemote, type Remote } from '../fetch/remote.ts'
import { planMounts } from './mounts.ts'
import { absolute } from './paths.ts'
import type { PlanContext } from './plan.ts'
import { setEnv, type StageState } from './state.ts'
import type { CopyStep, Step } from './types.ts'
import { expandAt } from './variables.ts'

const DEFAULT_SHELL = ['/bin/sh', '-c']
/** Ours, never the heredoc's own word: that one may hold slashes. */
export const SCRIPT_NAME = '.tbuild-heredoc'

export async function applyInstruction(
  context: PlanContext,
  state: StageState,
  instruction: Instruction,
): Promise<void> {
  const { tree } = context
  const lookup = (name: string): string | undefined => state.env.get(name)
  const text = (word: Word): string => expandAt(tree, word.range, word.raw, lookup)
  const note = (createdBy: string): void => void state.history.push({ createdBy, step: undefined })
  const { config } = state
  switch (instruction.kind) {
    case 'ENV': {
      // All values are those from before this instruction.
      const pairs = instruction.pairs.map(({ name, value }) => [text(name), text(value)] as const)
      for (const [name, value] of pairs) setEnv(state, name, value)
      note(`ENV ${pairs.map(([name, value]) => `${name}=${value}`).join(' ')}`)
      return
    }
    case 'LABEL': {
      const pairs = instruction.pairs.map(({ name, value }) => [text(name), text(value)] as const)
      config.Labels = { ...config.Labels, ...Object.fromEntries(pairs) }
      note(`LABEL ${pairs.map(([name, value]) => `${name}=${value}`).join(' ')}`)
      return
    }
    case 'ARG':
      declareArgs(context, state, instruction, note)
      return
    case 'WORKDIR':
      workdir(tree, state, text(instruction.path), instruction)
      return
    case 'USER': {
      config.User = text(instruction.user)
      note(`USER ${config.User}`)
      return
    }
    case 'EXPOSE': {
      const ports = instruction.ports.flatMap((word) =>
        locate(tree, word.range, () => expandWords(word.raw, { lookup, escape: tree.escape })).flatMap(
          (port) => exposed(tree, word.range, port),
        ),
      )
      config.ExposedPorts = { ...config.ExposedPorts, ...Object.fromEntries(ports.map((port) => [port, {}])) }
      note(`EXPOSE [${ports.join(' ')}]`)
      return
    }
    case 'VOLUME': {
      const paths = instruction.paths.map((word) => {
        const path = text(word)
        if (path === '') throw errorAt(tree, word.range, 'VOLUME_EMPTY', 'a volume needs a path')
        return path
      })
      config.Volumes = { ...config.Volumes, ...Object.fromEntries(paths.map((path) => [path, {}])) }
      note(`VOLUME [${paths.join(' ')}]`)
      return
    }
    case 'CMD': {
      const args = withShell(state, instruction.command)
      config.Cmd = args
      config.ArgsEscaped = true
      state.hasCmd = true
      note(`CMD ${quoted(args)}`)
      return
    }
    case 'ENTRYPOINT': {
      const args = withShell(state, instruction.command)
      config.Entrypoint = args
      if (!state.hasCmd) delete config.Cmd
      note(`ENTRYPOINT ${quoted(args)}`)
      return
    }
    case 'SHELL':
      config.Shell = instruction.args
      note(`SHELL [${instruction.args.join(' ')}]`)
      return
    case 'STOPSIGNAL': {
      const signal = text(instruction.signal)
      if (!isSignal(signal)) throw noSignal(tree, instruction.signal.range, signal)
      config.StopSignal = signal
      note(`STOPSIGNAL ${signal}`)
      return
    }
    case 'HEALTHCHECK':
      config.Healthcheck = healthcheck(instruction)
      note(`HEALTHCHECK ${JSON.stringify(config.Healthcheck)}`)
      return
    case 'MAINTAINER':
      state.author = instruction.name.raw
      note(`MAINTAINER ${state.author}`)
      return
    case 'ONBUILD':
      config.OnBuild = [...(config.OnBuild ?? []), instruction.trigger]
      return
    case 'RUN':
      await run(context, state, instruction)
      return
    case 'COPY':
    case 'ADD':
      await copy(context, state, instruction)
      return
    case 'FROM':
      throw new Error('FROM begins a stage')
  }
}

function add(state: StageState, step: Step, createdBy: string): void {
  state.steps.push(step)
  state.history.push({ createdBy, step })
}

function declareArgs(
  { tree, variables }: PlanContext,
  state: StageState,
  instruction: Extract<Instruction, { kind: 'ARG' }>,
  note: (createdBy: string) => void,
): void {
  const said: string[] = []
  const lookup = (variable: string): string | undefined => state.env.get(variable)
  for (const { name, value: given } of instruction.args) {
    const value =
      variables.buildArgs.get(name) ??
      (given && expandAt(tree, given.range, given.raw, lookup)) ??
      variables.globals.get(name)
    // Declared without a value it leaves a variable of that name alone.
    if (value !== undefined) state.env.set(name, value)
    state.args.set(name, value ?? state.env.get(name))
    said.push(value === undefined ? name : `${name}=${value}`)
  }
  note(`ARG ${said.join(' ')}`)
}

function workdir(
  tree: Dockerfile,
  state: StageState,
  path: string,
  instruction: Extract<Instruction, { kind: 'WORKDIR' }>,
): void {
  const at = absolute(state, path)
  state.config.WorkingDir = at
  const createdBy = `WORKDIR ${at}`
  if (/^\/*$/.test(at)) {
    state.history.push({ createdBy, step: undefined })
    return
  }
  const { range, text } = instruction
  add(state, { kind: 'workdir', text, tree, range, path: at, user: state.config.User ?? '' }, createdBy)
}

async function run(context: PlanContext, state: StageState, instruction: Run): Promise<void> {
  const { tree, network, variables } = context
  const device = instruction.devices[0]
  if (device !== undefined)
    throw unsupported(tree, device.range, 'RUN --device', 'devices of the host are never given to a build')
  if (instruction.security !== undefined && instruction.security.raw !== 'sandbox') {
    throw unsupported(
      tree,
      instruction.security.range,
      `RUN --security=${instruction.security.raw}`,
      'every RUN is sandboxed',
    )
  }
  const { script } = instruction
  const executable = script?.rawContent.startsWith('#!') === true ? script : undefined
  const args = executable === undefined ? withShell(state, instruction.command) : [`/${SCRIPT_NAME}`]
  const declared = [...state.args].map(([key, value]) => `${key}=${state.env.get(key) ?? value ?? ''}`)
  const prefix = declared.length === 0 ? '' : `|${declared.length} ${declared.join(' ')} `
  add(
    state,
    {
      kind: 'exec',
      text: instruction.text,
      tree,
      range: instruction.range,
      args,
      env: [...state.env].map(([key, value]) => `${key}=${value}`),
      hiddenEnv: [...variables.buildArgs]
        .filter(([key]) => isProxyArg(key) && !state.env.has(key))
        .map(([key, value]) => `${key}=${value}`),
      cwd: state.config.WorkingDir || '/',
      user: state.config.User ?? '',
      network: networkOf(tree, instruction, network),
      mounts: await planMounts(context, state, instruction),
      script: executable && encode(executable.content),
    },
    `RUN ${prefix}${executable === undefined ? args.join(' ') : executable.content}`,
  )
}

function networkOf(tree: Dockerfile, { network }: Run, fallback: 'host' | 'none'): 'host' | 'none' {
  if (network === undefined || network.raw === 'default') return fallback
  if (network.raw === 'none') return 'none'
  if (network.raw === 'host' && fallback === 'host') return 'host'
  if (network.raw === 'host') {
    throw errorAt(
      tree,
      network.range,
      'NETWORK_DENIED',
      'this build was started with --network=none',
      'build with --network=host',
    )
  }
  throw errorAt(
    tree,
    network.range,
    'NETWORK_INVALID',
    `unknown network ${JSON.stringify(network.raw)}`,
    'default, none or host',
  )
}

async function copy(context: PlanContext, state: StageState, instruction: Copy | Add): Promise<void> {
  const { tree } = context
  const lookup = (name: string): string | undefined => state.env.get(name)
  const text = (word: Word): string => expandAt(tree, word.range, word.raw, lookup)
  const optional = (word: Word | undefined): string | undefined => word && text(word)
  const patterns = instruction.sources.map(text)
  const remotes =
    instruction.kind === 'ADD' ? remotesOf(tree, instruction, patterns, lookup) : new Map<string, Remote>()
  const inline = instruction.heredocs.map(({ name, content, expand }) => ({
    name: fileName(tree, instruction.range, name),
    content: encode(expand ? expandBody(tree, instruction.range, content, lookup) : content),
  }))
  const given = text(instruction.destination)
  const destination = absolute(
    state,
    given === '' || given === '.' ? './' : /(^|\/)\.$/.test(given) ? `${given}/` : given,
  )
  const from = instruction.kind === 'COPY' ? instruction.from : undefined
  const step: CopyStep = {
    kind: 'copy',
    text: instruction.text,
    tree,
    range: instruction.range,
    instruction: instruction.kind,
    source: from === undefined ? { kind: 'context' } : await context.source(from.raw, from.range),
    patterns,
    remotes,
    inline,
    destination,
    chown: optional(instruction.chown),
    chmod: optional(instruction.chmod),
    excludes: instruction.excludes.map(({ raw }) => raw),
    unpack: instruction.kind === 'ADD' && instruction.unpack !== false,
    unpackRemote: instruction.kind === 'ADD' && instruction.unpack === true,
    parents: instruction.kind === 'COPY' && instruction.parents,
  }
  const sources = [...patterns, ...inline.map(({ name }) => `<<${name}`)].join(' ')
  const flags = [
    ...(step.chown === undefined ? [] : [`--chown=${step.chown} `]),
    ...(step.chmod === undefined ? [] : [`--chmod=${step.chmod} `]),
  ].join('')
  add(state, step, `${instruction.kind} ${flags}${sources} ${given}`)
}

/** Quotes are part of the file; the escape is `\`, whatever the Dockerfile's own is. Both as in BuildKit. */
function expandBody(
  tree: Dockerfile,
  range: Range,
  content: string,
  lookup: (name: string) => string | undefined,
): string {
  return locate(tree, range, () => expandWord(content, { lookup, skipQuotes: true }))
}

/** A heredoc's word, as the name of a file in the destination. */
function fileName(tree: Dockerfile, range: Range, name: string): string {
  if (!name.includes('/') && name !== '.' && name !== '..') return name
  throw errorAt(
    tree,
    range,
    'HEREDOC_NAME',
    `${JSON.stringify(name)} cannot be a file's name`,
    'write <<NAME, without directories',
  )
}

function remotesOf(
  tree: Dockerfile,
  { sources, checksum: word, keepGitDir }: Add,
  patterns: readonly string[],
  lookup: (name: string) => string | undefined,
): ReadonlyMap<string, Remote> {
  const checksum = word && expandAt(tree, word.range, word.raw, lookup)
  const remotes = new Map<string, Remote>()
  for (const [index, pattern] of patterns.entries()) {
    try {
      const remote = parseRemote(pattern, { checksum, keepGitDir })
      if (remote !== undefined) remotes.set(pattern, remote)
    } catch (error) {
      const range = word?.range ?? sources[index]?.range
      throw range === undefined ? error : withSource(error, tree, range)
    }
  }
  if (word !== undefined && (patterns.length !== 1 || remotes.size !== 1))
    throw errorAt(
      tree,
      word.range,
      'CHECKSUM_SOURCES',
      '--checksum is for one source, fetched over http(s) or by git',
      'give each address an ADD of its own; a file of the context needs no checksum',
    )
  return remotes
}

function withShell(state: StageState, command: Command): string[] {
  if (command.form === 'exec') return [...command.args]
  return [...(state.config.Shell ?? DEFAULT_SHELL), command.text]
}

function healthcheck(instruction: Healthcheck) {
  if (instruction.none) return { Test: ['NONE'] }
  const { command, interval, timeout, startPeriod, startInterval, retries } = instruction
  return {
    Test: command.form === 'exec' ? ['CMD', ...command.args] : ['CMD-SHELL', command.text],
    ...(interval ? { Interval: interval } : {}),
    ...(timeout ? { Timeout: timeout } : {}),
    ...(startPeriod ? { StartPeriod: startPeriod } : {}),
    ...(startInterval ? { StartInterval: startInterval } : {}),
    ...(retries ? { Retries: retries } : {}),
  }
}

function noSignal(tree: Dockerfile, range: Range, signal: string) {
  return errorAt(
    tree,
    range,
    'SIGNAL_INVALID',
    `${JSON.stringify(signal)} is not a signal`,
    'a name like SIGTERM, or a number',
  )
}

/** Each port as the config has it, `80/tcp`. */
function exposed(tree: Dockerfile, range: Range, text: string): string[] {
  const spec = parsePortSpec(text)
  if (typeof spec !== 'string') return portsOf(spec)
  throw errorAt(
    tree,
    range,
    'PORT_INVALID',
    `${JSON.stringify(text)} is not a port: ${spec}`,
    'e.g. 80, 53/udp, 8000-8010',
  )
}

function quoted(args: readonly string[]): string {
  return `[${args.map((arg) => JSON.stringify(arg)).join(' ')}]`
}

function unsupported(tree: Dockerfile, range: Range, what: string, hint: string) {
  return errorAt(tree, range, 'UNSUPPORTED', `${what} is not supported yet`, hint)
}
