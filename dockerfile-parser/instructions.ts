/** The second pass: what the arguments of each instruction mean. Follows BuildKit's `instructions` package. */
import type { RawArguments, RawInstruction, RawWord } from './arguments.ts'
import { parseDuration } from './duration.ts'
import type { DockerfileError } from './errors.ts'
import { readFlags } from './flags.ts'
import type { FlagKind, FlagValues } from './flags.ts'
import { heredocWordOrNone, stripTabs } from './heredoc.ts'
import { errorAt } from './source.ts'
import { checkMountSyntax, parseDevice } from './mount.ts'
import { suggest } from './suggest.ts'
import type { JoinedText, SourceContext, SyntaxInstruction } from './syntax.ts'
import { trimSpace } from './text.ts'
import type {
  Add,
  Arg,
  Command,
  Copy,
  Expose,
  From,
  Healthcheck,
  Heredoc,
  Instruction,
  Onbuild,
  Pair,
  Range,
  Run,
  Volume,
  Word,
} from './types.ts'

/**
 * Throws DockerfileError: UNKNOWN_INSTRUCTION, MISSING_ARGUMENT, MISSING_DESTINATION, TOO_MANY_ARGUMENTS, BLANK_NAME,
 * EMPTY_VALUE, INVALID_STAGE_NAME, HEREDOC_DESTINATION, SHELL_NOT_JSON, ONBUILD_CHAIN, ONBUILD_TRIGGER,
 * HEALTHCHECK_TYPE, INVALID_DURATION, INVALID_RETRIES, INVALID_VALUE, and those of `readFlags`, `checkMountSyntax` and `parseDevice`.
 */
export function typeInstruction(context: SourceContext, node: SyntaxInstruction): Instruction {
  const { raw, joined, heredocs } = node
  const range = context.lines.range(node.start, node.end)
  return new Typer(context, joined, raw, heredocs, range).instruction()
}

const KEYWORDS = [
  'FROM',
  'RUN',
  'COPY',
  'ADD',
  'ENV',
  'ARG',
  'LABEL',
  'WORKDIR',
  'USER',
  'EXPOSE',
  'VOLUME',
  'CMD',
  'ENTRYPOINT',
  'SHELL',
  'STOPSIGNAL',
  'HEALTHCHECK',
  'ONBUILD',
  'MAINTAINER',
] as const

const COPY_FLAGS: Readonly<Record<string, FlagKind>> = {
  from: 'text',
  chown: 'text',
  chmod: 'text',
  link: 'boolean',
  parents: 'boolean',
  exclude: 'list',
}
const ADD_FLAGS: Readonly<Record<string, FlagKind>> = {
  chown: 'text',
  chmod: 'text',
  link: 'boolean',
  'keep-git-dir': 'boolean',
  checksum: 'text',
  unpack: 'boolean',
  exclude: 'list',
}
const RUN_FLAGS: Readonly<Record<string, FlagKind>> = {
  mount: 'list',
  network: 'text',
  security: 'text',
  device: 'list',
}
const HEALTHCHECK_FLAGS: Readonly<Record<string, FlagKind>> = {
  interval: 'text',
  timeout: 'text',
  'start-period': 'text',
  'start-interval': 'text',
  retries: 'text',
}

/** What every kind of instruction has. */
interface Base {
  readonly keyword: Word
  readonly range: Range
  readonly text: string
}

class Typer {
  readonly #context: SourceContext
  readonly #joined: JoinedText
  readonly #raw: RawInstruction
  readonly #heredocs: readonly Heredoc[]
  readonly #base: Base

