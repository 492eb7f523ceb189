import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { cp, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises'
import { getEventListeners } from 'node:events'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Server } from 'node:https'
import { connect } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { makeCertificates, startRegistry } from '../test/support/registry.ts'
import { loadCredentials, login, logout, openRegistry, parseReference } from './index.ts'
import type { Registry, RegistryOptions } from './index.ts'
import { collect, describeBlob, digestOf, MANIFEST, manifestOf, opener } from './testkit.ts'

const run = promisify(execFile)
let directory: string
const before = { ...process.env }

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tbuild-registry-test-'))
  process.env['DOCKER_CONFIG'] = join(directory, 'docker')
})
afterAll(async () => {
  process.env['DOCKER_CONFIG'] = before['DOCKER_CONFIG']
  await rm(directory, { recursive: true, force: true })
})

async function pushImage(registry: Registry, tag: string, layer: Buffer): Promise<Buffer> {
  const config = Buffer.from('{}')
  await registry.putBlob(describeBlob(layer), opener(layer))
  await registry.putBlob(describeBlob(config), opener(config))
  const manifest = manifestOf(describeBlob(layer))
  expect(await registry.putManifest(tag, manifest, MANIFEST)).toBe(digestOf(manifest))
  return manifest
}

/** Everything once: push, skip, mount, read back, list, delete. */
async function wholeTour(host: string, options: RegistryOptions): Promise<'done'> {
  const layer = randomBytes(3_000_001)
  await using one = await openRegistry(parseReference(`${host}/foo--bar/a/b`), options)
  expect(await one.hasManifest('1')).toBeUndefined()
  expect(await one.hasBlob(digestOf(layer))).toBeUndefined()
  const manifest = await pushImage(one, '1', layer)
  expect(await one.putBlob(describeBlob(layer), opener(layer))).toBe('exists')
  expect(await one.hasBlob(digestOf(layer))).toBe(layer.length)
  expect(await one.hasManifest('1')).toEqual({
    mediaType: MANIFEST,
    digest: digestOf(manifest),
    size: manifest.length,
  })
  expect(await one.getManifest(digestOf(manifest))).toEqual({
    bytes: manifest,
    mediaType: MANIFEST,
    digest: digestOf(manifest),
  })
  expect(digestOf(await collect(one.getBlob(describeBlob(layer))))).toBe(digestOf(layer))
  expect(await one.listTags()).toEqual(['1'])

  await using two = await openRegistry(parseReference(`${host}/other`), options)
  expect(await two.putBlob(describeBlob(layer), opener(layer), { mountFrom: 'foo--bar/a/b' })).toBe('mounted')
  await expect(two.getManifest('1')).rejects.toMatchObject({ code: 'MANIFEST_UNKNOWN', status: 404 })
  await expect(collect(two.getBlob(describeBlob(Buffer.from('nope'))))).rejects.toMatchObject({
    code: 'BLOB_UNKNOWN',
  })
  await one.deleteManifest(digestOf(manifest))
  expect(await one.hasManifest('1')).toBeUndefined()
  return 'done'
}

