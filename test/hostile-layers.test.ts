/**
 * Layers made to harm, on their ways into a real store: as an archive that is imported, one that is loaded, and from a registry. What is refused leaves the
 * store as it was, file by file and row by row, and in order (fsck); what is taken is looked at through the mount that a build or a container gets.
 * `outside` stands for the host; nothing may ever change there.
 *
 * What is taken is looked at with each driver, for each mounts layers in its own way. What is refused never gets as far as a mount: once is enough, and once
 * more where contents are files, for what had been written by then is taken away in another way.
 *
 * Which entries are refused, and why, is told in cas/tar/hostile.test.ts and cas/layer/apply.test.ts.
 */
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { pieces, sha256 } from '../builder/archive/testing.ts'
import { importTar, loadArchive, pullImage } from '../builder/index.ts'
import {
  DRIVER_NAMES,
  MEDIA,
  openStore,
  TarReader,
  type DriverName,
  type Image,
  type Store,
} from '../cas/index.ts'
import { createApplier, type LayerLimits } from '../cas/layer/apply.ts'
import { LayerTree } from '../cas/layer/tree.ts'
import {
  archiveOf,
  capability,
  describeTree,
  paxHeader,
  rawArchive,
  rawEntry,
  rawHeader,
  type Described,
} from '../cas/tar/testing.ts'
import { getXattr, isErrno, listXattrs } from '../linux/index.ts'
import { openRegistry, parseReference } from '../registry/index.ts'
import { describeBlob, QUICK, reply, startHostile, type Handler, type Hostile } from '../registry/testkit.ts'
import { freshCommand } from './support/bundle.ts'

const directory = mkdtempSync(join(tmpdir(), 'tbuild-hostile-'))
const storeOf = (driver: DriverName): string => join(directory, 'stores', driver)
const path = storeOf('erofs')
const outside = join(directory, 'outside')
let host: string[]
let server: Hostile
/** What the server says of a path, until the next test. */
const answers = new Map<string, Handler>()
let count = 0

beforeAll(async () => {
  mkdirSync(outside)
  writeFileSync(join(outside, 'secret'), 'secret', { mode: 0o600 })
  host = describeTree(outside)
  server = await startHostile((request, response, raw) => {
    const unknown: Handler = () => reply(response, request.url === '/v2/' ? 200 : 404)
    return (answers.get(request.url) ?? unknown)(request, response, raw)
  })
  // Stores with something in them, in every table and directory that an image touches.
  for (const driver of DRIVER_NAMES) {
    await using store = await openStore(storeOf(driver), { driver })
    await pull(store, [archiveOf({ path: 'honest', contents: randomBytes(5000) })])
    await using _ = await store.layers.mount([])
  }
})
afterAll(async () => {
  await server[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})
afterEach(() => {
  answers.clear()
  if (describeTree(outside).join('\n') !== host.join('\n')) throw new Error('the host was changed')
  const made = readdirSync(directory).filter((name) => name !== 'outside' && name !== 'stores')
  if (made.length > 0) throw new Error(`the host has got ${made.join(', ')}`)
})

// Ways in

const config = (tars: readonly Uint8Array[]): Buffer =>
  Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: tars.map(sha256) },
    }),
  )

type Way = (store: Store, layers: readonly Buffer[]) => Promise<Image>

const ways: Readonly<Record<'import' | 'load' | 'pull', Way>> = {
  import: (store, [tar = Buffer.alloc(0)]) => importTar(store, pieces(tar), { names: [newName()] }),
  load: async (store, tars) => {
    const layers = tars.map((_, i) => `${i}.tar`)
    const manifest = JSON.stringify([{ Config: 'config', RepoTags: [newName()], Layers: layers }])
    const archive = archiveOf(
      { path: 'config', contents: config(tars) },
      { path: 'manifest.json', contents: manifest },
      ...tars.map((contents, i) => ({ path: `${i}.tar`, contents })),
    )
    const [image] = await loadArchive(store, pieces(archive))
    if (image === undefined) throw new Error('nothing was loaded')
    return image
  },
  pull,
}

