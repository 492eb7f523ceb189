import { TbuildError } from '../errors.ts'

/** What a registry says of its own error (distribution-spec, "Error Codes"). */
export interface Diagnostic {
  readonly code?: string
  readonly message: string
}

export interface RegistryErrorDetails {
  readonly hint?: string | undefined
  readonly cause?: unknown
  readonly status?: number | undefined
  readonly url?: string | undefined
  readonly diagnostics?: readonly Diagnostic[]
}

/**
 * An error of the wire. Codes: `REGISTRY_UNAUTHORIZED`, `REGISTRY_DENIED`, `REGISTRY_TOO_MANY_REQUESTS`, `MANIFEST_UNKNOWN`,
 * `BLOB_UNKNOWN`, `NAME_UNKNOWN`, `DIGEST_MISMATCH`, `SIZE_MISMATCH`, `MANIFEST_INVALID`, `REGISTRY_UNREACHABLE`,
 * `REGISTRY_CERTIFICATE`, `REGISTRY_REDIRECT`, `REGISTRY_ERROR`.
 */
export class RegistryError extends TbuildError {
  /** HTTP status, when there was an answer. */
  readonly status?: number | undefined
  /** Where it was asked, without user, password, query values and fragment. */
  readonly url?: string | undefined
  /** The server's own words, cleaned of control characters and secrets. */
  readonly diagnostics: readonly Diagnostic[]

  constructor(code: string, message: string, details: RegistryErrorDetails = {}) {
    super(code, message, { hint: details.hint, cause: details.cause })
    this.status = details.status
    this.url = details.url
    this.diagnostics = details.diagnostics ?? []
  }
}

/** What was asked for; decides what a 404 means. */
export type Asked = 'manifest' | 'blob' | 'upload' | 'tags' | 'token' | 'ping'

/** An address that may be shown: signed storage addresses carry secrets in their query, some people put them in front. */
export function redactUrl(url: URL): string {
  return `${url.protocol}//${url.host}${cleanText(url.pathname, 300)}${url.search === '' ? '' : '?...'}`
}

/** A server's text made safe for a terminal and a log: control characters out, length bounded. */
export function cleanText(text: string, max = 300): string {
  // Code points 0-31 and 127-159 hold the escape sequences; U+202A.. and U+2066.. turn the direction of text.
  const clean = text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]+/gu, ' ').trim()
  return clean.length > max ? `${clean.slice(0, max)}...` : clean
}

/** Reads the error document of distribution-spec; any other text becomes one message, HTML becomes none. */
export function readDiagnostics(
  body: Uint8Array,
  contentType: string,
  redact: (text: string) => string,
): Diagnostic[] {
  const text = new TextDecoder().decode(body)
  if (text.trim() === '' || contentType.startsWith('text/html')) return []
  const say = (value: unknown): string => (typeof value === 'string' ? cleanText(redact(value)) : '')
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return [{ message: say(text) }]
  }
  const listed = isRecord(parsed) && Array.isArray(parsed['errors']) ? parsed['errors'] : [parsed]
  const found: Diagnostic[] = []
  for (const entry of listed.slice(0, 5)) {
    if (!isRecord(entry)) continue
    const code = say(entry['code'] ?? entry['error'])
    const message = say(entry['message'] ?? entry['error_description'] ?? entry['details'])
    if (code !== '' || message !== '') found.push({ ...(code === '' ? {} : { code }), message })
  }
  return found
}

/** The error for an answer that was not the one hoped for. `registry`: whom to log in to, when another server answered. */
export function statusError(
  asked: Asked,
  method: string,
  url: URL,
  status: number,
  diagnostics: readonly Diagnostic[],
  registry: URL = url,
): RegistryError {
  const shown = redactUrl(url)
  const said = diagnostics.map((one) => [one.code, one.message].filter(Boolean).join(': ')).join('; ')
  const message = `${method} ${shown} answered ${status}${said === '' ? '' : `: ${said}`}`
  const code = statusCode(asked, status, diagnostics)
  return new RegistryError(code, message, { status, url: shown, diagnostics, hint: hintFor(code, registry) })
}

/** An error's code and message, by shape: errors of Node's core may come from another realm, where instanceof fails. */
export function errorParts(error: unknown): {
  readonly code: string
  readonly name: string
  readonly message: string
} {
  const part = (key: string): string => {
    const value: unknown = isRecord(error) ? error[key] : undefined
    return typeof value === 'string' ? value : ''
  }
  return { code: part('code'), name: part('name'), message: part('message') || String(error) }
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function statusCode(asked: Asked, status: number, diagnostics: readonly Diagnostic[]): string {
  const has = (code: string): boolean => diagnostics.some((one) => one.code === code)
  if (status === 401) return 'REGISTRY_UNAUTHORIZED'
  if (status === 403 || has('DENIED')) return 'REGISTRY_DENIED'
  if (has('DIGEST_INVALID')) return 'DIGEST_MISMATCH'
  if (status === 429) return 'REGISTRY_TOO_MANY_REQUESTS'
  if (status === 404) {
    if (has('NAME_UNKNOWN') || asked === 'tags')
      return asked === 'manifest' ? 'MANIFEST_UNKNOWN' : 'NAME_UNKNOWN'
    if (asked === 'manifest') return 'MANIFEST_UNKNOWN'
    if (asked === 'blob') return 'BLOB_UNKNOWN'
  }
  return 'REGISTRY_ERROR'
}

function hintFor(code: string, url: URL): string | undefined {
  const host = url.host === 'registry-1.docker.io' ? '' : ` ${url.host}`
  if (code === 'REGISTRY_UNAUTHORIZED') return `log in with: tbuild login${host}`
  if (code === 'REGISTRY_DENIED')
    return `check that your account may do this, or log in as another one: tbuild login${host}`
  if (code === 'REGISTRY_TOO_MANY_REQUESTS')
    return 'wait a while, or log in: many registries allow more to known users'
  return undefined
}
