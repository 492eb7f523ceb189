const UNITS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
}

/** Go `time.ParseDuration`: `1h30m`, `1.5s`, `-2ms`, `0`. Nanoseconds, or undefined if it is not a duration. */
export function parseDuration(text: string): number | undefined {
  const negative = text.startsWith('-')
  const body = negative || text.startsWith('+') ? text.slice(1) : text
  if (body === '0') return 0
  if (body === '') return undefined
  let total = 0
  let at = 0
  while (at < body.length) {
    const whole = digitsAt(body, at)
    at += whole.length
    let fraction = ''
    if (body[at] === '.') {
      fraction = digitsAt(body, at + 1)
      at += 1 + fraction.length
    }
    if (whole === '' && fraction === '') return undefined
    const start = at
    while (at < body.length && body[at] !== '.' && !isDigit(body.charCodeAt(at))) at++
    const name = body.slice(start, at)
    const unit = Object.hasOwn(UNITS, name) ? UNITS[name] : undefined
    if (unit === undefined) return undefined
    total += Number(whole) * unit
    if (fraction !== '') total += Math.trunc(Number(`0.${fraction}`) * unit)
    // Go counts in 63 bits.
    if (total > 2 ** 63) return undefined
  }
  return negative ? -total : total
}

function digitsAt(text: string, start: number): string {
  let end = start
  while (end < text.length && isDigit(text.charCodeAt(end))) end++
  return text.slice(start, end)
}

function isDigit(unit: number): boolean {
  return unit >= 48 && unit <= 57
}
