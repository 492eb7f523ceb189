/** Values of options: sizes, counts, `KEY=VALUE`. */
import type { Limits } from '../../builder/index.ts'
import { UsageError } from './usage-error.ts'

const UNITS: Readonly<Record<string, number>> = {
  '': 1,
  b: 1,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
}

/** Docker's sizes: `64m`, `1.5g`, `512KiB`; a bare number is bytes. @throws UsageError `OPTION_VALUE` */
export function parseSize(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?$/i.exec(text)
  const bytes = Math.floor(Number(match?.[1]) * (UNITS[match?.[2]?.toLowerCase() ?? ''] ?? Number.NaN))
  if (!Number.isSafeInteger(bytes) || bytes <= 0)
    throw new UsageError('OPTION_VALUE', `${option}: ${JSON.stringify(text)} is not a size.`, {
      hint: 'a size is a number with a unit: b, k, m, g, e.g. 64m',
    })
  return bytes
}

/** @throws UsageError `OPTION_VALUE` */
export function parseLimits(options: {
  readonly memory: string | undefined
  readonly cpus: string | undefined
  readonly 'pids-limit': string | undefined
}): Limits {
  const { memory, cpus, 'pids-limit': pids } = options
  return {
    ...(memory === undefined ? {} : { memoryBytes: parseSize(memory, '--memory') }),
    ...(cpus === undefined ? {} : { cpus: parsePositive(cpus, '--cpus') }),
    ...(pids === undefined ? {} : { pids: parseWhole(pids, '--pids-limit') }),
  }
}

function parsePositive(text: string, option: string): number {
  const value = /^\d*\.?\d+$/.test(text) ? Number(text) : Number.NaN
  if (!(value > 0))
    throw new UsageError('OPTION_VALUE', `${option}: ${JSON.stringify(text)} is not a number above 0.`)
  return value
}

function parseWhole(text: string, option: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : 0
  if (!Number.isSafeInteger(value) || value === 0)
    throw new UsageError('OPTION_VALUE', `${option}: ${JSON.stringify(text)} is not a whole number above 0.`)
  return value
}

/** `KEY=VALUE`; the value is `undefined` when there is no `=`. @throws UsageError `OPTION_VALUE` */
export function parsePair(text: string, option: string): readonly [key: string, value: string | undefined] {
  const equals = text.indexOf('=')
  const key = equals < 0 ? text : text.slice(0, equals)
  if (key === '')
    throw new UsageError('OPTION_VALUE', `${option}: ${JSON.stringify(text)} has no name before the "=".`)
  return [key, equals < 0 ? undefined : text.slice(equals + 1)]
}
