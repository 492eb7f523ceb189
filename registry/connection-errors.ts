import { TbuildError } from '../errors.ts'
import { RegistryError, cleanText, errorParts, isRecord, redactUrl } from './errors.ts'

/** Errors of sockets, TLS and undici, told apart by their codes. */

const CERTIFICATE =
  /^(CERT_|ERR_TLS_CERT|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|ERR_SSL_TLSV1_ALERT_UNKNOWN_CA|ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/
const NOT_THERE: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
])
const TRANSIENT =
  /^(ECONNRESET|EPIPE|ETIMEDOUT|EAI_AGAIN|ECONNABORTED|UND_ERR_SOCKET|UND_ERR_HEADERS_TIMEOUT|UND_ERR_BODY_TIMEOUT|UND_ERR_RES_CONTENT_LENGTH_MISMATCH)$/

/** Whether trying again may help. Who never answered is not asked again: a wrong name should fail at once. */
export function isTransient(error: unknown, answered: boolean): boolean {
  if (error instanceof TbuildError) return error.cause !== undefined && isTransient(error.cause, answered)
  const code = errorCode(error)
  return TRANSIENT.test(code) || (answered && NOT_THERE.has(code))
}

/** Whether https was spoken but its certificate not trusted (which plain http must never paper over). */
export function isCertificateError(error: unknown): boolean {
  return error instanceof RegistryError && error.code === 'REGISTRY_CERTIFICATE'
}

/** The error for the user. One of ours passes unchanged. */
export function transportError(error: unknown, url: URL): unknown {
  if (error instanceof TbuildError) return error
  if (errorParts(error).name === 'AbortError') return error
  const code = errorCode(error)
  // Anything without a code is a mistake of ours, to be shown with its stack.
  if (code === '') return error
  const shown = redactUrl(url)
  const details = { cause: error, url: shown }
  if (CERTIFICATE.test(code)) {
    return new RegistryError(
      'REGISTRY_CERTIFICATE',
      `the certificate of ${url.host} is not trusted: ${words(error)} (${code})`,
      {
        ...details,
        hint: `put its CA into /etc/docker/certs.d/${url.host}/ca.crt, or use --insecure`,
      },
    )
  }
  return new RegistryError('REGISTRY_UNREACHABLE', `cannot reach ${shown}: ${explain(code, error)}`, {
    ...details,
    hint: /SSL|EPROTO/.test(code)
      ? 'it seems to speak plain http; use --insecure if that is meant'
      : undefined,
  })
}

function errorCode(error: unknown): string {
  if (!isRecord(error)) return ''
  const { errors } = error
  // An AggregateError: one for each address that the name has.
  if (Array.isArray(errors) && errors.length > 0) return errorCode(errors[0])
  // undici wraps what happened on the socket (UND_ERR_SOCKET around ECONNRESET); the outer code is as good.
  return errorParts(error).code || errorCode(error['cause'])
}

function explain(code: string, error: unknown): string {
  switch (code) {
    case 'ECONNREFUSED':
      return 'the connection was refused'
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return 'the name could not be resolved'
    case 'UND_ERR_HEADERS_TIMEOUT':
    case 'UND_ERR_BODY_TIMEOUT':
      return 'it stopped answering'
    case 'UND_ERR_CONNECT_TIMEOUT':
      return 'it does not accept connections'
    default:
      return `${words(error)} (${code})`
  }
}

function words(error: unknown): string {
  return cleanText(errorParts(error).message.replaceAll(/\/\/[^/@\s]*@/g, '//'), 200)
}
