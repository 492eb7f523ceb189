/** `--secret` in docker's words. */
import { accessSync, constants, statSync } from 'node:fs'
import { resolve } from 'node:path'
import type { SecretSource } from '../builder/index.ts'
import { UsageError } from './arguments/usage-error.ts'
import { csvFields } from './outputs/parse.ts'

const HINT = 'write id=NAME,src=FILE or id=NAME,env=VARIABLE'

/** By id; of several of one id the last. @throws UsageError `OPTION_VALUE` */
export function parseSecrets(texts: readonly string[]): ReadonlyMap<string, SecretSource> {
  return new Map(texts.map(parseSecret))
}

/** `id=NAME[,type=file|env][,src=FILE][,env=VARIABLE]`. With an id alone it is the variable of that name if there is one, else the file. */
function parseSecret(text: string): readonly [id: string, source: SecretSource] {
  const fields = new Map(csvFields(text).map((field) => pairOf(field, text)))
  const stranger = [...fields.keys()].find((key) => !['id', 'type', 'src', 'source', 'env'].includes(key))
  if (stranger !== undefined) throw wrong(text, `has an unknown key ${JSON.stringify(stranger)}`)
  const id = fields.get('id') ?? ''
  if (id === '') throw wrong(text, 'has no id')
  const type = fields.get('type')
  if (type !== undefined && type !== 'file' && type !== 'env')
    throw wrong(text, `has an unknown type ${JSON.stringify(type)}`, 'type= is file or env')
  const source = fields.get('src') ?? fields.get('source') ?? ''
  const given = fields.get('env') ?? ''
  const isVariable = type === 'env' || given !== '' || (source === '' && process.env[id] !== undefined)
  if (isVariable) return [id, { env: given || source || id }]
  const file = resolve(source || id)
  refuseUnreadable(file, text)
  return [id, { file }]
}

/** Now, and not when a RUN wants it, an hour later. */
function refuseUnreadable(file: string, text: string): void {
  try {
    accessSync(file, constants.R_OK)
  } catch {
    throw wrong(text, `names a file that cannot be read: ${file}`)
  }
  if (statSync(file).isDirectory()) throw wrong(text, `names a directory: ${file}`)
}

function pairOf(field: string, text: string): readonly [key: string, value: string] {
  const equals = field.indexOf('=')
  if (equals < 1) throw wrong(text, `has ${JSON.stringify(field)}, which is not KEY=VALUE`)
  return [field.slice(0, equals).trim().toLowerCase(), field.slice(equals + 1)]
}

function wrong(text: string, what: string, hint = HINT): UsageError {
  return new UsageError('OPTION_VALUE', `--secret: ${JSON.stringify(text)} ${what}.`, { hint })
}
