import { DockerfileError } from './errors.ts'
import { removePrefix, removeSuffix, replacePattern } from './shellPattern.ts'
import { isSpace } from './text.ts'
import type { EscapeToken } from './types.ts'

export interface ExpandOptions {
  /** A variable's value, or undefined if it is not set. */
  readonly lookup: (name: string) => string | undefined
  /** Default `\`. */
  readonly escape?: EscapeToken | undefined
  /** Keep quote characters in the result. */
  readonly rawQuotes?: boolean | undefined
  /** Keep escape characters in the result. */
  readonly rawEscapes?: boolean | undefined
  /** Quotes are ordinary characters: for the bodies of COPY and ADD heredocs. */
  readonly skipQuotes?: boolean | undefined
  /** Leave references to variables that are not set as they are. */
  readonly skipUnset?: boolean | undefined
}

export interface Expansion {
  readonly text: string
  readonly words: string[]
  /** Names of the variables that were looked up and found. */
  readonly matched: ReadonlySet<string>
  /** Names of the variables that were looked up and are not set. */
  readonly unmatched: ReadonlySet<string>
}

/**
 * BuildKit's shell lexer (frontend/dockerfile/shell): quotes, escapes, `$name`, `${name}` and `${name` with a modifier
 * `- :- + :+ ? :? # ## % %% / //`. Time is linear in the input but for patterns, which are bounded.
 *
 * Throws DockerfileError: EXPANSION_SYNTAX, EXPANSION_UNSET (`${v:?}`), EXPANSION_PATTERN, EXPANSION_TOO_DEEP,
 * EXPANSION_TOO_LARGE.
 */
export function expand(raw: string, options: ExpandOptions): Expansion {
  const lexer = new Lexer(raw, options, true)
  const { text, words } = lexer.until(undefined, options.rawEscapes ?? false)
  return { text, words, matched: lexer.matched, unmatched: lexer.unmatched }
}

/** As `expand`, without the words. */
export function expandText(raw: string, options: ExpandOptions): Omit<Expansion, 'words'> {
  const lexer = new Lexer(raw, options, false)
  const { text } = lexer.until(undefined, options.rawEscapes ?? false)
  return { text, matched: lexer.matched, unmatched: lexer.unmatched }
}

/** One word to one string; blanks that come from variables are kept. */
export function expandWord(raw: string, options: ExpandOptions): string {
  return expandText(raw, options).text
}

/** One word to a list: split at blanks outside quotes, those from variables included. */
export function expandWords(raw: string, options: ExpandOptions): string[] {
  return expand(raw, options).words
}

// `${a:-${a:-...` recurses three frames a level; 500 levels stay far from the end of the stack.
const MAX_DEPTH = 500
// ENV A=$A$A doubles; sixty such lines would ask for 2^60 bytes.
const MAX_LENGTH = 16 * 1024 * 1024

/** Collects words as the text goes by. */
class Words {
  readonly list: string[] = []
  readonly #wanted: boolean
  #word = ''
  #inWord = false

  constructor(wanted: boolean) {
    this.#wanted = wanted
  }

