/** Goes through the instructions of a stage with its variables, as a build does, and checks each. */
import { quote } from '../dump.ts'
import { expand, expandText } from '../expand.ts'
import { parseMount, type Mount } from '../mount.ts'
import { parsePortSpec } from '../ports.ts'
import { isSignal } from '../signals.ts'
import { errorAt, locate } from '../source.ts'
import { findStage, type Stage } from '../stages.ts'
import type {
  Arg,
  Cmd,
  Copy,
  Add,
  Dockerfile,
  Entrypoint,
  Env,
  Healthcheck,
  Instruction,
  Label,
  Range,
  Word,
} from '../types.ts'
import { attempt, placesOfVariables, type CheckContext } from './context.ts'
import type { StageState, Trigger } from './from.ts'
import { checkSources } from './copy.ts'
import { checkImageReference, OwnChecks } from './own.ts'
import type { Place } from './report.ts'

/** Long values are cut: only what they begin with can matter to a check, and values that double must not exhaust the memory. */
const MAX_VALUE = 1000
const NOT_VARIABLES = new Set(['BUILDKIT_SBOM_SCAN_CONTEXT', 'BUILDKIT_SBOM_SCAN_STAGE'])

export class StageChecker {
  readonly #context: CheckContext
  readonly #stage: Stage
  readonly #state: StageState
  readonly #own: OwnChecks
  /** The one before, which is ignored when there is another. */
  readonly #last = new Map<string, { readonly place: Place; readonly range: Range }>()
  /** The file that the instruction at hand stands in: ours, or the text of a trigger of a base image. */
  #tree: Dockerfile
  #place: Place
  /** Where findings of a trigger are shown: FROM. */
  #trigger: Range | undefined

  constructor(context: CheckContext, stage: Stage, state: StageState) {
    this.#context = context
    this.#stage = stage
    this.#state = state
    this.#own = new OwnChecks(context, state)
    this.#tree = context.tree
    this.#place = context.place(stage.from)
  }

