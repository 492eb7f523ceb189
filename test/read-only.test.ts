/**
 * A store on a disk that is mounted read-only: what only looks sees what it saw before, all else is refused in one way, and not a byte of the store changes.
 * Most are bound to where they are and made read-only there, which is also how a container gets its host's store; one is on a disk of its own.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { sha256 } from '../builder/archive/testing.ts'
import { DRIVER_NAMES, openStore, repairStore, type DriverName, type Store } from '../cas/index.ts'
import { archiveOf } from '../cas/tar/testing.ts'
import { freshCommand } from './support/bundle.ts'
import { readLayer, storeLayer } from './support/store-process.ts'

const directory = mkdtempSync(join(tmpdir(), 'tbuild-read-only-'))
/** Nothing is left here by anybody. */
const temporary = join(directory, 'tmp')
const context = join(directory, 'context')
const storeOf = (driver: DriverName): string => join(directory, driver)
let command: string
let count = 0

interface Ended {
  readonly status: number | null
  /** The digest of what is long. */
  readonly stdout: string
  readonly stderr: string
}

function tbuild(store: string, ...args: readonly string[]): Ended {
  const env = { ...process.env, TBUILD_STORE: store, TMPDIR: temporary }
  const { status, stdout, stderr } = spawnSync(command, args, { env, maxBuffer: 100_000_000 })
  return {
    status,
    stdout: stdout.length > 100_000 ? sha256(stdout) : stdout.toString(),
    stderr: stderr.toString(),
  }
}

function succeed(store: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = tbuild(store, ...args)
  expect([args, status, stderr]).toEqual([args, 0, expect.anything()])
  return stdout
}

/** Until the end of the block nothing can be written there. */
function readOnly(path: string): Disposable {
  execFileSync('mount', ['--bind', path, path])
  execFileSync('mount', ['-o', 'remount,bind,ro', path])
  return { [Symbol.dispose]: () => void execFileSync('umount', ['-l', path]) }
}

/** Each file and directory: what, when, how, and all that is in it. */
function stateOf(store: string): string[] {
  const names = readdirSync(store, { recursive: true, encoding: 'latin1' })
  return ['', ...names].toSorted().map((name) => {
    const path = join(store, name)
    const { mode, size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true })
    const digest = lstatSync(path).isFile() ? sha256(readFileSync(path)) : ''
    return `${name} ${mode} ${size} ${mtimeNs} ${ctimeNs} ${digest}`
  })
}

beforeAll(() => {
  command = freshCommand()
  mkdirSync(temporary)
  mkdirSync(context)
  writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nRUN echo made > /made\nCOPY . /context\n')
  writeFileSync(
    join(directory, 'base.tar'),
    archiveOf(
      { path: 'bin/busybox', contents: readFileSync('/bin/busybox'), mode: 0o755 },
      { path: 'bin/sh', type: 'symlink', link: 'busybox' },
      { path: 'etc/passwd', contents: 'root:x:0:0:root:/root:/bin/sh\n' },
    ),
  )
  for (const driver of DRIVER_NAMES) {
    const store = storeOf(driver)
    succeed(store, 'import', '--driver', driver, join(directory, 'base.tar'), 'localhost/base')
    succeed(store, '--driver', driver, '-q', '-t', 'app', context)
    // What no image needs: something to prune.
    succeed(store, '--driver', driver, '-q', '-t', 'gone', '--label', 'a=b', context)
    succeed(store, 'rmi', 'gone')
    // Who writes first finds out what works here, and notes it.
    succeed(store, 'info')
  }
}, 60_000)
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const LOOKS: readonly (readonly string[])[] = [
  ['images', '--digests', '--no-trunc'],
  ['inspect', 'app'],
  ['history', '--no-trunc', 'app'],
  ['ls', '-lR', 'app:/'],
  ['ls', '-R', '--json', 'app:/context'],
  ['cat', 'app:/bin/sh', '/made', '/context/Dockerfile'],
  ['diff', '--json', 'app'],
  ['diff', 'localhost/base', 'app'],
  ['df', '-v'],
  ['df', '--json'],
  ['savings'],
  ['reuse', 'app', 'localhost/base'],
  ['info'],
  ['save', 'app'],
  ['save', '--format', 'oci', 'app', 'localhost/base'],
  ['fsck'],
  ['fsck', '--quick'],
  ['prune', '--dry-run'],
  ['prune', '--dry-run', '-a', '--keep-storage', '1k'],
  ['check', context],
  ['--check', context],
]

