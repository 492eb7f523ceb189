import { UsageError } from './arguments/usage-error.ts'

/** The last moment that RFC 3339 can write. */
const MOST = Date.UTC(9999, 11, 31, 23, 59, 59) / 1000

/**
 * SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/), in seconds since 1970.
 * @throws UsageError `SOURCE_DATE_EPOCH_INVALID`
 */
export function sourceDateEpoch(given = process.env['SOURCE_DATE_EPOCH']): number | undefined {
  if (given === undefined || given === '') return undefined
  const seconds = /^\d+$/.test(given) ? Number(given) : Number.NaN
  if (!(seconds <= MOST))
    throw new UsageError('SOURCE_DATE_EPOCH_INVALID', `SOURCE_DATE_EPOCH is ${JSON.stringify(given)}.`, {
      hint: 'it is a whole number of seconds since 1970',
    })
  return seconds
}
