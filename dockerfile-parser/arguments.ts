/** How an instruction's line is split: keyword, flags, and arguments in the manner of each instruction. */
import { errorAt } from './source.ts'
import type { JoinedText, SourceContext } from './syntax.ts'
import { isBlank, isSpace, skipSpace, trimSpaceEnd } from './text.ts'
import type { EscapeToken } from './types.ts'

/** Text and its place [start, end) in the joined line. */
export interface RawWord {
  readonly text: string
  readonly start: number
  readonly end: number
}

export interface RawFlag extends RawWord {
  /** With quotes and escapes resolved: `--name` or `--name=value`. */
  readonly text: string
  /** Place of the value, behind the first `=`; -1 if there is none. */
  readonly valueStart: number
}

export interface RawPair {
  readonly name: RawWord
  readonly value: RawWord
  readonly equals: boolean
}

/** Arguments as BuildKit's line parsers split them. */
export type RawArguments =
  | { readonly form: 'words'; readonly words: readonly RawWord[] }
  | { readonly form: 'json'; readonly words: readonly RawWord[] }
  | { readonly form: 'pairs'; readonly pairs: readonly RawPair[] }
  | { readonly form: 'health'; readonly type: RawWord; readonly command: RawArguments }
  | { readonly form: 'instruction'; readonly instruction: RawInstruction }

export interface RawInstruction extends RawWord {
  readonly keyword: RawWord
  readonly flags: readonly RawFlag[]
  /** All behind the flags, trimmed. */
  readonly rest: RawWord
  readonly args: RawArguments
  /** COPY, ADD and RUN not in JSON form, or ONBUILD of one of these. */
  readonly mayHaveHeredocs: boolean
}

interface Splitter {
  readonly context: SourceContext
  readonly joined: JoinedText
  readonly escape: EscapeToken
}

const NO_WORDS: RawArguments = { form: 'words', words: [] }

/**
 * Splits a joined line. Unknown instructions get no arguments.
 *
 * Throws DockerfileError: JSON_NOT_STRINGS, MISSING_VALUE, MISSING_EQUALS, ONBUILD_CHAIN.
 */
export function splitInstruction(
  context: SourceContext,
  joined: JoinedText,
  escape: EscapeToken,
): RawInstruction {
  return split({ context, joined, escape }, 0, joined.text.length, 0)
}

function split(splitter: Splitter, from: number, to: number, depth: number): RawInstruction {
  const { text } = splitter.joined
  const start = skipSpace(text, from, to)
  const end = trimSpaceEnd(text, start, to)
  let keywordEnd = start
  while (keywordEnd < end && !isBlank(text.charCodeAt(keywordEnd))) keywordEnd++
  const keyword = wordAt(text, start, keywordEnd)
  let restStart = keywordEnd
  while (restStart < end && isBlank(text.charCodeAt(restStart))) restStart++
  const { flags, restAt } = splitFlags(text, restStart, end)
  const bodyStart = skipSpace(text, restAt, end)
  const rest = wordAt(text, bodyStart, Math.max(bodyStart, end))
  const name = keyword.text.toLowerCase()
  // One level is all that can be; a line of 30,000 ONBUILDs must not recurse.
  if (depth > 0 && name === 'onbuild')
    throw errorAt(
      splitter.context,
      splitter.joined.range(start, keywordEnd),
      'ONBUILD_CHAIN',
      'ONBUILD ONBUILD is not allowed',
      'remove one ONBUILD',
    )
  const args = splitArguments(splitter, name, rest, depth)
  const mayHaveHeredocs =
    args.form === 'instruction'
      ? args.instruction.mayHaveHeredocs
      : (name === 'run' || name === 'copy' || name === 'add') && args.form !== 'json'
  return { text: text.slice(start, end), start, end, keyword, flags, rest, args, mayHaveHeredocs }
}