function newName(): string {
  return `localhost/evil:${++count}`
}

function blobUrl(bytes: Buffer): string {
  return `/v2/evil/blobs/${sha256(bytes)}`
}

interface Published {
  readonly mediaType: string
  readonly blob: Buffer
  readonly tar: Buffer
  /** Instead of the blob. */
  readonly answer?: Handler
}

async function pull(store: Store, tars: readonly Buffer[]): Promise<Image> {
  return pullBlobs(
    store,
    tars.map((tar) => ({ mediaType: MEDIA.layerGzip, blob: gzipSync(tar), tar })),
  )
}

async function pullBlobs(store: Store, layers: readonly Published[]): Promise<Image> {
  const configBytes = config(layers.map(({ tar }) => tar))
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { ...describeBlob(configBytes), mediaType: MEDIA.config },
    layers: layers.map(({ blob, mediaType }) => ({ ...describeBlob(blob), mediaType })),
  }
  const tag = ++count
  answers.set(`/v2/evil/manifests/${tag}`, (_, response) =>
    reply(response, 200, manifest, { 'content-type': MEDIA.manifest }),
  )
  answers.set(blobUrl(configBytes), (_, response) => reply(response, 200, configBytes))
  for (const { blob, answer } of layers)
    answers.set(blobUrl(blob), answer ?? ((_, response) => reply(response, 200, blob)))
  const reference = parseReference(`${server.host}/evil:${tag}`)
  await using registry = await openRegistry(reference, QUICK)
  return await pullImage(store, registry, reference)
}

// What became of the store

/** Each file with its digest, each row of the index. The store must be closed. */
function contentsOf(store: string): string[] {
  const lines = readdirSync(store, { recursive: true, withFileTypes: true })
    .filter(({ name }) => !name.startsWith('index.db'))
    .map((entry) => {
      const at = join(entry.parentPath, entry.name)
      return entry.isFile() ? `${at} ${sha256(readFileSync(at))}` : at
    })
  using db = new DatabaseSync(join(store, 'index.db'), { readOnly: true })
  const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").all()
  for (const { name } of tables)
    for (const row of db.prepare(`SELECT * FROM "${String(name)}"`).all())
      lines.push(
        `${String(name)} ${JSON.stringify(row, (_, value: unknown) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value))}`,
      )
  return lines.toSorted()
}

/** All the ways in which it is not in order. */
async function problemsOf(store: Store): Promise<unknown[]> {
  const { problems, leftovers } = await store.fsck()
  return [...problems, ...leftovers]
}

interface Outcome {
  readonly code: unknown
  /** Files and rows that came or went. */
  readonly changes: readonly string[]
  readonly problems: readonly unknown[]
}

/** What became of `work`, and of the store by it. */
async function attempt(
  work: (store: Store) => Promise<unknown>,
  { at = path, driver = 'erofs' }: { readonly at?: string; readonly driver?: DriverName } = {},
): Promise<Outcome> {
  const before = contentsOf(at)
  let error: unknown
  {
    await using store = await openStore(at, { driver })
    error = await work(store).then(
      () => ({ code: 'taken' }),
      (reason: unknown) => reason,
    )
  }
  const after = contentsOf(at)
  const changes = [
    ...before.filter((line) => !after.includes(line)).map((line) => `- ${line}`),
    ...after.filter((line) => !before.includes(line)).map((line) => `+ ${line}`),
  ]
  await using store = await openStore(at, { driver })
  const { code = error } = error as { readonly code?: unknown }
  return { code, changes, problems: await problemsOf(store) }
}

/** It was refused, and the store does not show that anybody tried. */
function refusal(code: unknown): Outcome {
  return { code, changes: [], problems: [] }
}

const tenGigabytes = rawHeader({ name: 'f', size: base256(10_000_000_000n) })

function base256(value: bigint): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeBigUInt64BE(value, 4)
  bytes[0] = 0x80
  return bytes
}

const symlink = (from: string, link: string): Described => ({ path: from, type: 'symlink', link })
const hardlink = (from: string, link: string): Described => ({ path: from, type: 'hardlink', link })
const withXattr = (name: string, value: Buffer = Buffer.from('y')): Buffer =>
  archiveOf({ path: 'before' }, { path: 'd/', xattrs: new Map([[name, value]]) })