/** What depends on how contents and layers are kept. */
const OF_DRIVERS = ['cat', 'df', 'info', 'fsck', 'prune']

const WRITES: readonly (readonly string[])[] = [
  ['-t', 'other', context],
  ['--no-cache', context],
  ['run', 'app', 'true'],
  ['tag', 'app', 'other'],
  ['rmi', 'app'],
  ['pull', 'localhost:1/nothing'],
  ['push', 'app'],
  ['load', '-i', join(directory, 'base.tar')],
  ['import', join(directory, 'base.tar'), 'other'],
  ['prune', '-f'],
  ['fsck', '--repair'],
  ['fsck', '--repair', '--quick'],
]

/** Without what passes: ages, seconds that it took, and the index's log, which is there while it is written to. */
function lasting({ status, stdout }: Ended): readonly unknown[] {
  return [
    status,
    stdout
      .replaceAll(/\d+ (?:second|minute)s? ago|less than a second ago|\(\d+\.\d s\)|"seconds": [\d.]+/gi, '-')
      .replaceAll(/^the store itself +the index .*$/gm, '')
      .replaceAll(/ {2,}/g, ' '),
  ]
}

describe.each(DRIVER_NAMES)('a store of the driver %s', (driver) => {
  test('what only looks sees the same', () => {
    const store = storeOf(driver)
    const looks = LOOKS.filter(([name = '']) => driver === 'erofs' || OF_DRIVERS.includes(name))
    const seen = new Map(looks.map((args) => [args.join(' '), lasting(tbuild(store, ...args))]))
    const before = stateOf(store)
    using _ = readOnly(store)
    for (const args of looks) {
      const result = tbuild(store, ...args)
      expect([args, result.stderr]).toEqual([args, expect.not.stringMatching(/error|bug/)])
      expect([args, ...lasting(result)]).toEqual([args, ...(seen.get(args.join(' ')) ?? [])])
    }
    expect(stateOf(store)).toEqual(before)
    expect(readdirSync(temporary)).toEqual([])
  }, 60_000)
})

test('what writes is refused in one way', () => {
  const store = storeOf('erofs')
  const before = stateOf(store)
  using _ = readOnly(store)
  for (const args of WRITES) {
    const { status, stdout, stderr } = tbuild(store, ...args)
    // fsck(8) and docker have statuses of their own for what could not be done.
    const own: Readonly<Record<string, number>> = { fsck: 8, run: 125 }
    expect([args, status, stdout]).toEqual([args, own[String(args[0])] ?? 1, ''])
    expect(stderr).toMatch(/^tbuild: error: .*read-only.*\[STORE_READ_ONLY\]\nhint: .*--store.*\n$/)
  }
  expect(stateOf(store)).toEqual(before)
  expect(readdirSync(temporary)).toEqual([])
})

/** A copy as a kill leaves one: the store is open, its log is not folded into the index, and its leases are nobody's. */
async function killedStore(at = join(directory, `killed-${++count}`)): Promise<string> {
  const living = join(directory, `living-${++count}`)
  cpSync(storeOf('erofs'), living, { recursive: true, preserveTimestamps: true })
  {
    await using store = await openStore(living)
    await storeLayer(store, [1, 2, 3])
    const [{ manifestDigest } = { manifestDigest: '' as never }] = store.images.list()
    store.images.tag('localhost/late:1', manifestDigest)
    store.workDirectory('half-done')
    cpSync(living, at, { recursive: true, preserveTimestamps: true })
  }
  expect(lstatSync(join(at, 'index.db-wal')).size).toBeGreaterThan(0)
  expect(readdirSync(join(at, 'leases'))).not.toEqual([])
  return at
}