function splitArguments(splitter: Splitter, name: string, rest: RawWord, depth: number): RawArguments {
  const { text } = splitter.joined
  switch (name) {
    case 'add':
    case 'copy':
    case 'volume':
      return jsonArguments(splitter, rest) ?? { form: 'words', words: splitBlanks(text, rest) }
    case 'cmd':
    case 'entrypoint':
    case 'run':
    case 'shell':
      return jsonOrWhole(splitter, rest)
    case 'arg':
      return { form: 'words', words: splitWords(text, rest, splitter.escape) }
    case 'env':
    case 'label':
      return splitPairs(splitter, name.toUpperCase(), rest)
    case 'expose':
    case 'from':
      return { form: 'words', words: splitBlanks(text, rest) }
    case 'maintainer':
    case 'stopsignal':
    case 'user':
    case 'workdir':
      return whole(rest)
    case 'healthcheck':
      return splitHealthcheck(splitter, rest)
    case 'onbuild':
      return splitOnbuild(splitter, rest, depth)
    default:
      return NO_WORDS
  }
}

function wordAt(text: string, start: number, end: number): RawWord {
  return { text: text.slice(start, end), start, end }
}

function whole(rest: RawWord): RawArguments {
  return rest.text === '' ? NO_WORDS : { form: 'words', words: [rest] }
}

/** Words with `--` at the front of the arguments; quotes and `\` (always `\`) are resolved. `--` alone ends them. */
function splitFlags(
  text: string,
  from: number,
  end: number,
): { readonly flags: readonly RawFlag[]; readonly restAt: number } {
  const flags: RawFlag[] = []
  let at = from
  for (;;) {
    while (at < end && isAsciiSpace(text.charCodeAt(at))) at++
    if (at + 1 >= end || text[at] !== '-' || text[at + 1] !== '-') return { flags, restAt: at }
    const start = at
    let word = ''
    let plain = at
    let valueStart = -1
    let quote: string | undefined
    while (at < end) {
      const char = text[at]!
      if (quote === undefined && isAsciiSpace(text.charCodeAt(at))) break
      if (char === quote || (quote === undefined && (char === '"' || char === "'"))) {
        word += text.slice(plain, at)
        quote = quote === undefined ? char : undefined
        plain = ++at
      } else if (char === '\\') {
        word += text.slice(plain, at)
        // The character behind stands for itself; one at the very end is dropped.
        plain = at + 1
        at = Math.min(at + 2, end)
      } else {
        if (char === '=' && valueStart < 0) valueStart = at + 1
        at++
      }
    }
    word += text.slice(Math.min(plain, end), at)
    if (word === '--') return { flags, restAt: at }
    flags.push({ text: word, start, end: at, valueStart })
  }
}

function isAsciiSpace(unit: number): boolean {
  return (unit >= 9 && unit <= 13) || unit === 32
}

function splitBlanks(text: string, rest: RawWord): RawWord[] {
  const words: RawWord[] = []
  let at = rest.start
  while (at < rest.end) {
    const start = at
    while (at < rest.end && !isBlank(text.charCodeAt(at))) at++
    words.push(wordAt(text, start, at))
    while (at < rest.end && isBlank(text.charCodeAt(at))) at++
  }
  return words
}

/** Words by spaces outside quotes; quotes and escapes are kept for the expansion to resolve. */
function splitWords(text: string, rest: RawWord, escape: EscapeToken): RawWord[] {
  const words: RawWord[] = []
  const { end } = rest
  let at = rest.start
  for (;;) {
    at = skipSpace(text, at, end)
    if (at >= end) return words
    const start = at
    let wordEnd = -1
    let quote: string | undefined
    while (at < end) {
      const char = text[at]!
      if (quote === undefined && isSpace(text.charCodeAt(at))) break
      if (char === escape && quote !== "'") {
        // An escape character at the very end is dropped.
        if (at + 1 === end) wordEnd = at
        at = Math.min(at + 2, end)
        continue
      }
      if (char === quote) quote = undefined
      else if (quote === undefined && (char === '"' || char === "'")) quote = char
      at++
    }
    const word = wordAt(text, start, wordEnd < 0 ? at : wordEnd)
    if (word.text !== '') words.push(word)
  }
}

