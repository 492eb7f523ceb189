import type { RawFlag } from './arguments.ts'
import { errorAt } from './source.ts'
import { suggest } from './suggest.ts'
import type { JoinedText, SourceContext } from './syntax.ts'
import type { Range, Word } from './types.ts'

/** `list`: may be given several times. */
export type FlagKind = 'text' | 'list' | 'boolean'

export interface FlagValues {
  text(name: string): Word | undefined
  /** An empty value is none, as for BuildKit's flags without a default. */
  optional(name: string): Word | undefined
  list(name: string): readonly Word[]
  boolean(name: string): boolean | undefined
}

/**
 * Checks an instruction's flags against those it knows. Booleans are `--x`, `--x=true` or `--x=false`, in any case.
 *
 * Throws DockerfileError: UNKNOWN_FLAG, DUPLICATE_FLAG, FLAG_WITHOUT_VALUE, FLAG_NOT_BOOLEAN.
 */
export function readFlags(
  context: SourceContext,
  joined: JoinedText,
  keyword: string,
  flags: readonly RawFlag[],
  known: Readonly<Record<string, FlagKind>>,
): FlagValues {
  const words = new Map<string, Word[]>()
  const booleans = new Map<string, boolean>()
  for (const flag of flags) {
    const equals = flag.text.indexOf('=')
    const name = equals < 0 ? flag.text.slice(2) : flag.text.slice(2, equals)
    const range = joined.range(flag.start, flag.end)
    const kind = Object.hasOwn(known, name) ? known[name] : undefined
    if (kind === undefined) throw unknownFlag(context, range, keyword, name, known)
    if (kind !== 'list' && (words.has(name) || booleans.has(name)))
      throw errorAt(
        context,
        range,
        'DUPLICATE_FLAG',
        `--${name} is given twice`,
        `${keyword} takes it once; remove one`,
      )
    const value = equals < 0 ? undefined : flag.text.slice(equals + 1)
    if (kind === 'boolean') {
      booleans.set(name, readBoolean(context, range, name, value))
      continue
    }
    if (value === undefined)
      throw errorAt(context, range, 'FLAG_WITHOUT_VALUE', `--${name} needs a value`, `write --${name}=VALUE`)
    const word = {
      raw: value,
      range: joined.range(
        flag.valueStart < 0 || flag.valueStart >= flag.end ? flag.start : flag.valueStart,
        flag.end,
      ),
    }
    const list = words.get(name)
    if (list === undefined) words.set(name, [word])
    else list.push(word)
  }
  return {
    text: (name) => words.get(name)?.[0],
    optional: (name) => words.get(name)?.find(({ raw }) => raw !== ''),
    list: (name) => words.get(name) ?? [],
    boolean: (name) => booleans.get(name),
  }
}

function readBoolean(context: SourceContext, range: Range, name: string, value: string | undefined): boolean {
  if (value === undefined) return true
  const lower = value.toLowerCase()
  if (lower === 'true' || lower === 'false') return lower === 'true'
  if (value === '')
    throw errorAt(
      context,
      range,
      'FLAG_WITHOUT_VALUE',
      `--${name}= needs a value`,
      `write --${name}, or --${name}=false`,
    )
  throw errorAt(
    context,
    range,
    'FLAG_NOT_BOOLEAN',
    `--${name} is true or false, not '${value.slice(0, 60)}'`,
    `write --${name}, or --${name}=false`,
  )
}

function unknownFlag(
  context: SourceContext,
  range: Range,
  keyword: string,
  name: string,
  known: Readonly<Record<string, FlagKind>>,
): Error {
  const names = Object.keys(known)
  const meant = suggest(name, names)
  const hint =
    meant !== undefined
      ? `did you mean --${meant}?`
      : names.length === 0
        ? `${keyword} takes no flags`
        : `${keyword} takes ${names.map((flag) => `--${flag}`).join(', ')}`
  return errorAt(context, range, 'UNKNOWN_FLAG', `${keyword} has no flag --${name.slice(0, 60)}`, hint)
}
