/** Images between the store and archives, with skopeo, umoci and podman as judges and as writers. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFile } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { collect, makeImage, pieces, sha256, tarBytes, type TestEntry } from '../builder/archive/testing.ts'
import {
  importTar,
  loadArchive,
  pullImage,
  pushImage,
  saveImages,
  type ImageToSave,
  type TransferEvent,
} from '../builder/index.ts'
import { MEDIA, openStore, readTar, type Image, type Store } from '../cas/index.ts'
import { openRegistry, parseReference } from '../registry/index.ts'
import { startRegistry } from './support/registry.ts'

const run = promisify(execFile)
const NAME = 'docker.io/library/app:1'
let directory: string
let count = 0

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tbuild-archive-'))
})
afterAll(async () => {
  await rm(directory, { recursive: true, force: true })
})

function newStore(): Promise<Store> {
  return openStore(newPath('store'))
}

function newPath(kind: string): string {
  return join(directory, `${kind}-${++count}`)
}

async function makeApp(store: Store, names: readonly string[] = [NAME]): Promise<Image> {
  const layers = [
    await tarBytes([
      { name: 'bin/', type: 'directory' },
      { name: 'bin/sh', contents: 'not really\n'.repeat(50_000) },
      { name: 'sh', type: 'symlink', linkname: 'bin/sh' },
    ]),
    await tarBytes([{ name: 'etc/motd', contents: 'hello' }]),
    await tarBytes([{ name: 'etc/.wh.motd' }]),
  ]
  return makeImage(store, layers, { names, config: { Cmd: ['/bin/sh'], Labels: { a: 'b' } } })
}

async function save(
  store: Store,
  images: readonly ImageToSave[],
  format: 'docker' | 'oci' = 'docker',
): Promise<{ bytes: Buffer; notes: string[] }> {
  const notes: string[] = []
  const observe = (event: TransferEvent): void => void (event.kind === 'note' && notes.push(event.text))
  return { bytes: await collect(saveImages(store, images, { format, observe })), notes }
}

async function saveFile(
  store: Store,
  images: readonly ImageToSave[],
  format: 'docker' | 'oci',
): Promise<string> {
  const path = newPath(`${format}.tar`)
  await writeFile(path, (await save(store, images, format)).bytes)
  return path
}

async function load(store: Store, bytes: Uint8Array): Promise<readonly Image[]> {
  return loadArchive(store, pieces(bytes, 50_000))
}

async function entriesOf(bytes: Buffer): Promise<string[]> {
  const found: string[] = []
  for await (const { entry } of readTar([bytes])) found.push(entry.path.toString())
  return found
}

describe('save and load', () => {
  test.each(['docker', 'oci'] as const)(
    '%s: the same image in another store, the same bytes each time',
    async (format) => {
      await using one = await newStore()
      const image = await makeApp(one)
      const { bytes } = await save(one, [{ image, name: NAME }], format)
      expect((await save(one, [{ image, name: NAME }], format)).bytes.equals(bytes)).toBe(true)
      const listed = await entriesOf(bytes)
      expect(listed).toEqual(listed.toSorted())
      expect(listed.filter((name) => !name.startsWith('blobs'))).toEqual(
        format === 'docker'
          ? ['index.json', 'manifest.json', 'oci-layout', 'repositories']
          : ['index.json', 'oci-layout'],
      )

      for (const packed of [bytes, gzipSync(bytes), zstdCompressSync(bytes)]) {
        await using two = await newStore()
        const [loaded] = await load(two, packed)
        expect(loaded).toMatchObject({ id: image.id, manifestDigest: image.manifestDigest, names: [NAME] })
        expect(two.images.byName(NAME)).toEqual(loaded)
        for (const diffId of image.config.rootfs.diff_ids)
          expect(sha256(await collect(two.layers.tar(diffId)))).toBe(diffId)
        expect((await save(two, [{ image, name: NAME }], format)).bytes.equals(bytes)).toBe(true)
      }
    },
  )

  test('several images and names share what they have; an image without a name; one by digest', async () => {
    await using one = await newStore()
    const image = await makeApp(one, [NAME, 'registry.example:5000/team/app:2'])
    const top = await tarBytes([{ name: 'top', contents: 'x' }])
    const other = await makeImage(one, [
      await collect(one.layers.tar(image.config.rootfs.diff_ids[0] as never)),
      top,
    ])
    const { bytes } = await save(one, [
      ...image.names.map((name) => ({ image, name })),
      { image: other },
      { image: other, name: `docker.io/library/x@${other.manifestDigest}` },
    ])
    // Two manifests, two configs, four layers.
    expect((await entriesOf(bytes)).filter((name) => /^blobs\/sha256\/./.test(name))).toHaveLength(8)
    await using two = await newStore()
    const loaded = await load(two, bytes)
    expect(loaded.map(({ id }) => id).toSorted()).toEqual([image.id, other.id].toSorted())
    expect(two.images.byManifest(image.manifestDigest)?.names).toEqual(image.names)
    expect(two.images.byManifest(other.manifestDigest)?.names).toEqual([])
  })

  test('a loaded image is still to be compressed when it is pushed', async () => {
    await using real = await startRegistry()
    await using one = await newStore()
    const image = await makeApp(one)
    await using two = await newStore()
    const [loaded] = await load(two, (await save(one, [{ image, name: NAME }])).bytes)
    const reference = parseReference(`${real.host}/app:1`)
    await using registry = await openRegistry(reference)
    await pushImage(two, registry, reference, loaded as Image)
    await using three = await newStore()
    const { manifest, id } = await pullImage(three, registry, reference)
    expect(manifest.layers.map(({ mediaType }) => mediaType)).toEqual(Array(3).fill(MEDIA.layerGzip))

    // Saved from here it keeps its compressed layers, as long as they are there.
    const pulled = three.images.list()[0] as Image
    const kept = await save(three, [{ image: pulled, name: NAME }])
    expect(kept.notes).toEqual([])
    await using four = await newStore()
    expect((await load(four, kept.bytes))[0]).toMatchObject({ id, manifestDigest: pulled.manifestDigest })
    expect(four.layers.compressed(pulled.config.rootfs.diff_ids[0] as never)).toHaveLength(1)

    const pruned: Store = { ...three, blobs: { ...three.blobs, size: () => undefined } }
    const bare = await save(pruned, [{ image: pulled, name: NAME }])
    expect(bare.notes).toEqual([expect.stringContaining('compressed bytes of 3 of its layers')])
    await using five = await newStore()
    expect((await load(five, bare.bytes))[0]).toMatchObject({ id, manifestDigest: image.manifestDigest })
  })

  test('a reader that stops', async () => {
    await using store = await newStore()
    const image = await makeApp(store)
    for await (const chunk of saveImages(store, [{ image }], { format: 'oci' })) {
      expect(chunk.length).toBeGreaterThan(0)
      break
    }
  })
})

describe('other tools', () => {
  test('skopeo reads both forms, and finds the same image', async () => {
    await using store = await newStore()
    const image = await makeApp(store)
    const docker = await saveFile(store, [{ image, name: NAME }], 'docker')
    const oci = await saveFile(store, [{ image, name: NAME }], 'oci')
    for (const source of [
      `oci-archive:${oci}`,
      `oci-archive:${docker}`,
      `docker-archive:${docker}`,
      `docker-archive:${docker}:app:1`,
    ]) {
      const to = newPath('dir')
      await run('skopeo', ['copy', source, `dir:${to}`])
      const files = await Promise.all((await readdir(to)).map((name) => readFile(join(to, name))))
      const digests = files.map((bytes) => sha256(isGzip(bytes) ? gunzipSync(bytes) : bytes))
      expect(digests).toEqual(expect.arrayContaining([image.id, ...image.config.rootfs.diff_ids]))
      const { stdout } = await run('skopeo', ['inspect', '--config', source])
      expect(JSON.parse(stdout)).toMatchObject({ config: { Cmd: ['/bin/sh'], Labels: { a: 'b' } } })
    }
  })

  test('umoci unpacks it', async () => {
    await using store = await newStore()
    const image = await makeApp(store)
    const layout = newPath('layout')
    await mkdir(layout)
    await run('tar', ['-xf', await saveFile(store, [{ image, name: NAME }], 'oci'), '-C', layout])
    const bundle = newPath('bundle')
    await run('umoci', ['unpack', '--image', `${layout}:1`, bundle])
    expect(await readdir(join(bundle, 'rootfs'))).toEqual(['bin', 'etc', 'sh'])
    expect(await readdir(join(bundle, 'rootfs/etc'))).toEqual([])
  })

  test('podman loads it, and we load what podman saves in each of its forms', async () => {
    await using store = await newStore()
    const image = await makeApp(store)
    const podman = (...args: string[]) =>
      run('podman', ['--root', root, '--runroot', `${root}-run`, '--storage-driver', 'vfs', ...args])
    const root = newPath('podman')
    const archive = await saveFile(store, [{ image, name: NAME }], 'docker')
    expect((await podman('load', '-i', archive)).stdout).toContain(NAME)
    for (const format of ['docker-archive', 'oci-archive']) {
      const file = newPath('saved.tar')
      await podman('save', '--format', format, '-o', file, NAME)
      await using other = await newStore()
      const [loaded] = await loadArchive(other, createReadStream(file))
      expect(loaded?.config).toMatchObject({ config: { Cmd: ['/bin/sh'], Labels: { a: 'b' } } })
      expect(loaded?.config.rootfs).toEqual(image.config.rootfs)
      expect(loaded?.names).toEqual([NAME])
    }
  })

  test("an image with docker's manifest becomes OCI's in an OCI layout, and stays itself elsewhere", async () => {
    await using real = await startRegistry()
    await using one = await newStore()
    const image = await makeApp(one)
    const oci = await saveFile(one, [{ image, name: NAME }], 'oci')
    const to = `docker://${real.host}/app:1`
    await run('skopeo', ['copy', '--dest-tls-verify=false', '--format', 'v2s2', `oci-archive:${oci}`, to])
    const reference = parseReference(`${real.host}/app:1`)
    await using registry = await openRegistry(reference)
    await using two = await newStore()
    const pulled = await pullImage(two, registry, reference)
    expect(pulled).toMatchObject({ id: image.id, manifest: { mediaType: MEDIA.dockerManifest } })

    const { bytes, notes } = await save(two, [{ image: pulled, name: NAME }], 'oci')
    expect(notes).toEqual([expect.stringContaining("docker's manifest is saved as OCI's")])
    const layout = newPath('layout')
    await mkdir(layout)
    await writeFile(`${layout}.tar`, bytes)
    await run('tar', ['-xf', `${layout}.tar`, '-C', layout])
    await run('umoci', ['unpack', '--image', `${layout}:1`, newPath('bundle')])

    await using three = await newStore()
    const [loaded] = await load(three, (await save(two, [{ image: pulled, name: NAME }])).bytes)
    expect(loaded?.manifestDigest).toBe(pulled.manifestDigest)
  })

  test('we load what skopeo writes', async () => {
    await using store = await newStore()
    const image = await makeApp(store)
    const oci = await saveFile(store, [{ image, name: NAME }], 'oci')
    for (const kind of ['docker-archive', 'oci-archive']) {
      const file = newPath('skopeo.tar')
      await run('skopeo', ['copy', `oci-archive:${oci}`, `${kind}:${file}:app:1`])
      await using other = await newStore()
      const [loaded] = await loadArchive(other, createReadStream(file))
      expect(loaded).toMatchObject({ names: [NAME], config: { rootfs: image.config.rootfs } })
    }
  })
})

function isGzip(bytes: Buffer): boolean {
  return bytes[0] === 0x1f && bytes[1] === 0x8b
}

/** Docker's archive of before 25, as it is: a folder for each layer, a layer that occurs twice as a symlink. */
async function oldDocker(change: {
  readonly config?: object
  readonly manifest?: object
  readonly entries?: readonly TestEntry[]
  readonly layer?: Uint8Array
}): Promise<Buffer> {
  const layer = await tarBytes([{ name: 'x', contents: 'y' }])
  const config = JSON.stringify({
    architecture: 'amd64',
    os: 'linux',
    config: { Cmd: ['sh'], Entrypoint: null, OnBuild: null },
    rootfs: { type: 'layers', diff_ids: [sha256(layer), sha256(layer)] },
    ...change.config,
  })
  const name = `${sha256(Buffer.from(config)).slice(7)}.json`
  const manifest = [
    {
      Config: name,
      RepoTags: ['old:1', 'old:2'],
      Layers: ['aa/layer.tar', 'bb/layer.tar'],
      ...change.manifest,
    },
  ]
  return tarBytes([
    { name: 'aa', type: 'directory' },
    { name: 'aa/VERSION', contents: '1.0' },
    { name: 'aa/layer.tar', contents: change.layer ?? layer },
    { name: 'bb', type: 'directory' },
    { name: 'bb/layer.tar', type: 'symlink', linkname: '../aa/layer.tar' },
    { name, contents: config },
    ...(change.entries ?? []),
    { name: 'manifest.json', contents: JSON.stringify(manifest) },
  ])
}

