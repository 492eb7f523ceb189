import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { makeCertificates } from '../test/support/registry.ts'
import { openRegistry, parseReference } from './index.ts'
import type { RegistryOptions } from './index.ts'
import {
  MANIFEST,
  QUICK,
  collect,
  describeBlob,
  digestOf,
  manifestOf,
  opener,
  reply,
  startHostile,
} from './testkit.ts'
import type { Handler } from './testkit.ts'

let directory: string
let tls: { key: string; cert: string }
let ca: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tbuild-hostile-'))
  process.env['DOCKER_CONFIG'] = directory
  const files = await makeCertificates(directory)
  tls = { key: await readFile(files.key, 'utf8'), cert: await readFile(files.cert, 'utf8') }
  ca = await readFile(files.ca, 'utf8')
})
afterAll(async () => {
  delete process.env['DOCKER_CONFIG']
  await rm(directory, { recursive: true, force: true })
})

const open = (host: string, options: RegistryOptions = {}): ReturnType<typeof openRegistry> =>
  openRegistry(parseReference(`${host}/app`), { ...QUICK, ...options })

const CREDENTIALS = { username: 'me', password: 'my-password' }
const BLOB = Buffer.alloc(100_000, 'layer ')

/** Leaves `/v2/` alone. */
const behindPing =
  (next: Handler): Handler =>
  (request, response, raw) =>
    request.url === '/v2/' ? reply(response, 200) : next(request, response, raw)

/** Writes until the other side has had enough. */
const endless: Handler = async (request, response) => {
  response.writeHead(request.url.includes('teapot') ? 418 : 200, { 'content-type': MANIFEST })
  const block = Buffer.alloc(256 * 1024, '{')
  while (!response.destroyed) {
    if (!response.write(block))
      await Promise.race([new Promise((resolve) => response.once('drain', resolve)), sleep(200)])
  }
}

describe('answers without end', () => {
  test('a manifest', async () => {
    await using server = await startHostile(behindPing(endless))
    await using registry = await open(server.host)
    await expect(registry.getManifest('latest')).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
      message: expect.stringContaining('more than 4194304 bytes'),
    })
  })
  test('a blob: no byte more than its size comes out', async () => {
    await using server = await startHostile(behindPing(endless))
    await using registry = await open(server.host)
    let count = 0
    const read = async (): Promise<void> => {
      for await (const chunk of registry.getBlob(describeBlob(BLOB))) count += chunk.length
    }
    await expect(read()).rejects.toMatchObject({ code: 'SIZE_MISMATCH' })
    expect(count).toBeLessThanOrEqual(BLOB.length)
  })
  test('an error', async () => {
    await using server = await startHostile(behindPing(endless))
    await using registry = await open(server.host)
    await expect(registry.getManifest('teapot')).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
      status: 418,
    })
  })
  test('a list of tags', async () => {
    let page = 0
    await using server = await startHostile(
      behindPing((_, response) =>
        reply(response, 200, { tags: ['t'] }, { link: `</v2/app/tags/list?p=${page++ % 3}>; rel="next"` }),
      ),
    )
    await using registry = await open(server.host)
    await expect(registry.listTags()).rejects.toMatchObject({
      message: expect.stringContaining('does not end'),
    })
    expect(server.requests.length).toBeLessThan(10)
  })
})

describe('paging', () => {
  test('Link is followed on the same server, and not to another', async () => {
    const pages: Record<string, [string[], string?]> = {
      '/v2/app/tags/list': [['a', 'b'], '</v2/app/tags/list?last=b&n=2>; rel="next"'],
      '/v2/app/tags/list?last=b&n=2': [['c'], 'http://localhost:1/x'],
    }
    await using server = await startHostile(
      behindPing((request, response) => {
        const [tags, link] = pages[request.url] ?? [[]]
        return reply(response, 200, { tags }, link === undefined ? {} : { link })
      }),
    )
    await using registry = await open(server.host)
    expect(await registry.listTags()).toEqual(['a', 'b', 'c'])
    pages['/v2/app/tags/list?last=b&n=2'] = [['c'], '<http://localhost:1/x>; rel=next']
    await expect(registry.listTags()).rejects.toMatchObject({ code: 'REGISTRY_REDIRECT' })
  })
  test('null is no tags; 404 is NAME_UNKNOWN; rubbish is an error', async () => {
    const answers: [number, unknown][] = [
      [200, { tags: null }],
      [404, { errors: [{ code: 'NAME_UNKNOWN', message: 'unknown' }] }],
      [200, { tags: 'a' }],
      [200, '[1,'],
      [200, 'null'],
    ]
    await using server = await startHostile(
      behindPing((_, response) => reply(response, ...(answers.shift() ?? [500, '']))),
    )
    await using registry = await open(server.host)
    expect(await registry.listTags()).toEqual([])
    await expect(registry.listTags()).rejects.toMatchObject({ code: 'NAME_UNKNOWN' })
    for (let count = 0; count < 3; count++)
      await expect(registry.listTags()).rejects.toMatchObject({ code: 'REGISTRY_ERROR' })
  })
})

