import { DockerfileError } from './errors.ts'
import { compileGoRegexp } from './goRegexp.ts'
import type { GoRegexp } from './goRegexp.ts'
import { cleanPath } from './ignoreFile.ts'
import type { IgnorePattern } from './ignoreFile.ts'
import { trimSpace } from './text.ts'

export interface IgnoreMatcher {
  /** Cleaned and in order; what was empty is left out. */
  readonly patterns: readonly IgnorePattern[]
  /**
   * Is the path (relative to the context, slashes, no `./`) ignored? moby `MatchesOrParentMatches`: the last pattern
   * that matches the path or a directory above it decides. `.` never is.
   */
  ignores(path: string): boolean
  /** The pattern because of which the path is ignored; undefined if it is not. */
  why(path: string): IgnorePattern | undefined
  /** Could something below this ignored directory not be ignored? If not, it need not be walked. */
  mayReinclude(directory: string): boolean
}

/**
 * Compiles patterns (`*`, `?`, `[...]`, `**`, `!`) as moby/patternmatcher does.
 *
 * Throws DockerfileError: IGNORE_PATTERN.
 */
export function createIgnoreMatcher(patterns: readonly string[] | readonly IgnorePattern[]): IgnoreMatcher {
  const compiled: Compiled[] = []
  for (const pattern of patterns) {
    const made = compile(pattern)
    if (made !== undefined) compiled.push(made)
  }
  const parents = new ParentCache(compiled)

  /** Index of the pattern that decided that the path is ignored, or -1. */
  const decide = (path: string): number => {
    let ignoredBy = -1
    const above = parents.of(path)
    for (let i = 0; i < compiled.length; i++) {
      const pattern = compiled[i]!
      // An exception matters only for what is ignored so far, another pattern only for what is not.
      if (pattern.origin.negated !== ignoredBy >= 0) continue
      if (above[i] === 1 || pattern.matches(path)) ignoredBy = pattern.origin.negated ? -1 : i
    }
    return ignoredBy
  }

  return {
    patterns: compiled.map(({ origin }) => origin),
    ignores: (path) => path !== '.' && decide(path) >= 0,
    why: (path) => (path === '.' ? undefined : compiled[decide(path)]?.origin),
    mayReinclude: (directory) => {
      if (directory === '.' || directory === '') return compiled.some((pattern) => pattern.origin.negated)
      // What is below is ignored at least by the pattern that ignores the directory; exceptions before it are moot.
      const ignoredBy = decide(directory)
      for (let i = ignoredBy + 1; i < compiled.length; i++)
        if (compiled[i]!.origin.negated && compiled[i]!.couldMatchBelow(directory)) return true
      return false
    },
  }
}

interface Compiled {
  readonly origin: IgnorePattern
  matches(path: string): boolean
  /** The path, or a directory above it. */
  matchesOrAbove(path: string): boolean
  couldMatchBelow(directory: string): boolean
}

/**
 * Which patterns match one of the directories above a path. Files come in directory order, so the answers for the
 * last directories are kept: 30,000 files in 1,000 directories match each pattern 31,000 times, not 120,000.
 */
class ParentCache {
  readonly #patterns: readonly Compiled[]
  readonly #none: Uint8Array
  readonly #known = new Map<string, Uint8Array>()

  constructor(patterns: readonly Compiled[]) {
    this.#patterns = patterns
    this.#none = new Uint8Array(patterns.length)
  }

