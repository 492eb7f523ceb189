/**
 * The part of Go's regular expressions that moby's pattern matcher can produce, without backtracking: a path of n
 * characters against an expression of m takes n*m steps at most. A pattern's `[...]` and `\x` reach the expression
 * unchanged, so their meaning is Go's (`\d` is a digit, `[[:alpha:]]` a letter), not that of a shell.
 */

/** A test of one character (a code point). */
type CharTest = (code: number) => boolean

type Part =
  | { readonly kind: 'char'; readonly test: CharTest; readonly repeat: Repeat }
  /** `(.*\/)?` */
  | { readonly kind: 'directories' }
  | { readonly kind: 'assert'; readonly anchor: '^' | '$' | undefined; readonly holds: AssertTest }

/** Once, at most once, or any number of times. */
type Repeat = '1' | '?' | '*'

type AssertTest = (before: number | undefined, after: number | undefined) => boolean

export interface GoRegexp {
  /** Go `MatchString`: some part of the text matches. */
  matches(text: string): boolean
  /** The text, or some directory above it (the text up to one of its slashes), matches. One pass. */
  matchesOrAbove(text: string): boolean
  /** Some text that begins with `prefix` and is longer could match. */
  couldMatchBelow(prefix: string): boolean
}

/** Compiles an expression; undefined if Go would refuse it. */
export function compileGoRegexp(expression: string): GoRegexp | undefined {
  const parsed = new Parser(Array.from(expression)).parse()
  if (parsed === undefined) return undefined
  const alternatives = parsed.map(unanchor)
  return {
    matches: (text) => alternatives.some((parts) => run(parts, text, 'whole')),
    matchesOrAbove: (text) => alternatives.some((parts) => run(parts, text, 'above')),
    couldMatchBelow: (prefix) => alternatives.some((parts) => run(parts, prefix, 'below')),
  }
}

const NEWLINE = 10
const SLASH = 47
const DOT: CharTest = (code) => code !== NEWLINE
const ANYTHING: Part = { kind: 'char', test: () => true, repeat: '*' }
// `a{1000}` a few hundred times over: Go has a limit of the kind.
const MAX_PARTS = 100_000

/** Makes a whole match of a search: what no `^` or `$` holds may have anything before or behind it. */
function unanchor(parts: readonly Part[]): readonly Part[] {
  const first = parts[0]
  const last = parts.at(-1)
  const open = first?.kind === 'assert' && first.anchor === '^'
  const shut = parts.length > 1 && last?.kind === 'assert' && last.anchor === '$'
  const middle = parts.slice(open ? 1 : 0, shut ? -1 : undefined)
  return [...(open ? [] : [ANYTHING]), ...middle, ...(shut ? [] : [ANYTHING])]
}

type Wanted = 'whole' | 'above' | 'below'

/**
 * Runs all ways to match side by side. A state is a part's number; `directories` has a second state, in its loop, whose number is
 * `end + 1` higher. Only living states are looked at, so a character costs what can still match, and never more than all parts.
 */
function run(parts: readonly Part[], text: string, wanted: Wanted): boolean {
  const end = parts.length
  let states = new StateSet(2 * end + 2)
  let next = new StateSet(2 * end + 2)
  const atBoundary = wanted === 'above' ? new StateSet(2 * end + 2) : undefined
  states.add(0)
  let before: number | undefined
  for (let at = 0; at < text.length;) {
    const after = text.codePointAt(at)!
    if (after === SLASH && atBoundary !== undefined && at > 0) {
      // The directory ends here, as if the text did.
      atBoundary.copy(states)
      closure(parts, atBoundary, before, undefined, false)
      if (atBoundary.has(end)) return true
    }
    closure(parts, states, before, after, false)
    next.clear()
    for (let s = 0; s < states.size; s++) {
      const state = states.at(s)
      if (state > end) {
        const part = state - end - 1
        if (after === SLASH) next.add(part + 1)
        if (after !== NEWLINE) next.add(state)
        continue
      }
      const part = parts[state]
      if (part?.kind === 'char' && part.test(after)) next.add(part.repeat === '*' ? state : state + 1)
    }
    if (next.size === 0) return false
    ;[states, next] = [next, states]
    before = after
    at += after > 0xffff ? 2 : 1
  }
  // At the end of a prefix what follows is not known, so assertions are taken to hold there.
  closure(parts, states, before, undefined, wanted === 'below')
  if (wanted !== 'below') return states.has(end)
  // Something must still be able to take a character; the end alone is not below.
  for (let s = 0; s < states.size; s++) {
    const state = states.at(s)
    if (state > end || parts[state]?.kind === 'char') return true
  }
  return false
}

/** Adds the states that are reached without taking a character. */
function closure(
  parts: readonly Part[],
  states: StateSet,
  before: number | undefined,
  after: number | undefined,
  anyAssertion: boolean,
): void {
  // The set grows while it is gone through.
  for (let s = 0; s < states.size; s++) {
    const state = states.at(s)
    const part = parts[state]
    if (part === undefined) continue
    if (part.kind === 'char') {
      if (part.repeat !== '1') states.add(state + 1)
    } else if (part.kind === 'directories') {
      states.add(state + parts.length + 1)
      states.add(state + 1)
    } else if (anyAssertion || part.holds(before, after)) states.add(state + 1)
  }
}

