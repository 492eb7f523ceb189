/** Numbers in tar headers: octal text, base-256 (GNU), and PAX decimals. */

/** The field's value, or `undefined` when it is not a number or beyond 2^53. */
export function parseNumeric(block: Buffer, start: number, length: number): number | undefined {
  const first = block[start] ?? 0
  return (first & 0x80) !== 0 ? parseBase256(block, start, length) : parseOctal(block, start, length)
}

/** Padding of spaces and NULs on both sides is ignored; an empty field is 0; what follows a NUL is ignored. */
export function parseOctal(block: Buffer, start: number, length: number): number | undefined {
  let i = start
  let end = start + length
  while (i < end && isPadding(block[i] ?? 0)) i++
  while (end > i && isPadding(block[end - 1] ?? 0)) end--
  let value = 0
  for (; i < end; i++) {
    const digit = (block[i] ?? 0) - 48
    if (digit === -48) break
    if (digit < 0 || digit > 7) return undefined
    value = value * 8 + digit
  }
  return Number.isSafeInteger(value) ? value : undefined
}

function isPadding(byte: number): boolean {
  return byte === 32 || byte === 0
}

/** Two's complement, big-endian; the top bit marks the form, the next one is the sign. */
function parseBase256(block: Buffer, start: number, length: number): number | undefined {
  const negative = ((block[start] ?? 0) & 0x40) !== 0
  const invert = negative ? 0xff : 0
  let value = 0
  for (let i = 0; i < length; i++) {
    let byte = (block[start + i] ?? 0) ^ invert
    if (i === 0) byte &= 0x7f
    value = value * 256 + byte
    if (!Number.isSafeInteger(value)) return undefined
  }
  return negative ? -1 - value : value
}

const decimal = /^[+-]?\d{1,19}$/

/** A whole number of a PAX record. */
export function parseDecimal(text: string): number | undefined {
  if (!decimal.test(text)) return undefined
  const value = Number(text)
  return Number.isSafeInteger(value) ? value : undefined
}

const time = /^([+-]?)(\d{1,16})(?:\.(\d*))?$/

/** A PAX time in seconds with an optional fraction (cut at nine digits) as nanoseconds; "-1.5" is 1.5 s before 1970. */
export function parsePaxTime(text: string): bigint | undefined {
  const match = time.exec(text)
  if (match === null) return undefined
  const [, sign, seconds = '', fraction = ''] = match
  const ns = BigInt(seconds) * 1_000_000_000n + BigInt(fraction.slice(0, 9).padEnd(9, '0'))
  return sign === '-' ? -ns : ns
}

/** As `parsePaxTime` reads it; no fraction when it is zero, no trailing zeros. */
export function formatPaxTime(ns: bigint): string {
  const sign = ns < 0n ? '-' : ''
  const digits = (ns < 0n ? -ns : ns).toString().padStart(10, '0')
  const fraction = digits.slice(-9).replace(/0+$/, '')
  return `${sign}${digits.slice(0, -9)}${fraction === '' ? '' : `.${fraction}`}`
}