const sparseFile = (name: string, size: string, regions: readonly number[], data = ''): Buffer =>
  Buffer.concat([
    paxHeader({
      'GNU.sparse.major': '0',
      'GNU.sparse.minor': '1',
      'GNU.sparse.numblocks': String(regions.length / 2),
      'GNU.sparse.map': regions.join(','),
      'GNU.sparse.size': size,
    }),
    rawEntry({ name }, data),
  ])
const sparse = (...file: readonly [string, readonly number[], string?]): Buffer =>
  rawArchive(sparseFile('f', ...file))
const oldSparse = (size: bigint): Buffer =>
  rawArchive(rawHeader({ name: 'f', flag: 'S', magic: 'gnu', patch: [[483, base256(size)]] }))
const ordinary = { path: 'before', contents: randomBytes(300_000) }

const refused: readonly (readonly [what: string, tar: Buffer, code: string])[] = [
  ['a name with ..', rawArchive(rawEntry({ name: '../outside/secret' }, 'evil')), 'TAR_PATH'],
  [
    '.. in a PAX path',
    rawArchive(paxHeader({ path: `../outside/secret` }), rawEntry({}, 'evil')),
    'TAR_PATH',
  ],
  ['below a symlink that leads to itself', archiveOf(symlink('a', 'a'), { path: 'a/f' }), 'TAR_PATH'],
  ['below a file', archiveOf({ path: 'a' }, { path: 'a/f' }), 'TAR_PATH'],
  ['the root as a symlink', rawArchive(rawHeader({ name: './', flag: '2', link: outside })), 'TAR_PATH'],
  [
    'a hard link to ..',
    rawArchive(rawHeader({ name: 'l', flag: '1', link: '../outside/secret' })),
    'TAR_PATH',
  ],
  ['a hard link to an absolute name', archiveOf(hardlink('l', join(outside, 'secret'))), 'TAR_LINK'],
  ['a hard link through a symlink', archiveOf(symlink('s', outside), hardlink('l', 's/secret')), 'TAR_LINK'],
  ['a whiteout in ..', rawArchive(rawEntry({ name: '../outside/.wh.secret' })), 'TAR_PATH'],
  ['a whiteout of nothing', archiveOf({ path: 'd/.wh.' }), 'TAR_WHITEOUT'],
  ['a whiteout of .', archiveOf({ path: 'd/.wh..' }), 'TAR_WHITEOUT'],
  ['a whiteout of ..', archiveOf({ path: 'd/.wh...' }), 'TAR_WHITEOUT'],
  ['a name of AUFS below the root', archiveOf({ path: 'd/.wh..wh.plnk' }), 'TAR_RESERVED_NAME'],
  [
    'an opaque mark below an opaque mark',
    archiveOf({ path: 'd/.wh..wh..opq/.wh..wh..opq' }),
    'TAR_RESERVED_NAME',
  ],
  ['a file below a whiteout', archiveOf({ path: '.wh.d/f' }), 'TAR_RESERVED_NAME'],
  [
    'a file that a symlink leads below a whiteout',
    archiveOf(symlink('l', '.wh.d'), { path: 'l/f' }),
    'TAR_RESERVED_NAME',
  ],
  ['a whiteout as a device', archiveOf({ path: 'f', type: 'char', major: 0, minor: 0 }), 'TAR_DEVICE'],
  [
    'a device of no kernel',
    rawArchive(rawHeader({ name: 'f', flag: '4', major: 0o7777777, minor: 1 })),
    'TAR_NUMBER',
  ],
  ...[
    'trusted.overlay.opaque',
    'trusted.overlay.redirect',
    'trusted.overlay.metacopy',
    'trusted.overlay.overlay.opaque',
    'trusted.anything',
    'user.overlay.opaque',
    'user.overlay.redirect',
  ].map((name) => [`the attribute ${name}`, withXattr(name), 'TAR_XATTR'] as const),
  [
    "one of overlayfs in libarchive's spelling",
    rawArchive(paxHeader({ 'LIBARCHIVE.xattr.user%2Eoverlay.opaque': 'eQ==' }), rawHeader({})),
    'TAR_XATTR',
  ],
  ['capabilities of an unknown version', withXattr('security.capability', Buffer.alloc(20, 9)), 'TAR_XATTR'],
  ['10 GB that are 1 KB', Buffer.concat([tenGigabytes, Buffer.alloc(1024, 'x')]), 'TAR_TRUNCATED'],
  ['8 EiB', rawArchive(rawHeader({ name: 'f', size: base256(2n ** 63n) })), 'TAR_NUMBER'],
  ["8 EiB in GNU's old form of holes", oldSparse(2n ** 63n), 'TAR_SPARSE'],
  ['8 EiB of holes in PAX records', sparse(String(2n ** 63n - 1n), []), 'TAR_SPARSE'],
  ['holes that cannot be kept, larger than we keep', sparse('100000000', [99_999_999, 1], 'x'), 'TAR_SPARSE'],
  ['a cut in a header', archiveOf(ordinary).subarray(0, 300_544 + 200), 'TAR_TRUNCATED'],
  ['a cut in a file', archiveOf(ordinary).subarray(0, 200_000), 'TAR_TRUNCATED'],
  ['a cut after the PAX header', paxHeader({ path: 'f' }), 'TAR_TRUNCATED'],
  [
    'rubbish after honest files',
    Buffer.concat([archiveOf(ordinary).subarray(0, -1024), Buffer.alloc(512, 'rubbish')]),
    'TAR_CHECKSUM',
  ],
]