describe('killed before', () => {
  test('what was reported done is seen, and what was held is held by nobody', async () => {
    const store = await killedStore()
    const before = stateOf(store)
    {
      using _ = readOnly(store)
      expect(succeed(store, 'images')).toContain('localhost/late')
      expect(succeed(store, 'fsck')).toContain('all is well')
      expect(succeed(store, 'prune', '--dry-run')).toMatch(/^layer sha256:/m)
      succeed(store, 'df')
      expect(stateOf(store)).toEqual(before)
    }
    const again = await openStore(store)
    expect(again.images.byName('localhost/late:1')).toBeDefined()
    await again[Symbol.asyncDispose]()
  })

  test('on a disk that is read-only as a whole', async () => {
    const [disk, image] = [join(directory, 'disk'), join(directory, 'disk.img')]
    mkdirSync(disk)
    execFileSync('truncate', ['-s', '64M', image])
    execFileSync('mkfs.ext4', ['-q', image])
    execFileSync('mount', ['-o', 'loop', image, disk])
    try {
      const store = await killedStore(join(disk, 'store'))
      execFileSync('mount', ['-o', 'remount,ro', disk])
      expect(succeed(store, 'images')).toContain('localhost/late')
      expect(succeed(store, 'fsck')).toContain('all is well')
      expect(succeed(store, 'cat', 'app:/made')).toBe('made\n')
      expect(tbuild(store, 'tag', 'app', 'other').stderr).toContain('[STORE_READ_ONLY]')
      // None is made there.
      expect(tbuild(join(disk, 'nothing'), 'images').stderr).toContain('[STORE_UNUSABLE]')
    } finally {
      execFileSync('umount', [disk])
      rmSync(disk, { recursive: true })
      rmSync(image)
    }
  })
})

describe('a store that others write to, bound read-only', () => {
  let store: Store
  let host: string
  let bound: string

  const bind = async (): Promise<Disposable & AsyncDisposable> => {
    host = join(directory, `host-${++count}`)
    bound = join(directory, `bound-${count}`)
    mkdirSync(bound)
    store = await openStore(host)
    execFileSync('mount', ['--bind', host, bound])
    execFileSync('mount', ['-o', 'remount,bind,ro', bound])
    const unmount = (): void => void execFileSync('umount', ['-l', bound])
    return {
      [Symbol.dispose]: unmount,
      [Symbol.asyncDispose]: async () => {
        await store[Symbol.asyncDispose]()
        unmount()
      },
    }
  }

  test('sees what they have committed', async () => {
    await using _ = await bind()
    for (let number = 0; number < 5; number++) {
      const diffId = await storeLayer(store, [number])
      await using reader = await openStore(bound, { onlyReads: true })
      await readLayer(reader, diffId)
      expect(await reader.fsck()).toMatchObject({ problems: [], counts: { layers: number + 1 } })
    }
  })

  test('what it may read is not collected meanwhile, not by a first collection either', async () => {
    await using _ = await bind()
    const diffId = await storeLayer(store, [1, 2, 3])
    await store[Symbol.asyncDispose]()
    store = await openStore(host)
    const order: string[] = []
    const reader = await openStore(bound, { onlyReads: true })
    const pruned = store.prune({
      notice: (what) => {
        order.push(what)
        void (async () => {
          await readLayer(reader, diffId)
          order.push('read')
          await reader[Symbol.asyncDispose]()
        })()
      },
    })
    expect(await pruned).toMatchObject({ layers: [diffId] })
    expect(order).toEqual(['collection', 'read'])
    await using later = await openStore(bound, { onlyReads: true })
    expect(later.layers.find(diffId)).toBeUndefined()
  })
})

function damaged(harm: (path: string) => void): string {
  const path = join(directory, `damaged-${++count}`)
  cpSync(storeOf('erofs'), path, { recursive: true, preserveTimestamps: true })
  harm(path)
  return path
}

