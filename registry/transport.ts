import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { isTransient, transportError } from './connection-errors.ts'
import type { Dispatchers } from './dispatchers.ts'
import { RegistryError, errorParts, redactUrl } from './errors.ts'
import { mayFollow } from './hosts.ts'

/** One request. Nothing is sent twice unless `retry` is left on; then `body` must give the same bytes each time. */
export interface Exchange {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array | (() => AsyncIterable<Uint8Array>)
  /** Default true: 429, 5xx and lost connections are tried again. */
  readonly retry?: boolean
  /** The value of Authorization for a hop, or none. Asked for each hop, so that no other origin sees it. */
  readonly authorization?: (url: URL) => string | undefined
  /** `same-origin`: the body holds a secret, which another origin must not see. */
  readonly redirect?: 'same-origin'
}

/** An answer whose body is still on the wire: read it, or `discard` it. The body's bytes are as sent: nothing is decoded. */
export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  /** Where the answer came from, after redirects. */
  readonly url: URL
  readonly body: Readable
}

export interface TransportOptions {
  readonly dispatchers: Dispatchers
  readonly userAgent: string
  readonly insecure: boolean
  /** How often a request is tried again. */
  readonly retries: number
  /** Milliseconds before the first of these; doubles each time. */
  readonly retryDelay: number
  /** Milliseconds; a longer Retry-After is cut to it. */
  readonly maxRetryDelay: number
  readonly signal?: AbortSignal | undefined
  readonly onRetry?: ((event: RetryEvent) => void) | undefined
}

export interface RetryEvent {
  /** Without secrets. */
  readonly url: string
  readonly reason: string
  /** Milliseconds until the next try. */
  readonly delay: number
}

export interface Transport {
  readonly retries: number
  readonly signal?: AbortSignal | undefined
  /** Sends, follows redirects, tries again. Any status may come back. */
  send(exchange: Exchange): Promise<Answer>
  /** Waits before try number `attempt` + 1 (0-based); tells `onRetry`. */
  pause(attempt: number, url: URL, reason: string, retryAfter?: string): Promise<void>
}

const MAX_REDIRECTS = 10
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])
const RETRIED: ReadonlySet<number> = new Set([429, 500, 502, 503, 504])

export function createTransport(options: TransportOptions): Transport {
  // A registry that has answered once and then refuses is restarting; one that never answered is not there.
  let answered = false
  const pause: Transport['pause'] = async (attempt, url, reason, retryAfter) => {
    const asked =
      parseRetryAfter(retryAfter) ?? options.retryDelay * 2 ** attempt * (0.75 + Math.random() / 2)
    const delay = Math.min(Math.round(asked), options.maxRetryDelay)
    options.onRetry?.({ url: redactUrl(url), reason, delay })
    try {
      await sleep(delay, undefined, options.signal === undefined ? {} : { signal: options.signal })
    } catch (error) {
      // The caller's own reason says more than the timer's AbortError.
      options.signal?.throwIfAborted()
      throw error
    }
  }
  return {
    retries: options.retries,
    signal: options.signal,
    pause,
    async send(exchange) {
      const tries = exchange.retry === false ? 0 : options.retries
      for (let attempt = 0; ; attempt++) {
        let answer: Answer
        try {
          answer = await follow(exchange, options)
        } catch (error) {
          options.signal?.throwIfAborted()
          if (attempt >= tries || !isTransient(error, answered)) throw transportError(error, exchange.url)
          await pause(attempt, exchange.url, errorParts(error).message)
          continue
        }
        answered = true
        if (attempt >= tries || !RETRIED.has(answer.status)) return answer
        await discard(answer)
        await pause(attempt, exchange.url, `answered ${answer.status}`, header(answer, 'retry-after'))
      }
    },
  }
}

/** The first value of a header. */
export function header(answer: Answer, name: string): string | undefined {
  const value = answer.headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** Reads a body of at most `limit` bytes; more is an error, so is a body that takes longer than `within` milliseconds. */
export async function readBounded(answer: Answer, limit: number, within = 120_000): Promise<Uint8Array> {
  const declared = Number(header(answer, 'content-length') ?? 0)
  if (declared > limit) throw await tooLong(answer, limit)
  const timer = setTimeout(() => {
    answer.body.destroy(
      new RegistryError(
        'REGISTRY_UNREACHABLE',
        `${redactUrl(answer.url)} did not finish its answer in ${within / 1000} s`,
      ),
    )
  }, within)
  const chunks: Uint8Array[] = []
  let length = 0
  try {
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      length += chunk.length
      if (length > limit) throw await tooLong(answer, limit)
      chunks.push(chunk)
    }
  } catch (error) {
    throw transportError(error, answer.url)
  } finally {
    clearTimeout(timer)
  }
  return Buffer.concat(chunks, length)
}