describe.each(Object.entries(ways))('refused by %s, and the store is as it was', (_, way) => {
  test.each(refused)('%s', async (__, tar, code) => {
    expect(await attempt((store) => way(store, [tar]))).toEqual(refusal(code))
  })
})

test.each(refused)('refused where contents are files: %s', async (_, tar, code) => {
  const objects = { at: storeOf('objects'), driver: 'objects' } as const
  expect(await attempt((store) => ways.import(store, [tar]), objects)).toEqual(refusal(code))
})

// Streams that are not what they say

/** The same part for ever. */
async function* endless(first: Buffer, part: Buffer): AsyncGenerator<Buffer> {
  yield first
  for (;;) yield part
}

const MIB = 1024 * 1024
/** A MiB of one letter in 8 blocks of a letter and its count: 1 to 27,000. */
const zstdPart = Buffer.from(`28b52ffd0058${'02001061'.repeat(7)}03001061`, 'hex')
/** Of one MiB a thousandth would be left with its header and trailer: more than the limit. */
const gzipPart = gzipSync(Buffer.alloc(16 * MIB, 'a'), { level: 9 })
const bombs = [
  ['gzip', MEDIA.layerGzip, gzipSync(tenGigabytes), gzipPart, 20],
  ['zstd', MEDIA.layerZstd, zstdCompressSync(tenGigabytes), zstdPart, 320],
] as const

describe.each(bombs)('%s', (codec, mediaType, first, part, parts) => {
  const bomb = Buffer.concat([first, ...Array.from({ length: parts }, () => part)])

  test('an endless bomb that is imported', async () => {
    expect(await attempt((store) => importTar(store, endless(first, part)))).toEqual(refusal('LAYER_BOMB'))
  })

  test('a bomb inside an archive that is no bomb', async () => {
    const archive = archiveOf(
      { path: 'config', contents: config([Buffer.alloc(0)]) },
      { path: 'manifest.json', contents: '[{"Config":"config","RepoTags":[],"Layers":["l"]}]' },
      { path: 'l', contents: bomb },
    )
    expect(await attempt((store) => loadArchive(store, pieces(archive)))).toEqual(refusal('LAYER_BOMB'))
  })

  test('a bomb from a registry', async () => {
    expect(await attempt((store) => pullBlobs(store, [{ mediaType, blob: bomb, tar: bomb }]))).toEqual(
      refusal('LAYER_BOMB'),
    )
  })

  test('cut off', async () => {
    const whole = archiveOf(ordinary)
    const cut = (codec === 'gzip' ? gzipSync(whole) : zstdCompressSync(whole)).subarray(0, -9)
    expect(await attempt((store) => importTar(store, pieces(cut)))).toEqual(refusal('COMPRESSION_INVALID'))
    expect(await attempt((store) => pullBlobs(store, [{ mediaType, blob: cut, tar: whole }]))).toEqual(
      refusal('COMPRESSION_INVALID'),
    )
  })
})

