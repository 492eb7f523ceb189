import { createAuthorizer } from './auth.ts'
import type { Authorizer } from './auth.ts'
import { isCertificateError, isTransient } from './connection-errors.ts'
import type { Credentials } from './credentials.ts'
import { createDispatchers } from './dispatchers.ts'
import { RegistryError, readDiagnostics, redactUrl, statusError } from './errors.ts'
import type { Asked } from './errors.ts'
import { apiHost, isLoopback } from './hosts.ts'
import type { RegistryOptions } from './options.ts'
import { createTransport, discard, header, readBounded } from './transport.ts'
import type { Answer, Exchange, Transport } from './transport.ts'

/** A request to the registry itself. `path` is resolved against the API's origin; `url` is used as it is. */
export type SessionRequest = Omit<Exchange, 'url' | 'authorization'> & {
  readonly asked: Asked
  readonly path?: string
  readonly url?: URL
  /** Token scopes, e.g. `repository:library/app:pull`. */
  readonly scopes: readonly string[]
  /** The statuses that the caller handles; every other one is thrown as an error. */
  readonly expect: readonly number[]
}

/** One host: its origin is found and our identity is proved when the first request needs it. */
export interface Session extends AsyncDisposable {
  readonly host: string
  readonly insecure: boolean
  readonly transport: Transport
  request(request: SessionRequest): Promise<Answer>
}

export interface SessionOptions extends RegistryOptions {
  readonly loadCredentials: () => Promise<Credentials | undefined>
}

/** A request whose answer fits in memory: at most `limit` bytes. A GET that breaks off in the middle is sent again. */
export async function requestWhole(
  session: Session,
  request: SessionRequest,
  limit: number,
): Promise<{ answer: Answer; bytes: Uint8Array }> {
  for (let attempt = 0; ; attempt++) {
    const answer = await session.request(request)
    try {
      return { answer, bytes: await readBounded(answer, limit) }
    } catch (error) {
      session.transport.signal?.throwIfAborted()
      const again =
        request.method === 'GET' && attempt < session.transport.retries && isTransient(error, true)
      if (!again) throw error
      await session.transport.pause(attempt, answer.url, 'the connection was lost')
    }
  }
}

const MAX_ERROR_BODY = 64 * 1024

export function createSession(registry: string, options: SessionOptions): Session {
  const insecure = options.insecure ?? false
  const host = apiHost(registry)
  const hostname = new URL(`https://${host}`).hostname
  const dispatchers = createDispatchers({
    ca: options.ca,
    certsDirectory: options.certsDirectory,
    unverified: insecure ? hostname : undefined,
    connectTimeout: options.timeouts?.connect ?? 15_000,
    headersTimeout: options.timeouts?.headers ?? 120_000,
    bodyTimeout: options.timeouts?.body ?? 60_000,
  })
  const transport = createTransport({
    dispatchers,
    insecure,
    userAgent: options.userAgent ?? 'tbuild',
    retries: options.retries ?? 4,
    retryDelay: options.retryDelay ?? 500,
    maxRetryDelay: options.maxRetryDelay ?? 30_000,
    signal: options.signal,
    onRetry: options.onRetry,
  })
  const credentials = async (): Promise<Credentials | undefined> =>
    options.credentials ?? (await options.loadCredentials())
  let opened: Promise<Opened> | undefined
  const open = async (): Promise<Opened> => {
    opened ??= openOrigin(host, insecure, transport, credentials)
    // A failure is not kept: the network may be back for the next request.
    opened.catch(() => (opened = undefined))
    return opened
  }
  return {
    host,
    insecure,
    transport,
    async request(request) {
      const { origin, authorizer } = await open()
      return authorized(
        request,
        request.url ?? new URL(request.path ?? '/v2/', origin),
        origin,
        authorizer,
        transport,
      )
    },
    [Symbol.asyncDispose]: () => dispatchers[Symbol.asyncDispose](),
  }
}

interface Opened {
  readonly origin: URL
  readonly authorizer: Authorizer
}

/**
 * Asks `/v2/` which of https and http is answered. Http is tried on loopback and with `insecure` only, after https got no
 * answer; a certificate that is not trusted *is* an answer.
 */
async function openOrigin(
  host: string,
  insecure: boolean,
  transport: Transport,
  credentials: () => Promise<Credentials | undefined>,
): Promise<Opened> {
  const candidates = [new URL(`https://${host}`)]
  const plain = new URL(`http://${host}`)
  if (insecure || isLoopback(plain.hostname)) candidates.push(plain)
  let failure: unknown
  for (const origin of candidates) {
    try {
      const answer = await ping(origin, transport, candidates.length === 1 || origin === plain)
      const authorizer = createAuthorizer({ origin, insecure, transport, credentials })
      if (answer.status === 401) authorizer.challenged(answer, undefined, [])
      return { origin, authorizer }
    } catch (error) {
      if (isCertificateError(error) || !(error instanceof RegistryError)) throw error
      // Of two refusals the first is about https; on loopback the second says as much and names the address people used.
      failure = error
    }
  }
  throw failure
}

async function ping(origin: URL, transport: Transport, retry: boolean): Promise<Answer> {
  const { routesFor } = await import('./routes.ts')
  let seen: Answer | undefined
  const client = await routesFor('library/ping', async (route) => {
    seen = await transport.send({ method: route.method, url: new URL(route.path, origin), retry })
    await discard(seen)
    return { answer: seen, bytes: new Uint8Array() }
  })
  await client.ping()
  if (seen === undefined) throw new Error('ping sent nothing')
  return seen
}

async function authorized(
  request: SessionRequest,
  url: URL,
  origin: URL,
  authorizer: Authorizer,
  transport: Transport,
): Promise<Answer> {
  for (let again = false; ; again = true) {
    const value = url.origin === origin.origin ? await authorizer.header(request.scopes) : undefined
    const answer = await transport.send({
      ...request,
      url,
      authorization: (hop) => (hop.origin === origin.origin ? value : undefined),
    })
    if (request.expect.includes(answer.status)) return answer
    // Only the registry's own 401 counts; a storage server's is an error like any other. Once: else a loop.
    const own = answer.status === 401 && answer.url.origin === origin.origin
    if (own && !again && authorizer.challenged(answer, value, request.scopes)) {
      await discard(answer)
      continue
    }
    throw await unexpected(request, answer, authorizer)
  }
}

async function unexpected(
  request: SessionRequest,
  answer: Answer,
  authorizer: Authorizer,
): Promise<RegistryError> {
  if (request.method === 'HEAD') await discard(answer)
  const body =
    request.method === 'HEAD'
      ? new Uint8Array()
      : await readBounded(answer, MAX_ERROR_BODY, 10_000).catch(() => new Uint8Array())
  const diagnostics = readDiagnostics(body, header(answer, 'content-type') ?? '', (text) =>
    authorizer.redact(text),
  )
  if (answer.status < 400) {
    return new RegistryError(
      'REGISTRY_ERROR',
      `${request.method} ${redactUrl(answer.url)} answered ${answer.status}, which does not belong there`,
      {
        status: answer.status,
        url: redactUrl(answer.url),
        diagnostics,
      },
    )
  }
  return statusError(request.asked, request.method, answer.url, answer.status, diagnostics)
}