describe("docker's old form", () => {
  test('symlinked layers, several tags, layers that are compressed inside', async () => {
    const layer = await tarBytes([{ name: 'x', contents: 'y' }])
    for (const packed of [layer, gzipSync(layer), zstdCompressSync(layer)]) {
      await using store = await newStore()
      const [loaded] = await load(store, await oldDocker({ layer: packed }))
      expect(loaded?.names).toEqual(['docker.io/library/old:1', 'docker.io/library/old:2'])
      expect(loaded?.config.rootfs.diff_ids).toEqual([sha256(layer), sha256(layer)])
      expect(loaded?.manifest.layers.map(({ digest }) => digest)).toEqual([sha256(layer), sha256(layer)])
    }
  })

  const loop: TestEntry[] = [
    { name: 'l1', type: 'symlink', linkname: 'l2' },
    { name: 'l2', type: 'symlink', linkname: 'l1' },
    { name: 'passwd', type: 'symlink', linkname: '/etc/passwd' },
    { name: 'up', type: 'symlink', linkname: '../../../../../../../etc/passwd' },
  ]
  test.each([
    ['another layer than the config says', { layer: Buffer.alloc(1024) }, 'DIGEST_MISMATCH'],
    ['fewer layers than diff ids', { manifest: { Layers: ['aa/layer.tar'] } }, 'ARCHIVE_INVALID'],
    ['a missing layer', { manifest: { Layers: ['aa/layer.tar', 'cc/layer.tar'] } }, 'ARCHIVE_INVALID'],
    ['a missing config', { manifest: { Config: 'nope.json' } }, 'ARCHIVE_INVALID'],
    ['a config outside', { manifest: { Config: '../../../../../etc/passwd' } }, 'ARCHIVE_INVALID'],
    ['a config by an absolute name', { manifest: { Config: '/etc/passwd' } }, 'ARCHIVE_INVALID'],
    ['links in a circle', { entries: loop, manifest: { Config: 'l1' } }, 'ARCHIVE_INVALID'],
    ['a link to an absolute name', { entries: loop, manifest: { Config: 'passwd' } }, 'ARCHIVE_INVALID'],
    ['a link that climbs out', { entries: loop, manifest: { Config: 'up' } }, 'ARCHIVE_INVALID'],
    ['an entry that climbs out', { entries: [{ name: '../evil' }] }, 'ARCHIVE_INVALID'],
    ['tags that are none', { manifest: { RepoTags: ['UPPER:1'] } }, 'REFERENCE_INVALID'],
    ['tags of the wrong type', { manifest: { RepoTags: 'old:1' } }, 'ARCHIVE_INVALID'],
    ['a config that is no image', { config: { rootfs: null } }, 'CONFIG_INVALID'],
  ] as const)('refuses %s', async (_, change, code) => {
    await using store = await newStore()
    const refused = load(store, await oldDocker(change))
    await expect(refused).rejects.toMatchObject({ code })
    expect(store.images.list()).toEqual([])
    expect(await readdir(join(store.path, 'work')).then((all) => all.flat())).toHaveLength(1)
  })
})