test('endless zeros, though they take no room', async () => {
  const part = zstdCompressSync(Buffer.alloc(64 * MIB))
  const first = zstdCompressSync(tenGigabytes)
  expect(await attempt((store) => importTar(store, endless(first, part)))).toEqual(refusal('LAYER_BOMB'))
}, 60_000)

test('a zstd frame that wants a window of 2 GiB', async () => {
  const frame = Buffer.from('28b52ffd00a8230000', 'hex')
  expect(await attempt((store) => importTar(store, pieces(frame)))).toEqual(refusal('COMPRESSION_INVALID'))
})

test('a gzip header without end gives nothing, and can be stopped', async () => {
  const stop = new AbortController()
  const source = async function* (): AsyncGenerator<Buffer> {
    let sent = 0
    for await (const part of endless(Buffer.from('1f8b0808000000000003', 'hex'), Buffer.alloc(MIB, 'n'))) {
      if (++sent === 20) stop.abort(new Error('stopped'))
      // It would read for ever.
      if (sent > 1000) throw new Error('was not stopped')
      yield part
    }
  }
  const outcome = await attempt((store) => importTar(store, source(), { signal: stop.signal }))
  expect(outcome).toEqual(refusal(new Error('stopped')))
})

test('an endless tar ends with the disk, and gives back what it took', async () => {
  const disk = join(directory, 'disk')
  const image = join(directory, 'disk.img')
  mkdirSync(disk)
  execFileSync('truncate', ['-s', '64M', image])
  execFileSync('mkfs.ext4', ['-q', image])
  execFileSync('mount', ['-o', 'loop', image, disk])
  try {
    const at = join(disk, 'store')
    {
      await using store = await openStore(at, { driver: 'erofs' })
      await pull(store, [archiveOf({ path: 'honest', contents: randomBytes(5000) })])
    }
    const source = async function* (): AsyncGenerator<Buffer> {
      for (let i = 0; ; i++) yield archiveOf({ path: `f${i}`, contents: randomBytes(MIB) }).subarray(0, -1024)
    }
    expect(await attempt((store) => importTar(store, source()), { at })).toEqual(refusal('ENOSPC'))
  } finally {
    execFileSync('umount', [disk])
    rmSync(disk, { recursive: true })
    rmSync(image)
  }
})

describe('a body that is not what the manifest says', () => {
  const tar = archiveOf(ordinary)
  const blob = gzipSync(tar)
  const bodies: readonly (readonly [what: string, answer: Handler, code: unknown])[] = [
    [
      'is cut off, again and again',
      (_, response) => {
        response.writeHead(200, { 'content-length': String(blob.length) })
        response.write(blob.subarray(0, 100_000), () => response.destroy())
      },
      expect.stringMatching(/^REGISTRY_/),
    ],
    [
      'ends early, as if that were all',
      (_, response) => response.writeHead(200, { 'transfer-encoding': 'chunked' }).end(blob.subarray(0, -10)),
      expect.stringMatching(/^(SIZE_MISMATCH|REGISTRY_\w+)$/),
    ],
    [
      'never ends',
      (_, response) => {
        response.writeHead(200, { 'transfer-encoding': 'chunked' })
        response.write(blob)
        const more = setInterval(() => response.write(Buffer.alloc(MIB)), 1)
        response.on('close', () => clearInterval(more))
      },
      'SIZE_MISMATCH',
    ],
    [
      'is of another layer',
      (_, response) => reply(response, 200, Buffer.alloc(blob.length)),
      'COMPRESSION_UNEXPECTED',
    ],
    [
      'has another last byte',
      (_, response) => reply(response, 200, Buffer.concat([blob.subarray(0, -1), Buffer.from([0xff])])),
      expect.stringMatching(/^(DIGEST_MISMATCH|COMPRESSION_INVALID)$/),
    ],
  ]

  test.each(bodies)('%s', async (_, answer, code) => {
    expect(
      await attempt((store) => pullBlobs(store, [{ mediaType: MEDIA.layerGzip, blob, tar, answer }])),
    ).toEqual(refusal(code))
  })

  test('has the right digest, but its tar is not what the config says', async () => {
    const other = archiveOf({ path: 'other' })
    const layer = { mediaType: MEDIA.layerGzip, blob, tar: other }
    expect(await attempt((store) => pullBlobs(store, [layer]))).toEqual(refusal('DIGEST_MISMATCH'))
  })
})

