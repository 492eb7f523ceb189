import type { RegistryClientV2 } from 'oci-registry-client'
import { RegistryError, isRecord, redactUrl } from './errors.ts'
import { header } from './transport.ts'
import type { Answer } from './transport.ts'

/** What a route of oci-registry-client wants to be sent. */
export interface Route {
  readonly method: 'GET' | 'PUT' | 'DELETE'
  readonly path: string
  /** Accept and Content-Type only, lower-case names. */
  readonly headers: Readonly<Record<string, string>>
  readonly body?: Uint8Array
}

export interface Routed {
  readonly answer: Answer
  /** The whole body, already bounded. */
  readonly bytes: Uint8Array
}

/** The routes that are used; no blobs, no login (docs/decisions, "registry client"). */
export type Routes = Pick<
  RegistryClientV2,
  'ping' | 'listTags' | 'getManifest' | 'putManifest' | 'deleteManifest'
>

/**
 * The package's routes over a transport of ours. The instance is for one call and costs microseconds: what belongs to
 * the call (scope, Accept) lives in `send`. It is given no credentials, its own login is taken out.
 */
export async function routesFor(
  repository: string,
  send: (route: Route) => Promise<Routed>,
): Promise<Routes> {
  const { RegistryClientV2 } = await importQuietly()
  const index = { name: 'registry.invalid', official: false, scheme: 'https' } as const
  const client = new RegistryClientV2({
    repo: {
      index,
      official: false,
      remoteName: repository,
      localName: repository,
      canonicalName: repository,
    },
    acceptOCIManifests: true,
    acceptManifestLists: true,
  })
  const request = async (asked: RawRequest): Promise<RawAnswer> =>
    rawAnswer(await send(toRoute(asked)), asked.method)
  Object.defineProperty(client, '_api', { value: { request } })
  Object.defineProperty(client, 'login', { value: async () => {} })
  return client
}

/** What the package hands to its `_api` [read in docker-json-client.js]. */
interface RawRequest {
  readonly method: string
  readonly path: string
  readonly headers?: { forEach(each: (value: string, name: string) => void): void }
  readonly body?: Uint8Array
}

/** What its routes use of an answer. */
interface RawAnswer {
  readonly status: number
  readonly headers: { get(name: string): string | null }
  dockerBody(): Promise<Uint8Array>
  dockerJson(): Promise<unknown>
}

function toRoute(asked: RawRequest): Route {
  if (asked.method !== 'GET' && asked.method !== 'PUT' && asked.method !== 'DELETE') {
    throw new Error(`no route for ${asked.method}`)
  }
  const headers: Record<string, string> = {}
  asked.headers?.forEach((value, name) => {
    if (name === 'accept' || name === 'content-type') headers[name] = value
  })
  return {
    method: asked.method,
    path: asked.path,
    headers,
    ...(asked.body === undefined ? {} : { body: asked.body }),
  }
}

function rawAnswer({ answer, bytes }: Routed, method: string): RawAnswer {
  return {
    status: answer.status,
    headers: { get: (name) => header(answer, name.toLowerCase()) ?? null },
    dockerBody: async () => bytes,
    // Its routes look into the object, so nothing else may come out of here.
    dockerJson: async () => (method !== 'GET' ? {} : parseObject(bytes, answer)),
  }
}

function parseObject(bytes: Uint8Array, answer: Answer): Readonly<Record<string, unknown>> {
  const url = redactUrl(answer.url)
  let parsed: unknown
  try {
    parsed = JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    parsed = undefined
  }
  if (!isRecord(parsed)) {
    throw new RegistryError('REGISTRY_ERROR', `${url} answered with something that is not a JSON object`, {
      url,
    })
  }
  if (parsed['schemaVersion'] === 1) {
    throw new RegistryError(
      'MANIFEST_INVALID',
      `${url} is an image of the old kind (schema 1), which is not supported`,
      { url },
    )
  }
  return parsed
}

/** Its node-fetch asks for punycode, which Node calls deprecated on stderr once the code is bundled. */
async function importQuietly(): Promise<{ RegistryClientV2: typeof RegistryClientV2 }> {
  const before = process.noDeprecation
  process.noDeprecation = true
  try {
    return await import('./packages.ts')
  } finally {
    // exactOptionalPropertyTypes: the type has no undefined, the property may be missing.
    if (before === undefined) delete process.noDeprecation
    else process.noDeprecation = before
  }
}