describe('authentication', () => {
  test('401 for ever ends after one more try', async () => {
    await using server = await startHostile((request, response) =>
      request.url.startsWith('/token')
        ? reply(response, 200, { token: 'abcdef' })
        : reply(response, 401, {}, { 'www-authenticate': `Bearer realm="${server.origin}/token"` }),
    )
    await using registry = await open(server.host, { credentials: CREDENTIALS })
    await expect(registry.listTags()).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED' })
    expect(server.requests.length).toBeLessThanOrEqual(5)
  })
  test('a token that ran out is renewed, and one is enough for many requests', async () => {
    let number = 0
    let valid = ''
    await using server = await startHostile((request, response) => {
      if (request.url.startsWith('/token'))
        return reply(response, 200, { token: (valid = `token-${++number}`), expires_in: 3600 })
      if (request.headers.authorization === `Bearer ${valid}`) return reply(response, 200, { tags: [] })
      return reply(response, 401, {}, { 'www-authenticate': `Bearer realm="${server.origin}/token"` })
    })
    await using registry = await open(server.host)
    for (let count = 0; count < 5; count++) await registry.listTags()
    expect(number).toBe(1)
    valid = 'revoked'
    await registry.listTags()
    expect(number).toBe(2)
  })
  test('a refusal by the token service says who refused, and where to log in', async () => {
    await using realm = await startHostile((_, response) =>
      reply(response, 401, { details: 'incorrect username or password' }),
    )
    await using server = await startHostile((_, response) =>
      reply(response, 401, {}, { 'www-authenticate': `Bearer realm="${realm.origin}/token"` }),
    )
    await using registry = await open(server.host, { credentials: CREDENTIALS })
    await expect(registry.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_UNAUTHORIZED',
      message: `GET ${realm.origin}/token answered 401: incorrect username or password`,
      hint: `log in with: tbuild login ${server.host}`,
    })
  })
  test('an identity token is posted as a form', async () => {
    await using server = await startHostile((request, response) => {
      if (request.url.startsWith('/token')) return reply(response, 200, { access_token: 'fresh' })
      if (request.headers.authorization === 'Bearer fresh') return reply(response, 200, { tags: [] })
      return reply(
        response,
        401,
        {},
        { 'www-authenticate': `Bearer realm="${server.origin}/token",service="svc"` },
      )
    })
    await using registry = await open(server.host, { credentials: { identityToken: 'id-token' } })
    await registry.listTags()
    const [post] = server.seen('POST', '/token')
    expect(Object.fromEntries(new URLSearchParams(post?.body.toString()))).toMatchObject({
      grant_type: 'refresh_token',
      refresh_token: 'id-token',
      service: 'svc',
      scope: 'repository:app:pull',
    })
  })
  test('neither name nor identity token follows a realm to another server', async () => {
    await using thief = await startHostile((_, response) => reply(response, 200, { token: 'x' }))
    await using server = await startHostile((request, response) =>
      request.url.startsWith('/token')
        ? reply(response, 307, '', { location: `${thief.origin}/steal` })
        : reply(response, 401, {}, { 'www-authenticate': `Bearer realm="${server.origin}/token"` }),
    )
    await using first = await open(server.host, { credentials: CREDENTIALS })
    await expect(first.listTags()).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED' })
    await using second = await open(server.host, { credentials: { identityToken: 'id-token' } })
    await expect(second.listTags()).rejects.toMatchObject({ code: 'REGISTRY_REDIRECT' })
    expect(thief.requests.map((one) => [one.headers.authorization, one.body.toString()])).toEqual(
      thief.requests.map(() => [undefined, '']),
    )
  })
  test('a plain http realm of an https registry is sent nothing', async () => {
    await using plain = await startHostile((_, response) => reply(response, 200, { token: 'x' }))
    await using server = await startHostile(
      (_, response) =>
        reply(response, 401, {}, { 'www-authenticate': `Bearer realm="${plain.origin}/token"` }),
      tls,
    )
    await using registry = await open(server.host, { ca, insecure: true, credentials: CREDENTIALS })
    await expect(registry.listTags()).rejects.toMatchObject({
      message: expect.stringContaining('nothing was sent there'),
    })
    expect(plain.requests).toEqual([])
  })
  test('secrets that the server repeats are taken out, control characters too', async () => {
    await using server = await startHostile((request, response) => {
      if (request.headers.authorization === undefined)
        return reply(response, 401, {}, { 'www-authenticate': 'Basic realm=x' })
      const message = `you sent ${request.headers.authorization} \u001B[31mmy-password\u001B[0m\u202E`
      return reply(response, 403, { errors: [{ code: 'DENIED', message, detail: 'x' }] })
    })
    await using registry = await open(server.host, { credentials: CREDENTIALS })
    const error: unknown = await registry.getManifest('latest').catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'REGISTRY_DENIED', status: 403, diagnostics: [{ code: 'DENIED' }] })
    expect(JSON.stringify([error, String(error)])).not.toMatch(
      /my-password|bWU6bXktcGFzc3dvcmQ|\\u001b|\\u202e|\u202E/i,
    )
  })
})