function apply(limits: LayerLimits, archive: Buffer): void {
  const applier = createApplier(new LayerTree(), limits)
  const reader = new TarReader({ entry: (entry) => void applier.entry(entry), data() {}, end() {} })
  reader.feed(archive)
}

const many = <T>(make: (i: number) => T): T[] => Array.from({ length: 50 }, (_, i) => make(i))

describe('what would fill the memory', () => {
  const limits = { inodes: 1000, bytes: 10_000 }

  test.each<[string, Described[]]>([
    ['names', many((i) => ({ path: `${'n'.repeat(200)}${i}` }))],
    ['link targets', many((i) => symlink(`l${i}`, 't'.repeat(200)))],
    ['attributes', many((i) => ({ path: `f${i}`, xattrs: new Map([['user.x', Buffer.alloc(200)]]) }))],
    ['directories on the way', many((i) => ({ path: `${i}/${'d/'.repeat(40)}` }))],
  ])('%s', (_, entries) => {
    apply(limits, archiveOf(...entries.slice(0, 10)))
    expect(() => apply(limits, archiveOf(...entries))).toThrow(
      expect.objectContaining({ code: 'TAR_TOO_LARGE' }),
    )
  })

  test('and the disk: many files whose holes cannot be kept', async () => {
    const files = Array.from({ length: 5 }, (_, i) => sparseFile(`f${i}`, '20000000', [i + 1, 1], 'x'))
    expect(await attempt((store) => importTar(store, pieces(rawArchive(...files))))).toEqual(
      refusal('TAR_SPARSE'),
    )
  })
})

// What is taken, as a build sees it

/** All names but the root's, sorted. (Node's own recursive listing follows symlinks, and those here lead out.) */
function names(root: string): string[] {
  return describeTree(root, { links: false })
    .slice(1)
    .map((line) => /^"(.*?)" /.exec(line)?.[1] ?? line)
    .toSorted()
}

/** `outside` as a name in an archive, and the directories on the way to it. */
const below = outside.slice(1)
const parents = below.split('/').map((_, i, all) => all.slice(0, i + 1).join('/'))

