import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { createHash, hash, randomBytes } from 'node:crypto'
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setXattr, statAt } from '../../linux/index.ts'
import { createContentReader, type ContentReader } from '../contents/reader.ts'
import { createSegmentWriter } from '../contents/segments.ts'
import type { ContentWriter } from '../contents/types.ts'
import { openStore, type SeenFile } from '../index.ts'
import { openDatabase, type Database } from '../store/database.ts'
import { createIntake } from '../store/intake.ts'
import { segmentPath, storePaths, type StorePaths } from '../store/paths.ts'
import type { Operation } from '../recipe/read.ts'
import { createTurns } from '../store/turns.ts'
import { continueDigest } from './continued.ts'
import { midstatesUpTo, type Midstate } from './midstates.ts'
import { canContinue, createSha256 } from './sha256.ts'
import { TarDigest } from './tar-digest.ts'
import { createHashThread, type HashThread } from './thread.ts'
import { Verification, VerifyList } from './verify.ts'

const MB = 1024 * 1024

let paths: StorePaths
let db: Database
let reader: ContentReader
let thread: HashThread
/** Descriptor of `paths.root`. */
let root: number
beforeEach(async () => {
  paths = storePaths(mkdtempSync(join(tmpdir(), 'hashing-')))
  await (await openStore(paths.root))[Symbol.asyncDispose]()
  db = openDatabase(paths.index)
  reader = createContentReader(paths)
  thread = createHashThread(paths)
  root = openSync(paths.root, 'r')
})
afterEach(() => {
  thread[Symbol.dispose]()
  reader[Symbol.dispose]()
  db[Symbol.dispose]()
  closeSync(root)
  rmSync(paths.root, { recursive: true })
})

const sha256 = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer')
/** Its name. */
const write = (name: string, bytes: Uint8Array): string => {
  writeFileSync(join(paths.root, name), bytes)
  return name
}
const digestOf = (contents: ContentWriter, where: string, known: Uint8Array = new Uint8Array(0)): TarDigest =>
  new TarDigest({
    contents,
    reader: () => reader,
    thread: where === 'here' ? undefined : () => thread,
    known: () => known,
  })
const intake = (contents: ContentWriter) =>
  createIntake(
    paths,
    db,
    () => ({ contents, digest: digestOf(contents, 'in the thread') }),
    () => thread,
  )
const literalOf = (i: number): Buffer => Buffer.alloc(512, `file ${i}`)
/** As it is now. */
const seen = (name: string): SeenFile => {
  const stats = statAt(root, name)
  if (stats === undefined) throw new Error(`no ${name}`)
  const open = (): number => openSync(join(paths.root, name), 'r')
  return { root, path: name, stats, open }
}
const openFiles = (): number => readdirSync('/proc/self/fd').length

/** Stores them, as an earlier ingest did. */
const store = async (all: readonly Buffer[]): Promise<void> => {
  using earlier = createSegmentWriter(paths, db)
  for (const bytes of all) earlier.put(sha256(bytes), bytes)
  await earlier.sync()
  earlier.resolve()
  expect(db.transaction(() => earlier.record())).toBe(true)
  earlier.confirm()
}
/** Overwrites a content where it stands in its segment. */
const overwrite = (contents: ContentWriter, content: number, bytes: Buffer): void => {
  const { segment, block } = contents.list.location(content)
  const fd = openSync(segmentPath(paths, segment), 'r+')
  writeSync(fd, bytes, 0, bytes.length, block * 512)
  closeSync(fd)
}

const places = (midstates: Uint8Array): Buffer[] =>
  Array.from({ length: midstates.length / 72 }, (_, i) =>
    Buffer.from(midstates.subarray(i * 72 + 32, i * 72 + 72)),
  )

