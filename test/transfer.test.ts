/** Images between the store and a real registry (Debian's docker-registry), with skopeo as the judge. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { appendFile, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { constants, gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { collect, makeImage, pieces, sha256, tarBytes } from '../builder/archive/testing.ts'
import { pullImage, pushImage, type TransferEvent } from '../builder/index.ts'
import { gzip } from '../builder/transfer/compress.ts'
import {
  MEDIA,
  openStore,
  type BlobDigest,
  type Descriptor,
  type DiffId,
  type Image,
  type Platform,
  type Store,
} from '../cas/index.ts'
import { openRegistry, parseReference, type RegistryOptions } from '../registry/index.ts'
import { startRegistry, type RealRegistry } from './support/registry.ts'

const run = promisify(execFile)
let directory: string
let count = 0

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tbuild-transfer-'))
})
afterAll(async () => {
  await rm(directory, { recursive: true, force: true })
})

function newStore(): Promise<Store> {
  return openStore(join(directory, `store-${++count}`))
}

async function push(
  store: Store,
  name: string,
  image: Image,
  options: RegistryOptions = {},
  chunkBytes?: number,
) {
  const reference = parseReference(name)
  const events: TransferEvent[] = []
  await using registry = await openRegistry(reference, options)
  const pushed = await pushImage(store, registry, reference, image, {
    chunkBytes,
    observe: (event) => events.push(event),
    openOrigin: (repository) => openRegistry(parseReference(repository), options),
  })
  return { ...pushed, states: layerStates(events) }
}

async function pull(
  store: Store,
  name: string,
  options: RegistryOptions = {},
  how: { platform?: Platform; refetchBlobs?: boolean } = {},
) {
  const reference = parseReference(name)
  const events: TransferEvent[] = []
  await using registry = await openRegistry(reference, options)
  const image = await pullImage(store, registry, reference, {
    ...how,
    observe: (event) => events.push(event),
  })
  return { image, events, states: layerStates(events) }
}

/** How each layer ended. */
function layerStates(events: readonly TransferEvent[]): string[] {
  const last = new Map<string, string>()
  for (const event of events) if (event.kind === 'layer') last.set(event.digest, event.state)
  return [...last.values()].filter((state) => state !== 'compressing')
}

const threeLayers = async (): Promise<Buffer[]> => [
  await tarBytes([
    { name: 'a/', type: 'directory' },
    { name: 'a/random', contents: randomBytes(3_000_000) },
  ]),
  await tarBytes([{ name: 'text', contents: 'so it goes\n'.repeat(200_000) }]),
  await tarBytes([{ name: 'a/.wh.random' }]),
]

function describeBytes(bytes: Uint8Array, mediaType: string): Descriptor {
  return { mediaType, digest: sha256(bytes) as BlobDigest, size: bytes.length }
}

/** Blobs and a manifest as somebody else would push them. */
async function publish(
  real: RealRegistry,
  name: string,
  layers: readonly { readonly blob: Uint8Array; readonly mediaType: string; readonly tar: Uint8Array }[],
  change: { config?: object; manifest?: object } = {},
): Promise<{ digest: string; descriptor: Descriptor }> {
  const reference = parseReference(`${real.host}/${name}`)
  await using registry = await openRegistry(reference)
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: layers.map(({ tar }) => sha256(tar)) },
      ...change.config,
    }),
  )
  for (const { blob, mediaType } of layers)
    await registry.putBlob(describeBytes(blob, mediaType), (offset) => pieces(blob.subarray(offset)))
  await registry.putBlob(describeBytes(config, MEDIA.config), (offset) => pieces(config.subarray(offset)))
  const manifest = Buffer.from(
    JSON.stringify(
      {
        schemaVersion: 2,
        mediaType: MEDIA.manifest,
        config: describeBytes(config, MEDIA.config),
        layers: layers.map(({ blob, mediaType }) => describeBytes(blob, mediaType)),
        annotations: { 'org.example': 'kept' },
        ...change.manifest,
      },
      null,
      2,
    ),
  )
  const digest = await registry.putManifest(reference.tag ?? 'latest', manifest, MEDIA.manifest)
  return { digest, descriptor: describeBytes(manifest, MEDIA.manifest) }
}

