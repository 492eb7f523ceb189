/** Tables, sizes, ages. */

/** Columns padded to their widest cell, three spaces between; ends in a line break. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [header, ...rows]
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map(
      (line) =>
        line
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('   ')
          .trimEnd() + '\n',
    )
    .join('')
}

/** The first 12 digits of a digest. */
export function shortId(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12)
}

/** Bytes as docker prints them: powers of 1000, three digits. */
export function humanSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let unit = 0
  let value = bytes
  for (; value >= 999.5 && unit < units.length - 1; unit++) value /= 1000
  return `${unit === 0 ? value : Number(value.toPrecision(3))}${units[unit]}`
}

/** E.g. `3 hours ago`, in docker's words. `created` is RFC 3339. */
export function age(created: string | undefined, now = Date.now()): string {
  const then = created === undefined ? Number.NaN : Date.parse(created)
  if (Number.isNaN(then)) return 'N/A'
  const seconds = Math.max(0, Math.floor((now - then) / 1000))
  return `${duration(seconds)} ago`
}

const STEPS = [
  { unit: 'second', seconds: 1, upTo: 60 },
  { unit: 'minute', seconds: 60, upTo: 60 * 60 },
  { unit: 'hour', seconds: 3600, upTo: 48 * 3600 },
  { unit: 'day', seconds: 86_400, upTo: 14 * 86_400 },
  { unit: 'week', seconds: 7 * 86_400, upTo: 60 * 86_400 },
  { unit: 'month', seconds: 30 * 86_400, upTo: 730 * 86_400 },
  { unit: 'year', seconds: 365 * 86_400, upTo: Number.POSITIVE_INFINITY },
] as const

function duration(seconds: number): string {
  if (seconds < 1) return 'less than a second'
  const step = STEPS.find(({ upTo }) => seconds < upTo) ?? STEPS[6]
  const count = Math.floor(seconds / step.seconds)
  return `${count} ${step.unit}${count === 1 ? '' : 's'}`
}