function splitPairs(splitter: Splitter, keyword: string, rest: RawWord): RawArguments {
  const { context, joined } = splitter
  const { text } = joined
  const words = splitWords(text, rest, splitter.escape)
  const first = words[0]
  if (first === undefined) return { form: 'pairs', pairs: [] }
  if (!first.text.includes('=')) {
    // The old form: the name, blanks, and all the rest as the value.
    let nameEnd = rest.start
    while (nameEnd < rest.end && !isBlank(text.charCodeAt(nameEnd))) nameEnd++
    let valueStart = nameEnd
    while (valueStart < rest.end && isBlank(text.charCodeAt(valueStart))) valueStart++
    if (nameEnd === rest.end)
      throw errorAt(
        context,
        joined.range(rest.start, rest.end),
        'MISSING_VALUE',
        `${keyword} must have two arguments, a name and a value`,
        `write ${keyword} ${rest.text.slice(0, 40)}=value`,
      )
    const name = wordAt(text, rest.start, nameEnd)
    return { form: 'pairs', pairs: [{ name, value: wordAt(text, valueStart, rest.end), equals: false }] }
  }
  const pairs = words.map((word): RawPair => {
    const equals = word.text.indexOf('=')
    if (equals < 0)
      throw errorAt(
        context,
        joined.range(word.start, word.end),
        'MISSING_EQUALS',
        `'${word.text.slice(0, 60)}' has no '=': ${keyword} takes name=value`,
        'put the value in quotes if it has blanks: name="two words"',
      )
    const cut = word.start + equals
    return { name: wordAt(text, word.start, cut), value: wordAt(text, cut + 1, word.end), equals: true }
  })
  return { form: 'pairs', pairs }
}

function splitHealthcheck(splitter: Splitter, rest: RawWord): RawArguments {
  const { text } = splitter.joined
  let typeEnd = rest.start
  while (typeEnd < rest.end && !isAsciiSpace(text.charCodeAt(typeEnd))) typeEnd++
  if (typeEnd === rest.start) return NO_WORDS
  const commandStart = skipSpace(text, typeEnd, rest.end)
  return {
    form: 'health',
    type: wordAt(text, rest.start, typeEnd),
    command: jsonOrWhole(splitter, wordAt(text, commandStart, rest.end)),
  }
}

function splitOnbuild(splitter: Splitter, rest: RawWord, depth: number): RawArguments {
  if (rest.text === '') return NO_WORDS
  return { form: 'instruction', instruction: split(splitter, rest.start, rest.end, depth + 1) }
}

function jsonOrWhole(splitter: Splitter, rest: RawWord): RawArguments {
  return jsonArguments(splitter, rest) ?? whole(rest)
}

/** The JSON form, or undefined if the text is not a JSON array: BuildKit then takes it as it stands. */
function jsonArguments(splitter: Splitter, rest: RawWord): RawArguments | undefined {
  if (!rest.text.startsWith('[')) return undefined
  let parsed: unknown
  try {
    parsed = JSON.parse(rest.text)
  } catch {
    return undefined
  }
  const values: readonly unknown[] = Array.isArray(parsed) ? parsed : []
  const strings = values.filter((value) => typeof value === 'string')
  if (strings.length !== values.length) {
    // Go refuses such a number, and what it refuses is not JSON.
    if (/\d[eE]/.test(rest.text) && hasInfinity(values)) return undefined
    throw errorAt(
      splitter.context,
      splitter.joined.range(rest.start, rest.end),
      'JSON_NOT_STRINGS',
      'the JSON form takes strings only',
      'put each argument in double quotes: ["command", "1"]',
    )
  }
  const places = stringPlaces(rest)
  return {
    form: 'json',
    words: strings.map((value, i) => ({
      text: value.toWellFormed(),
      start: places[i]?.start ?? rest.start,
      end: places[i]?.end ?? rest.end,
    })),
  }
}

function hasInfinity(values: readonly unknown[]): boolean {
  const pending: unknown[] = [...values]
  for (let value = pending.pop(); pending.length > 0 || value !== undefined; value = pending.pop()) {
    if (value === Infinity || value === -Infinity) return true
    if (typeof value === 'object' && value !== null)
      for (const inner of Object.values(value)) pending.push(inner)
  }
  return false
}

/** Where the string literals of an array of strings stand, quotes included. */
function stringPlaces(rest: RawWord): readonly { readonly start: number; readonly end: number }[] {
  const places: { start: number; end: number }[] = []
  const { text } = rest
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', at)) {
    const start = at++
    while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1
    at++
    places.push({ start: rest.start + start, end: rest.start + at })
  }
  return places
}