describe('the digest of a tar that begins as another one', () => {
  const some = Array.from({ length: 90 }, (_, i) => randomBytes(i === 70 ? 2 * MB : 700_000 - i))
  const paddingOf = (i: number): number => (512 - ((some[i]?.length ?? 0) % 512)) % 512
  const starts = [0]
  for (const [i, bytes] of some.entries()) starts.push((starts[i] ?? 0) + 512 + bytes.length + paddingOf(i))
  const operationsFrom = (from: number): Operation[] =>
    some.flatMap((bytes, i): Operation[] => {
      if ((starts[i] ?? 0) < from) return []
      const length = paddingOf(i)
      return [
        { kind: 'literal', bytes: literalOf(i) },
        { kind: 'run', digest: sha256(bytes), length: bytes.length },
        ...(length === 0 ? [] : [{ kind: 'zeros' as const, length }]),
      ]
    })
  const whole = async (contents: ContentWriter): Promise<{ sha256: string; midstates: Buffer }> => {
    using digest = digestOf(contents, 'in the thread')
    for (const [i, bytes] of some.entries()) {
      digest.literal(literalOf(i))
      digest.content(contents.find(sha256(bytes)) ?? -1)
      digest.zeros(paddingOf(i))
    }
    return { sha256: await digest.end(), midstates: Buffer.from(digest.midstates) }
  }
  const continued = async (
    contents: ContentWriter,
    place: Midstate | undefined,
    helper: HashThread | undefined,
  ) => {
    const operations = operationsFrom(place?.bytes ?? 0)
    const unverified = operations.flatMap((operation) =>
      operation.kind === 'run' ? [contents.find(operation.digest) ?? -1] : [],
    )
    using verification = helper && new Verification(contents.list, unverified, helper)
    return await continueDigest({
      place,
      operations,
      contents,
      verification,
      reader,
      breathe: createTurns(undefined),
    })
  }

  test.each([
    ['alone', false],
    ['by two threads', true],
  ])(
    'is the same from each place on, and so are its midstates; damage behind it is found: %s',
    async (_, helps) => {
      const helper = helps ? thread : undefined
      await store(some)
      using contents = createSegmentWriter(paths, db)
      const { sha256: expected, midstates } = await whole(contents)
      for (const end of [-1, 5 * MB, 30 * MB, 50 * MB, 60 * MB]) {
        const { last, packed = Buffer.alloc(0) } = midstatesUpTo(midstates, end) ?? {}
        expect(last === undefined).toBe(end < 0)
        const outcome = await continued(contents, last, helper)
        expect(outcome.sha256).toBe(expected)
        // But for fingerprints, which only those have that were gone through from the beginning.
        expect([...places(packed), ...places(outcome.midstates)]).toEqual(places(midstates))
        for (const number of [3, 60, 70, 88]) {
          const content = contents.find(sha256(some[number] ?? Buffer.alloc(0))) ?? -1
          overwrite(contents, content, Buffer.from('damage'))
          const found = await continued(contents, last, helper).then(
            (digested) => digested.sha256,
            (error: { code: string }) => error.code,
          )
          // What is before the place is not read.
          expect(found).toBe((starts[number] ?? 0) < (last?.bytes ?? 0) ? expected : 'STORE_CORRUPT')
          overwrite(contents, content, some[number] ?? Buffer.alloc(0))
        }
      }
    },
  )

  test('does not need the thread: one that never comes, and one that ends in the middle', async () => {
    await store(some)
    using contents = createSegmentWriter(paths, db)
    const { sha256: expected } = await whole(contents)
    const never: HashThread = { ...thread, verify: () => () => false }
    const lost: HashThread = {
      ...thread,
      verify: (list) => {
        expect(new VerifyList(list.shared, list.parts).take()).toBe(0)
        return () => true
      },
    }
    for (const helper of [never, lost])
      expect((await continued(contents, undefined, helper)).sha256).toBe(expected)
  })
})

describe.each(['here', 'in the thread'])('the digest of a tar, computed %s', (where) => {
  test.each(['small', 'large'])('is that of its bytes: %s', async (size) => {
    const rounds = size === 'small' ? 3 : 60
    // Larger than what is verified at once, too.
    const all = Array.from({ length: rounds }, (_, i) => randomBytes(i % 20 === 1 ? 3 * MB + 5 : 400_000 + i))
    await store(all.filter((_, i) => i % 2 === 0))
    using contents = createSegmentWriter(paths, db)
    using digest = digestOf(contents, where)
    const expected = createHash('sha256')
    for (const [round, bytes] of all.entries()) {
      const literal = randomBytes(round % 7 === 0 ? 300_001 : 513 + round)
      digest.literal(literal)
      expected.update(literal)
      digest.content(contents.put(sha256(bytes), bytes))
      expected.update(bytes)
      digest.zeros(round * 1000)
      expected.update(Buffer.alloc(round * 1000))
    }
    expect(await digest.end()).toBe(expected.digest('hex'))
  })

  test('of several at a time', async () => {
    using contents = createSegmentWriter(paths, db)
    const parts = [0, 1, 2].map(() => ({ digest: digestOf(contents, where), hash: createHash('sha256') }))
    for (let round = 0; round < 20; round++) {
      for (const { digest, hash: expected } of parts) {
        const bytes = randomBytes(2 * MB)
        digest.literal(bytes)
        expected.update(bytes)
      }
    }
    // One that nobody wants does not disturb the others.
    parts.pop()?.digest[Symbol.dispose]()
    for (const { digest, hash: expected } of parts) expect(await digest.end()).toBe(expected.digest('hex'))
  })

  test.each([
    ['is refused when a content that was stored before is not what it says', true, 'STORE_CORRUPT'],
    ['does not look at what was written just now', false, 'a digest'],
  ])('%s', async (_, wasStored, expected) => {
    const bytes = randomBytes(20 * MB)
    if (wasStored) await store([bytes])
    using contents = createSegmentWriter(paths, db)
    const content = contents.put(sha256(bytes), bytes)
    contents.flush()
    overwrite(contents, content, Buffer.from('damage'))
    using digest = digestOf(contents, where)
    const outcome = async (): Promise<string> => {
      digest.content(content)
      digest.literal(Buffer.from('and more'))
      await digest.end()
      return 'a digest'
    }
    expect(await outcome().catch((error: { code: string }) => error.code)).toBe(expected)
  })
})