describe('not in order', () => {
  test('a damaged index is named as ever, and by its own name', () => {
    const store = damaged((path) => writeFileSync(join(path, 'index.db'), Buffer.alloc(10_000, 'x')))
    using _ = readOnly(store)
    expect(tbuild(store, 'images').stderr).toContain(
      `The store's index ${join(store, 'index.db')} is damaged`,
    )
    expect(tbuild(store, 'fsck')).toMatchObject({
      status: 4,
      stdout: expect.stringContaining('INDEX_DAMAGED'),
    })
    expect(readdirSync(temporary)).toEqual([])
  })

  test('an index that has lost transactions', () => {
    const store = damaged((path) => {
      const db = new DatabaseSync(join(path, 'index.db'))
      db.exec("UPDATE meta SET value = value - 1 WHERE key = 'names'")
      db.close()
    })
    using _ = readOnly(store)
    expect(tbuild(store, 'images').stderr).toContain('[STORE_CORRUPT]')
    expect(readdirSync(temporary)).toEqual([])
  })

  test('fsck finds what it finds elsewhere', () => {
    const store = damaged((path) => {
      for (const name of readdirSync(join(path, 'segments')).filter((one) => one.endsWith('.list')))
        writeFileSync(join(path, 'segments', name), 'x')
      const [segment = ''] = readdirSync(join(path, 'segments'))
      writeFileSync(join(path, 'segments', segment.replace('.list', '')), Buffer.alloc(3_000_000, 'x'))
      for (const name of readdirSync(join(path, 'layers')).slice(0, 2)) rmSync(join(path, 'layers', name))
      rmSync(join(path, 'names.json'))
      writeFileSync(join(path, 'blobs/sha256', '0'.repeat(64)), 'x')
      const db = new DatabaseSync(join(path, 'index.db'))
      db.exec('INSERT INTO dead VALUES (1, 0, 512); UPDATE blobs SET size = 1; DELETE FROM image_layers')
      db.close()
    })
    const elsewhere = tbuild(store, 'fsck')
    expect(elsewhere).toMatchObject({ status: 4, stdout: expect.stringContaining('CONTENT_DAMAGED') })
    const before = stateOf(store)
    using _ = readOnly(store)
    expect(lasting(tbuild(store, 'fsck'))).toEqual(lasting(elsewhere))
    expect(tbuild(store, 'cat', 'app:/bin/sh')).toMatchObject({ status: 1 })
    expect(stateOf(store)).toEqual(before)
  })

  test.each([
    ['newer', 'STORE_TOO_NEW', 'PRAGMA user_version = 99'],
    ['half converted', 'STORE_READ_ONLY', 'CREATE TABLE legacy (diff_id, size)'],
    [
      'older',
      'STORE_READ_ONLY',
      `DROP TABLE layers; DROP TABLE steps; CREATE TABLE layers (diff_id, size); CREATE TABLE directories (a);
       CREATE TABLE steps (key, diff_id, created, title, components); PRAGMA user_version = 1`,
    ],
  ])('a format that is %s is %s', async (...[, code, sql]) => {
    const store = damaged((path) => {
      const db = new DatabaseSync(join(path, 'index.db'))
      db.exec(sql)
      db.close()
    })
    const before = stateOf(store)
    using _ = readOnly(store)
    await expect(openStore(store, { onlyReads: true })).rejects.toMatchObject({ code })
    expect(tbuild(store, 'images').stderr).toContain(`[${code}]`)
    await expect(repairStore(store)).rejects.toMatchObject({ code })
    expect(stateOf(store)).toEqual(before)
    expect(readdirSync(temporary)).toEqual([])
  })
})

test.each([
  ['erofs', 'EROFS images mount from files here'],
  ['objects', 'the store keeps each content in a file'],
  [
    'copy',
    'the store keeps contents in segments, and nothing can be tried on a disk that is mounted read-only',
  ],
] as const)('after another boot the driver is %s, for %s', async (driver, reason) => {
  const path = join(directory, `booted-${driver}`)
  cpSync(storeOf(driver), path, { recursive: true, preserveTimestamps: true })
  const db = new DatabaseSync(join(path, 'index.db'))
  db.exec("UPDATE meta SET value = 'another ' WHERE key IN ('erofs', 'objects')")
  db.close()
  using _ = readOnly(path)
  await using store = await openStore(path, { onlyReads: true })
  expect([store.layers.driver, store.layers.driverReason]).toEqual([driver, reason])
})

test('where nothing can be written at all, it says what is missing', () => {
  const store = storeOf('erofs')
  using _ = readOnly(store)
  const env = { ...process.env, TBUILD_STORE: store, TMPDIR: join(store, 'work') }
  const { status, stderr } = spawnSync(command, ['images'], { env, encoding: 'utf8' })
  expect(status).toBe(1)
  expect(stderr).toMatch(/cannot be made: EROFS.*\[STORE_UNUSABLE\]\nhint: .*TMPDIR/)
})

test('what is opened to be read is written to by nobody, also in this process', async () => {
  const path = storeOf('erofs')
  using _ = readOnly(path)
  await using store = await openStore(path, { onlyReads: true })
  expect(() => store.lease()).toThrow(expect.objectContaining({ code: 'STORE_READ_ONLY' }))
  await expect(openStore(path)).rejects.toMatchObject({ code: 'STORE_READ_ONLY' })
})

test('a store that can be written to is opened as ever', async () => {
  const path = join(directory, 'writable')
  await using store = await openStore(path, { onlyReads: true })
  await storeLayer(store, [1])
  expect(existsSync(join(path, 'index.db'))).toBe(true)
})