describe('gzip', () => {
  const block = 1024 * 1024
  test.each([
    ['nothing', Buffer.alloc(0)],
    ['one byte', Buffer.from('x')],
    ['a block less one', randomBytes(block - 1)],
    ['a block', randomBytes(block)],
    ['a block and one', randomBytes(block + 1)],
    ['blocks of zeros', Buffer.alloc(3 * block)],
    ['text', Buffer.from(Array.from({ length: 400_000 }, (_, i) => `line ${i % 977}\n`).join(''))],
  ])('%s: gzip, Python and Node read it; the same bytes however it is cut', async (_, input) => {
    const packed = await collect(gzip(pieces(input, 65_536)))
    expect((await collect(gzip(pieces(input, 1_000_003)))).equals(packed)).toBe(true)
    expect(gunzipSync(packed).equals(input)).toBe(true)
    const file = join(directory, `gzip-${++count}.gz`)
    await writeFile(file, packed)
    const options = { encoding: 'buffer', maxBuffer: 64 * block } as const
    expect((await run('gzip', ['-dc', file], options)).stdout.equals(input)).toBe(true)
    const python = 'import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())'
    expect((await run('python3', ['-c', python, file], options)).stdout.equals(input)).toBe(true)
  })

  test('what it writes is never taken for a bomb', async () => {
    const zeros = Buffer.alloc(80 * block)
    expect(zeros.length / (await collect(gzip(pieces(zeros, block)))).length).toBeLessThan(950)
  })

  test('a reader may stop early', async () => {
    for await (const chunk of gzip(pieces(Buffer.alloc(10 * block)))) {
      expect(chunk.length).toBeGreaterThan(0)
      break
    }
  })
})

