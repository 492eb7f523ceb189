/** Checks of ours: facts about a Dockerfile that people look for with other tools. */
import { expandText } from '../expand.ts'
import { cleanPath } from '../ignoreFile.ts'
import { parseImageName } from '../imageName.ts'
import type { Copy, Add, Instruction, Range, Run, Word } from '../types.ts'
import { attempt, type CheckContext } from './context.ts'
import type { StageState } from './from.ts'
import type { Place } from './report.ts'
import { shellCommands, type ShellCommand } from './shell.ts'

/** An image that is named without a digest, and by no tag or by `latest`. */
export function checkImageReference(context: CheckContext, place: Place, range: Range, name: string): void {
  const parsed = parseImageName(name)
  if (typeof parsed === 'string' || parsed.digest !== undefined || name === 'scratch') return
  const { tag } = parsed
  if (tag !== undefined && tag !== 'latest') return
  context.reporter.report(
    'UnpinnedBaseImage',
    place,
    range,
    tag === undefined
      ? `The image ${name} has no tag, and so is whatever latest is on the day`
      : `The image ${name} is another one from day to day`,
    'name a version, or a digest (name@sha256:...)',
  )
}

/** A command and where its words stand. */
interface Placed {
  readonly command: ShellCommand
  readonly range: (from: number, to: number) => Range
}

export class OwnChecks {
  readonly #context: CheckContext
  readonly #state: StageState
  readonly #copies: { readonly word: Word; readonly place: Place }[] = []

  constructor(context: CheckContext, state: StageState) {
    this.#context = context
    this.#state = state
  }

  instruction(instruction: Instruction): void {
    const { kind } = instruction
    if (kind === 'RUN') this.#run(instruction)
    else if (kind === 'COPY' || kind === 'ADD') this.#copy(instruction)
    else if (kind === 'ENV' || kind === 'LABEL')
      for (const { value } of instruction.pairs) this.#value(instruction, value)
    else if (kind === 'ARG')
      for (const { value } of instruction.args) if (value !== undefined) this.#value(instruction, value)
  }

  #value(instruction: Instruction, word: Word): void {
    const found = SECRETS.find(([pattern]) => pattern.test(word.raw))
    if (found === undefined) return
    this.#context.reporter.report(
      'SecretInValue',
      this.#context.place(instruction),
      word.range,
      `This looks like ${found[1]}, and whoever has the image can read it`,
      'use RUN --mount=type=secret, and revoke what has been published',
    )
  }

  #copy(instruction: Copy | Add): void {
    if (instruction.kind === 'COPY' && instruction.from !== undefined) return
    for (const word of instruction.sources) {
      const expansion = attempt({ errors: [] }, () =>
        expandText(word.raw, {
          lookup: (name) => this.#state.env.get(name),
          escape: this.#context.tree.escape,
        }),
      )
      if (expansion === undefined || !['.', '/'].includes(cleanPath(expansion.text))) continue
      this.#copies.push({ word, place: this.#context.place(instruction) })
      return
    }
  }

  #run(run: Run): void {
    const commands = this.#commandsOf(run)
    const place = this.#context.place(run)
    this.#changeDirectory(commands, place)
    this.#aptGet(run, commands, place)
    for (const { command } of commands) {
      const tool = installs(command)
      if (tool === undefined) continue
      // Only the first one tells: what comes after a COPY of everything may well want the files.
      if (!this.#state.installed.has(tool)) this.#early(tool, command)
      this.#state.installed.add(tool)
    }
  }

  #early(tool: string, { words }: ShellCommand): void {
    const copy = this.#copies.at(-1)
    if (copy === undefined) return
    const said = words
      .slice(0, 3)
      .map(({ text }) => text)
      .join(' ')
    this.#context.reporter.report(
      'CopyBeforeDependencyInstall',
      copy.place,
      copy.word.range,
      `Everything is copied before ${said.slice(0, 60)}: any changed file makes it run again`,
      `copy only what ${tool} reads (${MANIFESTS[tool] ?? 'its lists of packages'}), install, then copy the rest`,
    )
  }

  #changeDirectory(commands: readonly Placed[], place: Place): void {
    const found = commands.find(({ command: { words, depth } }) => depth === 0 && words[0]!.text === 'cd')
    if (found === undefined) return
    const { words } = found.command
    const last = commands.at(-1) === found
    this.#context.reporter.report(
      'CdInsteadOfWorkdir',
      place,
      found.range(words[0]!.start, words.at(-1)!.end),
      last
        ? 'cd lasts until the end of its RUN, and so does nothing here'
        : 'cd lasts until the end of its RUN; WORKDIR stays, and makes the directory',
      `write WORKDIR ${words[1]?.text.slice(0, 60) ?? '/'}`,
    )
  }

  #aptGet(run: Run, commands: readonly Placed[], place: Place): void {
    // A mount may well hold lists of packages.
    if (run.mounts.some(({ raw }) => raw.includes('/apt'))) return
    let updated = false
    for (const { command, range } of commands) {
      const { words } = command
      const program = words[0]!.text.split('/').at(-1)!
      if (program !== 'apt-get' && program !== 'apt' && program !== 'aptitude') continue
      const rest = withoutOptions(words.slice(1).map(({ text }) => text))
      const [action, ...packages] = rest
      if (action === 'update') updated = true
      if (action !== 'install' || updated) continue
      // A package that is a file needs no list.
      if (packages.length > 0 && packages.every((name) => /^[./]/.test(name))) continue
      const end = words.find(({ text }) => text === 'install')!.end
      this.#context.reporter.report(
        'AptGetInstallWithoutUpdate',
        place,
        range(words[0]!.start, end),
        `${program} install without ${program} update in the same RUN takes the lists of an older layer, which name packages that are gone`,
        `write ${program} update && ${program} install ...`,
      )
      return
    }
  }

  #commandsOf(run: Run): readonly Placed[] {
    const { command, script } = run
    const { lines } = this.#context
    if (command.form === 'exec') {
      const words = command.args.map((text) => ({ text, start: 0, end: 0 }))
      return words.length === 0 ? [] : [{ command: { words, depth: 0 }, range: () => command.range }]
    }
    if (script !== undefined) {
      // Another language's script is none of ours.
      if (/^\t*#!(?!.*\b(?:ba|da|a|z|k)?sh\b)/.test(script.rawContent)) return []
      const start = script.range.start.offset
      return shellCommands(script.rawContent).map((one) => ({
        command: one,
        range: (from, to) => lines.range(start + from, start + to),
      }))
    }
    const syntax = this.#context.parsed(run)?.syntax
    if (syntax === undefined) return []
    const { rest } = syntax.raw
    return shellCommands(rest.text).map((one) => ({
      command: one,
      range: (from, to) => syntax.joined.range(rest.start + from, rest.start + to),
    }))
  }
}