  run(triggers: readonly Trigger[]): void {
    const context = this.#context
    this.#trigger = this.#stage.from.image.range
    for (const { tree, instruction } of triggers) {
      this.#tree = tree
      attempt(context, () => this.#instruction(instruction))
    }
    this.#tree = context.tree
    this.#trigger = undefined
    for (const instruction of this.#stage.instructions) {
      this.#place = context.place(instruction)
      attempt(context, () => this.#instruction(instruction))
      this.#own.instruction(instruction)
    }
  }

  #report(
    name: Parameters<CheckContext['reporter']['report']>[0],
    range: Range,
    message: string,
    note?: string,
  ): void {
    this.#context.reporter.report(name, this.#place, this.#trigger ?? range, message, note)
  }

  #instruction(instruction: Instruction): void {
    switch (instruction.kind) {
      case 'ENV':
      case 'LABEL':
        this.#pairs(instruction)
        return
      case 'ARG':
        this.#arg(instruction)
        return
      case 'WORKDIR':
        this.#workdir(this.#text(instruction.path), instruction.path.range)
        return
      case 'USER':
        this.#text(instruction.user)
        return
      case 'VOLUME':
        for (const word of instruction.paths)
          if (this.#text(word) === '')
            throw errorAt(this.#tree, word.range, 'VOLUME_EMPTY', 'a volume needs a path')
        return
      case 'EXPOSE':
        for (const word of instruction.ports) this.#ports(word)
        return
      case 'STOPSIGNAL':
        checkSignal(this.#tree, instruction.signal.range, this.#text(instruction.signal))
        return
      case 'SHELL':
        this.#state.shell = instruction.args
        return
      case 'CMD':
      case 'ENTRYPOINT':
        this.#once(instruction)
        this.#jsonArgs(instruction)
        return
      case 'HEALTHCHECK':
        this.#once(instruction)
        return
      case 'COPY':
      case 'ADD':
        this.#copy(instruction)
        return
      case 'RUN':
        for (const word of instruction.mounts) this.#mount(word)
        return
      case 'ONBUILD':
        this.#state.triggers.push({ tree: this.#tree, instruction: instruction.instruction })
        return
      case 'FROM':
      case 'MAINTAINER':
        return
    }
  }

  #text(word: Word): string {
    const lookup = this.#lookup
    const { text, unmatched } = locate(this.#tree, word.range, () =>
      expandText(word.raw, { lookup, escape: this.#tree.escape }),
    )
    this.#undefined(word.range, unmatched)
    return text
  }

  readonly #lookup = (name: string): string | undefined => this.#state.env.get(name)

  #undefined(range: Range, names: ReadonlySet<string>): void {
    if (names.size === 0) return
    let places: ReadonlyMap<string, Range> | undefined
    for (const name of names) {
      if (this.#state.args.has(name) || NOT_VARIABLES.has(name)) continue
      places ??= this.#trigger === undefined ? placesOfVariables(this.#context, range) : new Map()
      const meant = this.#context.nearest(name, this.#state.env.keys())
      const base = this.#state.unknownBase
      this.#report(
        'UndefinedVar',
        places.get(name) ?? range,
        `Usage of undefined variable '$${name}'${meant === undefined ? '' : ` (did you mean $${meant}?)`}`,
        base === undefined
          ? undefined
          : `the image ${base} was not looked at: if it sets ${name}, all is well`,
      )
    }
  }

  #pairs(instruction: Env | Label): void {
    const { kind, pairs } = instruction
    // All values are those from before this instruction.
    const expanded = pairs.map((pair) => [pair, this.#text(pair.name), this.#text(pair.value)] as const)
    for (const [pair, name, value] of expanded) {
      if (!pair.equals)
        this.#report(
          'LegacyKeyValueFormat',
          { start: pair.name.range.start, end: pair.value.range.end },
          `"${instruction.keyword.raw} key=value" should be used instead of legacy "${instruction.keyword.raw} key value" format`,
        )
      if (kind === 'LABEL') continue
      this.#secretName('ENV', name, pair.name.range)
      this.#state.env.set(name, value.slice(0, MAX_VALUE))
    }
  }

  #arg({ args }: Arg): void {
    const { scope, buildArgs } = this.#context
    for (const { name, value: written, range } of args) {
      const nameRange = {
        start: range.start,
        end:
          written === undefined
            ? range.end
            : {
                ...range.start,
                offset: range.start.offset + name.length,
                column: range.start.column + name.length,
              },
      }
      this.#secretName('ARG', name, nameRange)
      const value =
        buildArgs.get(name) ?? (written === undefined ? scope.values.get(name) : this.#text(written))
      if (value !== undefined && !NOT_VARIABLES.has(name))
        this.#state.env.set(name, value.slice(0, MAX_VALUE))
      this.#state.args.add(name)
    }
  }

  #secretName(kind: 'ARG' | 'ENV', name: string, range: Range): void {
    if (!SECRET.test(name) || NO_SECRET.test(name)) return
    this.#report(
      'SecretsUsedInArgOrEnv',
      range,
      `Do not use ARG or ENV instructions for sensitive data (${kind} ${quote(name)})`,
      'use RUN --mount=type=secret: what ARG and ENV hold stays readable in the image',
    )
  }

  #workdir(path: string, range: Range): void {
    if (!this.#state.workdirSet && !path.startsWith('/'))
      this.#report(
        'WorkdirRelativePath',
        range,
        `Relative workdir ${quote(path)} can have unexpected results if the base image changes`,
        'begin with an absolute path',
      )
    this.#state.workdirSet = true
  }

