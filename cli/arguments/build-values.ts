/** Values of `build`'s options that no other command has. */
import { UsageError } from './usage-error.ts'
import { parsePair } from './values.ts'

export type Call =
  | { readonly method: 'check'; readonly format: 'text' | 'json' | 'sarif'; readonly ignoreStatus: boolean }
  | { readonly method: 'outline' | 'targets'; readonly format: 'text' | 'json' }

/** `--call`; `undefined` is a build. @throws UsageError `OPTION_UNSUPPORTED`, `OPTION_VALUE` */
export function parseCall(text: string | undefined): Call | undefined {
  if (text === undefined) return undefined
  const [given = '', ...fields] = text.split(',')
  // Docker's own aliases.
  const method = given === '' ? 'build' : given === 'lint' ? 'check' : given
  if (method !== 'build' && method !== 'check' && method !== 'outline' && method !== 'targets')
    throw new UsageError('OPTION_UNSUPPORTED', `tbuild has no --call=${method}.`, {
      hint: '--call is build, check, outline or targets',
    })
  let format: 'text' | 'json' | 'sarif' = 'text'
  let ignoreStatus = false
  for (const field of fields) {
    const [key, value = ''] = parsePair(field, '--call')
    if (key === 'format' && (value === 'text' || value === 'json')) format = value
    else if (key === 'format' && value === 'sarif' && method === 'check') format = value
    else if (key === 'ignorestatus' && (value === 'true' || value === 'false'))
      ignoreStatus = value === 'true'
    else
      throw new UsageError('OPTION_VALUE', `--call: ${JSON.stringify(field)} is not known.`, {
        hint: `e.g. --call=${method === 'build' ? 'check' : method},format=json`,
      })
  }
  if (method === 'build') return undefined
  if (method === 'check') return { method, format, ignoreStatus }
  return { method, format: format === 'json' ? 'json' : 'text' }
}

/** `[TYPE:]KEY=VALUE`, where TYPE can be the manifest only. @throws UsageError `OPTION_UNSUPPORTED`, `OPTION_VALUE` */
export function parseAnnotation(text: string): readonly [key: string, value: string] {
  const [, types, pair = ''] = /^(?:([a-z,-]+(?:\[[^\]]*\])?):)?(.*)$/s.exec(text) ?? []
  if (types !== undefined && types !== 'manifest')
    throw new UsageError(
      'OPTION_UNSUPPORTED',
      `--annotation: only the manifest can have one, not ${types}.`,
      {
        hint: `write manifest:${pair}`,
      },
    )
  const [key, value] = parsePair(pair, '--annotation')
  if (value === undefined)
    throw new UsageError('OPTION_VALUE', `--annotation: ${JSON.stringify(text)} has no value.`, {
      hint: 'write KEY=VALUE',
    })
  return [key, value]
}

/** Docker's way to say how many processors. @throws UsageError `OPTION_VALUE` */
export function parseCpuQuota(options: {
  readonly 'cpu-quota': string | undefined
  readonly 'cpu-period': string | undefined
}): { readonly cpus?: number } {
  const quota = microseconds(options['cpu-quota'], '--cpu-quota')
  const period = microseconds(options['cpu-period'], '--cpu-period') ?? 100_000
  return quota === undefined ? {} : { cpus: quota / period }
}

function microseconds(text: string | undefined, option: string): number | undefined {
  if (text === undefined || text === '0') return undefined
  if (!/^[1-9]\d{0,9}$/.test(text))
    throw new UsageError(
      'OPTION_VALUE',
      `${option}: ${JSON.stringify(text)} is not a number of microseconds.`,
    )
  return Number(text)
}