describe('redirects', () => {
  test('never from https to http, not even when insecure', async () => {
    await using plain = await startHostile((_, response) => reply(response, 200, BLOB))
    await using server = await startHostile(
      behindPing((_, response) =>
        reply(response, 302, '', { location: `${plain.origin}/b?signature=s3cr3t` }),
      ),
      tls,
    )
    await using registry = await open(server.host, { insecure: true })
    await expect(collect(registry.getBlob(describeBlob(BLOB)))).rejects.toMatchObject({
      code: 'REGISTRY_REDIRECT',
      message: expect.not.stringContaining('s3cr3t'),
    })
    expect(plain.requests).toEqual([])
  })
  test.each(['file:///etc/passwd', 'http://example.com/x', 'http://[', 'javascript:1'])(
    'not to %s',
    async (location) => {
      await using server = await startHostile(
        behindPing((_, response) => reply(response, 302, '', { location })),
      )
      await using registry = await open(server.host)
      await expect(registry.getManifest('x')).rejects.toMatchObject({ code: 'REGISTRY_REDIRECT' })
    },
  )
})

const times = (count: number, status: number, headers: Record<string, string>): Handler => {
  let left = count
  return behindPing((_, response) =>
    left-- > 0 ? reply(response, status, '', headers) : reply(response, 200, { tags: ['a'] }),
  )
}

