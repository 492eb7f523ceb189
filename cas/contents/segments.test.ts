import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { hash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDatabase, type Database } from '../store/database.ts'
import { segmentPath, sidecarPath, storePaths, type StorePaths } from '../store/paths.ts'
import { createContentReader } from './reader.ts'
import { createSegmentWriter } from './segments.ts'
import { readSidecar } from './sidecar.ts'
import type { ContentWriter } from './types.ts'

let paths: StorePaths
let db: Database
beforeEach(() => {
  paths = storePaths(mkdtempSync(join(tmpdir(), 'segments-')))
  mkdirSync(paths.segments)
  db = openDatabase(paths.index)
})
afterEach(() => {
  db[Symbol.dispose]()
  rmSync(paths.root, { recursive: true })
})

const put = (writer: ContentWriter, bytes: Uint8Array): number => {
  writer.begin()
  for (let at = 0; at < bytes.length; at += 100_000) writer.append(bytes.subarray(at, at + 100_000))
  return writer.end()
}
const commit = async (writer: ContentWriter): Promise<void> => {
  await writer.sync()
  for (;;) {
    writer.resolve()
    if (db.transaction(() => db.attempt(() => writer.record()))) break
  }
  writer.confirm()
}
const readBack = (bytes: Uint8Array): Buffer => {
  using reader = createContentReader(paths)
  const digest = hash('sha256', bytes, 'buffer')
  const row = db.get('SELECT * FROM contents WHERE digest = ?', digest)
  const into = Buffer.alloc(Number(row?.['size']))
  reader.read(digest, { segment: Number(row?.['segment']), block: Number(row?.['block']) }, 0, into)
  return into
}
const stored = (): number => Number(db.get('SELECT count(*) AS n FROM contents')?.['n'])
const used = (): number => Number(db.get('SELECT sum(length) AS n FROM segments')?.['n'] ?? 0)

describe('contents', () => {
  test('of all sizes around the buffer come back; equal ones are kept once', async () => {
    const sizes = [1, 511, 512, 513, 100_000, 4 * 1024 ** 2 - 1, 4 * 1024 ** 2, 4 * 1024 ** 2 + 1, 9_000_000]
    const all = sizes.map((size) => randomBytes(size))
    {
      using writer = createSegmentWriter(paths, db)
      const numbers = [...all, ...all].map((bytes) => put(writer, bytes))
      expect(numbers.slice(all.length)).toEqual(numbers.slice(0, all.length))
      await commit(writer)
    }
    for (const bytes of all) expect(readBack(bytes).equals(bytes)).toBe(true)
    expect(stored()).toBe(all.length)
    const before = used()
    {
      using writer = createSegmentWriter(paths, db)
      for (const bytes of all) put(writer, bytes)
      await commit(writer)
    }
    expect(used()).toBe(before)
    expect(statSync(segmentPath(paths, 1)).size).toBe(before)
  })

  test('may be made readable while one is being given, also one that is there already', async () => {
    for (const size of [1000, 300_000, 3_000_000]) {
      using writer = createSegmentWriter(paths, db)
      const [first, second] = [randomBytes(700), randomBytes(size)]
      const numbers = [first, second, second, first].map((bytes) => {
        writer.begin()
        for (let at = 0; at < bytes.length; at += 90_000) {
          writer.append(bytes.subarray(at, at + 90_000))
          writer.flush()
        }
        return writer.end()
      })
      expect(numbers).toEqual([0, 1, 1, 0])
      expect(writer.list.digest(1).equals(hash('sha256', second, 'buffer'))).toBe(true)
      await commit(writer)
      for (const bytes of [first, second]) expect(readBack(bytes).equals(bytes)).toBe(true)
    }
  })

  test('from a file, and told apart where the file is shorter', async () => {
    const bytes = randomBytes(5_000_000)
    const path = join(paths.root, 'file')
    writeFileSync(path, bytes)
    using writer = createSegmentWriter(paths, db)
    const fd = openSync(path, 'r')
    writer.begin()
    expect(writer.appendFrom(fd, 0, 6_000_000)).toBe(5_000_000)
    writer.end()
    await commit(writer)
    expect(readBack(bytes).equals(bytes)).toBe(true)
  })

  test('that were dropped, or never recorded, leave nothing', async () => {
    {
      using writer = createSegmentWriter(paths, db)
      put(writer, Buffer.from('kept'))
      await commit(writer)
    }
    const before = [readFileSync(segmentPath(paths, 1)), readFileSync(sidecarPath(paths, 1))]
    {
      using writer = createSegmentWriter(paths, db)
      writer.begin()
      writer.append(randomBytes(9_000_000))
      writer.drop()
      put(writer, randomBytes(9_000_000))
      await writer.sync()
    }
    expect([readFileSync(segmentPath(paths, 1)), readFileSync(sidecarPath(paths, 1))]).toEqual(before)
  })
})

describe('several at once', () => {
  test('write to segments of their own; equal contents end up once, the other is to be freed', async () => {
    const bytes = randomBytes(100_000)
    using a = createSegmentWriter(paths, db)
    using b = createSegmentWriter(paths, db)
    const own = put(b, Buffer.from('only b'))
    const inA = put(a, bytes)
    const inB = put(b, bytes)
    expect(a.list.segment(inA)).not.toBe(b.list.segment(inB))
    await commit(a)
    await commit(b)
    expect(b.list.location(inB)).toEqual(a.list.location(inA))
    expect(b.list.segment(own)).not.toBe(a.list.segment(inA))
    expect(stored()).toBe(2)
    expect(db.all('SELECT size FROM dead')).toEqual([expect.objectContaining({ size: 100_000 })])
  })

  test('a content that collection unrecords meanwhile is recorded again', async () => {
    const bytes = randomBytes(1000)
    {
      using writer = createSegmentWriter(paths, db)
      put(writer, bytes)
      await commit(writer)
    }
    using writer = createSegmentWriter(paths, db)
    put(writer, bytes)
    await writer.sync()
    writer.resolve()
    const collect = (): void => {
      db.run('INSERT INTO dead SELECT segment, block, size FROM contents')
      db.run('DELETE FROM contents')
      db.run("INSERT OR REPLACE INTO meta VALUES ('generation', 1)")
    }
    db.transaction(collect)
    expect(db.transaction(() => db.attempt(() => writer.record()))).toBe(false)
    await commit(writer)
    expect(readBack(bytes).equals(bytes)).toBe(true)
    expect(db.all('SELECT * FROM dead')).toEqual([])
  })
})

test('what an ingest that was killed left beyond the end is cut off by the next', async () => {
  {
    using writer = createSegmentWriter(paths, db)
    put(writer, Buffer.from('kept'))
    await commit(writer)
  }
  writeFileSync(segmentPath(paths, 1), randomBytes(10_000), { flag: 'a' })
  writeFileSync(sidecarPath(paths, 1), randomBytes(100), { flag: 'a' })
  const bytes = randomBytes(700)
  using writer = createSegmentWriter(paths, db)
  put(writer, bytes)
  await commit(writer)
  expect(statSync(segmentPath(paths, 1)).size).toBe(512 + 1024)
  expect(readBack(bytes).equals(bytes)).toBe(true)
  expect(readSidecar(sidecarPath(paths, 1)).map(({ block, size }) => [block, size])).toEqual([
    [0, 4],
    [1, 700],
  ])
})