const describeBytes = (mediaType: string, bytes: Uint8Array): object => ({
  mediaType,
  digest: sha256(bytes),
  size: bytes.length,
})
const blob = (bytes: Uint8Array): TestEntry => ({
  name: `blobs/sha256/${sha256(bytes).slice(7)}`,
  contents: bytes,
})
const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

describe('hostile layouts', () => {
  const layer = Buffer.alloc(1024)
  const config = json({
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: [sha256(layer)] },
  })

  async function layout(change: {
    readonly layers?: readonly object[]
    readonly index?: readonly object[]
    /** As index.json has it. */
    readonly manifestSize?: number
    readonly entries?: readonly TestEntry[]
    readonly without?: Uint8Array
  }): Promise<Buffer> {
    const layers = change.layers ?? [describeBytes(MEDIA.layer, layer)]
    const manifest = json({ schemaVersion: 2, config: describeBytes(MEDIA.config, config), layers })
    const index = json({
      schemaVersion: 2,
      manifests: change.index ?? [
        {
          ...describeBytes(MEDIA.manifest, manifest),
          ...(change.manifestSize !== undefined && { size: change.manifestSize }),
        },
      ],
    })
    const blobs = [layer, config, manifest].filter((bytes) => bytes !== change.without).map(blob)
    return tarBytes([
      { name: 'oci-layout', contents: '{"imageLayoutVersion":"1.0.0"}' },
      { name: 'index.json', contents: index },
      ...blobs,
      ...(change.entries ?? []),
    ])
  }

  test('the honest one is taken', async () => {
    await using store = await newStore()
    expect(await load(store, await layout({}))).toHaveLength(1)
  })

  const other = Buffer.alloc(2048)
  const nested = json({ schemaVersion: 2, manifests: [] })
  test.each([
    [
      'a blob under another’s name',
      { entries: [{ ...blob(layer), contents: Buffer.alloc(1024, 1) }] },
      'DIGEST_MISMATCH',
    ],
    ['a blob of another size', { entries: [{ ...blob(layer), contents: other }] }, 'SIZE_MISMATCH'],
    ['a manifest of another size', { manifestSize: 7 }, 'SIZE_MISMATCH'],
    ['a blob that is not there', { without: layer }, 'ARCHIVE_INVALID'],
    ['a config that is not there', { without: config }, 'ARCHIVE_INVALID'],
    [
      'a layer that is not what the config says',
      { layers: [describeBytes(MEDIA.layer, other)], entries: [blob(other)] },
      'DIGEST_MISMATCH',
    ],
    [
      'a layer whose type is wrong',
      { layers: [describeBytes(MEDIA.layerGzip, layer)] },
      'COMPRESSION_UNEXPECTED',
    ],
    [
      'a foreign layer',
      { layers: [{ ...describeBytes(MEDIA.layer, layer), urls: ['http://169.254.169.254/'] }] },
      'LAYER_FOREIGN',
    ],
    ['no images', { index: [] }, 'ARCHIVE_INVALID'],
    [
      'an index without images',
      { index: [describeBytes(MEDIA.index, nested)], entries: [blob(nested)] },
      'PLATFORM_MISSING',
    ],
    ['an artifact', { index: [describeBytes('application/x-thing', layer)] }, 'ARCHIVE_INVALID'],
    [
      'a digest that is a path',
      { index: [{ ...describeBytes(MEDIA.manifest, layer), digest: 'sha256:../../etc/passwd' }] },
      'MANIFEST_INVALID',
    ],
  ] as const)('refuses %s', async (_, change, code) => {
    await using store = await newStore()
    await expect(load(store, await layout(change))).rejects.toMatchObject({ code })
    expect(store.images.list()).toEqual([])
  })

  test('zeros are no bomb, for they take no room: an archive as a whole, and a layer in it', async () => {
    const tar = await tarBytes([{ name: 'zeros', contents: Buffer.alloc(80 * 1024 * 1024) }])
    await using one = await newStore()
    const image = await makeImage(one, [tar], { names: [NAME], config: {} })
    const { bytes } = await save(one, [{ image, name: NAME }])
    await using two = await newStore()
    expect(await load(two, zstdCompressSync(bytes))).toMatchObject([{ id: image.id, names: [NAME] }])
    expect((await two.fsck()).problems).toEqual([])
    const packed = gzipSync(tar, { level: 9 })
    const settings = Buffer.from(JSON.stringify(image.config))
    const manifest = JSON.stringify([{ Config: 'config', RepoTags: [NAME], Layers: ['layer'] }])
    await using three = await newStore()
    const archive = await tarBytes([
      { name: 'config', contents: settings },
      { name: 'layer', contents: packed },
      { name: 'manifest.json', contents: Buffer.from(manifest) },
    ])
    expect(await load(three, archive)).toMatchObject([{ id: sha256(settings) }])
    for (const store of [two, three])
      expect((await store.ledger()).usage().measure().allocatedBytes).toBeLessThan(5_000_000)
  })

  test('what is no archive: rubbish, nothing, a cut, a root file system, devices, a bomb', async () => {
    await using store = await newStore()
    const whole = await layout({})
    const device = Buffer.from(await tarBytes([{ name: 'oci-layout' }]))
    device.write('3', 156)
    fixChecksum(device)
    for (const [bytes, code] of [
      [Buffer.from('rubbish'.repeat(200)), 'TAR_CHECKSUM'],
      [Buffer.alloc(0), 'ARCHIVE_INVALID'],
      [whole.subarray(0, 3000), 'TAR_TRUNCATED'],
      [await tarBytes([{ name: 'etc/passwd' }]), 'ARCHIVE_INVALID'],
      [device, 'ARCHIVE_INVALID'],
      [gzipSync(whole).subarray(0, -20), 'COMPRESSION_INVALID'],
      [
        gzipSync(await tarBytes([{ name: 'full', contents: Buffer.alloc(100_000_000, 'a') }]), { level: 9 }),
        'LAYER_BOMB',
      ],
    ] as const)
      await expect(load(store, bytes)).rejects.toMatchObject({ code })
    expect(store.images.list()).toEqual([])
  })
})