/** Drops a body: a short rest is read so that the connection can serve again, a long one is cut off. */
export async function discard(answer: Answer): Promise<void> {
  const body = answer.body as Readable & { dump?: (options: { limit: number }) => Promise<void> }
  const timer = setTimeout(() => body.destroy(), 2000)
  await (body.dump?.({ limit: 64 * 1024 }) ?? Promise.resolve()).catch(() => {})
  clearTimeout(timer)
  body.destroy()
}

async function follow(exchange: Exchange, options: TransportOptions): Promise<Answer> {
  let { method, body, url } = exchange
  for (let hop = 0; ; hop++) {
    const answer = await once(exchange, method, url, body, options)
    const location = header(answer, 'location')
    if (!REDIRECTS.has(answer.status) || location === undefined) return answer
    await discard(answer)
    if (hop === MAX_REDIRECTS) throw redirectError(exchange.url, `more than ${MAX_REDIRECTS} redirects`)
    const next = resolveLocation(location, url, options.insecure)
    if (exchange.redirect === 'same-origin' && next.origin !== exchange.url.origin) {
      throw redirectError(exchange.url, `it leads to ${next.host}, which must not see what was sent`)
    }
    // Only 303 asks for a GET; for the others an upload stays an upload, whatever browsers do with 301 and 302.
    if (answer.status === 303 && method !== 'HEAD') {
      method = 'GET'
      body = undefined
    }
    url = next
  }
}

/** A Location header as an address that may be asked. Throws `REGISTRY_REDIRECT`. */
export function resolveLocation(location: string, base: URL, insecure: boolean): URL {
  if (!URL.canParse(location, base.href)) throw redirectError(base, 'its Location is not an address')
  const next = new URL(location, base)
  next.username = ''
  next.password = ''
  next.hash = ''
  if (!mayFollow(base, next, insecure)) {
    throw redirectError(base, `it leads to ${redactUrl(next)}, which is not encrypted`)
  }
  return next
}

async function once(
  exchange: Exchange,
  method: Exchange['method'],
  url: URL,
  body: Exchange['body'],
  options: TransportOptions,
): Promise<Answer> {
  const dispatcher = await options.dispatchers.forOrigin(url)
  const authorization = exchange.authorization?.(url)
  const {
    headers,
    body: stream,
    statusCode,
  } = await dispatcher.request({
    method,
    origin: url.origin,
    path: `${url.pathname}${url.search}`,
    headers: {
      // Compression on the way would change the bytes that a digest is over.
      'accept-encoding': 'identity',
      'user-agent': options.userAgent,
      ...(body === undefined && exchange.body !== undefined
        ? withoutBodyHeaders(exchange.headers)
        : exchange.headers),
      ...(authorization === undefined ? {} : { authorization }),
    },
    body: typeof body === 'function' ? (body() as unknown as Readable) : (body ?? null),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  })
  // A body that is destroyed, or fails while nobody reads, must not be an uncaught error.
  stream.on('error', () => {})
  return { status: statusCode, headers, url, body: stream }
}

function withoutBodyHeaders(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name !== 'content-length' && name !== 'content-type'),
  )
}

function redirectError(url: URL, why: string): RegistryError {
  return new RegistryError(
    'REGISTRY_REDIRECT',
    `${redactUrl(url)} redirects in a way that is not followed: ${why}`,
    {
      url: redactUrl(url),
    },
  )
}

async function tooLong(answer: Answer, limit: number): Promise<RegistryError> {
  answer.body.destroy()
  return new RegistryError(
    'REGISTRY_ERROR',
    `${redactUrl(answer.url)} answered with more than ${limit} bytes`,
    {
      status: answer.status,
      url: redactUrl(answer.url),
    },
  )
}

/** Seconds or a date (RFC 9110, 10.2.3) as milliseconds. */
function parseRetryAfter(value: string | undefined): number | undefined {
  if (value === undefined) return undefined
  if (/^\d+$/.test(value.trim())) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now())
}
