/**
 * Go's notion of white space and trimming. BuildKit is written in Go; where its parser says "space" it means one of
 * the two sets below, and neither is JavaScript's `\s` (which has U+FEFF and lacks U+0085).
 */

/** Go `unicode.IsSpace` of one UTF-16 unit (all of the set is in the basic plane). */
export function isSpace(unit: number): boolean {
  if (unit < 0x80) return (unit >= 9 && unit <= 13) || unit === 32
  return (
    unit === 0x85 ||
    unit === 0xa0 ||
    unit === 0x1680 ||
    (unit >= 0x2000 && unit <= 0x200a) ||
    unit === 0x2028 ||
    unit === 0x2029 ||
    unit === 0x202f ||
    unit === 0x205f ||
    unit === 0x3000
  )
}

/** The separators between arguments: `[\t\v\f\r ]`. A newline cannot occur, non-ASCII spaces do not separate. */
export function isBlank(unit: number): boolean {
  return unit === 32 || unit === 9 || unit === 11 || unit === 12 || unit === 13
}

/** `\s` of Go's regexp: `[\t\n\f\r ]`. */
export function isRegexpSpace(unit: number): boolean {
  return unit === 32 || unit === 9 || unit === 10 || unit === 12 || unit === 13
}

/** First index in [start, end) that is not a space, or `end`. */
export function skipSpace(text: string, start: number, end: number): number {
  let i = start
  while (i < end && isSpace(text.charCodeAt(i))) i++
  return i
}

/** `end` moved back over trailing spaces, not before `start`. */
export function trimSpaceEnd(text: string, start: number, end: number): number {
  let i = end
  while (i > start && isSpace(text.charCodeAt(i - 1))) i--
  return i
}

/** Go `strings.TrimSpace`. */
export function trimSpace(text: string): string {
  const start = skipSpace(text, 0, text.length)
  return text.slice(start, trimSpaceEnd(text, start, text.length))
}

const BOM = 0xfeff

/** Text of a file. Bytes are decoded as UTF-8 with the byte order mark kept; `valid` is false if any were malformed. */
export function decode(text: string | Uint8Array): { readonly text: string; readonly valid: boolean } {
  if (typeof text === 'string') return { text, valid: true }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text), valid: true }
  } catch {
    return { text: new TextDecoder('utf-8', { ignoreBOM: true }).decode(text), valid: false }
  }
}

/** Length of the byte order mark at the start of a text: 0 or 1. */
export function bomLength(text: string): number {
  return text.charCodeAt(0) === BOM ? 1 : 0
}

/** Bytes that Go's line scanner takes in one line; a longer one is an error in BuildKit, and here. */
export const MAX_LINE_BYTES = 65_536

/** True if the line [start, next) is longer than BuildKit reads. `next` is past the newline, if there is one. */
export function lineTooLong(text: string, start: number, next: number): boolean {
  const units = next - start
  if (units * 3 < MAX_LINE_BYTES) return false
  let bytes = 0
  for (let i = start; i < next; i++) {
    const unit = text.charCodeAt(i)
    if (unit < 0x80) bytes += 1
    else if (unit < 0x800) bytes += 2
    else if (unit >= 0xd800 && unit < 0xe000) bytes += 2
    else bytes += 3
  }
  return text.charCodeAt(next - 1) === 10 ? bytes > MAX_LINE_BYTES : bytes >= MAX_LINE_BYTES
}
