import { afterEach, beforeEach, expect, test } from '@jest/globals'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openStore, type Layer, type Store } from '../index.ts'
import type { DiffId } from '../oci.ts'
import { openDatabase, type Database } from './database.ts'
import { readMidstates, recordMidstates } from './midstates.ts'
import { storePaths } from './paths.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'midstates-'))
})
afterEach(() => rmSync(root, { recursive: true }))

const FILE = 500_000
const WHEN = {
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  major: 0,
  minor: 0,
  xattrs: new Map<string, Buffer>(),
}

function write(store: Store, files: readonly Buffer[]): Promise<Layer> {
  return store.layers.write((writer) => {
    for (const [i, bytes] of files.entries()) {
      writer.entry({ ...WHEN, type: 'file', path: `f${i}`, size: bytes.length })
      writer.data(bytes)
    }
    return Promise.resolve()
  })
}

const index = (): Database => openDatabase(storePaths(root).index)

test('layers that begin alike are what their bytes say; what is known goes with its layer', async () => {
  await using store = await openStore(root)
  const files = Array.from({ length: 60 }, () => randomBytes(FILE))
  const layers: DiffId[] = []
  for (const changed of [undefined, 50, 20, 0]) {
    const layer = await write(
      store,
      changed === undefined ? files : files.with(changed, randomBytes(FILE - 1)),
    )
    const { diffId } = await layer.stored
    const hash = createHash('sha256')
    for await (const chunk of store.layers.tar(diffId)) hash.update(chunk)
    expect(`sha256:${hash.digest('hex')}`).toBe(diffId)
    layers.push(diffId)
  }
  expect(new Set(layers).size).toBe(4)
  {
    using db = index()
    expect(db.all('SELECT diff_id FROM midstates ORDER BY rowid').map((row) => row['diff_id'])).toEqual(
      layers,
    )
  }
  expect(await store.fsck()).toMatchObject({ problems: [] })
})

test('a layer that is collected takes its own along', async () => {
  {
    await using store = await openStore(root)
    await (
      await write(store, [randomBytes(20_000_000)])
    ).stored
  }
  {
    using db = index()
    expect(db.all('SELECT 1 FROM midstates')).toHaveLength(1)
  }
  await using store = await openStore(root)
  await store.prune()
  using db = index()
  expect(db.all('SELECT 1 FROM midstates')).toHaveLength(0)
})

test('what is damaged is as if it were not there', async () => {
  await (await openStore(root))[Symbol.asyncDispose]()
  using db = index()
  const [first, second] = [randomBytes(128), randomBytes(64)]
  recordMidstates(db, 'sha256:a' as DiffId, first)
  recordMidstates(db, 'sha256:b' as DiffId, second)
  recordMidstates(db, 'sha256:c' as DiffId, new Uint8Array(0))
  expect(Buffer.from(readMidstates(db))).toEqual(Buffer.concat([second, first]))
  const row = Buffer.from(
    db.get("SELECT packed FROM midstates WHERE diff_id = 'sha256:a'")?.['packed'] as Uint8Array,
  )
  const damaged: (Buffer | string)[] = ['text', Buffer.alloc(0), Buffer.alloc(3)]
  for (let at = 0; at < row.length; at++) {
    const flipped = Buffer.from(row)
    flipped[at] = (flipped[at] ?? 0) ^ 4
    damaged.push(flipped, row.subarray(0, at))
  }
  for (const packed of damaged) {
    db.run("UPDATE midstates SET packed = ? WHERE diff_id = 'sha256:a'", packed)
    expect(Buffer.from(readMidstates(db))).toEqual(second)
  }
})

test('a store that was made before there were any gets them', async () => {
  await (await openStore(root))[Symbol.asyncDispose]()
  {
    using db = index()
    db.run('DROP TABLE midstates')
  }
  using db = index()
  expect(readMidstates(db)).toHaveLength(0)
})
