import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { hash, randomBytes } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openStore } from '../index.ts'
import { createContext, type StoreContext } from '../store/context.ts'
import { openDatabase } from '../store/database.ts'
import { removeOrphans } from '../gc/orphans.ts'
import { objectPath, storePaths, type StorePaths } from '../store/paths.ts'
import { createObjectWriter } from './objects.ts'
import type { ContentWriter } from './types.ts'

let paths: StorePaths
let context: StoreContext
beforeEach(async () => {
  paths = storePaths(mkdtempSync(join(tmpdir(), 'objects-')))
  await (await openStore(paths.root))[Symbol.asyncDispose]()
  context = createContext(paths, openDatabase(paths.index))
})
afterEach(() => {
  context.release()
  context.db[Symbol.dispose]()
  rmSync(paths.root, { recursive: true })
})

const put = (writer: ContentWriter, bytes: Uint8Array): number => {
  writer.begin()
  for (let at = 0; at < bytes.length; at += 100_000) writer.append(bytes.subarray(at, at + 100_000))
  return writer.end()
}
const record = (writer: ContentWriter): boolean =>
  context.db.transaction(() => context.db.attempt(() => writer.record()))
const commit = async (writer: ContentWriter): Promise<void> => {
  await writer.sync()
  do writer.resolve()
  while (!record(writer))
  writer.confirm()
}
const digestOf = (bytes: Uint8Array): Buffer => hash('sha256', bytes, 'buffer')
const pathOf = (bytes: Uint8Array): string => objectPath(paths, digestOf(bytes).toString('hex'))
const files = (): string[] =>
  [paths.objects, paths.work]
    .flatMap((directory) => readdirSync(directory, { recursive: true, encoding: 'utf8' }))
    .toSorted()
const stored = (): number => Number(context.db.get('SELECT count(*) AS n FROM contents')?.['n'])

describe('contents', () => {
  test.each([
    ['few', [0, 1, 511, 4096, 4 * 1024 ** 2 - 1, 4 * 1024 ** 2, 4 * 1024 ** 2 + 1, 9_000_000]],
    ['many', Array.from({ length: 200 }, (_, i) => i + 1)],
  ])(
    '%s, of all sizes, come back before and after they are recorded; equal ones are kept once',
    async (_, sizes) => {
      const all = sizes.map((size) => randomBytes(size))
      {
        using writer = createObjectWriter(context)
        const numbers = [...all, ...all].map((bytes) => put(writer, bytes))
        expect(numbers.slice(all.length)).toEqual(numbers.slice(0, all.length))
        for (const bytes of all) {
          const into = Buffer.alloc(bytes.length)
          writer.reader?.read(digestOf(bytes), { segment: 0, block: 0 }, 0, into)
          expect(into.equals(bytes)).toBe(true)
        }
        await commit(writer)
      }
      for (const bytes of all) expect(readFileSync(pathOf(bytes)).equals(bytes)).toBe(true)
      expect(stored()).toBe(all.length)
      const before = files()
      {
        using writer = createObjectWriter(context)
        for (const bytes of all) put(writer, bytes)
        await commit(writer)
      }
      expect(files()).toEqual(before)
    },
  )

  test('that were dropped, or never recorded, leave nothing', async () => {
    context.lease()
    const before = files()
    {
      using writer = createObjectWriter(context)
      writer.begin()
      writer.append(randomBytes(9_000_000))
      writer.drop()
      put(writer, randomBytes(9_000_000))
      writer.begin()
      writer.append(randomBytes(9_000_000))
      await writer.sync()
    }
    expect(files()).toEqual(before)
  })

  test('of a transaction that was undone are taken back, or recorded by the next', async () => {
    context.lease()
    const before = files()
    const [bytes, other] = [randomBytes(1000), randomBytes(1000)]
    const undone = (writer: ContentWriter): void => {
      writer.resolve()
      const work = (): void => {
        expect(writer.record()).toBe(true)
        throw new Error('undone')
      }
      expect(() => context.db.transaction(work)).toThrow('undone')
    }
    {
      using writer = createObjectWriter(context)
      put(writer, bytes)
      await writer.sync()
      undone(writer)
    }
    expect(files()).toEqual(before)
    using writer = createObjectWriter(context)
    put(writer, other)
    await writer.sync()
    undone(writer)
    await commit(writer)
    expect(readFileSync(pathOf(other)).equals(other)).toBe(true)
  })
})

describe('several at once', () => {
  test('equal contents end up once, whoever undoes what', async () => {
    const bytes = randomBytes(100_000)
    const [own, another] = [Buffer.from('only b'), Buffer.from('only c')]
    {
      using a = createObjectWriter(context)
      using b = createObjectWriter(context)
      using c = createObjectWriter(context)
      for (const writer of [a, b, c]) put(writer, bytes)
      put(b, own)
      put(c, another)
      await commit(a)
      await commit(b)
      // The index alone tells that another was faster, and then it is too late.
      await c.sync()
      c.resolve()
      expect(record(c)).toBe(false)
    }
    expect(stored()).toBe(2)
    expect(readFileSync(pathOf(bytes)).equals(bytes)).toBe(true)
    expect(readFileSync(pathOf(own)).equals(own)).toBe(true)
    expect(() => readFileSync(pathOf(another))).toThrow('ENOENT')
  })

  test('a content that collection unrecords meanwhile is recorded again', async () => {
    const bytes = randomBytes(1000)
    {
      using writer = createObjectWriter(context)
      put(writer, bytes)
      await commit(writer)
    }
    using writer = createObjectWriter(context)
    put(writer, bytes)
    await writer.sync()
    writer.resolve()
    const { db } = context
    db.transaction(() => {
      db.run('INSERT INTO dead_objects SELECT digest FROM contents')
      db.run('DELETE FROM contents')
      db.run("INSERT OR REPLACE INTO meta VALUES ('generation', 1)")
    })
    expect(record(writer)).toBe(false)
    await commit(writer)
    expect(stored()).toBe(1)
    expect(db.all('SELECT * FROM dead_objects')).toEqual([])
  })
})

test('what a killed process had put there is removed by collection, and nothing else', async () => {
  const [kept, left] = [randomBytes(5000), randomBytes(5000)]
  using writer = createObjectWriter(context)
  put(writer, kept)
  await commit(writer)
  expect(removeOrphans(context)).toBe(0)
  const path = join(
    paths.objects,
    readdirSync(paths.objects)[0] ?? '',
    digestOf(left).toString('hex').slice(2),
  )
  writeFileSync(path, left)
  expect(removeOrphans(context)).toBeGreaterThanOrEqual(5000)
  expect(readFileSync(pathOf(kept)).equals(kept)).toBe(true)
  expect(() => readFileSync(path)).toThrow('ENOENT')
})