function fixChecksum(header: Buffer): void {
  header.write('        ', 148)
  const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
}

/** Fails the test that reads it. */
const never: AsyncIterable<Uint8Array> = {
  [Symbol.asyncIterator]() {
    throw new Error('nothing should be read')
  },
}

describe('import', () => {
  test('bare, gzip, zstd, xz, bzip2: the same layer; the same image when it is dated', async () => {
    const tar = await tarBytes([
      { name: 'bin/', type: 'directory' },
      { name: 'bin/sh', contents: 'x'.repeat(1e6) },
    ])
    const file = newPath('root.tar')
    await writeFile(file, tar)
    await run('xz', ['-k', file])
    await run('bzip2', ['-k', file])
    await using store = await newStore()
    const sources = [
      tar,
      gzipSync(tar),
      zstdCompressSync(tar),
      await readFile(`${file}.xz`),
      await readFile(`${file}.bz2`),
    ]
    const ids = new Set<string>()
    for (const source of sources) {
      const image = await importTar(store, pieces(source), { names: [NAME], sourceDateEpoch: 1e9 })
      ids.add(image.id)
      expect(image).toMatchObject({
        names: [NAME],
        config: {
          created: '2001-09-09T01:46:40.000Z',
          rootfs: { diff_ids: [sha256(tar)] },
          history: [{ comment: 'Imported from -' }],
        },
      })
    }
    expect(ids.size).toBe(1)
    await expect(
      importTar(store, pieces((await readFile(`${file}.xz`)).subarray(0, 100))),
    ).rejects.toMatchObject({ code: 'COMPRESSION_INVALID' })
  })

  test('a tool that is not there is named', async () => {
    await using store = await newStore()
    const path = process.env['PATH']
    process.env['PATH'] = '/nonexistent'
    try {
      await expect(importTar(store, pieces(Buffer.from('fd377a585a000000', 'hex')))).rejects.toMatchObject({
        code: 'TOOL_MISSING',
        hint: expect.stringContaining('apt-get install xz-utils'),
      })
    } finally {
      process.env['PATH'] = path
    }
  })

  test('changes make the config', async () => {
    await using store = await newStore()
    const tar = await tarBytes([{ name: 'x' }])
    const image = await importTar(store, pieces(tar), {
      message: 'made by hand',
      changes: [
        'CMD ["sh", "-c", "echo $A"]',
        'ENTRYPOINT exec thing',
        'ENV A=1 B="two words"',
        'ENV A=2 C=$A',
        'EXPOSE 80 53/udp 8000-8002',
        'LABEL x.y="z w" n=$B',
        'USER app:app',
        'VOLUME /data',
        'VOLUME ["/v1", "/v2"]',
        'WORKDIR /srv',
        'WORKDIR www',
        'STOPSIGNAL SIGUSR1',
      ],
    })
    expect(image.config.history).toMatchObject([{ comment: 'made by hand' }])
    expect(image.config.config).toEqual({
      Cmd: ['sh', '-c', 'echo $A'],
      Entrypoint: ['/bin/sh', '-c', 'exec thing'],
      Env: ['A=2', 'B=two words', 'C=1'],
      ExposedPorts: { '80/tcp': {}, '53/udp': {}, '8000/tcp': {}, '8001/tcp': {}, '8002/tcp': {} },
      Labels: { 'x.y': 'z w', n: 'two words' },
      User: 'app:app',
      Volumes: { '/data': {}, '/v1': {}, '/v2': {} },
      WorkingDir: '/srv/www',
      StopSignal: 'SIGUSR1',
    })
  })

  test.each(['RUN true', 'COPY a b', 'FROM x', 'NONSENSE', 'EXPOSE http', 'ENV'])(
    'refuses the change %s',
    async (change) => {
      await using store = await newStore()
      await expect(importTar(store, never, { changes: [change] })).rejects.toMatchObject({
        code: 'CHANGE_INVALID',
        message: expect.stringContaining(`--change ${JSON.stringify(change)}`),
      })
    },
  )
})
