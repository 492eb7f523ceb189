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

/**
 * Text of a file. Bytes are decoded as UTF-8 with the byte order mark kept; if any are malformed, `valid` is false and each
 * of them stands in the text as one lone low surrogate, U+DC80 to U+DCFF, which `encode` turns into the byte again.
 */
export function decode(text: string | Uint8Array): { readonly text: string; readonly valid: boolean } {
  if (typeof text === 'string') return { text, valid: true }
  try {
    return { text: new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(text), valid: true }
  } catch {
    return { text: decodeMalformed(text), valid: false }
  }
}

/** The bytes of a text: UTF-8, but for the bytes that `decode` could not read. */
export function encode(text: string): Uint8Array {
  const encoder = new TextEncoder()
  let at = findEscapedByte(text, 0, text.length)
  if (at < 0) return encoder.encode(text)
  const pieces: Uint8Array[] = []
  let size = 0
  let copied = 0
  const add = (piece: Uint8Array): void => {
    pieces.push(piece)
    size += piece.length
  }
  for (; at >= 0; at = findEscapedByte(text, at + 1, text.length)) {
    if (at > copied) add(encoder.encode(text.slice(copied, at)))
    add(Uint8Array.of(text.charCodeAt(at) - ESCAPED_BYTES))
    copied = at + 1
  }
  add(encoder.encode(text.slice(copied)))
  const bytes = new Uint8Array(size)
  let offset = 0
  for (const piece of pieces) {
    bytes.set(piece, offset)
    offset += piece.length
  }
  return bytes
}

const ESCAPED_BYTES = 0xdc00

/** First index in [from, end) of a byte that was not UTF-8, or -1. */
export function findEscapedByte(text: string, from: number, end: number): number {
  for (let at = from; at < end; at++) {
    const unit = text.charCodeAt(at)
    if (unit < 0xd800 || unit > 0xdfff) continue
    // A pair is an ordinary character.
    if (unit < 0xdc00 && text.charCodeAt(at + 1) >> 10 === 0x37) at++
    else if (unit >= 0xdc80 && unit <= 0xdcff) return at
  }
  return -1
}

function decodeMalformed(bytes: Uint8Array): string {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  let out = ''
  let copied = 0
  let at = 0
  while (at < bytes.length) {
    const length = sequenceLength(bytes, at)
    if (length === 0) {
      if (at > copied) out += decoder.decode(bytes.subarray(copied, at))
      out += String.fromCharCode(ESCAPED_BYTES + bytes[at]!)
      copied = at + 1
    }
    at += length || 1
  }
  return out + decoder.decode(bytes.subarray(copied))
}

/** Length of the UTF-8 sequence at `at`, or 0 if there is none (overlong, a surrogate, beyond U+10FFFF, cut short). */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!
  if (first < 0x80) return 1
  const second = bytes[at + 1] ?? 0
  const continues = (index: number): boolean => ((bytes[index] ?? 0) & 0xc0) === 0x80
  if (first >= 0xc2 && first <= 0xdf) return continues(at + 1) ? 2 : 0
  if (first >= 0xe0 && first <= 0xef) {
    const least = first === 0xe0 ? 0xa0 : 0x80
    const most = first === 0xed ? 0x9f : 0xbf
    return second >= least && second <= most && continues(at + 2) ? 3 : 0
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const least = first === 0xf0 ? 0x90 : 0x80
    const most = first === 0xf4 ? 0x8f : 0xbf
    return second >= least && second <= most && continues(at + 2) && continues(at + 3) ? 4 : 0
  }
  return 0
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
    else if (unit >= 0xd800 && unit < 0xdc00) {
      bytes += 4
      i++
    } else bytes += unit >= 0xdc80 && unit <= 0xdcff ? 1 : 3
  }
  return text.charCodeAt(next - 1) === 10 ? bytes > MAX_LINE_BYTES : bytes >= MAX_LINE_BYTES
}