  of(path: string): Uint8Array {
    const slash = path.lastIndexOf('/')
    if (slash < 0) return this.#none
    // Go `filepath.Dir`
    const parent = cleanPath(path.slice(0, slash + 1))
    if (parent === '.') return this.#none
    const known = this.#known.get(parent)
    if (known !== undefined) return known
    const result = new Uint8Array(this.#patterns.length)
    const above = parent.lastIndexOf('/')
    const inherited = above < 0 ? this.#none : this.#known.get(parent.slice(0, above))
    for (let p = 0; p < result.length; p++) {
      const pattern = this.#patterns[p]!
      const matches =
        inherited === undefined
          ? pattern.matchesOrAbove(parent)
          : inherited[p] === 1 || pattern.matches(parent)
      result[p] = matches ? 1 : 0
    }
    if (this.#known.size > 1000) this.#known.clear()
    this.#known.set(parent, result)
    return result
  }
}

function compile(given: string | IgnorePattern): Compiled | undefined {
  const line = typeof given === 'string' ? 0 : given.line
  const written = typeof given === 'string' ? given : (given.negated ? '!' : '') + given.pattern
  let text = trimSpace(written)
  if (text === '') return undefined
  // The `!` is part of what is cleaned, as in moby.
  text = cleanPath(text)
  const negated = text.startsWith('!')
  if (negated) text = text.slice(1)
  const origin: IgnorePattern = { pattern: text, negated, line }
  if (text === '') throw malformed(written, line, 'nothing follows the !')
  if (!isWellFormed(text)) throw malformed(written, line, 'a bracket or a backslash is out of place')
  const { type, expression } = translate(text)
  switch (type) {
    case 'exact':
      return {
        origin,
        matches: (path) => path === text,
        matchesOrAbove: (path) => path === text || path.startsWith(`${text}/`),
        couldMatchBelow: (directory) => text.startsWith(`${directory}/`),
      }
    case 'prefix': {
      const prefix = text.slice(0, -2)
      return {
        origin,
        matches: (path) => path.startsWith(prefix),
        matchesOrAbove: (path) => path.startsWith(prefix),
        couldMatchBelow: (directory) =>
          prefix.startsWith(`${directory}/`) || `${directory}/`.startsWith(prefix),
      }
    }
    case 'suffix': {
      const suffix = text.slice(2)
      const whole = suffix.startsWith('/') ? suffix.slice(1) : undefined
      return {
        origin,
        matches: (path) => path.endsWith(suffix) || path === whole,
        matchesOrAbove: (path) =>
          `${path}/`.includes(`${suffix}/`) || (whole !== undefined && `${path}/`.startsWith(`${whole}/`)),
        couldMatchBelow: () => true,
      }
    }
    case 'regexp':
    default: {
      const regexp: GoRegexp | undefined = compileGoRegexp(expression)
      if (regexp === undefined) throw malformed(written, line, 'a range or an escape in it is not valid')
      // Most paths are told apart by the pattern's first characters. Through an oversight of moby's, `|` and braces
      // mean in a pattern what they mean in a regular expression.
      const literal = /[|{]/.test(text) ? '' : /^[^*?[\]\\^]*/.exec(text)![0]
      return {
        origin,
        matches: (path) => path.startsWith(literal) && regexp.matches(path),
        matchesOrAbove: (path) => path.startsWith(literal) && regexp.matchesOrAbove(path),
        couldMatchBelow: (directory) => regexp.couldMatchBelow(`${directory}/`),
      }
    }
  }
}

function malformed(pattern: string, line: number, why: string): DockerfileError {
  const where = line > 0 ? `line ${line}: ` : ''
  return new DockerfileError(
    'IGNORE_PATTERN',
    `${where}malformed ignore pattern '${pattern.slice(0, 80)}': ${why}`,
    {
      hint: 'write \\ before * ? [ ] to mean the character itself',
    },
  )
}

/**
 * moby asks Go's `filepath.Match` whether a pattern is well formed, by matching it with `.`. That looks at the pieces
 * between the stars only as far as they match, so some malformed patterns pass; the regular expression may refuse them.
 */
function isWellFormed(pattern: string): boolean {
  const chars = Array.from(pattern)
  let name = '.'
  let at = 0
  while (at < chars.length) {
    const start = at
    while (chars[at] === '*') at++
    const star = at > start
    const from = at
    let inClass = false
    for (; at < chars.length && (inClass || chars[at] !== '*'); at++) {
      if (chars[at] === '\\' && at + 1 < chars.length) at++
      else if (chars[at] === '[') inClass = true
      else if (chars[at] === ']') inClass = false
    }
    const piece = chars.slice(from, at)
    if (star && piece.length === 0) return true
    const last = at >= chars.length
    const rest = matchPiece(piece, name)
    if (rest === false) return false
    if (rest !== undefined && (rest === '' || !last)) name = rest
    else if (star && name !== '' && matchPiece(piece, '') !== undefined) name = ''
    else return true
  }
  return true
}

/** What is left of a name of one character at most; undefined if it does not match, false if the piece is malformed. */
function matchPiece(piece: readonly string[], name: string): string | false | undefined {
  let left = name
  let failed = false
  let at = 0
  const member = (): string | undefined => {
    let char = piece[at++]
    if (char === undefined || char === '-' || char === ']') return undefined
    if (char === '\\') char = piece[at++]
    return at < piece.length ? char : undefined
  }
  while (at < piece.length) {
    const char = piece[at++]!
    const own = left
    if (own === '') failed = true
    left = ''
    if (char === '?') continue
    if (char !== '[') {
      const literal = char === '\\' ? piece[at++] : char
      if (literal === undefined) return false
      if (literal !== own) failed = true
      continue
    }
    const negated = piece[at] === '^'
    if (negated) at++
    let hit = false
    for (let members = 0; piece[at] !== ']' || members === 0; members++) {
      const low = member()
      if (low === undefined) return false
      let high: string | undefined = low
      if (piece[at] === '-') {
        at++
        high = member()
        if (high === undefined) return false
      }
      if (
        low.codePointAt(0)! <= (own.codePointAt(0) ?? 0) &&
        (own.codePointAt(0) ?? 0) <= high.codePointAt(0)!
      )
        hit = true
    }
    at++
    if (hit === negated) failed = true
  }
  return failed ? undefined : left
}

/** moby's translation of a pattern to a Go regular expression, with its shortcuts for plain patterns. */
function translate(pattern: string): {
  readonly type: 'exact' | 'prefix' | 'suffix' | 'regexp'
  readonly expression: string
} {
  const chars = Array.from(pattern)
  let type: 'exact' | 'prefix' | 'suffix' | 'regexp' = 'exact'
  const out: string[] = ['^']
  let at = 0
  for (let step = 0; at < chars.length; step++) {
    const char = chars[at++]!
    if (char === '*') {
      if (chars[at] === '*') {
        at++
        if (chars[at] === '/') at++
        if (at < chars.length) {
          out.push('(.*/)?')
          type = 'regexp'
        } else if (type === 'exact') type = 'prefix'
        else {
          out.push('.*')
          type = 'regexp'
        }
        if (step === 0) type = 'suffix'
      } else {
        out.push('[^/]*')
        type = 'regexp'
      }
    } else if (char === '?') {
      out.push('[^/]')
      type = 'regexp'
    } else if ('.+()$'.includes(char)) {
      out.push(`\\${char}`)
    } else if (char === '\\') {
      out.push(`\\${chars[at++] ?? ''}`)
      type = 'regexp'
    } else {
      out.push(char)
      if (char === '[' || char === ']') type = 'regexp'
    }
  }
  return { type, expression: `${out.join('')}$` }
}
