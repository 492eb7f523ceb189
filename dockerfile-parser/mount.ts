/** `RUN --mount` and `RUN --device`: comma-separated fields, read as BuildKit reads them. */
import { splitCsv, type CsvField } from './csv.ts'
import { expandWord } from './expand.ts'
import { errorAt, locate, subrange } from './source.ts'
import { suggest } from './suggest.ts'
import type { EscapeToken, Word } from './types.ts'

export type MountType = 'bind' | 'cache' | 'tmpfs' | 'secret' | 'ssh'

/** As written, variables expanded; a key that was not given is undefined, and its default is the builder's to fill in. */
export interface Mount {
  readonly type: MountType
  readonly from?: string | undefined
  readonly source?: string | undefined
  /** Relative to the working directory, or absolute. */
  readonly target?: string | undefined
  /** Given, or by the type: a cache or tmpfs can be written, the others cannot. */
  readonly readOnly: boolean
  /** tmpfs only: bytes. */
  readonly size?: number | undefined
  readonly id?: string | undefined
  /** cache only. */
  readonly sharing?: 'shared' | 'private' | 'locked' | undefined
  /** secret and ssh only: the build fails without it. */
  readonly required: boolean
  /** secret only: the variable that gets it; empty for one named like the secret. */
  readonly env?: string | undefined
  /** Permission bits, and owners: secret, ssh and cache only. */
  readonly mode?: number | undefined
  readonly uid?: number | undefined
  readonly gid?: number | undefined
}

export interface Device {
  readonly name: string
  readonly required: boolean
}

/** What is needed to show a place. */
export interface Source {
  readonly file: string
  readonly source: string
}

const TYPES: readonly MountType[] = ['bind', 'cache', 'tmpfs', 'secret', 'ssh']
const SHARING = ['shared', 'private', 'locked'] as const
const KEYS = [
  'type',
  'from',
  'source',
  'src',
  'target',
  'dst',
  'destination',
  'readonly',
  'ro',
  'readwrite',
  'rw',
  'required',
  'size',
  'id',
  'sharing',
  'mode',
  'uid',
  'gid',
  'env',
]

/**
 * A mount, its values expanded. Order counts, as in BuildKit: `required` and `size` are for the type that was given before them.
 *
 * Throws DockerfileError: MOUNT_SYNTAX, MOUNT_TYPE, MOUNT_KEY, MOUNT_VALUE, MOUNT_CONFLICT, and those of `expand`.
 */
export function parseMount(
  tree: Source & { readonly escape: EscapeToken },
  word: Word,
  lookup: (name: string) => string | undefined,
): Mount {
  const mount: { -readonly [K in keyof Mount]: Mount[K] } = { type: 'bind', readOnly: true, required: false }
  let readOnly: boolean | undefined
  for (const field of fieldsOf(tree, word)) {
    const place = subrange(tree, word, field.start, field.end)
    const value =
      field.value === undefined
        ? undefined
        : locate(tree, place, () => expandWord(field.value!, { lookup, escape: tree.escape }))
    const given = { tree, place, field, value, type: mount.type }
    switch (field.key) {
      case 'readonly':
      case 'ro':
        readOnly = flagOf(given)
        break
      case 'readwrite':
      case 'rw':
        readOnly = !flagOf(given)
        break
      case 'required':
        onlyFor(given, ['secret', 'ssh'])
        mount.required = flagOf(given)
        break
      case 'type':
        mount.type = oneOf(given, TYPES, 'MOUNT_TYPE')
        break
      case 'from':
        mount.from = textOf(given)
        break
      case 'source':
      case 'src':
        mount.source = textOf(given)
        break
      case 'target':
      case 'dst':
      case 'destination':
        mount.target = textOf(given)
        break
      case 'size':
        textOf(given)
        onlyFor(given, ['tmpfs'])
        mount.size = sizeOf(given)
        break
      case 'id':
        mount.id = textOf(given)
        break
      case 'sharing':
        mount.sharing = oneOf(given, SHARING, 'MOUNT_VALUE')
        break
      case 'mode':
        mount.mode = numberOf(given, 8)
        break
      case 'uid':
      case 'gid':
        mount[field.key] = numberOf(given, 10)
        break
      case 'env':
        mount.env = textOf(given)
        break
      default:
        throw unknownKey(given)
    }
  }
  mount.readOnly = readOnly ?? (mount.type !== 'cache' && mount.type !== 'tmpfs')
  refuseConflicts(tree, word, mount)
  return mount
}

/**
 * What can be said before variables are known: the fields can be told apart, and `from` has no variable.
 *
 * Throws DockerfileError: MOUNT_SYNTAX, MOUNT_FROM_VARIABLE.
 */
export function checkMountSyntax(tree: Source, word: Word): void {
  for (const { key, value, start, end } of fieldsOf(tree, word)) {
    const dollar = key === 'from' ? (value?.indexOf('$') ?? -1) : -1
    if (dollar < 0 || dollar === value!.length - 1) continue
    throw errorAt(
      tree,
      subrange(tree, word, start, end),
      'MOUNT_FROM_VARIABLE',
      'from= takes no variables',
      'begin a stage with FROM and the variable (its ARG before the first FROM), and name that stage here',
    )
  }
}

/** Throws DockerfileError: DEVICE_SYNTAX. */
export function parseDevice(tree: Source, word: Word): Device {
  let name = ''
  let required = false
  for (const field of fieldsOf(tree, word)) {
    const { key, value, text, start, end } = field
    const wrong = (message: string): Error =>
      errorAt(
        tree,
        subrange(tree, word, start, end),
        'DEVICE_SYNTAX',
        message,
        'write --device=name, or --device=name,required',
      )
    if (key === 'required') {
      const flag = value === undefined ? true : parseBool(value)
      if (flag === undefined) throw wrong(`required is true or false, not '${value!.slice(0, 60)}'`)
      required = flag
    } else if (key === 'name' && value !== undefined) {
      if (name !== '') throw wrong(`the device is already named '${name.slice(0, 60)}'`)
      name = value
    } else if (name === '') name = text
    else throw wrong(`'${text.slice(0, 60)}' is not known about a device`)
  }
  return { name, required }
}

