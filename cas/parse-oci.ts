/**
 * Manifests, indexes and configs as they come from registries and archives: bytes that anybody may have written, narrowed field by field
 * into the types of `oci.ts`. Docker's schema 2 is the same shape with other media types, and passes. Fields that we do not know are
 * left out of the result; the bytes themselves are stored unchanged, so that no digest moves.
 *
 * As Go reads them: `null` is an absent field, and a string stands for a list of one where docker's configs have it so.
 */
import { TbuildError } from '../errors.ts'
import { parseJson } from './json.ts'
import {
  MEDIA,
  type BlobDigest,
  type ContainerConfig,
  type Descriptor,
  type DiffId,
  type Healthcheck,
  type HistoryEntry,
  type ImageConfig,
  type ImageIndex,
  type Manifest,
  type Platform,
} from './oci.ts'

/** Bytes of a manifest or an index: what distribution-spec asks registries to take. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024
/** Bytes of a config. Real ones stay below 100 KB. */
export const MAX_CONFIG_BYTES = 8 * 1024 * 1024

/** Throws `MANIFEST_INVALID`, which names the field. */
export function parseManifest(bytes: Uint8Array): Manifest {
  const top = document('MANIFEST_INVALID', 'the image manifest', bytes, MAX_MANIFEST_BYTES)
  checkSchema(top, [MEDIA.manifest, MEDIA.dockerManifest])
  // A document that is both could be taken for two things by two readers (CVE-2021-41190).
  if (top.has('manifests')) throw top.error('manifests', 'belongs in an index; this is read as an image')
  return compact<Manifest>({
    schemaVersion: 2,
    mediaType: top.optional('mediaType', text),
    config: top.required('config', descriptor),
    layers: top.required('layers', listOf(descriptor)),
    annotations: top.optional('annotations', texts),
  })
}

/** Throws `MANIFEST_INVALID`, which names the field. */
export function parseIndex(bytes: Uint8Array): ImageIndex {
  const top = document('MANIFEST_INVALID', 'the image index', bytes, MAX_MANIFEST_BYTES)
  checkSchema(top, [MEDIA.index, MEDIA.dockerIndex])
  for (const field of ['config', 'layers']) {
    if (top.has(field)) throw top.error(field, 'belongs in an image manifest; this is read as an index')
  }
  return compact<ImageIndex>({
    schemaVersion: 2,
    mediaType: top.optional('mediaType', text),
    manifests: top.required('manifests', listOf(descriptor)),
    annotations: top.optional('annotations', texts),
  })
}

/** Throws `CONFIG_INVALID`, which names the field. */
export function parseConfig(bytes: Uint8Array): ImageConfig {
  const top = document('CONFIG_INVALID', 'the image config', bytes, MAX_CONFIG_BYTES)
  return compact<ImageConfig>({
    created: top.optional('created', text),
    author: top.optional('author', text),
    architecture: top.required('architecture', text),
    os: top.required('os', text),
    variant: top.optional('variant', text),
    'os.version': top.optional('os.version', text),
    config: top.optional('config', containerConfig),
    rootfs: top.required('rootfs', rootfs),
    history: top.optional('history', listOf(historyEntry)),
  })
}

/** A manifest and its config must speak of the same layers. Throws `CONFIG_INVALID`. */
export function assertSameLayers(manifest: Manifest, config: ImageConfig): void {
  const named = manifest.layers.length
  const diffIds = config.rootfs.diff_ids.length
  if (named === diffIds) return
  throw new TbuildError(
    'CONFIG_INVALID',
    `the image config: rootfs.diff_ids has ${diffIds} entries, but the manifest has ${named} layers`,
  )
}

/** A value and where it stands. `at` is empty at the top. */
interface Value {
  readonly value: unknown
  readonly at: string
  readonly invalid: (at: string, why: string) => TbuildError
}

type Narrow<T> = (value: Value) => T

/** An object whose fields are read one by one. */
interface Fields {
  has(key: string): boolean
  required<T>(key: string, narrow: Narrow<T>): T
  /** `null` counts as absent. */
  optional<T>(key: string, narrow: Narrow<T>): T | undefined
  error(key: string, why: string): TbuildError
}

function document(code: string, what: string, bytes: Uint8Array, limit: number): Fields {
  const invalid = (at: string, why: string): TbuildError =>
    new TbuildError(code, `${what}: ${at === '' ? 'it' : at} ${why}`)
  if (bytes.length > limit) throw invalid('', `has ${bytes.length} bytes, at most ${limit} are read`)
  let value: unknown
  try {
    value = parseJson(bytes)
  } catch {
    throw invalid('', 'is not JSON')
  }
  return fields({ value, at: '', invalid })
}

function checkSchema(top: Fields, types: readonly string[]): void {
  const version = top.required('schemaVersion', ({ value }) => value)
  if (version !== 2) throw top.error('schemaVersion', `is ${shown(version)}, only 2 is supported`)
  const mediaType = top.optional('mediaType', text)
  if (mediaType !== undefined && mediaType !== '' && !types.includes(mediaType)) {
    throw top.error('mediaType', `is ${shown(mediaType)}, expected ${types.join(' or ')}`)
  }
}

function fields({ value, at, invalid }: Value): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(at, `must be an object, but is ${shown(value)}`)
  }
  const object = value as Readonly<Record<string, unknown>>
  const path = (key: string): string => (at === '' ? key : `${at}.${key}`)
  const own = (key: string): unknown => (Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined)
  return {
    has: (key) => own(key) !== undefined,
    required(key, narrow) {
      const inner = own(key)
      if (inner === undefined) throw invalid(path(key), 'is missing')
      return narrow({ value: inner, at: path(key), invalid })
    },
    optional(key, narrow) {
      const inner = own(key)
      return inner === undefined ? undefined : narrow({ value: inner, at: path(key), invalid })
    },
    error: (key, why) => invalid(path(key), why),
  }
}