/** A set of small numbers in order of arrival. */
class StateSet {
  size = 0
  readonly #list: Uint32Array
  readonly #has: Uint8Array

  constructor(capacity: number) {
    this.#list = new Uint32Array(capacity)
    this.#has = new Uint8Array(capacity)
  }

  at(index: number): number {
    return this.#list[index]!
  }

  has(state: number): boolean {
    return this.#has[state] === 1
  }

  add(state: number): void {
    if (this.#has[state] === 1) return
    this.#has[state] = 1
    this.#list[this.size++] = state
  }

  clear(): void {
    for (let i = 0; i < this.size; i++) this.#has[this.#list[i]!] = 0
    this.size = 0
  }

  copy(other: StateSet): void {
    this.clear()
    for (let i = 0; i < other.size; i++) this.add(other.at(i))
  }
}

class Parser {
  readonly #chars: readonly string[]
  #at = 0

  constructor(chars: readonly string[]) {
    this.#chars = chars
  }

  /** The alternatives between `|`. */
  parse(): Part[][] | undefined {
    let parts: Part[] = []
    const alternatives = [parts]
    while (this.#at < this.#chars.length) {
      if (this.#chars[this.#at] === '|') {
        this.#at++
        parts = []
        alternatives.push(parts)
        // A count of nothing.
        if (this.#counts() !== undefined) return undefined
        continue
      }
      const part = this.#part()
      if (part === undefined) return undefined
      const counts = this.#counts()
      if (counts === 'invalid') return undefined
      if (counts === undefined) parts.push(part)
      else if (part.kind === 'directories' || (part.kind === 'char' && part.repeat === '*')) return undefined
      else if (part.kind === 'assert') {
        if (counts.least > 0) parts.push(part)
      } else {
        for (let i = 0; i < counts.least; i++) parts.push(part)
        if (counts.most === undefined) parts.push({ ...part, repeat: '*' })
        else for (let i = counts.least; i < counts.most; i++) parts.push({ ...part, repeat: '?' })
      }
      // A count upon a count.
      if (counts !== undefined && this.#counts() !== undefined) return undefined
      if (parts.length > MAX_PARTS) return undefined
    }
    return alternatives
  }

  #part(): Part | undefined {
    const char = this.#chars[this.#at]!
    if (char === '(') {
      // The only group there is.
      this.#at += '(.*/)?'.length
      return { kind: 'directories' }
    }
    if (char === '^' || char === '$') {
      this.#at++
      return anchor(char)
    }
    if (char === '\\' && 'bBAz'.includes(this.#chars[this.#at + 1] ?? ' ')) {
      this.#at += 2
      return assertion(this.#chars[this.#at - 1]!)
    }
    const test = this.#test(char)
    if (test === undefined) return undefined
    const repeated = this.#chars[this.#at] === '*'
    if (repeated) this.#at++
    return { kind: 'char', test, repeat: repeated ? '*' : '1' }
  }

  /** `{2}`, `{2,}` or `{2,5}`; anything else that begins with a brace is text. */
  #counts(): { readonly least: number; readonly most: number | undefined } | 'invalid' | undefined {
    if (this.#chars[this.#at] !== '{') return undefined
    const ahead = this.#chars.slice(this.#at, this.#at + 40).join('')
    const found = /^\{(0|[1-9]\d*)(,(0|[1-9]\d*)?)?\}/.exec(ahead)
    if (found === null) return undefined
    this.#at += found[0].length
    const least = Number(found[1])
    const most = found[2] === undefined ? least : found[3] === undefined ? undefined : Number(found[3])
    if (least > 1000 || (most !== undefined && (most > 1000 || most < least))) return 'invalid'
    return { least, most }
  }

  #test(char: string): CharTest | undefined {
    if (char === '.') {
      this.#at++
      return DOT
    }
    if (char === '[') return this.#class()
    if (char === '\\') {
      this.#at++
      return this.#perlClass() ?? single(this.#escaped())
    }
    this.#at++
    return single(char.codePointAt(0))
  }

  #class(): CharTest | undefined {
    const chars = this.#chars
    this.#at++
    const negated = chars[this.#at] === '^'
    if (negated) this.#at++
    const tests: CharTest[] = []
    for (let first = true; ; first = false) {
      const char = chars[this.#at]
      if (char === undefined) return undefined
      if (char === ']' && !first) {
        this.#at++
        return (code) => tests.some((test) => test(code)) !== negated
      }
      if (char === '[' && chars[this.#at + 1] === ':') {
        const close = chars.findIndex((one, i) => i > this.#at + 1 && one === ':' && chars[i + 1] === ']')
        if (close >= 0) {
          const test = posixClass(chars.slice(this.#at + 2, close).join(''))
          if (test === undefined) return undefined
          tests.push(test)
          this.#at = close + 2
          continue
        }
      }
      if (char === '\\') {
        this.#at++
        const test = this.#perlClass()
        if (test !== undefined) {
          tests.push(test)
          continue
        }
        this.#at--
      }
      const low = this.#classChar()
      if (low === undefined) return undefined
      let high = low
      if (chars[this.#at] === '-' && chars[this.#at + 1] !== undefined && chars[this.#at + 1] !== ']') {
        this.#at++
        const upper = this.#classChar()
        if (upper === undefined || upper < low) return undefined
        high = upper
      }
      tests.push((code) => code >= low && code <= high)
    }
  }

  #classChar(): number | undefined {
    const char = this.#chars[this.#at++]
    return char === '\\' ? this.#escaped() : char?.codePointAt(0)
  }

  /** `\d` and its kin, from behind the backslash. */
  #perlClass(): CharTest | undefined {
    const char = this.#chars[this.#at] ?? ''
    const test = PERL[char.toLowerCase()]
    if (test === undefined || !'dDsSwW'.includes(char)) return undefined
    this.#at++
    return char === char.toLowerCase() ? test : (code) => !test(code)
  }

  /** One escaped character, from behind the backslash. */
  #escaped(): number | undefined {
    const char = this.#chars[this.#at++]
    if (char === undefined) return undefined
    if (!/[0-9A-Za-z]/.test(char)) return char.codePointAt(0)! < 0x80 ? char.codePointAt(0) : undefined
    const control = 'afnrtv'.indexOf(char)
    if (control >= 0) return [7, 12, 10, 13, 9, 11][control]
    if (char === 'x') return this.#hexadecimal()
    if (char >= '0' && char <= '7') {
      // `\1` alone would be a back reference, which Go has not.
      const rest = this.#take(/[0-7]/, 2)
      if (char !== '0' && rest === '') return undefined
      return Number.parseInt(char + rest, 8)
    }
    return undefined
  }

  #hexadecimal(): number | undefined {
    if (this.#chars[this.#at] !== '{') {
      const digits = this.#take(/[0-9A-Fa-f]/, 2)
      return digits.length === 2 ? Number.parseInt(digits, 16) : undefined
    }
    this.#at++
    const digits = this.#take(/[0-9A-Fa-f]/, 8)
    if (digits === '' || this.#chars[this.#at++] !== '}') return undefined
    const code = Number.parseInt(digits, 16)
    return code <= 0x10_ffff ? code : undefined
  }

  #take(allowed: RegExp, most: number): string {
    let out = ''
    while (out.length < most && allowed.test(this.#chars[this.#at] ?? '')) out += this.#chars[this.#at++]!
    return out
  }
}

function single(code: number | undefined): CharTest | undefined {
  return code === undefined ? undefined : (other) => other === code
}

function between(code: number, low: string, high: string): boolean {
  return code >= low.charCodeAt(0) && code <= high.charCodeAt(0)
}

const isWord: CharTest = (code) =>
  between(code, '0', '9') || between(code, 'A', 'Z') || between(code, 'a', 'z') || code === 95

const PERL: Readonly<Record<string, CharTest>> = {
  d: (code) => between(code, '0', '9'),
  s: (code) => code === 9 || code === 10 || code === 12 || code === 13 || code === 32,
  w: isWord,
}

function anchor(char: '^' | '$'): Part {
  return {
    kind: 'assert',
    anchor: char,
    holds: char === '^' ? (before) => before === undefined : (_, after) => after === undefined,
  }
}

function assertion(char: string): Part {
  if (char === 'A') return anchor('^')
  if (char === 'z') return anchor('$')
  const boundary = char === 'b'
  return {
    kind: 'assert',
    anchor: undefined,
    holds: (before, after) => (isWord(before ?? 0) !== isWord(after ?? 0)) === boundary,
  }
}

function posixClass(name: string): CharTest | undefined {
  const negated = name.startsWith('^')
  const bare = negated ? name.slice(1) : name
  const pattern = Object.hasOwn(POSIX, bare) ? POSIX[bare] : undefined
  if (pattern === undefined) return undefined
  return (code) => (code < 0x80 && pattern.test(String.fromCodePoint(code))) !== negated
}

const POSIX: Readonly<Record<string, RegExp>> = {
  alnum: /[0-9A-Za-z]/,
  alpha: /[A-Za-z]/,
  // oxlint-disable-next-line no-control-regex -- all of ASCII
  ascii: /[\u0000-\u007f]/,
  blank: /[\t ]/,
  // oxlint-disable-next-line no-control-regex -- they are meant
  cntrl: /[\u0000-\u001f\u007f]/,
  digit: /[0-9]/,
  graph: /[!-~]/,
  lower: /[a-z]/,
  print: /[ -~]/,
  punct: /[!-/:-@[-`{-~]/,
  space: /[\t\n\v\f\r ]/,
  upper: /[A-Z]/,
  word: /[0-9A-Za-z_]/,
  xdigit: /[0-9A-Fa-f]/,
}