describe.each(DRIVER_NAMES)('taken, and harmless, with the driver %s', (driver) => {
  /** `work` gets the path of a pulled image's tree. */
  const mounted = async <T>(layers: readonly Buffer[], work: (root: string) => T): Promise<T> => {
    await using store = await openStore(storeOf(driver), { driver })
    const image = await pull(store, layers)
    await using root = await store.layers.mount(
      image.config.rootfs.diff_ids.map((id) => store.layers.open(id)),
    )
    const result = work(`/proc/self/fd/${root.fd}/.`)
    expect(await problemsOf(store)).toEqual([])
    return result
  }

  test('names through symlinks that lead out: what they name is below the root', async () => {
    const layer = archiveOf(
      { path: join(outside, 'absolute'), contents: 'mine' },
      symlink('a', outside),
      symlink('b', `../../../..${outside}`),
      symlink('proc', '/proc/self/root'),
      { path: 'a/secret', contents: 'mine' },
      { path: 'b/climbing', contents: 'mine' },
    )
    await mounted([layer], (root) => {
      const made = ['absolute', 'climbing', 'secret'].map((name) => `${below}/${name}`)
      expect(names(root)).toEqual(['a', 'b', 'proc', ...parents, ...made].toSorted())
      expect(readFileSync(join(root, outside, 'secret'), 'utf8')).toBe('mine')
    })
  })

  test('whiteouts through a symlink that leads out delete in the image only', async () => {
    const lower = archiveOf({ path: `${below}/secret` }, { path: `${below}/stays` }, { path: 'd/gone' })
    const upper = archiveOf(symlink('a', outside), { path: 'a/.wh.secret' }, symlink('up', '../..'), {
      path: 'up/.wh.d',
    })
    expect(await mounted([lower, upper], names)).toEqual(['a', ...parents, `${below}/stays`, 'up'].toSorted())
  })

  test('opaque marks: through a symlink, at the root, in a directory that this very layer fills, as a directory', async () => {
    const lower = archiveOf(
      { path: `${below}/secret` },
      { path: 'd/old' },
      { path: 'e/old' },
      { path: 'top' },
    )
    const upper = archiveOf(
      symlink('a', outside),
      { path: 'a/.wh..wh..opq' },
      { path: 'd/new' },
      { path: 'd/.wh..wh..opq', contents: 'ignored' },
      { path: 'e/.wh..wh..opq/' },
    )
    expect(await mounted([lower, upper], names)).toEqual(
      ['a', 'd', 'd/new', 'e', ...parents, 'top'].toSorted(),
    )
    const all = archiveOf({ path: '.wh..wh..opq' }, { path: 'alone' })
    expect(await mounted([lower, all], names)).toEqual(['alone'])
  })

  test('what AUFS kept at the root is left out, with all below it', async () => {
    const layer = archiveOf(
      { path: '.wh..wh.plnk/', mode: 0o700 },
      { path: '.wh..wh.plnk/1234.5', contents: 'x' },
      { path: '.wh..wh.aufs' },
      { path: '.wh..wh.orph/' },
      { path: '.wh', contents: 'a name' },
      { path: 'x.wh.y' },
    )
    expect(await mounted([layer], names)).toEqual(['.wh', 'x.wh.y'])
  })

  test('one name many times: the last one counts, wherever the others led', async () => {
    const layer = archiveOf(
      { path: 'f', contents: 'first' },
      { path: 'f', contents: 'second' },
      { path: 'd/in', contents: 'x' },
      symlink('d', outside),
      { path: 'd', contents: 'a file' },
      symlink('l', join(outside, 'secret')),
      { path: 'l', contents: 'mine' },
      { path: '.wh.back' },
      { path: 'back', contents: 'back' },
    )
    await mounted([layer], (root) => {
      expect(names(root).map((name) => [name, readFileSync(join(root, name), 'utf8')])).toEqual([
        ['back', 'back'],
        ['d', 'a file'],
        ['f', 'second'],
        ['l', 'mine'],
      ])
    })
  })

  test('a hard link to a symlink that leads out, and a file over it', async () => {
    const layer = archiveOf(symlink('s', join(outside, 'secret')), hardlink('l', 's'), {
      path: 'l',
      contents: 'mine',
    })
    await mounted([layer], (root) => {
      expect(lstatSync(join(root, 's')).isSymbolicLink()).toBe(true)
      expect(readFileSync(join(root, 'l'), 'utf8')).toBe('mine')
    })
  })

  test('devices, setuid bits and file capabilities are kept, as docker keeps them; overlayfs is told nothing', async () => {
    const xattrs = new Map([
      ['security.capability', capability],
      ['user.mine', Buffer.from('1')],
    ])
    const layer = archiveOf(
      { path: 'disk', type: 'block', major: 7, minor: 0, mode: 0o660 },
      { path: 'null', type: 'char', major: 1, minor: 3, mode: 0o666 },
      { path: 'su', mode: 0o6755, uid: 0 },
      { path: 'capable', mode: 0o755, xattrs },
      { path: 'sticky/', mode: 0o1777, xattrs: new Map([['user.mine', Buffer.from('2')]]) },
    )
    await mounted([layer], (root) => {
      expect(lstatSync(join(root, 'disk'))).toMatchObject({ mode: 0o60660, rdev: 7 << 8 })
      expect(lstatSync(join(root, 'null'))).toMatchObject({ mode: 0o20666, rdev: (1 << 8) | 3 })
      expect(lstatSync(join(root, 'su')).mode & 0o7777).toBe(0o6755)
      expect(lstatSync(join(root, 'sticky')).mode & 0o7777).toBe(0o1777)
      expect(getXattr(join(root, 'capable'), 'security.capability')).toEqual(capability)
      expect(listXattrs(join(root, 'capable')).toSorted()).toEqual(['security.capability', 'user.mine'])
      expect(listXattrs(join(root, 'sticky'))).toEqual(['user.mine'])
    })
  })

  test('8 PiB of holes take no room; what is no file has no contents, whatever it declares', async () => {
    const large = rawHeader({ name: 'd/', flag: '5', size: base256(10_000_000_000n) })
    const size = String(2 ** 53 - 1)
    const layer = rawArchive(sparseFile('f', size, []), large, rawEntry({ name: 'd/after' }, 'x'))
    // A directory's files are as large as its file system lets them be.
    const isShown = driver === 'erofs' || takesFileOf(Number(size))
    const found = await mounted([layer], (root) => [
      lstatSync(join(root, 'f')).size,
      ...readdirSync(root),
      ...readdirSync(join(root, 'd')),
    ]).catch(({ code }: { readonly code: unknown }) => code)
    expect(found).toEqual(isShown ? [Number(size), 'd', 'f', 'after'] : 'LAYER_FILE_TOO_LARGE')
    await using store = await openStore(storeOf(driver), { driver })
    expect(await problemsOf(store)).toEqual([])
    const [megabytes] = execFileSync('du', ['-sm', storeOf(driver)], { encoding: 'utf8' }).split('\t')
    expect(Number(megabytes)).toBeLessThan(20)
  })
})