describe('a real registry', () => {
  test('plain http on loopback', async () => {
    await using real = await startRegistry()
    expect(await wholeTour(real.host, {})).toBe('done')
  })

  test('by the name localhost', async () => {
    await using real = await startRegistry()
    expect(await wholeTour(`localhost:${real.port}`, {})).toBe('done')
  })

  test('htpasswd, and a password beyond Latin-1', async () => {
    const user = { name: 'tester', password: 'pä:€ss' }
    await using real = await startRegistry({ user })
    expect(
      await wholeTour(real.host, { credentials: { username: user.name, password: user.password } }),
    ).toBe('done')
    await using wrong = await openRegistry(parseReference(`${real.host}/x`), {
      credentials: { username: user.name, password: 'wrong-password' },
    })
    await expect(wrong.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_UNAUTHORIZED',
      hint: `log in with: tbuild login ${real.host}`,
      message: expect.not.stringContaining('wrong-password'),
    })
    await using nobody = await openRegistry(parseReference(`${real.host}/x`))
    await expect(nobody.listTags()).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED' })
  })

  test('login keeps what holds and refuses what does not; logout forgets', async () => {
    const user = { name: 'tester', password: 'secret' }
    await using real = await startRegistry({ user })
    const wrong = { username: 'tester', password: 'wrong' }
    await expect(login(real.host, wrong)).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED' })
    expect(await loadCredentials(real.host)).toBeUndefined()
    await login(real.host, { username: user.name, password: user.password })
    expect(await wholeTour(real.host, {})).toBe('done')
    expect(await logout(real.host)).toBe(true)
    expect(await logout(real.host)).toBe(false)
    await using registry = await openRegistry(parseReference(`${real.host}/x`))
    await expect(registry.listTags()).rejects.toMatchObject({ code: 'REGISTRY_UNAUTHORIZED' })
  })

  test('TLS: by its CA, by certs.d, by insecure; otherwise refused and never by plain http', async () => {
    await using real = await startRegistry({ tls: true })
    expect(await wholeTour(real.host, { ca: real.ca ?? '' })).toBe('done')
    const certs = join(directory, 'certs.d')
    await mkdir(join(certs, real.host), { recursive: true })
    await cp(real.caFile ?? '', join(certs, real.host, 'ca.crt'))
    expect(await wholeTour(real.host, { certsDirectory: certs })).toBe('done')
    expect(await wholeTour(real.host, { insecure: true })).toBe('done')
    await using registry = await openRegistry(parseReference(`${real.host}/x`))
    await expect(registry.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_CERTIFICATE',
      hint: expect.stringContaining('/etc/docker/certs.d/'),
    })
  })

  test('chunks: odd sizes, one byte, nothing at all', async () => {
    await using real = await startRegistry()
    await using registry = await openRegistry(parseReference(`${real.host}/chunks`))
    for (const [size, chunkBytes] of [
      [1_000_003, 100_000],
      [1000, 1000],
      [1, 10],
      [2, 1],
      [0, 10],
    ] as const) {
      const bytes = randomBytes(size)
      const sent: number[] = []
      const how = { chunkBytes, onProgress: (count: number) => sent.push(count) }
      expect(await registry.putBlob(describeBlob(bytes), opener(bytes, 7777), how)).toBe('uploaded')
      expect(digestOf(await collect(registry.getBlob(describeBlob(bytes))))).toBe(digestOf(bytes))
      expect(sent.at(-1) ?? 0).toBe(size)
    }
  })

  test('the whole blob at once: nothing, one byte, progress up to the end', async () => {
    await using real = await startRegistry()
    await using registry = await openRegistry(parseReference(`${real.host}/whole`))
    for (const size of [0, 1, 200_000]) {
      const bytes = randomBytes(size)
      const sent: number[] = []
      expect(
        await registry.putBlob(describeBlob(bytes), opener(bytes), { onProgress: (n) => sent.push(n) }),
      ).toBe('uploaded')
      expect(sent.at(-1)).toBe(size)
    }
  })

  test('a source that is not what its descriptor says is never committed', async () => {
    await using real = await startRegistry()
    await using registry = await openRegistry(parseReference(`${real.host}/wrong`))
    const right = describeBlob(randomBytes(100_000))
    for (const bytes of [randomBytes(100_000), randomBytes(99_999), randomBytes(100_001)]) {
      await expect(registry.putBlob(right, opener(bytes))).rejects.toMatchObject({
        code: bytes.length === right.size ? 'DIGEST_MISMATCH' : 'SIZE_MISMATCH',
      })
    }
    await expect(
      registry.putBlob(right, opener(randomBytes(100_000)), { chunkBytes: 30_000 }),
    ).rejects.toMatchObject({ code: 'DIGEST_MISMATCH', status: 400 })
    expect(await registry.hasBlob(right.digest)).toBeUndefined()
  })

  test('forty blobs at a time, then an abort in the middle of each direction: its reason comes out, no listener stays', async () => {
    await using real = await startRegistry()
    const stop = new AbortController()
    await using registry = await openRegistry(parseReference(`${real.host}/many`), { signal: stop.signal })
    const blobs = Array.from({ length: 40 }, () => randomBytes(200_000))
    const results = await Promise.all(
      blobs.map((bytes) => registry.putBlob(describeBlob(bytes), opener(bytes))),
    )
    expect(new Set(results)).toEqual(new Set(['uploaded']))
    const got = await Promise.all(blobs.map((bytes) => collect(registry.getBlob(describeBlob(bytes)))))
    expect(got.map(digestOf)).toEqual(blobs.map(digestOf))
    expect(getEventListeners(stop.signal, 'abort')).toEqual([])

    const large = randomBytes(20_000_000)
    await registry.putBlob(describeBlob(large), opener(large))
    const read = async (): Promise<void> => {
      for await (const chunk of registry.getBlob(describeBlob(large)))
        if (chunk.length > 0) stop.abort(new Error('enough read'))
    }
    await expect(read()).rejects.toThrow('enough read')
    const other = new AbortController()
    await using sender = await openRegistry(parseReference(`${real.host}/other`), { signal: other.signal })
    const how = { onProgress: () => other.abort(new Error('enough sent')) }
    await expect(sender.putBlob(describeBlob(large), opener(large), how)).rejects.toThrow('enough sent')
    await using after = await openRegistry(parseReference(`${real.host}/other`))
    expect(await after.hasBlob(digestOf(large))).toBeUndefined()
  })

  test('skopeo reads what was pushed, and we read what skopeo pushed', async () => {
    await using real = await startRegistry()
    await using registry = await openRegistry(parseReference(`${real.host}/interop`))
    const manifest = await pushImage(registry, 'ours', randomBytes(1000))
    const tls = '--src-tls-verify=false'
    const from = `docker://${real.host}/interop:ours`
    await run('skopeo', [
      'copy',
      tls,
      '--dest-tls-verify=false',
      '--preserve-digests',
      from,
      `docker://${real.host}/again:theirs`,
    ])
    await using again = await openRegistry(parseReference(`${real.host}/again`))
    expect((await again.getManifest('theirs')).digest).toBe(digestOf(manifest))
  })

  test('many tags', async () => {
    await using real = await startRegistry()
    await using registry = await openRegistry(parseReference(`${real.host}/tags`))
    const manifest = await pushImage(registry, 't0', randomBytes(10))
    const tags = Array.from({ length: 30 }, (_, index) => `t${index}`)
    for (const tag of tags) await registry.putManifest(tag, manifest, MANIFEST)
    expect([...(await registry.listTags())].toSorted()).toEqual(tags.toSorted())
  })
})

