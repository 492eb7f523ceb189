/** Ages, as docker's `until` filter has them. */
import { UsageError } from './usage-error.ts'

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3600_000,
  d: 24 * 3600_000,
}

/**
 * Milliseconds, of `24h`, `1h30m`, `7d`; or how long ago a date was (RFC 3339, or seconds since 1970, as docker has them).
 * @throws UsageError `OPTION_VALUE`
 */
export function parseAge(text: string, option: string, now: number = Date.now()): number {
  if (/^(?:\d+(?:\.\d+)?(?:ms|[smhd]))+$/.test(text)) {
    return [...text.matchAll(/(\d+(?:\.\d+)?)(ms|[smhd])/g)].reduce(
      (sum, [, count, unit = '']) => sum + Number(count) * (UNITS_MS[unit] ?? 0),
      0,
    )
  }
  const date = /^\d+$/.test(text)
    ? Number(text) * 1000
    : /^\d{4}-\d\d-\d\d/.test(text)
      ? Date.parse(text)
      : Number.NaN
  if (!Number.isNaN(date)) return Math.max(0, now - date)
  throw new UsageError('OPTION_VALUE', `${option}: ${JSON.stringify(text)} is not an age.`, {
    hint: 'an age is a number with a unit, e.g. 30m, 24h or 7d; or a date, e.g. 2026-01-31',
  })
}
