import type { SourceContext } from './syntax.ts'
import { isRegexpSpace, skipSpace } from './text.ts'
import type { Directive } from './types.ts'

/**
 * The parser directive in a comment line whose `#` is at `ink`, or undefined: `# name = value`, name one of `syntax`,
 * `escape`, `check` in any case. BuildKit: `^([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*$` behind `#` and spaces.
 */
export function readDirective(context: SourceContext, ink: number, end: number): Directive | undefined {
  const { source } = context
  const nameStart = skipSpace(source, ink + 1, end)
  let at = nameStart
  while (at < end && isAlphanumeric(source.charCodeAt(at))) at++
  const name = source.slice(nameStart, at).toLowerCase()
  if (name !== 'syntax' && name !== 'escape' && name !== 'check') return undefined
  while (at < end && isRegexpSpace(source.charCodeAt(at))) at++
  if (source[at] !== '=' || at >= end) return undefined
  at++
  const valueStart = at
  while (at < end && isRegexpSpace(source.charCodeAt(at))) at++
  let valueEnd = end
  while (valueEnd > at && isRegexpSpace(source.charCodeAt(valueEnd - 1))) valueEnd--
  // The pattern wants one character at least; if there are blanks only, the last of them is the value.
  if (at === valueEnd) {
    if (at === valueStart) return undefined
    at = valueEnd - 1
  }
  return { name, value: source.slice(at, valueEnd), range: context.lines.range(at, valueEnd) }
}

function isAlphanumeric(unit: number): boolean {
  return (unit >= 48 && unit <= 57) || (unit >= 65 && unit <= 90) || (unit >= 97 && unit <= 122)
}
