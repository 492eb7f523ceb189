/**
 * A process of its own that works on a store, for tests of many at once: `node store-process.ts STORE WORK SEED COUNT DRIVER`. Prints a line for each thing done, and
 * `failed` with the reason when something is not as it should be.
 */
import { createHash, hash } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { openStore, type DiffId, type OpenStoreOptions, type Store } from '../../cas/index.ts'

/** Always the same for one number: the processes make the same contents. */
export function bytesOf(number: number): Buffer {
  return noise(`number ${number}`, 100 + (hash('sha256', String(number), 'buffer').readUInt32LE(0) % 60_000))
}

/** Bytes that cannot be compressed, the same for one seed. */
export function noise(seed: string, size: number): Buffer {
  return createHash('shake256', { outputLength: size }).update(seed).digest()
}

/** A layer of these files. */
export async function storeLayer(store: Store, numbers: readonly number[]): Promise<DiffId> {
  const layer = await store.layers.write(async (writer) => {
    for (const number of numbers) {
      const bytes = bytesOf(number)
      writer.entry({
        type: 'file',
        path: `f${number}`,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtimeNs: 1_000_000_000_000_000_000n,
        size: bytes.length,
        major: 0,
        minor: 0,
        xattrs: new Map(),
      })
      if (!writer.stored(hash('sha256', bytes, 'buffer'))) writer.data(bytes)
      await writer.breathe()
    }
  })
  return (await layer.stored).diffId
}

export async function readLayer(store: Store, diffId: DiffId): Promise<void> {
  for await (const _ of store.layers.tar(diffId)) continue
}

type DriverName = OpenStoreOptions['driver']
type Work = (path: string, seed: number, count: number, driver: DriverName) => Promise<void>
const works: Readonly<Record<string, Work>> = {
  /** Stores layers of contents that others store too, verifies each, and forgets them: the lease ends with the store. */
  ingest: async (path, seed, count, driver) => {
    let state = seed
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      return (state >>> 8) % below
    }
    for (let i = 0; i < count; i++) {
      await using store = await openStore(path, { driver })
      const first = random(40)
      const diffId = await storeLayer(
        store,
        Array.from({ length: 5 + random(20) }, (_, n) => first + n),
      )
      await readLayer(store, diffId)
      await using root = await store.layers.mount([store.layers.open(diffId)])
      if (root.fd < 0) throw new Error('no root')
      await setTimeout(random(5))
      await readLayer(store, diffId)
    }
  },
  collect: async (path, seed, count, driver) => {
    for (let i = 0; i < count; i++) {
      await using store = await openStore(path, { driver })
      await store.prune({ compact: (seed + i) % 2 === 0 })
      process.stdout.write('collected\n')
    }
  },
}

if (import.meta.filename === process.argv[1]) {
  const [path = '', work = '', seed, count, driver] = process.argv.slice(2)
  await works[work]?.(path, Number(seed), Number(count), driver as DriverName)
}