  #ports(word: Word): void {
    const lookup = this.#lookup
    const { words } = locate(this.#tree, word.range, () =>
      expand(word.raw, { lookup, escape: this.#tree.escape }),
    )
    for (const text of words) {
      const spec = parsePortSpec(text)
      if (typeof spec === 'string')
        throw errorAt(
          this.#tree,
          word.range,
          'PORT_INVALID',
          `${quote(text)} is not a port: ${spec}`,
          'for example 80, 53/udp, 8000-8010',
        )
      if (spec.protocol !== spec.protocol.toLowerCase())
        this.#report(
          'ExposeProtoCasing',
          word.range,
          `Defined protocol '${text}' in EXPOSE instruction should be lowercase`,
        )
      if (spec.mapped)
        this.#report(
          'ExposeInvalidFormat',
          word.range,
          `EXPOSE instruction should not define an IP address or host-port mapping, found '${text}'`,
          'which port of the host it gets is said when the container is run',
        )
    }
  }

  #once(instruction: Cmd | Entrypoint | Healthcheck): void {
    const { kind, keyword, range } = instruction
    const before = this.#last.get(kind)
    if (before !== undefined)
      this.#context.reporter.report(
        'MultipleInstructionsDisallowed',
        before.place,
        before.range,
        `Multiple ${keyword.raw} instructions should not be used in the same stage because only the last one will be used`,
      )
    this.#last.set(kind, { place: this.#place, range: this.#trigger ?? range })
  }

  #jsonArgs({ keyword, command }: Cmd | Entrypoint): void {
    if (command.form === 'exec' || this.#state.shell.length > 0) return
    const base = this.#state.unknownBase
    this.#report(
      'JSONArgsRecommended',
      command.text === '' ? keyword.range : command.range,
      `JSON arguments recommended for ${keyword.raw} to prevent unintended behavior related to OS signals`,
      base === undefined ? undefined : `unless the image ${base} sets a SHELL of its own`,
    )
  }

  #copy(instruction: Copy | Add): void {
    for (const word of [instruction.chown, instruction.chmod]) if (word !== undefined) this.#text(word)
    const checksum = instruction.kind === 'ADD' ? instruction.checksum : undefined
    if (checksum !== undefined) this.#text(checksum)
    const sources = instruction.sources.map((word) => ({ word, text: this.#text(word) }))
    this.#text(instruction.destination)
    for (const heredoc of instruction.heredocs) {
      if (!heredoc.expand) continue
      const lookup = this.#lookup
      const { unmatched } = locate(this.#tree, heredoc.range, () =>
        // BuildKit always takes the backslash here, whatever the escape directive says.
        expandText(heredoc.content, { lookup, skipQuotes: true }),
      )
      this.#undefined(heredoc.range, unmatched)
    }
    const from = instruction.kind === 'COPY' ? instruction.from : undefined
    if (from !== undefined) {
      this.#reference(from, from.raw)
      return
    }
    checkSources(this.#context, this.#tree, instruction, sources, (range, message, note) =>
      this.#report('CopyIgnoredFile', range, message, note),
    )
  }

  /** `--from` and `from=`: an earlier stage, or an image. */
  #reference(word: Word, name: string): void {
    const { stages, options } = this.#context
    const stage = findStage(stages, name)
    if (stage === undefined) {
      if (options.namedContexts?.has(name) !== true && this.#trigger === undefined)
        checkImageReference(this.#context, this.#place, word.range, name)
      return
    }
    if (stage.index < this.#stage.index) return
    throw errorAt(
      this.#tree,
      word.range,
      'STAGE_ORDER',
      stage.index === this.#stage.index
        ? `stage ${name} cannot copy from itself`
        : `stage ${name} does not come before this one`,
      'move it before this stage',
    )
  }

  #mount(word: Word): void {
    const lookup = (name: string): string | undefined => {
      const value = this.#state.env.get(name)
      if (value === undefined) missing.add(name)
      return value
    }
    const missing = new Set<string>()
    const mount: Mount = parseMount(this.#tree, word, lookup)
    this.#undefined(word.range, missing)
    if (mount.from !== undefined && mount.from !== '' && mount.type !== 'tmpfs')
      this.#reference(word, mount.from)
  }
}

const words = (list: string): string => `(?:_|^)(?:${list})(?:_|$)`
const SECRET = new RegExp(
  words('apikey|auth|credential|credentials|key|password|pword|passwd|secret|token'),
  'iu',
)
const NO_SECRET = new RegExp(words('public|file|version'), 'iu')

function checkSignal(tree: Dockerfile, range: Range, signal: string): void {
  if (isSignal(signal)) return
  throw errorAt(
    tree,
    range,
    'SIGNAL_INVALID',
    `${quote(signal)} is not a signal`,
    'a name like SIGTERM, or a number',
  )
}
