/** `--output` in docker's words. */
import { UsageError } from '../arguments/usage-error.ts'

export type Output =
  /** The final root file system. `dest` is a directory. */
  | { readonly type: 'local'; readonly dest: string }
  /** The same as a tar; `undefined` is standard output. */
  | { readonly type: 'tar'; readonly dest: string | undefined }
  /** The image as an archive. */
  | { readonly type: 'oci' | 'docker'; readonly dest: string | undefined }
  /** In the store, where every image comes to be. */
  | { readonly type: 'image'; readonly names: readonly string[]; readonly push: boolean }

const TYPES = ['local', 'tar', 'oci', 'docker', 'image', 'registry']
const KEYS: Readonly<Record<string, readonly string[]>> = {
  image: ['name', 'push'],
  registry: ['name'],
}

/** `DIR`, `-`, or `type=TYPE[,KEY=VALUE...]`. @throws UsageError `OPTION_VALUE`, `OPTION_UNSUPPORTED` */
export function parseOutput(text: string): Output {
  if (text === '-') return { type: 'tar', dest: undefined }
  if (text !== '' && !text.includes('=')) return { type: 'local', dest: text }
  const fields = new Map(csvFields(text).map((field) => pairOf(field, text)))
  const type = fields.get('type')
  if (type === undefined || !TYPES.includes(type))
    throw new UsageError(
      type === undefined ? 'OPTION_VALUE' : 'OPTION_UNSUPPORTED',
      type === undefined
        ? `--output: ${JSON.stringify(text)} has no type.`
        : `--output: there is no type ${JSON.stringify(type)}.`,
      { hint: `type= is one of ${TYPES.join(', ')}` },
    )
  const known = KEYS[type] ?? ['dest']
  const stranger = [...fields.keys()].find((key) => key !== 'type' && !known.includes(key))
  if (stranger !== undefined)
    throw new UsageError(
      'OPTION_UNSUPPORTED',
      `--output: type=${type} takes no ${JSON.stringify(stranger)}.`,
      {
        hint: `it takes ${known.join(' and ')}`,
      },
    )
  const dest = fields.get('dest')
  switch (type) {
    case 'local':
      if (dest === undefined || dest === '-' || dest === '')
        throw new UsageError('OPTION_VALUE', '--output: type=local needs a directory.', {
          hint: 'add dest=DIR',
        })
      return { type, dest }
    case 'image':
    case 'registry':
      return {
        type: 'image',
        names: fields.get('name')?.split(',') ?? [],
        push: type === 'registry' || ['true', '1', ''].includes(fields.get('push') ?? 'false'),
      }
    case 'docker':
      // Without a place it means docker's own store: here, ours.
      if (dest === undefined) return { type: 'image', names: [], push: false }
      return { type, dest: dest === '-' ? undefined : dest }
    default:
      return { type: type === 'oci' ? 'oci' : 'tar', dest: dest === '-' ? undefined : dest }
  }
}

/** Does it write to standard output? */
export function takesStdout(output: Output): boolean {
  return output.type !== 'image' && output.dest === undefined
}

/** Fields between commas; one in double quotes may hold commas, and `""` in it is a quote (RFC 4180). */
export function csvFields(text: string): string[] {
  const fields = text.match(/(?:"(?:[^"]|"")*"|[^,"])+/g) ?? []
  return fields.map((field) =>
    field.startsWith('"') && field.endsWith('"') ? field.slice(1, -1).replaceAll('""', '"') : field,
  )
}

function pairOf(field: string, text: string): readonly [key: string, value: string] {
  const equals = field.indexOf('=')
  if (equals < 1)
    throw new UsageError('OPTION_VALUE', `--output: ${JSON.stringify(text)} is not KEY=VALUE.`, {
      hint: 'e.g. type=oci,dest=app.tar, or a directory',
    })
  return [field.slice(0, equals).trim().toLowerCase(), field.slice(equals + 1)]
}