test('a proxy is used for https to other hosts, with its password, and not for loopback', async () => {
  await using real = await startRegistry({ tls: true })
  const asked: string[] = []
  const proxy = createServer((_, response) => response.writeHead(500).end())
  proxy.on('connect', (request, socket) => {
    asked.push(`${request.url ?? ''} ${request.headers['proxy-authorization'] ?? ''}`)
    const upstream = connect(real.port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 OK\r\n\r\n')
      upstream.pipe(socket).pipe(upstream)
    })
    upstream.on('error', () => socket.destroy())
    socket.on('error', () => upstream.destroy())
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  process.env['https_proxy'] = `http://me:pw@127.0.0.1:${(proxy.address() as AddressInfo).port}`
  try {
    expect(await wholeTour('registry.test:5000', { insecure: true })).toBe('done')
    expect(new Set(asked)).toEqual(
      new Set([`registry.test:5000 Basic ${Buffer.from('me:pw').toString('base64')}`]),
    )
    asked.length = 0
    expect(await wholeTour(real.host, { ca: real.ca ?? '' })).toBe('done')
    expect(asked).toEqual([])
  } finally {
    if (before['https_proxy'] === undefined) delete process.env['https_proxy']
    else process.env['https_proxy'] = before['https_proxy']
    proxy.closeAllConnections()
    proxy.close()
  }
})

describe('certificates', () => {
  test('the client certificate of certs.d is shown to its host, and to no other', async () => {
    const files = await makeCertificates(directory)
    const [key, cert, ca] = await Promise.all(
      [files.key, files.cert, files.ca].map((path) => readFile(path, 'utf8')),
    )
    const server = (): Server =>
      createTlsServer(
        { key, cert, ca, requestCert: true, rejectUnauthorized: false },
        (request, response) => {
          const authorized = (request.socket as TLSSocket).authorized
          response.end(JSON.stringify({ tags: [String(authorized)] }))
        },
      )
    await using one = await listen(server())
    await using two = await listen(server())
    const certsDirectory = join(directory, 'client-certs.d')
    for (const { host } of [one, two]) {
      await mkdir(join(certsDirectory, host), { recursive: true })
      await cp(files.ca, join(certsDirectory, host, 'ca.crt'))
    }
    await cp(files.cert, join(certsDirectory, one.host, 'client.cert'))
    await cp(files.key, join(certsDirectory, one.host, 'client.key'))
    await using known = await openRegistry(parseReference(`${one.host}/x`), { certsDirectory })
    expect(await known.listTags()).toEqual(['true'])
    await using unknown = await openRegistry(parseReference(`${two.host}/x`), { certsDirectory })
    expect(await unknown.listTags()).toEqual(['false'])
    await rm(join(certsDirectory, one.host, 'client.key'))
    await using keyless = await openRegistry(parseReference(`${one.host}/x`), { certsDirectory })
    await expect(keyless.listTags()).rejects.toMatchObject({
      code: 'REGISTRY_CERTIFICATE',
      message: expect.stringContaining('client.key is missing'),
    })
  })

  test('NODE_EXTRA_CA_CERTS works by itself', async () => {
    await using real = await startRegistry({ tls: true })
    const script = `
      import { openRegistry, parseReference } from '${new URL('./index.ts', import.meta.url).href}'
      await using registry = await openRegistry(parseReference(process.argv[1] + '/x'))
      console.log(await registry.hasManifest('1'))
    `
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: real.caFile }
    const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script, real.host], { env })
    expect(stdout).toBe('undefined\n')
  })
})