describe('trying again', () => {
  test.each([429, 500, 502, 503, 504])('%d', async (status) => {
    const events: string[] = []
    await using server = await startHostile(times(2, status, { 'retry-after': '3600' }))
    await using registry = await open(server.host, {
      retries: 2,
      onRetry: ({ reason }) => events.push(reason),
    })
    expect(await registry.listTags()).toEqual(['a'])
    expect(events).toEqual([`answered ${status}`, `answered ${status}`])
  })
  test.each([400, 403, 404, 410, 501])('not after %d', async (status) => {
    await using server = await startHostile(times(9, status, {}))
    await using registry = await open(server.host, { retries: 5 })
    await expect(registry.listTags()).rejects.toMatchObject({ status })
    expect(server.seen('GET', 'tags')).toHaveLength(1)
  })
  test('it ends, with the last answer', async () => {
    await using server = await startHostile(times(99, 429, {}))
    await using registry = await open(server.host, { retries: 3 })
    await expect(registry.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_TOO_MANY_REQUESTS',
      status: 429,
    })
    expect(server.seen('GET', 'tags')).toHaveLength(4)
  })
  test('a lost connection', async () => {
    let left = 1
    await using server = await startHostile(
      behindPing((_, response) =>
        left-- > 0 ? response.socket?.destroy() : reply(response, 200, { tags: ['a'] }),
      ),
    )
    await using registry = await open(server.host)
    expect(await registry.listTags()).toEqual(['a'])
  })
  test('a manifest that breaks off in the middle', async () => {
    let left = 1
    await using server = await startHostile(
      behindPing((_, response) => {
        if (left-- <= 0) return reply(response, 200, manifestOf(), { 'content-type': MANIFEST })
        response.writeHead(200, { 'content-length': '500', 'content-type': MANIFEST })
        return response.write('{', () => setTimeout(() => response.socket?.destroy(), 20))
      }),
    )
    await using registry = await open(server.host)
    expect((await registry.getManifest('x')).bytes).toEqual(manifestOf())
  })
  test('an aborted wait ends at once, with the reason that was given', async () => {
    const stop = new AbortController()
    await using server = await startHostile(times(99, 503, {}))
    await using registry = await open(server.host, {
      signal: stop.signal,
      retries: 5,
      retryDelay: 1e6,
      maxRetryDelay: 1e6,
      onRetry: () => setImmediate(() => stop.abort(new Error('enough'))),
    })
    await expect(registry.listTags()).rejects.toThrow('enough')
  })
  test('nobody there: one clear error, at once', async () => {
    const server = await startHostile(() => {})
    await server[Symbol.asyncDispose]()
    await using registry = await open(server.host, { retries: 5, retryDelay: 1e6, maxRetryDelay: 1e6 })
    await expect(registry.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
      message: `cannot reach ${server.origin}/v2/: the connection was refused`,
    })
  })
})

describe('a download that is cut off', () => {
  /** Sends at most `piece` bytes in one connection. */
  const dropping = (piece: number, ranges: boolean): Handler =>
    behindPing((request, response) => {
      const start = ranges ? Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0) : 0
      const rest = BLOB.subarray(start)
      const range = { 'content-range': `bytes ${start}-${BLOB.length - 1}/${BLOB.length}` }
      response.writeHead(start > 0 ? 206 : 200, {
        'content-length': String(rest.length),
        ...(start > 0 ? range : {}),
      })
      const end = ranges ? piece : piece * server_count++
      response.write(rest.subarray(0, end), () =>
        rest.length > end ? setTimeout(() => response.socket?.destroy(), 20) : response.end(),
      )
    })
  let server_count = 1
  test('is taken up again by Range', async () => {
    await using server = await startHostile(dropping(30_000, true))
    await using registry = await open(server.host, { retries: 9 })
    expect(digestOf(await collect(registry.getBlob(describeBlob(BLOB))))).toBe(digestOf(BLOB))
    expect(server.seen('GET', '/blobs/').length).toBeGreaterThan(3)
  })
  test('also from a server that knows no Range', async () => {
    await using server = await startHostile(dropping(40_000, false))
    await using registry = await open(server.host, { retries: 9 })
    expect(digestOf(await collect(registry.getBlob(describeBlob(BLOB))))).toBe(digestOf(BLOB))
  })
  test('again and again after a few bytes: it ends', async () => {
    await using server = await startHostile(dropping(10, true))
    await using registry = await open(server.host, { retries: 3 })
    await expect(collect(registry.getBlob(describeBlob(BLOB)))).rejects.toMatchObject({
      code: 'REGISTRY_UNREACHABLE',
    })
    expect(server.seen('GET', '/blobs/')).toHaveLength(4)
  })
  test('a clean end that is too early is no blob', async () => {
    await using server = await startHostile(
      behindPing((_, response) => response.writeHead(200).end(BLOB.subarray(0, 10))),
    )
    await using registry = await open(server.host)
    await expect(collect(registry.getBlob(describeBlob(BLOB)))).rejects.toMatchObject({
      code: 'SIZE_MISMATCH',
    })
  })
  test('a reader that stops early leaves no connection open', async () => {
    await using server = await startHostile(behindPing(endless))
    await using registry = await open(server.host)
    for await (const chunk of registry.getBlob({ ...describeBlob(BLOB), size: 1e12 })) {
      expect(chunk.length).toBeGreaterThan(0)
      break
    }
  })
})

