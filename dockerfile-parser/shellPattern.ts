/**
 * The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` any characters, `?` one, `\` before `* ? \ } /` the character
 * itself, no brackets. BuildKit makes a Go regular expression of them; here they are matched directly, without
 * backtracking, with the same results. `*` and `?` do not match a newline, as `.` does not.
 */
import { DockerfileError } from './errors.ts'

/** `${value#pattern}`, or `##` if `longest`. */
export function removePrefix(value: string, pattern: string, longest: boolean): string {
  const chars = Array.from(value)
  const end = matchAt(chars, 0, segmentsOf(pattern, false), longest, new Budget())
  return end < 0 ? value : chars.slice(end).join('')
}

/** `${value%pattern}`, or `%%` if `longest`. */
export function removeSuffix(value: string, pattern: string, longest: boolean): string {
  const chars = Array.from(value).toReversed()
  const end = matchAt(chars, 0, segmentsOf(pattern, true), longest, new Budget())
  return end < 0 ? value : chars.slice(end).toReversed().join('')
}

/** `${value/pattern/replacement}`, or `//` if `all`. */
export function replacePattern(
  value: string,
  pattern: string,
  replacement: string,
  all: boolean,
  maxLength: number,
): string {
  const segments = segmentsOf(pattern, false)
  const chars = Array.from(value)
  const budget = new Budget()
  const find = (from: number): { readonly start: number; readonly end: number } | undefined => {
    for (let start = from; start <= chars.length; start++) {
      const end = matchAt(chars, start, segments, true, budget)
      if (end >= 0) return { start, end }
    }
    return undefined
  }
  if (!all) {
    const hit = find(0)
    if (hit === undefined) return value
    return chars.slice(0, hit.start).join('') + replacement + chars.slice(hit.end).join('')
  }
  // Go's ReplaceAllString: no empty match right behind a match, and `$name` in the replacement is a template.
  let out = ''
  let copied = 0
  let from = 0
  while (from <= chars.length) {
    const hit = find(from)
    if (hit === undefined) break
    out += chars.slice(copied, hit.start).join('')
    if (hit.end > copied || hit.start === 0)
      out += fillTemplate(replacement, chars.slice(hit.start, hit.end).join(''))
    if (out.length > maxLength)
      throw new DockerfileError('EXPANSION_TOO_LARGE', `a value grew beyond ${maxLength} characters`)
    copied = hit.end
    from = Math.max(from + 1, hit.end)
  }
  return out + chars.slice(copied).join('')
}

/** A character, or undefined for `?`. */
type Unit = string | undefined
/** What stands between the stars. */
type Segment = readonly Unit[]

/** Bounds the work of hostile patterns: value times pattern can be 2^32 steps. */
class Budget {
  #left = 50_000_000

  spend(steps: number): void {
    this.#left -= steps
    if (this.#left < 0)
      throw new DockerfileError('EXPANSION_PATTERN', 'a pattern and its value are too long to be matched')
  }
}

function segmentsOf(pattern: string, reversed: boolean): readonly Segment[] {
  const segments: Unit[][] = [[]]
  const chars = Array.from(pattern)
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i]!
    if (char === '*') segments.push([])
    else if (char === '?') segments.at(-1)!.push(undefined)
    else if (char === '\\') {
      const next = chars[++i]
      if (next === undefined || !'*?\\}/'.includes(next))
        throw new DockerfileError(
          'EXPANSION_PATTERN',
          `'\\${next ?? ''}' is not an escape in the pattern ${JSON.stringify(pattern.slice(0, 60))}`,
          { hint: 'in a pattern only * ? \\ } and / can be escaped' },
        )
      segments.at(-1)!.push(next)
    } else segments.at(-1)!.push(char)
  }
  return reversed ? segments.toReversed().map((segment) => segment.toReversed()) : segments
}

/** The end of the match that starts at `start`, or -1. */
function matchAt(
  chars: readonly string[],
  start: number,
  segments: readonly Segment[],
  longest: boolean,
  budget: Budget,
): number {
  if (!segmentAt(chars, start, segments[0]!, budget)) return -1
  let at = start + segments[0]!.length
  // Each piece as early as it can be: if the rest does not match from there, it matches from nowhere.
  for (let i = 1; i < segments.length; i++) {
    const segment = segments[i]!
    const last = i === segments.length - 1
    let found = -1
    for (let p = at; p + segment.length <= chars.length; p++) {
      budget.spend(1)
      if (segmentAt(chars, p, segment, budget)) {
        found = p
        if (!(last && longest)) break
      }
      if (chars[p] === '\n') break
    }
    if (found < 0) return -1
    at = found + segment.length
  }
  return at
}

function segmentAt(chars: readonly string[], at: number, segment: Segment, budget: Budget): boolean {
  if (at + segment.length > chars.length) return false
  for (let i = 0; i < segment.length; i++) {
    const unit = segment[i]
    const char = chars[at + i]
    if (unit === undefined ? char === '\n' : char !== unit) {
      budget.spend(i + 1)
      return false
    }
  }
  budget.spend(segment.length)
  return true
}

/** Go's regexp template, of which only `$0` (the match), `$$` and names that do not exist (nothing) can occur. */
function fillTemplate(template: string, match: string): string {
  if (!template.includes('$')) return template
  return template.replaceAll(
    /\$(?:\$|\{([\p{L}\p{Nd}_]+)\}|([\p{L}\p{Nd}_]+))/gu,
    (whole: string, braced: string | undefined, bare: string | undefined) => {
      if (whole === '$$') return '$'
      return (braced ?? bare) === '0' ? match : ''
    },
  )
}