describe('files of a context', () => {
  test('small and large, are digested and kept once, and closed', () => {
    const before = openFiles()
    const contents = createSegmentWriter(paths, db)
    using taking = intake(contents)
    // Enough for the thread to get some.
    const files = Array.from({ length: 400 }, (_, i) => {
      const bytes = i % 40 === 7 ? randomBytes(300_000) : Buffer.alloc(60_000, `file ${i % 100}`)
      return { bytes, name: write(`f${i}`, bytes) }
    })
    const taken = files.map(({ name }) => taking.take(seen(name)))
    for (const [i, { digest }] of taken.entries()) {
      const { bytes } = files[i] ?? { bytes: Buffer.alloc(0) }
      expect(digest.equals(sha256(bytes))).toBe(true)
      expect(taking.has(digest)).toBe(true)
    }
    expect(contents.list.count).toBe(new Set(taken.map(({ digest }) => digest.toString('hex'))).size)
    const content = contents.find(taken[0]?.digest ?? Buffer.alloc(0)) ?? -1
    contents.flush()
    const into = Buffer.alloc(contents.list.size(content))
    reader.read(contents.list.digest(content), contents.list.location(content), 0, into)
    expect(into.equals(files[0]?.bytes ?? Buffer.alloc(0))).toBe(true)
    reader[Symbol.dispose]()
    taking[Symbol.dispose]()
    // What stays open is the thread's, if it was needed.
    expect(openFiles()).toBeLessThan(before + 20)
  })

  test.each([
    ['here', 3],
    ['in the thread', 600],
  ])('one that is gone, shorter, changed or no file is told of, and the others are taken: %s', (_, count) => {
    using taking = intake(createSegmentWriter(paths, db))
    const names = Array.from({ length: count }, (__, i) => write(`f${i}`, randomBytes(50_000)))
    const odd = ['gone', 'shorter', 'changed', 'link'].map((name) => write(name, randomBytes(1000)))
    const all = [...names, ...odd].map((name) => ({ name, file: seen(name) }))
    rmSync(join(paths.root, 'gone'))
    truncateSync(join(paths.root, 'shorter'), 10)
    writeFileSync(join(paths.root, 'changed'), randomBytes(1000))
    rmSync(join(paths.root, 'link'))
    symlinkSync('f0', join(paths.root, 'link'))
    const taken = all.map(({ file }) => taking.take(file))
    const outcomes = taken.map((one) => {
      try {
        return one.digest.length
      } catch (error) {
        return (error as { code: string }).code
      }
    })
    // `open` of this test does not look whether it is the same file; what is shorter, it cannot miss.
    expect(outcomes).toEqual([...names.map(() => 32), 'ENOENT', 'TAR_FILE_CHANGED', 32, 32])
  })

  test('attributes that a layer keeps are told of', () => {
    using taking = intake(createSegmentWriter(paths, db))
    for (const [name, size] of [
      ['small', 10],
      ['large', 300_000],
    ] as const) {
      setXattr(join(paths.root, write(name, randomBytes(size))), 'user.kept', Buffer.from('x'))
      write(`plain-${name}`, randomBytes(size))
      expect([taking.take(seen(name)).isPlain, taking.take(seen(`plain-${name}`)).isPlain]).toEqual([
        false,
        true,
      ])
    }
  })

  test('one with holes is digested, and not kept', () => {
    using taking = intake(createSegmentWriter(paths, db))
    const bytes = Buffer.concat([randomBytes(65_536), Buffer.alloc(65_536)])
    const { digest } = taking.take(seen(write('holes', bytes)))
    expect(digest.equals(sha256(bytes))).toBe(true)
    expect(taking.has(digest)).toBe(false)
  })

  test('an intake that is disposed of midway leaves nothing open and nothing kept', () => {
    const file = write('file', randomBytes(90_000))
    const before = openFiles()
    {
      using taking = intake(createSegmentWriter(paths, db))
      for (let i = 0; i < 200; i++) taking.take(seen(file))
    }
    expect(openFiles()).toBeLessThan(before + 20)
    expect(db.get('SELECT count(*) AS n FROM contents')?.['n']).toBe(0)
  })
})