  constructor(
    context: SourceContext,
    joined: JoinedText,
    raw: RawInstruction,
    heredocs: readonly Heredoc[],
    range: Range,
  ) {
    this.#context = context
    this.#joined = joined
    this.#raw = raw
    this.#heredocs = heredocs
    const { keyword } = raw
    this.#base = {
      keyword: { raw: keyword.text, range: joined.range(keyword.start, keyword.end) },
      range,
      text: raw.text,
    }
  }

  instruction(): Instruction {
    const keyword = this.#raw.keyword.text.toUpperCase()
    const kind = KEYWORDS.find((name) => name === keyword)
    switch (kind) {
      case 'FROM':
        return this.#from()
      case 'RUN':
        return this.#run()
      case 'COPY':
        return this.#copy()
      case 'ADD':
        return this.#add()
      case 'ENV':
      case 'LABEL':
        return { kind, ...this.#base, pairs: this.#pairs(kind) }
      case 'ARG':
        return this.#arg()
      case 'WORKDIR':
        return { kind, ...this.#base, path: this.#one(kind, 'a path', 'WORKDIR /app') }
      case 'USER':
        return { kind, ...this.#base, user: this.#one(kind, 'a user, or user:group', 'USER app') }
      case 'EXPOSE':
        return this.#expose()
      case 'VOLUME':
        return this.#volume()
      case 'CMD':
      case 'ENTRYPOINT':
        this.#flags(kind, {})
        return { kind, ...this.#base, command: this.#command(this.#raw.args, this.#raw.rest) }
      case 'SHELL':
        return { kind, ...this.#base, args: this.#shell() }
      case 'STOPSIGNAL':
        return { kind, ...this.#base, signal: this.#one(kind, 'a signal', 'STOPSIGNAL SIGTERM') }
      case 'HEALTHCHECK':
        return this.#healthcheck()
      case 'ONBUILD':
        return this.#onbuild()
      case 'MAINTAINER':
        return {
          kind,
          ...this.#base,
          name: this.#one(kind, 'a name', 'LABEL org.opencontainers.image.authors="name"'),
        }
      case undefined:
      default:
        throw this.#unknown()
    }
  }

  #unknown(): DockerfileError {
    const { keyword } = this.#raw
    if (keyword.text === '')
      return this.#error(
        keyword,
        'UNKNOWN_INSTRUCTION',
        'a continuation with no instruction before it',
        'remove the line',
      )
    const meant = suggest(keyword.text, KEYWORDS)
    const words = KEYWORDS.find((name) => keyword.text.toUpperCase().startsWith(name))
    const hint =
      // A no-break space pasted from a web page, an escape, a quote: the keyword is there, but not alone.
      words !== undefined && !/^[a-z]/i.test(keyword.text.slice(words.length))
        ? `write a plain space after ${words}`
        : meant !== undefined
          ? `did you mean ${meant}?`
          : `an instruction is one of ${KEYWORDS.join(', ')}; a line that goes on needs a \\ at the end of the one before`
    return this.#error(
      keyword,
      'UNKNOWN_INSTRUCTION',
      `unknown instruction '${keyword.text.slice(0, 60)}'`,
      hint,
    )
  }

  #from(): From {
    const words = this.#words()
    const image = words[0]
    if (image === undefined) throw this.#missing('FROM', 'an image', 'FROM debian:12')
    const [, as, name] = words
    if (words.length === 2 || words.length > 3 || (as !== undefined && as.text.toLowerCase() !== 'as'))
      throw this.#error(
        { start: (as ?? image).start, end: words.at(-1)!.end },
        'TOO_MANY_ARGUMENTS',
        'FROM takes an image, or an image, AS and a stage name',
        'write FROM image AS name',
      )
    if (name !== undefined && !/^[a-z][a-z0-9_.-]*$/.test(name.text.toLowerCase()))
      throw this.#error(
        name,
        'INVALID_STAGE_NAME',
        `'${name.text.slice(0, 60)}' cannot name a build stage`,
        'a name begins with a letter and has only letters, digits, - _ and .',
      )
    const flags = this.#flags('FROM', { platform: 'text' })
    return {
      kind: 'FROM',
      ...this.#base,
      image: this.#word(image),
      platform: flags.optional('platform'),
      asKeyword: as === undefined ? undefined : this.#word(as),
      as: name === undefined ? undefined : this.#word(name),
    }
  }

  #run(): Run {
    const flags = this.#flags('RUN', RUN_FLAGS)
    const network = flags.text('network')
    this.#oneOf('network', network, ['default', 'none', 'host'])
    const security = flags.text('security')
    this.#oneOf('security', security, ['sandbox', 'insecure'])
    for (const mount of flags.list('mount')) checkMountSyntax(this.#context, mount)
    for (const device of flags.list('device')) parseDevice(this.#context, device)
    const command = this.#command(this.#raw.args, this.#raw.rest)
    if (command.form === 'exec' && command.args.length === 0)
      throw this.#error(
        this.#raw.rest,
        'MISSING_ARGUMENT',
        'RUN [] has no command',
        'write the command and its arguments: RUN ["command", "argument"]',
      )
    const heredocs = this.#heredocs
    const script =
      command.form === 'shell' && heredocs.length > 0 && heredocWordOrNone(command.text) !== undefined
        ? heredocs[0]
        : undefined
    return {
      kind: 'RUN',
      ...this.#base,
      command:
        command.form === 'exec' ? command : { ...command, text: runText(command.text, heredocs, script) },
      heredocs,
      script,
      mounts: flags.list('mount'),
      network,
      security,
      devices: flags.list('device'),
    }
  }

  #copy(): Copy {
    const { destination, sources, heredocs } = this.#sourcesAndDestination('COPY')
    const flags = this.#flags('COPY', COPY_FLAGS)
    return {
      kind: 'COPY',
      ...this.#base,
      sources,
      destination,
      heredocs,
      from: flags.optional('from'),
      chown: flags.optional('chown'),
      chmod: flags.optional('chmod'),
      link: flags.boolean('link') ?? false,
      parents: flags.boolean('parents') ?? false,
      excludes: flags.list('exclude'),
    }
  }

  #add(): Add {
    const { destination, sources, heredocs } = this.#sourcesAndDestination('ADD')
    const flags = this.#flags('ADD', ADD_FLAGS)
    return {
      kind: 'ADD',
      ...this.#base,
      sources,
      destination,
      heredocs,
      chown: flags.optional('chown'),
      chmod: flags.optional('chmod'),
      checksum: flags.optional('checksum'),
      link: flags.boolean('link') ?? false,
      keepGitDir: flags.boolean('keep-git-dir') ?? false,
      unpack: flags.boolean('unpack'),
      excludes: flags.list('exclude'),
    }
  }

  #sourcesAndDestination(keyword: 'COPY' | 'ADD'): {
    readonly sources: readonly Word[]
    readonly destination: Word
    readonly heredocs: readonly Heredoc[]
  } {
    const words = this.#words()
    const last = words.at(-1)
    if (last === undefined)
      throw this.#missing(keyword, 'a source and a destination', `${keyword} file /destination/`)
    if (words.length === 1)
      throw this.#error(
        last,
        'MISSING_DESTINATION',
        `${keyword} needs a source and a destination, and there is only one argument`,
        `write where it goes: ${keyword} ${last.text.slice(0, 40)} /destination/`,
      )
    if (heredocWordOrNone(last.text) !== undefined)
      throw this.#error(
        last,
        'HEREDOC_DESTINATION',
        `${keyword} cannot take a heredoc as its destination`,
        `the destination comes last: ${keyword} ${last.text.slice(0, 40)} /destination`,
      )
    const byName = new Map(this.#heredocs.map((heredoc) => [heredoc.name, heredoc]))
    const sources: Word[] = []
    const heredocs: Heredoc[] = []
    for (const word of words.slice(0, -1)) {
      const opened = heredocWordOrNone(word.text)
      if (opened === undefined) {
        sources.push(this.#word(word))
        continue
      }
      // In the JSON form nothing is read for it: BuildKit makes an empty file.
      const body = byName.get(opened.name)
      const written = body?.rawContent ?? ''
      // What is expanded goes through Go's lexer, which makes U+FFFD of bytes that are not UTF-8.
      const rawContent = opened.expand ? written.toWellFormed() : written
      heredocs.push({
        name: opened.name,
        content: opened.chomp ? stripTabs(rawContent) : rawContent,
        rawContent,
        expand: opened.expand,
        chomp: opened.chomp,
        fd: opened.fd,
        range: body?.range ?? this.#joined.range(word.start, word.end),
      })
    }
    return { sources, destination: this.#word(last), heredocs }
  }

  #pairs(keyword: 'ENV' | 'LABEL'): readonly Pair[] {
    this.#flags(keyword, {})
    const { args } = this.#raw
    if (args.form !== 'pairs' || args.pairs.length === 0)
      throw this.#missing(keyword, 'a name and a value', `${keyword} name=value`)
    return args.pairs.map((pair) => {
      if (pair.name.text === '')
        throw this.#error(
          { start: pair.name.start, end: pair.value.end },
          'BLANK_NAME',
          `${keyword} needs a name before the '='`,
          'write name=value, with no blanks around the =',
        )
      return { name: this.#word(pair.name), value: this.#word(pair.value), equals: pair.equals }
    })
  }

  #arg(): Arg {
    const words = this.#words()
    if (words.length === 0) throw this.#missing('ARG', 'a name', 'ARG VERSION=1.0')
    const args = words.map((word) => {
      const equals = word.text.indexOf('=')
      const range = this.#joined.range(word.start, word.end)
      if (equals < 0) return { name: word.text, range }
      if (equals === 0)
        throw this.#error(
          word,
          'BLANK_NAME',
          "ARG needs a name before the '='",
          'write name=value, with no blanks around the =',
        )
      const start = word.start + equals + 1
      const value = { raw: word.text.slice(equals + 1), range: this.#joined.range(start, word.end) }
      return { name: word.text.slice(0, equals), value, range }
    })
    return { kind: 'ARG', ...this.#base, args }
  }

  #expose(): Expose {
    const words = this.#words()
    if (words.length === 0) throw this.#missing('EXPOSE', 'a port', 'EXPOSE 80/tcp')
    this.#flags('EXPOSE', {})
    return { kind: 'EXPOSE', ...this.#base, ports: words.map((word) => this.#word(word)) }
  }

  #volume(): Volume {
    const words = this.#words()
    if (words.length === 0) throw this.#missing('VOLUME', 'a path', 'VOLUME /data')
    this.#flags('VOLUME', {})
    const paths = words.map((word) => {
      const raw = trimSpace(word.text)
      if (raw === '')
        throw this.#error(
          word,
          'EMPTY_VALUE',
          'a volume cannot be an empty path',
          'write a path, for example /data',
        )
      return { raw, range: this.#joined.range(word.start, word.end) }
    })
    return { kind: 'VOLUME', ...this.#base, paths }
  }

  #shell(): readonly string[] {
    this.#flags('SHELL', {})
    const { args } = this.#raw
    const words = this.#words()
    if (words.length === 0)
      throw this.#missing('SHELL', 'a command in JSON form', 'SHELL ["/bin/bash", "-c"]')
    if (args.form !== 'json')
      throw this.#error(
        this.#raw.rest,
        'SHELL_NOT_JSON',
        'SHELL takes a JSON array of strings',
        'write for example SHELL ["/bin/bash", "-c"]',
      )
    return words.map((word) => word.text)
  }

  #healthcheck(): Healthcheck {
    const { args } = this.#raw
    const example = 'HEALTHCHECK CMD curl -f http://localhost/ || exit 1'
    if (args.form !== 'health') throw this.#missing('HEALTHCHECK', 'NONE, or CMD and a command', example)
    const type = args.type.text.toUpperCase()
    const given = commandWords(args.command)
    if (type === 'NONE') {
      if (given.length > 0)
        throw this.#error(
          { start: given[0]!.start, end: given.at(-1)!.end },
          'TOO_MANY_ARGUMENTS',
          'HEALTHCHECK NONE takes no arguments',
          'remove what follows NONE',
        )
      // BuildKit does not look at the flags here.
      return { kind: 'HEALTHCHECK', ...this.#base, none: true }
    }
    const flags = this.#flags('HEALTHCHECK', HEALTHCHECK_FLAGS)
    if (type !== 'CMD')
      throw this.#error(
        args.type,
        'HEALTHCHECK_TYPE',
        `unknown type '${args.type.text.slice(0, 60)}' of HEALTHCHECK`,
        `write CMD before the command: ${example}`,
      )
    if (given.length === 0)
      throw this.#error(
        args.type,
        'MISSING_ARGUMENT',
        'HEALTHCHECK CMD needs a command',
        `for example ${example}`,
      )
    const rest = { text: '', start: given[0]!.start, end: given.at(-1)!.end }
    return {
      kind: 'HEALTHCHECK',
      ...this.#base,
      none: false,
      command: this.#command(args.command, rest),
      interval: this.#duration('interval', flags.text('interval')),
      timeout: this.#duration('timeout', flags.text('timeout')),
      startPeriod: this.#duration('start-period', flags.text('start-period')),
      startInterval: this.#duration('start-interval', flags.text('start-interval')),
      retries: this.#retries(flags.text('retries')),
    }
  }

  #onbuild(): Onbuild {
    const { args } = this.#raw
    if (args.form !== 'instruction') throw this.#missing('ONBUILD', 'an instruction', 'ONBUILD COPY . /app')
    this.#flags('ONBUILD', {})
    const inner = args.instruction
    const keyword = inner.keyword.text.toUpperCase()
    if (keyword === 'FROM' || keyword === 'MAINTAINER')
      throw this.#error(
        inner.keyword,
        'ONBUILD_TRIGGER',
        `${keyword} cannot be triggered by ONBUILD`,
        'write another instruction, for example ONBUILD COPY . /app',
      )
    const { text } = this.#joined
    let start = this.#raw.keyword.end
    while (start < text.length && /\s/.test(text[start]!)) start++
    const trigger =
      text.slice(start) + this.#heredocs.map((heredoc) => `\n${heredoc.rawContent}${heredoc.name}`).join('')
    const range = {
      start: this.#joined.range(inner.start, inner.start).start,
      end: this.#base.range.end,
    }
    const instruction = new Typer(this.#context, this.#joined, inner, this.#heredocs, range).instruction()
    return { kind: 'ONBUILD', ...this.#base, trigger, instruction }
  }

  /** The sole argument of an instruction that takes the rest of its line as one. */
  #one(keyword: string, what: string, example: string): Word {
    const word = this.#words()[0]
    if (word === undefined) throw this.#missing(keyword, what, example)
    // BuildKit does not look at the flags of STOPSIGNAL (nor of ARG).
    if (keyword !== 'STOPSIGNAL') this.#flags(keyword, {})
    return this.#word(word)
  }

  #words(): readonly RawWord[] {
    const { args } = this.#raw
    return args.form === 'words' || args.form === 'json' ? args.words : []
  }

  #word(word: RawWord): Word {
    return { raw: word.text, range: this.#joined.range(word.start, word.end) }
  }

  #flags(keyword: string, known: Readonly<Record<string, FlagKind>>): FlagValues {
    return readFlags(this.#context, this.#joined, keyword, this.#raw.flags, known)
  }

  #command(args: RawArguments, rest: RawWord): Command {
    const range = this.#joined.range(rest.start, rest.end)
    const words = commandWords(args)
    if (args.form === 'json') return { form: 'exec', args: words.map((word) => word.text), range }
    return { form: 'shell', text: words[0]?.text ?? '', range }
  }

  #duration(name: string, word: Word | undefined): number | undefined {
    if (word === undefined || word.raw === '') return undefined
    const value = parseDuration(word.raw)
    if (value === undefined)
      throw errorAt(
        this.#context,
        word.range,
        'INVALID_DURATION',
        `--${name} is not a duration: '${word.raw.slice(0, 60)}'`,
        'write a number and a unit, for example 30s or 1m30s',
      )
    if (value !== 0 && value < 1e6)
      throw errorAt(
        this.#context,
        word.range,
        'INVALID_DURATION',
        `--${name} cannot be less than 1ms`,
        'write 0 for the default',
      )
    return value
  }

  #retries(word: Word | undefined): number | undefined {
    if (word === undefined || word.raw === '') return undefined
    const value = /^[+-]?\d{1,12}$/.test(word.raw) ? Number(word.raw) : Number.NaN
    if (!(value >= 0 && value < 2 ** 31))
      throw errorAt(
        this.#context,
        word.range,
        'INVALID_RETRIES',
        `--retries is not a number of retries: '${word.raw.slice(0, 60)}'`,
        'write a whole number, 0 or more',
      )
    return value
  }

  #oneOf(name: string, word: Word | undefined, values: readonly string[]): void {
    if (word === undefined || values.includes(word.raw)) return
    const meant = suggest(word.raw, values)
    throw errorAt(
      this.#context,
      word.range,
      'INVALID_VALUE',
      `--${name} cannot be '${word.raw.slice(0, 60)}'`,
      meant === undefined ? `it is one of ${values.join(', ')}` : `did you mean ${meant}?`,
    )
  }

  #missing(keyword: string, what: string, example: string): DockerfileError {
    return this.#error(
      this.#raw.keyword,
      'MISSING_ARGUMENT',
      `${keyword} needs ${what}`,
      `for example ${example}`,
    )
  }

  #error(
    place: { readonly start: number; readonly end: number },
    code: string,
    message: string,
    hint: string,
  ): DockerfileError {
    return errorAt(this.#context, this.#joined.range(place.start, place.end), code, message, hint)
  }
}

function commandWords(args: RawArguments): readonly RawWord[] {
  return args.form === 'words' || args.form === 'json' ? args.words : []
}

/** What BuildKit gives to the shell: a script alone, or the line with its heredocs behind it for the shell to read. */
function runText(text: string, heredocs: readonly Heredoc[], script: Heredoc | undefined): string {
  if (script !== undefined) return script.content
  return text + heredocs.map((heredoc) => `\n${heredoc.rawContent}${heredoc.name}`).join('')
}