const text: Narrow<string> = ({ value, at, invalid }) => {
  if (typeof value !== 'string') throw invalid(at, `must be a string, but is ${shown(value)}`)
  return value
}

const flag: Narrow<boolean> = ({ value, at, invalid }) => {
  if (typeof value !== 'boolean') throw invalid(at, `must be true or false, but is ${shown(value)}`)
  return value
}

const integer: Narrow<number> = ({ value, at, invalid }) => {
  if (!Number.isSafeInteger(value)) throw invalid(at, `must be a whole number, but is ${shown(value)}`)
  return value as number
}

const count: Narrow<number> = (value) => {
  const number = integer(value)
  if (number < 0) throw value.invalid(value.at, `must not be negative, but is ${number}`)
  return number
}

const digest: Narrow<BlobDigest & DiffId> = (value) => {
  const found = text(value)
  if (!/^sha256:[a-f0-9]{64}$/.test(found)) {
    throw value.invalid(
      value.at,
      `must be "sha256:" and 64 lower-case hex digits (no other algorithm is supported), but is ${shown(found)}`,
    )
  }
  return found as BlobDigest & DiffId
}

function listOf<T>(narrow: Narrow<T>): Narrow<readonly T[]> {
  return ({ value, at, invalid }) => {
    if (!Array.isArray(value)) throw invalid(at, `must be a list, but is ${shown(value)}`)
    return value.map((entry: unknown, i) => narrow({ value: entry, at: `${at}[${i}]`, invalid }))
  }
}

/** Docker reads a lone string as a list of one (its `strslice`). */
const commandLine: Narrow<readonly string[]> = (value) =>
  typeof value.value === 'string' ? [value.value] : listOf(text)(value)

function mapOf<T>(narrow: Narrow<T>): Narrow<Readonly<Record<string, T>>> {
  return (value) => {
    const object = fields(value)
    // fromEntries defines properties, so that a key `__proto__` stays a key.
    return Object.fromEntries(
      Object.keys(value.value as object).map((key) => [key, object.required(key, narrow)]),
    )
  }
}

const texts = mapOf(text)

/** Docker's sets: keys that count, each with an empty object (or, from other writers, `null`). */
const keys: Narrow<Readonly<Record<string, object>>> = (value) => {
  fields(value)
  return Object.fromEntries(Object.keys(value.value as object).map((key) => [key, {}]))
}

const platform: Narrow<Platform> = (value) => {
  const of = fields(value)
  return compact<Platform>({
    os: of.required('os', text),
    architecture: of.required('architecture', text),
    variant: of.optional('variant', text),
    'os.version': of.optional('os.version', text),
  })
}

const descriptor: Narrow<Descriptor> = (value) => {
  const of = fields(value)
  return compact<Descriptor>({
    mediaType: of.required('mediaType', text),
    digest: of.required('digest', digest),
    size: of.required('size', count),
    annotations: of.optional('annotations', texts),
    platform: of.optional('platform', platform),
    urls: of.optional('urls', listOf(text)),
  })
}

const healthcheck: Narrow<Healthcheck> = (value) => {
  const of = fields(value)
  return compact<Healthcheck>({
    Test: of.optional('Test', listOf(text)),
    Interval: of.optional('Interval', integer),
    Timeout: of.optional('Timeout', integer),
    StartPeriod: of.optional('StartPeriod', integer),
    StartInterval: of.optional('StartInterval', integer),
    Retries: of.optional('Retries', integer),
  })
}

const containerConfig: Narrow<ContainerConfig> = (value) => {
  const of = fields(value)
  return compact<ContainerConfig>({
    User: of.optional('User', text),
    ExposedPorts: of.optional('ExposedPorts', keys),
    Env: of.optional('Env', listOf(text)),
    Entrypoint: of.optional('Entrypoint', commandLine),
    Cmd: of.optional('Cmd', commandLine),
    Volumes: of.optional('Volumes', keys),
    WorkingDir: of.optional('WorkingDir', text),
    Labels: of.optional('Labels', texts),
    StopSignal: of.optional('StopSignal', text),
    ArgsEscaped: of.optional('ArgsEscaped', flag),
    Healthcheck: of.optional('Healthcheck', healthcheck),
    Shell: of.optional('Shell', commandLine),
    OnBuild: of.optional('OnBuild', listOf(text)),
  })
}

const rootfs: Narrow<ImageConfig['rootfs']> = (value) => {
  const of = fields(value)
  const type = of.required('type', text)
  if (type !== 'layers') throw of.error('type', `must be "layers", but is ${shown(type)}`)
  // `null` is what Go writes for an image without layers.
  return { type, diff_ids: of.optional('diff_ids', listOf(digest)) ?? [] }
}

const historyEntry: Narrow<HistoryEntry> = (value) => {
  const of = fields(value)
  return compact<HistoryEntry>({
    created: of.optional('created', text),
    created_by: of.optional('created_by', text),
    comment: of.optional('comment', text),
    author: of.optional('author', text),
    empty_layer: of.optional('empty_layer', flag),
  })
}

/** Drops what is undefined: an absent field is absent. */
function compact<T extends object>(value: { readonly [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== undefined)) as T
}

/** Short, and safe for a terminal: JSON escapes control characters below U+0080, the rest is dropped. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object' && value !== null) return 'an object'
  const json = JSON.stringify(value).replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, '?')
  return json.length > 100 ? `${json.slice(0, 100)}...` : json
}