/** Go `strconv.ParseBool`. */
export function parseBool(text: string): boolean | undefined {
  if (['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text)) return true
  return ['0', 'f', 'F', 'FALSE', 'false', 'False'].includes(text) ? false : undefined
}

interface Field extends CsvField {
  /** In lower case. */
  readonly key: string
  readonly value: string | undefined
}

function fieldsOf(tree: Source, word: Word): readonly Field[] {
  const fields = splitCsv(word.raw)
  if (typeof fields === 'string')
    throw errorAt(
      tree,
      word.range,
      'MOUNT_SYNTAX',
      `the fields cannot be told apart: ${fields}`,
      'write key=value,key=value; a field with a comma in it stands in double quotes as a whole',
    )
  return fields.map((field) => {
    const equals = field.text.indexOf('=')
    return {
      ...field,
      key: (equals < 0 ? field.text : field.text.slice(0, equals)).toLowerCase(),
      value: equals < 0 ? undefined : field.text.slice(equals + 1),
    }
  })
}

interface Given {
  readonly tree: Source
  readonly place: Word['range']
  readonly field: Field
  readonly value: string | undefined
  readonly type: MountType
}

function wrongValue({ tree, place, field, value }: Given, hint: string, code = 'MOUNT_VALUE'): Error {
  return errorAt(tree, place, code, `${field.key} cannot be '${(value ?? '').slice(0, 60)}'`, hint)
}

function textOf({ tree, place, field, value }: Given): string {
  if (value !== undefined) return value
  throw errorAt(
    tree,
    place,
    'MOUNT_VALUE',
    `${field.key.slice(0, 60)} needs a value`,
    `write ${field.key.slice(0, 60)}=VALUE`,
  )
}

function flagOf(given: Given): boolean {
  if (given.value === undefined) return true
  const flag = parseBool(given.value)
  if (flag === undefined) throw wrongValue(given, 'it is true or false')
  return flag
}

function oneOf<T extends string>(given: Given, values: readonly T[], code: string): T {
  const text = textOf(given).toLowerCase()
  const found = values.find((value) => value === text)
  if (found !== undefined) return found
  const meant = suggest(text, values)
  throw wrongValue(
    given,
    meant === undefined ? `it is one of ${values.join(', ')}` : `did you mean ${meant}?`,
    code,
  )
}

/** Go `strconv.ParseUint` with a base and 32 bits. */
function numberOf(given: Given, base: 8 | 10): number {
  const text = textOf(given)
  const digits = base === 8 ? /^[0-7]+$/ : /^[0-9]+$/
  const value = digits.test(text) ? Number.parseInt(text, base) : Number.NaN
  if (!(value < 2 ** 32))
    throw wrongValue(given, base === 8 ? 'write an octal number, as 0644' : 'write a number')
  return value
}

/** docker/go-units `RAMInBytes`: 64m, 1.5GiB, 1024. */
function sizeOf(given: Given): number {
  const match = /^(\d+\.?\d*|\.\d+) ?(?:([kmgtp])(?:i?b)?|b)?$/i.exec(given.value!)
  if (match === null) throw wrongValue(given, 'write a number of bytes, or a size as 64m or 1g')
  const power = match[2] === undefined ? 0 : 'kmgtp'.indexOf(match[2].toLowerCase()) + 1
  return Math.trunc(Number(match[1]) * 1024 ** power)
}

function onlyFor({ tree, place, field, type }: Given, types: readonly MountType[]): void {
  if (types.includes(type)) return
  throw errorAt(
    tree,
    place,
    'MOUNT_KEY',
    `${field.key} is not for a mount of type ${type}`,
    `it is for type=${types.join(' and type=')}, which has to come before it`,
  )
}

function unknownKey({ tree, place, field, value }: Given): Error {
  const shown = field.key.slice(0, 60)
  const meant = suggest(field.key, KEYS)
  return errorAt(
    tree,
    place,
    'MOUNT_KEY',
    value === undefined ? `'${shown}' is not key=value` : `a mount has no ${shown}`,
    meant === undefined ? `it takes ${KEYS.join(', ')}` : `did you mean ${meant}?`,
  )
}

function refuseConflicts(tree: Source, word: Word, mount: Mount): void {
  const refuse = (message: string, hint: string): Error =>
    errorAt(tree, word.range, 'MOUNT_CONFLICT', message, hint)
  const { type } = mount
  if (type === 'bind' || type === 'tmpfs')
    for (const key of ['mode', 'uid', 'gid'] as const)
      if (mount[key] !== undefined)
        throw refuse(`${key} is not for a mount of type ${type}`, 'it is for secret, ssh and cache')
  if (type === 'secret') {
    if (mount.from) throw refuse('a secret has no from', 'a secret comes from --secret id=NAME')
    if (mount.sharing !== undefined)
      throw refuse('a secret has no sharing', 'leave sharing out; it is for caches')
    if (!mount.source && !mount.target && !mount.id)
      throw refuse('a secret needs an id or a target', 'write --mount=type=secret,id=NAME')
    if (mount.source && mount.id) throw refuse('a secret has a source or an id, not both', 'leave one out')
  }
  if (mount.sharing !== undefined && type !== 'cache')
    throw refuse(`sharing is not for a mount of type ${type}`, 'it is for type=cache')
}