describe('a real registry', () => {
  test('push and pull into another store: equal config and diff ids; a second push sends nothing', async () => {
    await using real = await startRegistry()
    await using one = await newStore()
    const image = await makeImage(one, await threeLayers(), { config: { Cmd: ['x'], Labels: { a: 'b' } } })
    const name = `${real.host}/team/app:1`
    const pushed = await push(one, name, image)
    expect(pushed.states).toEqual(['done', 'done', 'done', 'done'])
    expect((await push(one, name, image)).states).toEqual(['exists', 'exists', 'exists', 'exists'])

    await using two = await newStore()
    const { image: back, states } = await pull(two, name)
    expect(states).toEqual(['done', 'done', 'done'])
    expect(back).toMatchObject({
      id: image.id,
      config: image.config,
      names: [name],
      manifestDigest: pushed.digest,
    })
    for (const diffId of image.config.rootfs.diff_ids)
      expect(sha256(await collect(two.layers.tar(diffId)))).toBe(diffId)
    expect((await pull(two, name)).states).toEqual(['exists', 'exists', 'exists'])

    // Pushed on elsewhere, the manifest stays as it is.
    await using other = await startRegistry()
    const onward = await push(two, `${other.host}/copy:1`, back)
    expect(onward.digest).toBe(pushed.digest)
    expect(two.layers.compressed(image.config.rootfs.diff_ids[0] as DiffId)).toHaveLength(1)

    const { stdout } = await run('skopeo', ['inspect', '--tls-verify=false', `docker://${name}`])
    expect(JSON.parse(stdout)).toMatchObject({
      Digest: pushed.digest,
      Labels: { a: 'b' },
      Layers: back.manifest.layers.map(({ digest }) => digest),
    })
    const to = join(directory, `skopeo-${++count}`)
    await run('skopeo', ['copy', '--src-tls-verify=false', `docker://${name}`, `dir:${to}`])
    expect(await readdir(to)).toHaveLength(6)
  })

  test('the same push again gives the same manifest', async () => {
    await using real = await startRegistry()
    const layers = await threeLayers()
    const digests: string[] = []
    for (const tag of ['1', '2']) {
      await using store = await newStore()
      digests.push((await push(store, `${real.host}/same:${tag}`, await makeImage(store, layers))).digest)
    }
    expect(digests[0]).toBe(digests[1])
  })

  test('in chunks, with a password, over TLS', async () => {
    const user = { name: 'tester', password: 'secret' }
    await using real = await startRegistry({ user, tls: true })
    const options = { ca: real.ca ?? '', credentials: { username: user.name, password: user.password } }
    await using one = await newStore()
    const image = await makeImage(one, await threeLayers())
    const name = `${real.host}/chunks:1`
    await push(one, name, image, options, 700_001)
    await using two = await newStore()
    expect((await pull(two, name, options)).image.id).toBe(image.id)
    await using three = await newStore()
    await expect(pull(three, name, { ca: real.ca ?? '' })).rejects.toMatchObject({
      code: 'REGISTRY_UNAUTHORIZED',
    })
    expect(three.images.list()).toEqual([])
  })

  test('layers known to be in another repository of the registry are mounted', async () => {
    await using real = await startRegistry()
    await using one = await newStore()
    const image = await makeImage(one, await threeLayers(), {})
    await push(one, `${real.host}/first:1`, image)
    expect((await push(one, `${real.host}/second:1`, image)).states).toEqual(Array(4).fill('mounted'))
  })

  test('a base keeps its compressed layer under an image built on it, whatever it was compressed with', async () => {
    await using real = await startRegistry()
    const [tar = Buffer.alloc(0), top = Buffer.alloc(0)] = await threeLayers()
    for (const [codec, mediaType, blob] of [
      ['gzip', MEDIA.dockerLayerGzip, gzipSync(tar, { level: 1 })],
      ['zstd', MEDIA.layerZstd, zstdCompressSync(tar)],
      ['none', MEDIA.layer, tar],
    ] as const) {
      await publish(real, `base-${codec}:1`, [{ blob, mediaType, tar }])
      await using store = await newStore()
      await pull(store, `${real.host}/base-${codec}:1`)
      const built = await makeImage(store, [tar, top])
      const pushed = await push(store, `${real.host}/built-${codec}:1`, built)
      expect(pushed.states.toSorted()).toEqual(['done', 'done', 'mounted'])
      await using other = await newStore()
      const { image } = await pull(other, `${real.host}/built-${codec}:1`)
      expect(image.manifest.layers[0]?.digest).toBe(sha256(blob))
      expect(image.manifest.layers.every((layer) => layer.mediaType.includes('.oci.'))).toBe(true)
    }
  })

  test('an index: the manifest of the platform, its bytes as they were', async () => {
    await using real = await startRegistry()
    const [tar = Buffer.alloc(0)] = await threeLayers()
    const layer = [{ blob: gzipSync(tar), mediaType: MEDIA.layerGzip, tar }]
    const amd = await publish(real, 'multi:amd', layer, { config: { architecture: 'amd64' } })
    const arm = await publish(real, 'multi:arm', layer, { config: { architecture: 'arm64' } })
    const reference = parseReference(`${real.host}/multi:1`)
    await using registry = await openRegistry(reference)
    const platforms = [
      { ...amd.descriptor, platform: { os: 'linux', architecture: 'amd64', variant: 'v3' } },
      { ...amd.descriptor, platform: { os: 'linux', architecture: 'amd64' } },
      { ...arm.descriptor, platform: { os: 'linux', architecture: 'arm64', variant: 'v8' } },
      { ...arm.descriptor, platform: { os: 'unknown', architecture: 'unknown' } },
    ]
    const index = Buffer.from(
      JSON.stringify({ schemaVersion: 2, mediaType: MEDIA.index, manifests: platforms }),
    )
    await registry.putManifest('1', index, MEDIA.index)
    await using store = await newStore()
    const name = `${real.host}/multi:1`
    for (const [architecture, expected] of [
      ['amd64', amd],
      ['arm64', arm],
    ] as const) {
      const { image } = await pull(store, name, {}, { platform: { os: 'linux', architecture } })
      expect(image.manifestDigest).toBe(expected.digest)
      expect(sha256(store.blobs.read(image.manifestDigest))).toBe(expected.digest)
    }
    await expect(
      pull(store, name, {}, { platform: { os: 'linux', architecture: 's390x' } }),
    ).rejects.toMatchObject({
      code: 'PLATFORM_MISSING',
      hint: 'it has linux/amd64/v3, linux/amd64, linux/arm64/v8',
    })
    const byDigest = `${real.host}/multi@${arm.digest}`
    expect((await pull(store, byDigest)).image.names).toContain(byDigest)
  })

  test('an image for another machine: a note, or refused when the platform was asked for', async () => {
    await using real = await startRegistry()
    await publish(real, 'other:1', [], { config: { architecture: 'riscv64' } })
    await using store = await newStore()
    const { events } = await pull(store, `${real.host}/other:1`)
    expect(events).toContainEqual({
      kind: 'note',
      text: expect.stringContaining('is made for linux/riscv64'),
    })
    const platform = { os: 'linux', architecture: 'amd64' }
    await expect(pull(store, `${real.host}/other:1`, {}, { platform })).rejects.toMatchObject({
      code: 'PLATFORM_MISSING',
    })
  })

  test('many gzip members, many zstd frames, skippable ones among them', async () => {
    await using real = await startRegistry()
    const [tar = Buffer.alloc(0)] = await threeLayers()
    const parts = [0, 1, 2, 3].map((i) => tar.subarray(i * 1_000_000, (i + 1) * 1_000_000))
    const skippable = Buffer.concat([Buffer.from('5a2a4d1803000000', 'hex'), Buffer.from('abc')])
    const checked = { params: { [constants.ZSTD_c_checksumFlag]: 1 } }
    for (const [name, mediaType, blob] of [
      ['members', MEDIA.layerGzip, Buffer.concat(parts.map((part) => gzipSync(part)))],
      ['frames', MEDIA.layerZstd, Buffer.concat(parts.map((part) => zstdCompressSync(part, checked)))],
      [
        'skippable',
        MEDIA.layerZstd,
        Buffer.concat([skippable, ...parts.flatMap((part) => [zstdCompressSync(part), skippable])]),
      ],
    ] as const) {
      await publish(real, `${name}:1`, [{ blob, mediaType, tar }])
      await using store = await newStore()
      const { image } = await pull(store, `${real.host}/${name}:1`)
      expect(image.config.rootfs.diff_ids).toEqual([sha256(tar)])
    }
  })
})

