import { TbuildError } from '../errors.ts'

/** A name of an image in a registry. */
export interface Reference {
  /** `host[:port]`; `docker.io` when the text names none. */
  readonly registry: string
  /** Path in the registry, e.g. `library/app`. */
  readonly repository: string
  readonly tag?: string
  /** `sha256:` and 64 lower-case hex digits. */
  readonly digest?: string
}

/** The name that a text without a host means. */
export const DEFAULT_REGISTRY = 'docker.io'

// The grammar of distribution/reference. The classes around each separator are disjoint, so matching is linear.
const DOMAIN_PART = '(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])'
const DOMAIN = new RegExp(`^(?:${DOMAIN_PART}(?:\\.${DOMAIN_PART})*|\\[[a-fA-F0-9:]+\\])(?::([0-9]+))?$`)
const PATH_PART = '[a-z0-9]+(?:(?:\\.|__?|-+)[a-z0-9]+)*'
const REPOSITORY = new RegExp(`^${PATH_PART}(?:/${PATH_PART})*$`)
const TAG = /^[\w][\w.-]{0,127}$/
const SHA256 = /^sha256:[a-f0-9]{64}$/
const MAX_TEXT = 1024
const MAX_REPOSITORY = 255

/**
 * Reads `[HOST[:PORT]/]PATH[:TAG][@DIGEST]` by docker's rules: `docker.io` and `library/` are filled in, and `latest` when
 * there is neither tag nor digest. Throws `REFERENCE_INVALID`.
 */
export function parseReference(text: string): Reference {
  if (text === '') throw invalid(text, 'it is empty')
  if (text.length > MAX_TEXT)
    throw invalid(`${text.slice(0, 40)}...`, `it is longer than ${MAX_TEXT} characters`)
  if (/^[a-z]+:\/\//i.test(text)) {
    throw invalid(text, 'it is an address', `leave ${text.slice(0, text.indexOf('/') + 2)} out`)
  }
  if (/^[a-f0-9]{64}$/.test(text))
    throw invalid(text, 'it looks like an image ID', 'a name may not be 64 hex digits')

  const { name, digest } = splitDigest(text)
  const { path, tag } = splitTag(name, text)
  const { registry, repository } = splitRegistry(path, text)
  checkRepository(repository, text)
  const wanted = tag ?? (digest === undefined ? 'latest' : undefined)
  return {
    registry,
    repository,
    ...(wanted === undefined ? {} : { tag: wanted }),
    ...(digest === undefined ? {} : { digest }),
  }
}

/** The whole name, e.g. `docker.io/library/app:latest`. */
export function formatReference(ref: Reference): string {
  return `${ref.registry}/${ref.repository}${suffix(ref)}`
}

/** The short name that a person would type, e.g. `app:latest`. */
export function familiarReference(ref: Reference | string): string {
  const parsed = typeof ref === 'string' ? parseReference(ref) : ref
  if (parsed.registry !== DEFAULT_REGISTRY) return formatReference(parsed)
  const rest = parsed.repository.startsWith('library/')
    ? parsed.repository.slice('library/'.length)
    : undefined
  const short = rest === undefined || rest.includes('/') ? parsed.repository : rest
  // A short name whose first part reads as a host would be parsed as one: keep the long form.
  if (short.includes('/') && looksLikeHost(short.slice(0, short.indexOf('/')))) return formatReference(parsed)
  return short + suffix(parsed)
}

/** Throws `REFERENCE_INVALID` unless the text is a tag or a sha256 digest, which is what a manifest may be asked by. */
export function checkTagOrDigest(text: string): void {
  if (!TAG.test(text) && !SHA256.test(text)) throw invalid(text, 'it is neither a tag nor a sha256 digest')
}

function suffix(ref: Reference): string {
  return `${ref.tag === undefined ? '' : `:${ref.tag}`}${ref.digest === undefined ? '' : `@${ref.digest}`}`
}

function splitDigest(text: string): { name: string; digest?: string } {
  const at = text.indexOf('@')
  if (at === -1) return { name: text }
  const digest = text.slice(at + 1)
  if (!SHA256.test(digest)) {
    throw invalid(
      text,
      `${JSON.stringify(digest)} is not a digest`,
      'a digest is "sha256:" and 64 lower-case hex digits',
    )
  }
  return { name: text.slice(0, at), digest }
}

function splitTag(name: string, text: string): { path: string; tag?: string } {
  const colon = name.lastIndexOf(':')
  if (colon === -1 || colon < name.lastIndexOf('/')) return { path: name }
  const tag = name.slice(colon + 1)
  if (!TAG.test(tag)) {
    throw invalid(
      text,
      tag === '' ? 'its tag is empty' : `${JSON.stringify(tag)} is not a tag`,
      'a tag has 1 to 128 letters, digits, "_", "." and "-", and does not start with "." or "-"',
    )
  }
  return { path: name.slice(0, colon), tag }
}

function splitRegistry(path: string, text: string): { registry: string; repository: string } {
  const slash = path.indexOf('/')
  const first = slash === -1 ? '' : path.slice(0, slash)
  if (slash === -1 || !looksLikeHost(first)) return { registry: DEFAULT_REGISTRY, repository: official(path) }
  const match = DOMAIN.exec(first)
  if (match === null) throw invalid(text, `${JSON.stringify(first)} is not a host name`)
  if (match[1] !== undefined && (Number(match[1]) > 65535 || Number(match[1]) === 0)) {
    throw invalid(text, `${match[1]} is not a port`)
  }
  const rest = path.slice(slash + 1)
  if (first === 'docker.io' || first === 'index.docker.io')
    return { registry: DEFAULT_REGISTRY, repository: official(rest) }
  return { registry: first, repository: rest }
}

function looksLikeHost(part: string): boolean {
  return part.includes('.') || part.includes(':') || part === 'localhost'
}

function official(path: string): string {
  return path.includes('/') || path === '' ? path : `library/${path}`
}

function checkRepository(repository: string, text: string): void {
  if (repository.length > MAX_REPOSITORY) {
    throw invalid(`${text.slice(0, 40)}...`, `its path is longer than ${MAX_REPOSITORY} characters`)
  }
  if (REPOSITORY.test(repository)) return
  if (REPOSITORY.test(repository.toLowerCase())) {
    throw invalid(text, 'a repository name must be lower-case', `write ${JSON.stringify(lowerCased(text))}`)
  }
  throw invalid(
    text,
    repository === '' ? 'it has no repository name' : 'its repository name is malformed',
    'a name has parts of lower-case letters and digits, joined by "/", ".", "_", "__" or "-"',
  )
}

/** The text with its name, but not its tag, in lower case. */
function lowerCased(text: string): string {
  const name = splitTag(splitDigest(text).name, text).path
  return name.toLowerCase() + text.slice(name.length)
}

function invalid(text: string, why: string, hint?: string): TbuildError {
  return new TbuildError('REFERENCE_INVALID', `${JSON.stringify(text)} is not an image name: ${why}`, {
    hint,
  })
}