  raw(text: string): void {
    if (!this.#wanted) return
    this.#word += text
    this.#inWord = true
  }

  split(text: string): void {
    if (!this.#wanted) return
    let start = -1
    for (let i = 0; i < text.length; i++) {
      if (!isSpace(text.charCodeAt(i))) {
        if (start < 0) start = i
        continue
      }
      if (start >= 0) this.raw(text.slice(start, i))
      start = -1
      if (this.#inWord && this.#word !== '') this.#push()
    }
    if (start >= 0) this.raw(text.slice(start))
  }

  finish(): string[] {
    if (this.#word !== '') this.#push()
    return this.list
  }

  #push(): void {
    this.list.push(this.#word)
    this.#word = ''
    this.#inWord = false
  }
}

class Lexer {
  readonly matched = new Set<string>()
  readonly unmatched = new Set<string>()
  readonly #source: string
  readonly #options: ExpandOptions
  readonly #escape: string
  readonly #wantWords: boolean
  #rawEscapes = false
  #at: number
  #depth = 0

  constructor(source: string, options: ExpandOptions, wantWords: boolean) {
    this.#source = source
    this.#options = options
    this.#wantWords = wantWords
    this.#escape = options.escape ?? '\\'
    // Go's text/scanner drops a byte order mark at the start.
    this.#at = source.charCodeAt(0) === 0xfeff ? 1 : 0
  }

  /** Reads to the stop character and past it, or to the end if there is none. */
  until(stop: string | undefined, rawEscapes: boolean): { text: string; words: string[] } {
    const source = this.#source
    const outer = this.#rawEscapes
    this.#rawEscapes = rawEscapes
    const skipQuotes = this.#options.skipQuotes ?? false
    // Those of a nested word are not asked for.
    const words = new Words(this.#wantWords && stop === undefined)
    let text = ''
    let plain = this.#at
    const flush = (): void => {
      if (this.#at === plain) return
      const piece = source.slice(plain, this.#at)
      text += piece
      words.split(piece)
    }
    while (this.#at < source.length) {
      const char = source[this.#at]!
      if (char === stop) {
        flush()
        this.#at++
        this.#rawEscapes = outer
        return { text, words: words.finish() }
      }
      if (char === '$') {
        flush()
        const value = this.#dollar()
        text += value
        if (text.length > MAX_LENGTH) throw this.#tooLarge()
        words.split(value)
      } else if (char === '<' && source[this.#at + 1] === '<') {
        flush()
        // A heredoc's name may stand off from its `<<`; the blanks between belong to the word.
        const start = this.#at
        this.#at += 2
        while (source[this.#at] === ' ' || source[this.#at] === '\t') this.#at++
        const piece = source.slice(start, this.#at)
        text += piece
        words.raw(piece)
      } else if (!skipQuotes && (char === "'" || char === '"')) {
        flush()
        const value = char === "'" ? this.#singleQuoted() : this.#doubleQuoted()
        text += value
        words.raw(value)
      } else if (char === this.#escape) {
        flush()
        const kept = this.#rawEscapes ? char : ''
        this.#at++
        const next = this.#next()
        if (kept + next !== '') {
          text += kept + next
          words.raw(kept + next)
        }
      } else {
        this.#at++
        continue
      }
      plain = this.#at
    }
    flush()
    if (stop !== undefined) throw this.#syntax(`'${stop}' is missing in \${...}`)
    this.#rawEscapes = outer
    return { text, words: words.finish() }
  }

  /** The next whole character, or '' at the end. */
  #next(): string {
    const code = this.#source.codePointAt(this.#at)
    if (code === undefined) return ''
    const char = String.fromCodePoint(code)
    this.#at += char.length
    return char
  }

  #singleQuoted(): string {
    const close = this.#source.indexOf("'", this.#at + 1)
    if (close < 0) throw this.#syntax('a single quote is not closed')
    const raw = this.#options.rawQuotes ?? false
    const value = raw ? this.#source.slice(this.#at, close + 1) : this.#source.slice(this.#at + 1, close)
    this.#at = close + 1
    return value
  }

  #doubleQuoted(): string {
    const source = this.#source
    const quote = (this.#options.rawQuotes ?? false) ? '"' : ''
    let text = quote
    this.#at++
    let plain = this.#at
    while (this.#at < source.length) {
      const char = source[this.#at]!
      if (char === '"') {
        text += source.slice(plain, this.#at) + quote
        this.#at++
        return text
      }
      if (char === '$') {
        text += source.slice(plain, this.#at)
        text += this.#dollar()
        if (text.length > MAX_LENGTH) throw this.#tooLarge()
        plain = this.#at
      } else if (char === this.#escape) {
        text += source.slice(plain, this.#at)
        if (this.#rawEscapes) text += char
        this.#at++
        plain = this.#at
        const next = source[this.#at]
        // Only these three can be escaped; before others the escape character stands for itself.
        if (next === '"' || next === '$' || next === this.#escape) this.#at++
        else if (next !== undefined) text += char
      } else {
        this.#at++
      }
    }
    throw this.#syntax('a double quote is not closed')
  }

  #dollar(): string {
    const source = this.#source
    this.#at++
    if (source[this.#at] !== '{') {
      const name = this.#name()
      if (name === '') return '$'
      const value = this.#lookup(name)
      if (value === undefined && (this.#options.skipUnset ?? false)) return `$${name}`
      return value ?? ''
    }
    this.#at++
    const first = source[this.#at]
    if (first === undefined) throw this.#syntax("'}' is missing")
    if (first === '{' || first === '}' || first === ':') throw this.#syntax('a name is missing in ${...}')
    const name = this.#name()
    let modifier = this.#next()
    if (modifier === '') throw this.#syntax("'}' is missing")
    if (modifier === '}') {
      const value = this.#lookup(name)
      if (value === undefined && (this.#options.skipUnset ?? false)) return `\${${name}}`
      return value ?? ''
    }
    if (++this.#depth > MAX_DEPTH)
      throw new DockerfileError('EXPANSION_TOO_DEEP', `more than ${MAX_DEPTH} variables inside one another`)
    let colon = false
    if (modifier === ':') {
      colon = true
      modifier = this.#next()
      if (modifier === '') throw this.#syntax("'}' is missing")
    }
    const value = modifier === '/' && !colon ? this.#substitute(name) : this.#modify(name, colon, modifier)
    this.#depth--
    return value
  }

  /** `${name-word}` and its kin, from behind the modifier. */
  #modify(name: string, colon: boolean, modifier: string): string {
    const trims = modifier === '#' || modifier === '%'
    const written = (colon ? ':' : '') + modifier
    if ((trims && colon) || (!trims && modifier !== '-' && modifier !== '+' && modifier !== '?'))
      throw new DockerfileError(
        'EXPANSION_SYNTAX',
        `unknown modifier '${written}' in \${${name}${written}...}`,
        {
          hint: 'use one of :- - :+ + :? ? # ## % %% / //',
        },
      )
    const word = this.until('}', trims).text
    const value = this.#lookup(name)
    if (value === undefined && (this.#options.skipUnset ?? false)) return `\${${name}${written}${word}}`
    const missing = value === undefined || (colon && value === '')
    switch (modifier) {
      case '-':
        return missing ? word : value
      case '+':
        return missing ? '' : word
      case '?':
        if (!missing) return value
        throw new DockerfileError(
          'EXPANSION_UNSET',
          `${name}: ${word === '' ? `is not allowed to be ${value === undefined ? 'unset' : 'empty'}` : word}`,
          { hint: `give ${name} a value with ENV or ARG (--build-arg ${name}=...)` },
        )
      case '#':
      case '%':
      default: {
        // The doubled character is part of the word here, so that a quoted or expanded one counts too.
        const longest = word.startsWith(modifier)
        const pattern = longest ? word.slice(1) : word
        return modifier === '#'
          ? removePrefix(value ?? '', pattern, longest)
          : removeSuffix(value ?? '', pattern, longest)
      }
    }
  }

  /** `${name/pattern/replacement}`, from behind the first slash. */
  #substitute(name: string): string {
    const all = this.#source[this.#at] === '/'
    if (all) this.#at++
    const pattern = this.until('/', true).text
    const replacement = this.until('}', true).text
    const value = this.#lookup(name)
    if (value === undefined && (this.#options.skipUnset ?? false))
      return `\${${name}/${pattern}/${replacement}}`
    return replacePattern(value ?? '', pattern, replacement, all, MAX_LENGTH)
  }

  #name(): string {
    const source = this.#source
    const start = this.#at
    const first = source.codePointAt(start)
    if (first === undefined) return ''
    if (isDigit(first)) {
      this.#skipWhile(isDigit)
      return source.slice(start, this.#at)
    }
    if ('@*#?-$!'.includes(String.fromCodePoint(first))) {
      this.#at++
      return source[start]!
    }
    this.#skipWhile(isNameCharacter)
    return source.slice(start, this.#at)
  }

  #skipWhile(test: (code: number) => boolean): void {
    for (;;) {
      const code = this.#source.codePointAt(this.#at)
      if (code === undefined || !test(code)) return
      this.#at += code > 0xffff ? 2 : 1
    }
  }

  #lookup(name: string): string | undefined {
    const value = this.#options.lookup(name)
    if (value === undefined) this.unmatched.add(name)
    else this.matched.add(name)
    return value
  }

  #syntax(what: string): DockerfileError {
    return new DockerfileError('EXPANSION_SYNTAX', `cannot expand ${abbreviate(this.#source)}: ${what}`, {
      hint: `to have the character itself, write ${this.#escape} before it`,
    })
  }

  #tooLarge(): DockerfileError {
    return new DockerfileError('EXPANSION_TOO_LARGE', `a value grew beyond ${MAX_LENGTH} characters`)
  }
}

function isDigit(code: number): boolean {
  return code < 0x80 ? code >= 48 && code <= 57 : /^\p{Nd}$/u.test(String.fromCodePoint(code))
}

function isNameCharacter(code: number): boolean {
  if (code < 0x80)
    return (
      (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) || code === 95
    )
  return /^[\p{L}\p{Nd}]$/u.test(String.fromCodePoint(code))
}

function abbreviate(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
}