/** `-t stable` and `-o Name=value` take the next word. */
function withoutOptions(words: readonly string[]): readonly string[] {
  const rest: string[] = []
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!
    if (/^(?:-[toc]|--(?:target-release|option|config-file))$/.test(word)) i++
    else if (!word.startsWith('-')) rest.push(word)
  }
  return rest
}

const MANIFESTS: Readonly<Record<string, string>> = {
  npm: 'package.json, package-lock.json',
  yarn: 'package.json, yarn.lock',
  pnpm: 'package.json, pnpm-lock.yaml',
  bun: 'package.json, bun.lock',
  pip: 'requirements.txt',
  poetry: 'pyproject.toml, poetry.lock',
  pipenv: 'Pipfile, Pipfile.lock',
  uv: 'pyproject.toml, uv.lock',
  bundle: 'Gemfile, Gemfile.lock',
  composer: 'composer.json, composer.lock',
  go: 'go.mod, go.sum',
  cargo: 'Cargo.toml, Cargo.lock',
  dotnet: 'the project files',
  mix: 'mix.exs, mix.lock',
  mvn: 'pom.xml',
}

/** The package manager, if the command installs what a list in the project names. */
function installs({ words }: ShellCommand): string | undefined {
  const [program = '', ...args] = words.map(({ text }) => text)
  const name = program.split('/').at(-1)!
  const plain = args.filter((arg) => !arg.startsWith('-'))
  const [action, ...rest] = plain
  switch (name) {
    case 'npm':
      if (action === 'ci' || action === 'clean-install') return name
      return (action === 'install' || action === 'i') && rest.length === 0 ? name : undefined
    case 'yarn':
      return action === 'install' || (action === undefined && !args.includes('--version')) ? name : undefined
    case 'pnpm':
    case 'bun':
      return (action === 'install' || action === 'i') && rest.length === 0 ? name : undefined
    case 'pip':
    case 'pip3':
      return action === 'install' && args.some((arg) => /^(?:-r|--requirement)/.test(arg)) ? 'pip' : undefined
    case 'python':
    case 'python3': {
      const module = args.indexOf('-m')
      return module >= 0 && /^pip3?$/.test(args[module + 1] ?? '')
        ? installs({ words: words.slice(module + 2), depth: 0 })
        : undefined
    }
    case 'poetry':
    case 'bundle':
    case 'composer':
      return action === 'install' ? name : undefined
    case 'pipenv':
      return (action === 'install' && rest.length === 0) || action === 'sync' ? name : undefined
    case 'uv':
      return action === 'sync' ? name : undefined
    case 'go':
      return action === 'mod' && rest[0] === 'download' ? name : undefined
    case 'cargo':
      return action === 'fetch' ? name : undefined
    case 'dotnet':
      return action === 'restore' ? name : undefined
    case 'mix':
      return action === 'deps.get' ? name : undefined
    case 'mvn':
    case 'mvnw':
      return plain.some((arg) => arg.startsWith('dependency:')) ? 'mvn' : undefined
    default:
      return undefined
  }
}

/** Formats that nothing else has. */
const SECRETS: readonly (readonly [RegExp, string])[] = [
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----/, 'a private key'],
  [/(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])/, 'an AWS access key'],
  [/(?<![A-Za-z0-9])gh[pousr]_[A-Za-z0-9]{36}/, 'a GitHub token'],
  [/(?<![A-Za-z0-9])github_pat_[A-Za-z0-9_]{22,}/, 'a GitHub token'],
  [/(?<![A-Za-z0-9])glpat-[A-Za-z0-9_-]{20}/, 'a GitLab token'],
  [/(?<![A-Za-z0-9])npm_[A-Za-z0-9]{36}/, 'an npm token'],
  [/(?<![A-Za-z0-9])xox[abprs]-[A-Za-z0-9-]{10,}/, 'a Slack token'],
  [/(?<![A-Za-z0-9])[rs]k_live_[A-Za-z0-9]{20,}/, 'a Stripe key'],
  [/(?<![A-Za-z0-9])AIza[A-Za-z0-9_-]{35}/, 'a Google API key'],
]
