import { parseChallenges } from './challenge.ts'
import type { Challenge } from './challenge.ts'
import { RegistryError, isRecord, readDiagnostics, redactUrl, statusError } from './errors.ts'
import type { Credentials } from './credentials.ts'
import { mayFollow } from './hosts.ts'
import { header, readBounded } from './transport.ts'
import type { Answer, Exchange, Transport } from './transport.ts'

/** Who we are to one registry: learns its challenge, keeps tokens by scope, forgets them when refused. */
export interface Authorizer {
  /** The Authorization to send first, as far as it is known. Fetches a token if the challenge is known. */
  header(scopes: readonly string[]): Promise<string | undefined>
  /** Takes note of a 401. True when a request may be tried once more; false when nothing better can be sent. */
  challenged(answer: Answer, used: string | undefined, scopes: readonly string[]): boolean
  /** Takes every secret that was used out of a text. */
  redact(text: string): string
}

export interface AuthorizerOptions {
  readonly origin: URL
  readonly insecure: boolean
  readonly transport: Transport
  /** Asked once, and only when the registry wants to know. */
  readonly credentials: () => Promise<Credentials | undefined>
}

interface Token {
  readonly value: string
  /** Milliseconds since the epoch. */
  readonly expires: number
}

const MAX_TOKEN_ANSWER = 1024 * 1024

export function createAuthorizer(options: AuthorizerOptions): Authorizer {
  const tokens = new Map<string, Promise<Token>>()
  const secrets = new Set<string>()
  let challenge: Challenge | undefined
  let credentials: Promise<Credentials | undefined> | undefined

  const known = async (): Promise<Credentials | undefined> => {
    credentials ??= options.credentials()
    const found = await credentials
    if (found !== undefined) for (const secret of secretsOf(found)) secrets.add(secret)
    return found
  }
  const token = async (asked: Challenge, scopes: readonly string[]): Promise<string> => {
    const key = scopes.join(' ')
    const kept = await tokens.get(key)?.catch(() => undefined)
    if (kept !== undefined && kept.expires > Date.now()) return kept.value
    const fetching = fetchToken(asked, scopes, await known(), options, redact)
    tokens.set(key, fetching)
    fetching.catch(() => tokens.delete(key))
    const fresh = await fetching
    secrets.add(fresh.value)
    return fresh.value
  }
  const redact = (text: string): string => {
    let clean = text
    for (const secret of secrets) clean = clean.replaceAll(secret, '***')
    return clean
  }
  return {
    redact,
    async header(scopes) {
      if (challenge?.scheme === 'bearer') return `Bearer ${await token(challenge, scopes)}`
      if (challenge?.scheme !== 'basic') return undefined
      const found = await known()
      return found === undefined || !('password' in found) ? undefined : basic(found)
    },
    challenged(answer, used, scopes) {
      const offered = parseChallenges(answer.headers['www-authenticate'])
      const bearer = offered.find((one) => one.scheme === 'bearer')
      challenge = bearer ?? offered.find((one) => one.scheme === 'basic')
      // The same name and password would be refused again; a token may only have run out.
      if (challenge === undefined || (challenge.scheme === 'basic' && used?.startsWith('Basic ') === true))
        return false
      tokens.delete(scopes.join(' '))
      return true
    },
  }
}

/** Basic credentials in UTF-8 (RFC 7617), so that any password works. */
function basic(credentials: { readonly username: string; readonly password: string }): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`
}

function secretsOf(credentials: Credentials): string[] {
  const found =
    'password' in credentials
      ? [credentials.password, basic(credentials).slice(6)]
      : [credentials.identityToken]
  // Short ones ("a") would tear holes into every message and hide nothing.
  return found.filter((secret) => secret.length >= 4)
}

/** Gets a Bearer token (distribution: "Token Authentication", and its OAuth2 form for identity tokens). */
async function fetchToken(
  challenge: Challenge,
  scopes: readonly string[],
  credentials: Credentials | undefined,
  options: AuthorizerOptions,
  redact: (text: string) => string,
): Promise<Token> {
  const realm = realmUrl(challenge, options)
  const exchange = tokenRequest(realm, challenge.parameters['service'], scopes, credentials)
  const answer = await options.transport.send(exchange)
  const body = await readBounded(answer, MAX_TOKEN_ANSWER)
  if (answer.status !== 200) {
    const diagnostics = readDiagnostics(body, header(answer, 'content-type') ?? '', redact)
    // RFC 6749 answers a bad identity token with 400 invalid_grant.
    const status = answer.status === 400 && credentials !== undefined ? 401 : answer.status
    throw statusError('token', exchange.method, realm, status, diagnostics, options.origin)
  }
  return readToken(body, realm)
}

/** Where tokens come from. Our credentials go there, so it must be as safe as the registry itself. */
function realmUrl(challenge: Challenge, options: AuthorizerOptions): URL {
  const text = challenge.parameters['realm'] ?? ''
  if (!URL.canParse(text)) {
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${options.origin.host} asks for a token but does not say where from`,
    )
  }
  const realm = new URL(text)
  realm.username = ''
  realm.password = ''
  realm.hash = ''
  if (!mayFollow(options.origin, realm, options.insecure)) {
    throw new RegistryError(
      'REGISTRY_ERROR',
      `${options.origin.host} wants a token from ${redactUrl(realm)}, which is not encrypted; nothing was sent there`,
    )
  }
  return realm
}

function tokenRequest(
  realm: URL,
  service: string | undefined,
  scopes: readonly string[],
  credentials: Credentials | undefined,
): Exchange {
  if (credentials !== undefined && 'identityToken' in credentials) {
    const form = new URLSearchParams({
      grant_type: 'refresh_token',
      refresh_token: credentials.identityToken,
      client_id: 'tbuild',
      ...(service === undefined ? {} : { service }),
      ...(scopes.length === 0 ? {} : { scope: scopes.join(' ') }),
    })
    const sent = Buffer.from(form.toString())
    return {
      method: 'POST',
      url: realm,
      headers: { 'content-type': 'application/x-www-form-urlencoded', 'content-length': String(sent.length) },
      // A redirect must not carry the secret elsewhere: the body is given to the realm itself only.
      body: sent,
      redirect: 'same-origin',
    }
  }
  const url = new URL(realm)
  if (service !== undefined) url.searchParams.set('service', service)
  for (const scope of scopes) url.searchParams.append('scope', scope)
  url.searchParams.set('client_id', 'tbuild')
  if (credentials === undefined) return { method: 'GET', url }
  url.searchParams.set('account', credentials.username)
  const value = basic(credentials)
  return { method: 'GET', url, authorization: (hop) => (hop.origin === realm.origin ? value : undefined) }
}

function readToken(body: Uint8Array, realm: URL): Token {
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder().decode(body))
  } catch {
    parsed = undefined
  }
  // The older answer says `token`, OAuth2 says `access_token`; the two may both be there.
  const value = isRecord(parsed) ? parsed['token'] || parsed['access_token'] : undefined
  // What does not fit a header is not a token. It is not shown: it may be a secret in the wrong place.
  if (!isRecord(parsed) || typeof value !== 'string' || !/^[\x21-\x7e]+$/.test(value)) {
    throw new RegistryError('REGISTRY_ERROR', `${redactUrl(realm)} answered without a usable token`)
  }
  const seconds = typeof parsed['expires_in'] === 'number' ? parsed['expires_in'] : 60
  // Used until 10 s before its end, for clocks and slow starts; at least 5 s, so that a zero does not ask for each request.
  return { value, expires: Date.now() + Math.max(5, seconds - 10) * 1000 }
}
