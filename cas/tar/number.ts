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
  if (ns < 0n) return `-${formatPaxTime(-ns)}`
  const { seconds, nanoseconds } = splitTime(ns)
  // Not every second that a record may name is one that a number can.
  const whole = Number.isSafeInteger(seconds) ? String(seconds) : String(ns / BILLION)
  if (nanoseconds === 0) return whole
  let fraction = nanoseconds
  let digits = 9
  for (; fraction % 10 === 0; digits--) fraction /= 10
  return `${whole}.${String(fraction).padStart(digits, '0')}`
}

const BILLION = 1_000_000_000n
const one = new BigInt64Array(1)
const [LOW, HIGH] = [0, 1]
const halves = new Uint32Array(one.buffer)
/** 2^32 ns. */
const HALF_SECONDS = 4
const HALF_NANOSECONDS = 294_967_296

export interface SplitTime {
  /** Rounded down. */
  readonly seconds: number
  /** 0 to 999,999,999. */
  readonly nanoseconds: number
}

/** A time in nanoseconds. Done in numbers: divisions of BigInts would take longer than all else that a header needs. */
export function splitTime(ns: bigint): SplitTime {
  one[0] = ns
  const high = halves[HIGH] ?? 0
  // Of other times it would be no time of this century, or nothing at all.
  if (one[0] !== ns || high >= 2 ** 31) return splitSlowly(ns)
  // high * 2^32 ns, of which the part below a second is more than a number can say at once.
  const upper = (high >>> 16) * HALF_NANOSECONDS
  const upperSeconds = Math.floor(upper / 1e9)
  const lower =
    (upper - upperSeconds * 1e9) * 65_536 + (high & 0xffff) * HALF_NANOSECONDS + (halves[LOW] ?? 0)
  const lowerSeconds = Math.floor(lower / 1e9)
  return {
    seconds: high * HALF_SECONDS + upperSeconds * 65_536 + lowerSeconds,
    nanoseconds: lower - lowerSeconds * 1e9,
  }
}

function splitSlowly(ns: bigint): SplitTime {
  const nanoseconds = ((ns % BILLION) + BILLION) % BILLION
  return { seconds: Number((ns - nanoseconds) / BILLION), nanoseconds: Number(nanoseconds) }
}
