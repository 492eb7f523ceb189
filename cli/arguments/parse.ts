/**
 * A command line against a command's table, over node:util's `parseArgs`: it splits (`-it`, `--file=x`, `--`), we judge, so
 * that an unknown option is answered with the one that was meant.
 */
import { parseArgs } from 'node:util'
import { didYouMean } from './suggest.ts'
import type { Call, Command, Option, OptionTable } from './types.ts'
import { UsageError } from './usage-error.ts'

const HELP = { type: 'boolean', short: 'h' } as const

/** `'help'` when `--help` or `-h` is given. @throws UsageError `UNKNOWN_OPTION`, `OPTION_UNSUPPORTED`, `OPTION_VALUE`, `ARGUMENTS` */
export function parseCommandLine<T extends OptionTable>(
  name: string,
  command: Command<T>,
  argv: readonly string[],
): Call<T> | 'help' {
  const hint = `tbuild ${name} --help shows what it takes`
  let { tokens, rest } = split(command.options, argv)
  const first = tokens.find((token) => token.kind === 'positional')
  if (command.stopAtFirst === true && first !== undefined) {
    // Split again without what is not ours: `-v` in `run IMAGE ls -v -- x` is none of our business.
    ;({ tokens } = split(command.options, argv.slice(0, first.index)))
    rest = argv.slice(first.index)
  }
  const values: Record<string, unknown> = {}
  for (const [key, option] of Object.entries(command.options)) {
    values[key] = option.kind === 'flag' ? false : option.kind === 'list' ? [] : undefined
  }
  for (const token of tokens) {
    if (token.kind !== 'option') continue
    if (token.name === 'help') return 'help'
    const option = Object.hasOwn(command.options, token.name) ? command.options[token.name] : undefined
    if (option === undefined) throw unknown(token.rawName, command, hint)
    setValue(values, token.name, option, { rawName: token.rawName, value: token.value }, hint)
  }
  checkCount(name, command, rest, hint)
  return { options: values as Call<T>['options'], args: rest }
}

function split(options: OptionTable, argv: readonly string[]) {
  const table = Object.entries(options).map(([key, option]) => [
    key,
    {
      type: takesValue(option) ? 'string' : 'boolean',
      multiple: true,
      ...(option.short === undefined ? {} : { short: option.short }),
    } as const,
  ])
  const { tokens, positionals } = parseArgs({
    args: [...argv],
    options: { ...Object.fromEntries(table), help: HELP },
    strict: false,
    tokens: true,
    allowPositionals: true,
  })
  return { tokens, rest: positionals as readonly string[] }
}

function takesValue(option: Option): boolean {
  return option.kind === 'refused' ? option.value !== undefined : option.kind !== 'flag'
}

function setValue(
  values: Record<string, unknown>,
  key: string,
  option: Option,
  given: { readonly rawName: string; readonly value: string | undefined },
  hint: string,
): void {
  const { rawName, value } = given
  if (option.kind === 'refused') {
    // `--squash=false` is no squashing, which is what happens.
    if (
      value !== undefined &&
      (option.accepts?.includes(value) === true || (option.value === undefined && value === 'false'))
    )
      return
    throw new UsageError('OPTION_UNSUPPORTED', `tbuild has no ${rawName}.`, { hint: option.help })
  }
  if (option.kind === 'flag') {
    if (value !== undefined && value !== 'true' && value !== 'false')
      throw new UsageError('OPTION_VALUE', `${rawName} takes no value.`, { hint })
    values[key] = value !== 'false'
    return
  }
  if (value === undefined)
    throw new UsageError('OPTION_VALUE', `${rawName} needs a value: ${rawName} ${option.value}`, { hint })
  if (option.kind === 'list') {
    ;(values[key] as string[]).push(value)
    return
  }
  if (option.choices !== undefined && !option.choices.includes(value)) {
    throw new UsageError(
      'OPTION_VALUE',
      `${rawName} is one of ${option.choices.join(', ')}, not ${JSON.stringify(value)}.`,
      { hint: didYouMean(value, option.choices) ?? hint },
    )
  }
  values[key] = value
}

function unknown(rawName: string, command: Command, hint: string): UsageError {
  const offered = Object.entries(command.options).filter(([, { kind }]) => kind !== 'refused')
  const known = [...offered.map(([key]) => key), 'help'].map((key) => `--${key}`)
  return new UsageError('UNKNOWN_OPTION', `There is no option ${rawName}.`, {
    hint: (rawName.startsWith('--') ? didYouMean(rawName, known) : undefined) ?? hint,
  })
}

function checkCount(name: string, command: Command, args: readonly string[], hint: string): void {
  const { least, most } = command.arguments
  if (args.length >= least && args.length <= most) return
  const wanted = `usage: tbuild ${name} ${command.usage}`
  const extra = args[most]
  const message =
    extra === undefined
      ? `tbuild ${name} needs ${least === 1 ? 'an argument' : `${least} arguments`}; ${wanted}`
      : `tbuild ${name} takes no ${JSON.stringify(extra)}; ${wanted}`
  throw new UsageError('ARGUMENTS', message, { hint })
}