async function listen(server: Server): Promise<AsyncDisposable & { host: string }> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

describe('memory', () => {
  // In a process of its own: the test runner's heap would hide it.
  const script = `
    import { createHash } from 'node:crypto'
    import { readFileSync } from 'node:fs'
    import { openRegistry, parseReference } from '${new URL('./index.ts', import.meta.url).href}'
    const [host, size, chunkBytes] = [process.argv[1], Number(process.argv[2]), Number(process.argv[3])]
    const block = Buffer.alloc(1 << 20, size + chunkBytes)
    const open = async function* (offset) {
      for (let at = offset; at < size; at += block.length) yield block.subarray(0, Math.min(block.length, size - at))
    }
    const hash = createHash('sha256')
    for await (const part of open(0)) hash.update(part)
    const blob = { mediaType: 'x', size, digest: 'sha256:' + hash.digest('hex') }
    await using registry = await openRegistry(parseReference(host + '/memory'))
    if ((await registry.putBlob(blob, open, chunkBytes ? { chunkBytes } : {})) !== 'uploaded') throw new Error('not sent')
    let got = 0
    for await (const part of registry.getBlob(blob)) got += part.length
    if (got !== size) throw new Error('short')
    // Not maxRSS of getrusage(2): that begins with what the test runner had when it forked.
    console.log(/VmHWM:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1])
  `
  test.each([
    ['in one piece', 0],
    ['in chunks', 8 << 20],
  ])('200 MB %s need no more of it than 20 MB', async (_, chunkBytes) => {
    await using real = await startRegistry()
    const peak = async (megabytes: number): Promise<number> => {
      const args = [
        // As bin/tbuild has it: garbage that waits for its collector is no need.
        '--max-semi-space-size=4',
        '--input-type=module',
        '-e',
        script,
        real.host,
        String(megabytes * 1_000_000),
        String(chunkBytes),
      ]
      const { stdout } = await run(process.execPath, args)
      return Number(stdout) / 1024
    }
    const small = await peak(20)
    const large = await peak(200)
    expect(large).toBeLessThan(small + 60)
    expect(large).toBeLessThan(300)
  })
})

test('importing the public face loads nothing heavy', async () => {
  const script = `
    await import('${new URL('./index.ts', import.meta.url).href}')
    console.log(process.moduleLoadList.filter((name) => /NativeModule (http|https|zlib|child_process|tls|_http_client)$/.test(name)).join())
  `
  const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '-e', script])
  expect([stdout.trim(), stderr]).toEqual(['', ''])
})