/** Takes chunks as the specification says; `meddle` may answer first (true: it did). */
const chunked = (meddle: Handler): { handler: Handler; stored: () => Buffer } => {
  let have = Buffer.alloc(0)
  const range = (): Record<string, string> => ({
    location: '/up/1',
    range: `0-${Math.max(0, have.length - 1)}`,
  })
  return {
    stored: () => have,
    handler: behindPing((request, response, raw) => {
      if (meddle(request, response, raw) === true) return true
      if (request.method === 'HEAD') return reply(response, 404)
      if (request.method === 'POST') {
        have = Buffer.alloc(0)
        return reply(response, 202, '', { location: '/up/1' })
      }
      if (request.method === 'GET') return reply(response, 204, '', range())
      if (request.method === 'PATCH') {
        if (!request.headers['content-range']?.startsWith(`${have.length}-`))
          return reply(response, 416, '', range())
        have = Buffer.concat([have, request.body])
        return reply(response, 202, '', range())
      }
      return reply(response, digestOf(Buffer.concat([have, request.body])) === digestOf(BLOB) ? 201 : 400)
    }),
  }
}

describe('uploads', () => {
  test.each([405, 411, 413, 501])('refused in one piece with %d, sent in chunks', async (status) => {
    const { handler, stored } = chunked((request, response) => {
      if (request.method !== 'PUT' || request.body.length === 0) return false
      reply(response, status)
      return true
    })
    await using server = await startHostile(handler)
    await using registry = await open(server.host)
    expect(await registry.putBlob(describeBlob(BLOB), opener(BLOB))).toBe('uploaded')
    expect(digestOf(stored())).toBe(digestOf(BLOB))
  })
  test('refused by a proxy that answers 413 and hangs up without reading', async () => {
    let received = 0
    const server = createServer((request, response) => {
      request.on('error', () => {})
      if (request.method === 'PUT' && request.headers['content-length'] !== '0') {
        return response.writeHead(413, { connection: 'close' }).end('', () => request.socket.destroy())
      }
      request.on('data', (chunk: Buffer) => (received += chunk.length))
      request.on('end', () => {
        const status: Record<string, number> = { GET: 200, HEAD: 404, POST: 202, PATCH: 202, PUT: 201 }
        response
          .writeHead(status[request.method ?? ''] ?? 500, { location: '/up', range: `0-${received - 1}` })
          .end()
      })
      return undefined
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      await using registry = await open(`127.0.0.1:${(server.address() as AddressInfo).port}`, { retries: 4 })
      const bytes = Buffer.alloc(40_000_000, 'x')
      expect(await registry.putBlob(describeBlob(bytes), opener(bytes))).toBe('uploaded')
      expect(received).toBe(bytes.length)
    } finally {
      server.closeAllConnections()
      server.close()
    }
  })
  test('a lost chunk is sent again from where the registry stands', async () => {
    let patches = 0
    const { handler, stored } = chunked((request, response) => {
      if (request.method !== 'PATCH' || ++patches !== 2) return false
      response.socket?.destroy()
      return true
    })
    await using server = await startHostile(handler)
    await using registry = await open(server.host)
    expect(await registry.putBlob(describeBlob(BLOB), opener(BLOB), { chunkBytes: 30_000 })).toBe('uploaded')
    expect(digestOf(stored())).toBe(digestOf(BLOB))
    expect(server.seen('GET', '/up/1')).toHaveLength(1)
    expect(server.seen('POST', '/uploads/')).toHaveLength(1)
  })
  test('OCI-Chunk-Min-Length is kept', async () => {
    const { handler } = chunked((request, response) => {
      if (request.method !== 'POST') return false
      reply(response, 202, '', { location: '/up/1', 'oci-chunk-min-length': '60000' })
      return true
    })
    await using server = await startHostile(handler)
    await using registry = await open(server.host)
    await registry.putBlob(describeBlob(BLOB), opener(BLOB), { chunkBytes: 10 })
    expect(server.seen('PATCH', '/up/1').map((one) => one.body.length)).toEqual([60_000, 40_000])
  })
  test('a busy commit starts a new session', async () => {
    let puts = 0
    const { handler } = chunked((request, response) => {
      if (request.method !== 'PUT' || ++puts > 1) return false
      reply(response, 503)
      return true
    })
    await using server = await startHostile(handler)
    await using registry = await open(server.host)
    expect(await registry.putBlob(describeBlob(BLOB), opener(BLOB))).toBe('uploaded')
    expect(server.seen('POST', '/uploads/')).toHaveLength(2)
  })
  test('a registry that never moves on is left', async () => {
    const { handler } = chunked((request, response) => {
      if (request.method !== 'PATCH') return false
      reply(response, 202, '', { location: '/up/1', range: '0-0' })
      return true
    })
    await using server = await startHostile(handler)
    await using registry = await open(server.host)
    await expect(
      registry.putBlob(describeBlob(BLOB), opener(BLOB), { chunkBytes: 1000 }),
    ).rejects.toMatchObject({
      code: 'REGISTRY_ERROR',
    })
    expect(server.requests.length).toBeLessThan(20)
  })
  test('a mount that is refused becomes an upload', async () => {
    for (const status of [400, 403, 404, 405, 401]) {
      const { handler } = chunked((request, response) => {
        if (!request.url.includes('mount=')) return false
        reply(response, status)
        return true
      })
      await using server = await startHostile(handler)
      await using registry = await open(server.host)
      expect(await registry.putBlob(describeBlob(BLOB), opener(BLOB), { mountFrom: 'other/one' })).toBe(
        'uploaded',
      )
    }
  })
  test('no Location, or one to plain http elsewhere, is an error', async () => {
    for (const headers of [{}, { location: 'http://example.com/up' }]) {
      await using server = await startHostile(
        behindPing((request, response) =>
          reply(response, request.method === 'POST' ? 202 : 404, '', headers),
        ),
      )
      await using registry = await open(server.host)
      await expect(registry.putBlob(describeBlob(BLOB), opener(BLOB))).rejects.toMatchObject({
        code: 'location' in headers ? 'REGISTRY_REDIRECT' : 'REGISTRY_ERROR',
      })
    }
  })
})

describe('manifests that two readers could take for two things', () => {
  test.each([
    ['two media types', { mediaType: 'application/vnd.oci.image.index.v1+json', manifests: [] }, MANIFEST],
    ['an index and an image', { manifests: [], layers: [] }, MANIFEST],
    ['schema 1', { schemaVersion: 1 }, 'application/json'],
  ])('%s', async (_, manifest, type) => {
    await using server = await startHostile(
      behindPing((__, response) => reply(response, 200, manifest, { 'content-type': type })),
    )
    await using registry = await open(server.host)
    await expect(registry.getManifest('x')).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
  })
  test.each(['null', '7', '[]', '"x"', '{', '', '\u0000'])('%j is not a manifest', async (text) => {
    await using server = await startHostile(
      behindPing((_, response) => reply(response, 200, text, { 'content-type': MANIFEST })),
    )
    await using registry = await open(server.host)
    await expect(registry.getManifest('x')).rejects.toMatchObject({ name: 'TbuildError' })
  })
  test('without a type in the header its own is used', async () => {
    await using server = await startHostile(
      behindPing((request, response) =>
        request.method === 'HEAD' ? reply(response, 200) : reply(response, 200, manifestOf()),
      ),
    )
    await using registry = await open(server.host)
    expect((await registry.getManifest('x')).mediaType).toBe(MANIFEST)
    expect(await registry.hasManifest('x')).toEqual({
      mediaType: MANIFEST,
      digest: digestOf(manifestOf()),
      size: manifestOf().length,
    })
  })
})

test.each(['../x', 'a/b', '', 'a b', '-x', 'sha256:abc'])(
  '%j is neither tag nor digest: nothing is sent',
  async (text) => {
    await using server = await startHostile(() => {})
    await using registry = await open(server.host)
    await expect(registry.getManifest(text)).rejects.toMatchObject({ code: 'REFERENCE_INVALID' })
    await expect(registry.putManifest(text, manifestOf(), MANIFEST)).rejects.toMatchObject({
      code: 'REFERENCE_INVALID',
    })
    expect(server.requests).toEqual([])
  },
)

test.each([
  { ...describeBlob(BLOB), size: -1 },
  { ...describeBlob(BLOB), size: 1.5 },
  { ...describeBlob(BLOB), size: Number.NaN },
  { ...describeBlob(BLOB), digest: 'sha256:../../x' as never },
])('a descriptor that cannot be (%#) is refused before anything is sent', async (descriptor) => {
  await using server = await startHostile(() => {})
  await using registry = await open(server.host)
  await expect(collect(registry.getBlob(descriptor))).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
  await expect(registry.putBlob(descriptor, opener(BLOB))).rejects.toMatchObject({ code: 'MANIFEST_INVALID' })
  expect(server.requests).toEqual([])
})