describe('what is refused, with nothing left visible', () => {
  let real: RealRegistry
  beforeAll(async () => {
    real = await startRegistry()
  })
  afterAll(async () => {
    await real[Symbol.asyncDispose]()
  })

  async function refused(name: string): Promise<unknown> {
    await using store = await newStore()
    const error = await pull(store, `${real.host}/${name}:1`, { retries: 0 }).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(store.images.list()).toEqual([])
    return error
  }

  test('a layer whose tar is not what the config says', async () => {
    const [tar = Buffer.alloc(0), other = Buffer.alloc(0)] = await threeLayers()
    await publish(real, 'wrong-diff', [{ blob: gzipSync(tar), mediaType: MEDIA.layerGzip, tar: other }])
    await publish(real, 'wrong-diff:1', [{ blob: gzipSync(tar), mediaType: MEDIA.layerGzip, tar: other }])
    expect(await refused('wrong-diff')).toMatchObject({ code: 'DIGEST_MISMATCH' })
  })

  test('a media type that the bytes contradict', async () => {
    const [tar = Buffer.alloc(0)] = await threeLayers()
    await publish(real, 'type-a:1', [{ blob: gzipSync(tar), mediaType: MEDIA.layer, tar }])
    await publish(real, 'type-b:1', [{ blob: zstdCompressSync(tar), mediaType: MEDIA.layerGzip, tar }])
    await publish(real, 'type-c:1', [{ blob: tar, mediaType: MEDIA.layerZstd, tar }])
    for (const name of ['type-a', 'type-b', 'type-c'])
      expect(await refused(name)).toMatchObject({ code: 'COMPRESSION_UNEXPECTED' })
  })

  test('cut off or damaged compression', async () => {
    const [tar = Buffer.alloc(0)] = await threeLayers()
    const blobs = { gzip: gzipSync(tar), zstd: zstdCompressSync(tar) }
    await publish(real, 'cut-gzip:1', [{ blob: blobs.gzip.subarray(0, -9), mediaType: MEDIA.layerGzip, tar }])
    await publish(real, 'cut-zstd:1', [{ blob: blobs.zstd.subarray(0, -9), mediaType: MEDIA.layerZstd, tar }])
    await publish(real, 'rubbish:1', [
      { blob: Buffer.concat([blobs.gzip, Buffer.from('rubbish')]), mediaType: MEDIA.layerGzip, tar },
    ])
    for (const name of ['cut-gzip', 'cut-zstd', 'rubbish'])
      expect(await refused(name)).toMatchObject({ code: 'COMPRESSION_INVALID' })
  })

  test('a bomb, before it has filled the disk', async () => {
    const tar = await tarBytes([{ name: 'full', contents: Buffer.alloc(200 * 1024 * 1024, 'a') }])
    await publish(real, 'bomb-gzip:1', [
      { blob: gzipSync(tar, { level: 9 }), mediaType: MEDIA.layerGzip, tar },
    ])
    await publish(real, 'bomb-zstd:1', [{ blob: zstdCompressSync(tar), mediaType: MEDIA.layerZstd, tar }])
    for (const name of ['bomb-gzip', 'bomb-zstd'])
      expect(await refused(name)).toMatchObject({ code: 'LAYER_BOMB' })
  })

  test('zeros are no bomb, for they take no room', async () => {
    const tar = await tarBytes([{ name: 'zeros', contents: Buffer.alloc(200 * 1024 * 1024) }])
    await publish(real, 'zeros-gzip:1', [
      { blob: gzipSync(tar, { level: 9 }), mediaType: MEDIA.layerGzip, tar },
    ])
    await publish(real, 'zeros-zstd:1', [{ blob: zstdCompressSync(tar), mediaType: MEDIA.layerZstd, tar }])
    for (const name of ['zeros-gzip', 'zeros-zstd']) {
      await using store = await newStore()
      const { image } = await pull(store, `${real.host}/${name}:1`)
      expect(image.config.rootfs.diff_ids).toEqual([sha256(tar)])
      expect((await store.fsck()).problems).toEqual([])
      const usage = (await store.ledger()).usage().measure()
      expect(usage.allocatedBytes).toBeLessThan(5_000_000)
    }
  })

  test('zeros that we compressed ourselves are no bomb', async () => {
    const tar = await tarBytes([{ name: 'zeros', contents: Buffer.alloc(80 * 1024 * 1024) }])
    await using store = await newStore()
    await push(store, `${real.host}/zeros:1`, await makeImage(store, [tar]))
    await using other = await newStore()
    expect((await pull(other, `${real.host}/zeros:1`)).states).toEqual(['done'])
  })

  test('foreign layers, artifacts, and manifests that disagree with their config', async () => {
    const [tar = Buffer.alloc(0)] = await threeLayers()
    const layer = { blob: gzipSync(tar), mediaType: MEDIA.layerGzip, tar }
    await publish(real, 'count:1', [layer], { config: { rootfs: { type: 'layers', diff_ids: [] } } })
    expect(await refused('count')).toMatchObject({ code: 'CONFIG_INVALID' })
    await publish(real, 'artifact:1', [{ ...layer, mediaType: 'application/x-thing' }])
    expect(await refused('artifact')).toMatchObject({ code: 'LAYER_UNSUPPORTED' })
    const digest = sha256(layer.blob)
    await publish(real, 'foreign:1', [
      { ...layer, mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip' },
    ])
    expect(await refused('foreign')).toMatchObject({
      code: 'LAYER_FOREIGN',
      message: expect.stringContaining(digest),
    })
  })

  test('a manifest that claims a false pair does not spoil later pushes', async () => {
    const [tar = Buffer.alloc(0), other = Buffer.alloc(0)] = await threeLayers()
    await using store = await newStore()
    const image = await makeImage(store, [tar])
    // The layer is there, so nothing is fetched, and nothing shows that the blob is another one.
    await publish(real, 'liar:1', [{ blob: gzipSync(other), mediaType: MEDIA.layerGzip, tar }])
    await pull(store, `${real.host}/liar:1`)
    await push(store, `${real.host}/honest:1`, image)
    await using fresh = await newStore()
    expect((await pull(fresh, `${real.host}/honest:1`)).image.id).toBe(image.id)
  })

  test('blobs damaged on the registry’s disk', async () => {
    await using own = await startRegistry()
    await using store = await newStore()
    const image = await makeImage(store, await threeLayers())
    await push(store, `${own.host}/hurt:1`, image)
    const layer = store.layers.compressed(image.config.rootfs.diff_ids[0] as DiffId)[0]
    const hex = layer?.digest.slice('sha256:'.length) ?? ''
    const file = join(own.storage, 'docker/registry/v2/blobs/sha256', hex.slice(0, 2), hex, 'data')
    const whole = await readFile(file)
    const damages = [
      () => writeFile(file, Buffer.from(whole.map((byte, i) => (i === 1_000_000 ? byte ^ 1 : byte)))),
      () => truncate(file, whole.length - 1000),
      () => appendFile(file, 'more'),
    ]
    for (const damage of damages) {
      await writeFile(file, whole)
      await damage()
      await using other = await newStore()
      await expect(pull(other, `${own.host}/hurt:1`, { retries: 0 })).rejects.toMatchObject({
        code: expect.stringMatching(/^(DIGEST_MISMATCH|SIZE_MISMATCH|COMPRESSION_INVALID|REGISTRY_ERROR)$/),
      })
      expect(other.images.list()).toEqual([])
      expect(other.layers.find(image.config.rootfs.diff_ids[0] as DiffId)).toBeUndefined()
      expect(other.layers.compressed(image.config.rootfs.diff_ids[0] as DiffId)).toEqual([])
    }
  })
})

describe('compressed bytes that are gone', () => {
  test('there, or mounted; else fetched from where they came, or refused by name', async () => {
    await using real = await startRegistry()
    await using other = await startRegistry()
    const [tar = Buffer.alloc(0)] = await threeLayers()
    const packed = gzipSync(tar, { level: 1 })
    await publish(real, 'base:1', [{ blob: packed, mediaType: MEDIA.layerGzip, tar }])
    await using full = await newStore()
    const { image } = await pull(full, `${real.host}/base:1`)
    const store = withoutBlob(full, sha256(packed))

    expect((await push(store, `${real.host}/base:2`, image)).states).toEqual(['exists', 'exists'])
    expect((await push(store, `${real.host}/next-door:1`, image)).states).toEqual(['mounted', 'mounted'])
    const reference = parseReference(`${other.host}/far:1`)
    await using registry = await openRegistry(reference)
    await expect(pushImage(store, registry, reference, image)).rejects.toMatchObject({
      code: 'BLOB_GONE',
      message: expect.stringContaining(sha256(packed)),
      hint: 'pull the base image again',
    })
    expect(await registry.hasManifest('1')).toBeUndefined()
    const pushed = await push(store, `${other.host}/far:1`, image)
    expect(pushed).toMatchObject({ digest: image.manifestDigest, states: ['done', 'done'] })
  })

  test('a pull can be asked for them, and checks that they are what they were', async () => {
    await using real = await startRegistry()
    const [tar = Buffer.alloc(0), other = Buffer.alloc(0)] = await threeLayers()
    await publish(real, 'base:1', [{ blob: gzipSync(tar), mediaType: MEDIA.layerGzip, tar }])
    await using store = await newStore()
    const { config } = await makeImage(store, [tar])
    const [diffId = '' as DiffId] = config.rootfs.diff_ids
    await pull(store, `${real.host}/base:1`)
    expect(store.layers.compressed(diffId)).toEqual([])
    await pull(store, `${real.host}/base:1`, {}, { refetchBlobs: true })
    expect(store.layers.compressed(diffId)).toMatchObject([{ digest: sha256(gzipSync(tar)) }])
    await publish(real, 'liar:1', [{ blob: gzipSync(other), mediaType: MEDIA.layerGzip, tar }])
    await expect(pull(store, `${real.host}/liar:1`, {}, { refetchBlobs: true })).rejects.toMatchObject({
      code: 'DIGEST_MISMATCH',
    })
  })

  test('our own compression gives the same bytes again', async () => {
    await using real = await startRegistry()
    await using full = await newStore()
    const image = await makeImage(full, await threeLayers())
    const pushed = await push(full, `${real.host}/built:1`, image)
    await using other = await startRegistry()
    const [diffId = '' as DiffId] = image.config.rootfs.diff_ids
    const store = withoutBlob(full, full.layers.compressed(diffId)[0]?.digest ?? '')
    const nowhere: Store = { ...store, blobs: { ...store.blobs, origins: () => [] } }
    expect((await push(nowhere, `${other.host}/built:1`, image)).digest).toBe(pushed.digest)
  })
})

/** A store that has pruned a blob, until it gets it again. */
function withoutBlob(full: Store, gone: string): Store {
  const { blobs } = full
  let hidden = true
  return {
    ...full,
    blobs: {
      ...blobs,
      size: (digest) => (hidden && digest === gone ? undefined : blobs.size(digest)),
      ingest: async (source, expected) => {
        await blobs.ingest(source, expected)
        if (expected.digest === gone) hidden = false
      },
    },
  }
}

test('a pull that is stopped leaves no image', async () => {
  await using real = await startRegistry()
  await using store = await newStore()
  await push(store, `${real.host}/stop:1`, await makeImage(store, await threeLayers()))
  await using other = await newStore()
  const reference = parseReference(`${real.host}/stop:1`)
  const controller = new AbortController()
  await using registry = await openRegistry(reference, { signal: controller.signal })
  const stopped = pullImage(other, registry, reference, {
    signal: controller.signal,
    observe: (event) => {
      if (event.kind === 'layer' && event.state === 'started') controller.abort(new Error('stopped'))
    },
  })
  await expect(stopped).rejects.toThrow('stopped')
  expect(other.images.list()).toEqual([])
})

test('a server that sends another blob than asked', async () => {
  const blob = gzipSync(Buffer.alloc(10_000))
  const digest = sha256(Buffer.from('another'))
  const config = Buffer.from(
    JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [digest] } }),
  )
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: sha256(config), size: config.length },
    layers: [{ mediaType: MEDIA.layerGzip, digest, size: blob.length }],
  })
  const server: Server = createServer((request, response) => {
    if (request.url?.includes('/manifests/') === true) {
      response.setHeader('content-type', MEDIA.manifest)
      response.end(manifest)
    } else if (request.url?.includes(sha256(config)) === true) response.end(config)
    else response.end(request.url?.includes('/blobs/') === true ? blob : '')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await using store = await newStore()
    const { port } = server.address() as AddressInfo
    await expect(pull(store, `127.0.0.1:${port}/x:1`, { retries: 0 })).rejects.toMatchObject({
      code: 'DIGEST_MISMATCH',
    })
    expect(store.images.list()).toEqual([])
  } finally {
    server.close()
  }
})