/** Its digest as it is computed, as it should be, and its midstates. */
const made = async (files: readonly Buffer[], known?: Uint8Array, partBytes = 512) => {
  using contents = createSegmentWriter(paths, db)
  using digest = digestOf(contents, 'in the thread', known)
  const expected = createHash('sha256')
  for (const [i, bytes] of files.entries()) {
    for (let at = 0; at < 512; at += partBytes) digest.literal(literalOf(i).subarray(at, at + partBytes))
    expected.update(literalOf(i))
    const content = contents.find(sha256(bytes))
    digest.content(content ?? contents.put(sha256(bytes), bytes))
    expected.update(bytes)
    digest.zeros(224)
    expected.update(Buffer.alloc(224))
  }
  return { digest: await digest.end(), expected: expected.digest('hex'), known: digest.midstates }
}

describe('a tar that begins as another one did', () => {
  /** 30 MB in files of 0.5 MB, each after a literal that comes in parts. */
  const all = Array.from({ length: 60 }, () => randomBytes(500_000))
  const FIRST_CHANGED = 40

  const changedAt = (place: number): Buffer[] => all.with(place, randomBytes(400_000))

  test('has the right digest, wherever it parts from it, and whatever the parts of its literals', async () => {
    await store(all)
    const first = await made(all)
    expect(first.digest).toBe(first.expected)
    expect(first.known.length).toBeGreaterThan(0)
    for (const place of [0, 1, 8, 9, 10, 30, 59]) {
      const other = await made(changedAt(place), first.known, place % 2 === 0 ? 512 : 100)
      expect([place, other.digest]).toEqual([place, other.expected])
      expect(other.known.length).toBeGreaterThanOrEqual(first.known.length - 64)
    }
    const [shorter, longer] = [all.slice(0, 50), [...all, randomBytes(5 * MB)]]
    for (const files of [shorter, longer, all]) {
      const other = await made(files, first.known)
      expect(other.digest).toBe(other.expected)
    }
  })

  test('is not read as far as it is the same; from there on it is, and damage found', async () => {
    await store(all)
    const { known } = await made(all)
    using contents = createSegmentWriter(paths, db)
    const overwriteFile = (i: number): void =>
      overwrite(contents, contents.find(sha256(all[i] ?? Buffer.alloc(0))) ?? -1, randomBytes(500_000))
    overwriteFile(3)
    const same = await made(changedAt(FIRST_CHANGED), known)
    expect(same.digest).toBe(same.expected)
    overwriteFile(FIRST_CHANGED + 10)
    await expect(made(changedAt(FIRST_CHANGED), known)).rejects.toMatchObject({ code: 'STORE_CORRUPT' })
  })

  test('midstates of something else are of no harm, nor are many of them', async () => {
    await store(all)
    const first = await made(all)
    const others = Buffer.concat([randomBytes(64 * 1000), first.known, randomBytes(64)])
    const second = await made(all, others)
    expect([second.digest, Buffer.from(second.known).equals(first.known)]).toEqual([second.expected, true])
  })
})

test('a digest goes on from its state as if it had never stopped', () => {
  expect(canContinue()).toBe(true)
  const bytes = randomBytes(1000)
  for (const blocks of [0, 1, 7, 15]) {
    const first = createSha256()
    first.update(bytes.subarray(0, blocks * 64))
    const second = createSha256({ state: first.state(), bytes: blocks * 64 })
    second.update(bytes.subarray(blocks * 64))
    expect(second.digest()).toEqual(sha256(bytes))
  }
  // Beyond 2^32 bits, which are in another word.
  const far = createSha256({ state: createSha256().state(), bytes: 2 ** 30 })
  const near = createSha256({ state: createSha256().state(), bytes: 2 ** 29 })
  expect(far.digest()).not.toEqual(near.digest())
})

test('a process that waits for what another thread has taken stays until it is done', () => {
  const script = `
    const { VerifyList } = await import(${JSON.stringify(join(import.meta.dirname, 'verify.ts'))})
    const { ContentList } = await import(${JSON.stringify(join(import.meta.dirname, '../contents/list.ts'))})
    const contents = new ContentList()
    contents.add(Buffer.alloc(32), 10, { segment: 1, block: 0 })
    const list = VerifyList.of(contents, [0])
    list.take()
    for (let i = 0; i < 20 && !list.isDone; i++) await list.wait()
    process.stdout.write('waited')`
  const options = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', script]
  expect(execFileSync(process.execPath, options, { encoding: 'utf8' })).toBe('waited')
})