function takesFileOf(size: number): boolean {
  const file = join(directory, 'file')
  try {
    writeFileSync(file, '')
    truncateSync(file, size)
    return true
  } catch (error) {
    if (isErrno(error, 'EFBIG')) return false
    throw error
  } finally {
    rmSync(file)
  }
}

function tbuild(driver: DriverName, ...args: readonly string[]) {
  const env = { ...process.env, TBUILD_STORE: storeOf(driver), TBUILD_DRIVER: driver }
  return spawnSync(freshCommand(), args, { encoding: 'utf8', env })
}

test.each(DRIVER_NAMES)(
  'as a container of the driver %s sees it: below its root, whatever the names and links in the layer say',
  (driver) => {
    const base = archiveOf(
      { path: 'bin/busybox', contents: readFileSync('/bin/busybox'), mode: 0o755 },
      { path: `${below}/secret`, contents: 'of the image ' },
    )
    const evil = archiveOf(
      symlink('a', outside),
      { path: 'a/planted', contents: 'mine ' },
      symlink('out', '../../../../../../..'),
      { path: 'disk', type: 'block', major: 7, minor: 0, mode: 0o666 },
    )
    const archive = join(directory, 'archive.tar')
    const image = newName()
    const tars = [base, evil]
    const manifest = [{ Config: 'config', RepoTags: [image], Layers: ['0', '1'] }]
    const parts = [config(tars), Buffer.from(JSON.stringify(manifest)), ...tars]
    const paths = ['config', 'manifest.json', '0', '1']
    writeFileSync(archive, archiveOf(...parts.map((contents, i) => ({ path: paths[i] ?? '', contents }))))
    try {
      expect(tbuild(driver, 'load', '-i', archive)).toMatchObject({ status: 0 })
      const script = `cat a/secret a/planted out/${below}/secret; head -c 1 disk`
      const { stdout, stderr } = tbuild(
        driver,
        'run',
        '--network',
        'none',
        image,
        '/bin/busybox',
        'sh',
        '-c',
        script,
      )
      expect(stdout).toBe('of the image mine of the image ')
      expect(stderr).toMatch(/disk.*(not permitted|denied)/)
    } finally {
      rmSync(archive, { force: true })
    }
  },
)
