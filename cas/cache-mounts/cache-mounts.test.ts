/** Directories of RUN --mount=type=cache: who gets which, what survives, what goes. */
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openStore, type CacheMount, type CacheMountRequest, type Store } from '../index.ts'

let path: string
let store: Store
beforeEach(async () => {
  path = join(mkdtempSync(join(tmpdir(), 'tbuild-caches-')), 'store')
  store = await openStore(path)
})
afterEach(async () => {
  await store[Symbol.asyncDispose]()
  rmSync(join(path, '..'), { recursive: true })
})

const entries = (): string[] => readdirSync(join(path, 'cache-mounts')).toSorted()
const open = (sharing: CacheMountRequest['sharing'], key = 'key', more: Partial<CacheMountRequest> = {}) =>
  store.cacheMount({ key, name: `/${key}`, sharing, ...more })
const at = ({ fd }: CacheMount, name: string): string => `/proc/self/fd/${fd}/${name}`

const fillSlowly = async (directory: string): Promise<void> => {
  await new Promise(setImmediate)
  writeFileSync(join(directory, 'filled'), '')
}
const noise = (mount: CacheMount, bytes: number): void =>
  writeFileSync(at(mount, 'noise'), Buffer.alloc(bytes, 'x'))

describe('who gets which', () => {
  test('the same key, the same directory; another key, another one', async () => {
    {
      using first = await open('shared')
      writeFileSync(at(first, 'kept'), 'x')
    }
    using again = await open('shared')
    using other = await open('shared', 'other')
    expect(readdirSync(at(again, '.'))).toEqual(['kept'])
    expect(readdirSync(at(other, '.'))).toEqual([])
  })

  test('shared is one for all; private gets one of its own, which is used again', async () => {
    using one = await open('shared')
    using two = await open('shared')
    writeFileSync(at(one, 'seen'), '')
    expect(existsSync(at(two, 'seen'))).toBe(true)
    {
      using own = await open('private')
      expect(readdirSync(at(own, '.'))).toEqual([])
      writeFileSync(at(own, 'mine'), '')
    }
    using again = await open('private')
    expect(readdirSync(at(again, '.'))).toEqual(['mine'])
    expect(entries()).toHaveLength(2)
  })

  test('locked waits, says so, and can be interrupted', async () => {
    const first = await open('locked')
    const told = Promise.withResolvers<void>()
    const second = open('locked', 'key', { notice: () => told.resolve() })
    const controller = new AbortController()
    const third = open('locked', 'key', { signal: controller.signal })
    await told.promise
    controller.abort(new Error('enough'))
    await expect(third).rejects.toThrow('enough')
    first[Symbol.dispose]()
    using _ = await second
    expect(entries()).toHaveLength(1)
  })

  test('of many at once that make the first, each gets a whole one', async () => {
    const mounts = await Promise.all(
      Array.from({ length: 8 }, () => open('shared', 'key', { fill: fillSlowly })),
    )
    for (const mount of mounts) expect(readdirSync(at(mount, '.'))).toEqual(['filled'])
    expect(entries()).toHaveLength(1)
    for (const mount of mounts) mount[Symbol.dispose]()
  })

  test('one that could not be filled is not there', async () => {
    await expect(open('shared', 'key', { fill: () => Promise.reject(new Error('no')) })).rejects.toThrow('no')
    expect(entries()).toEqual([])
  })
})

test('kill -9: what was written stays, the lock does not; what was being made goes', async () => {
  const script = `
    import { openStore } from ${JSON.stringify(join(import.meta.dirname, '../index.ts'))}
    import { writeFileSync } from 'node:fs'
    const store = await openStore(${JSON.stringify(path)})
    const mount = await store.cacheMount({ key: 'key', name: '/key', sharing: 'locked' })
    writeFileSync('/proc/self/fd/' + mount.fd + '/kept', 'x')
    store.cacheMount({ key: 'half', name: '/half', sharing: 'shared', fill: () => {
      process.stdout.write('ready')
      return new Promise(() => setInterval(() => {}, 1000))
    } })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')
  await using next = await openStore(path)
  using mount = await next.cacheMount({ key: 'key', name: '/key', sharing: 'locked' })
  expect(readFileSync(at(mount, 'kept'), 'utf8')).toBe('x')
  expect(entries()).toHaveLength(1)
  expect(readdirSync(join(path, 'work'))).not.toContain(expect.stringMatching(/cache/))
})

const fill = async (key: string, bytes: number, hoursAgo = 0): Promise<void> => {
  const before = entries()
  const mount = await open('shared', key)
  noise(mount, bytes)
  mount[Symbol.dispose]()
  const when = new Date(Date.now() - hoursAgo * 3600_000)
  for (const name of entries().filter((one) => !before.includes(one)))
    utimesSync(join(path, 'cache-mounts', name), when, when)
}

describe('prune', () => {
  test('takes what nobody uses, tells its bytes, and leaves what somebody uses', async () => {
    await fill('idle', 1_000_000)
    using used = await open('shared', 'used')
    noise(used, 500_000)
    const dry = await store.prune({ dryRun: true })
    expect(dry.cacheMounts).toEqual(['/idle'])
    expect(entries()).toHaveLength(2)
    const report = await store.prune()
    expect(report.cacheMounts).toEqual(['/idle'])
    expect(report.freedBytes).toBe(dry.freedBytes)
    expect(report.freedBytes).toBeGreaterThan(1_000_000)
    expect(entries()).toHaveLength(1)
    expect(readFileSync(at(used, 'noise'))).toHaveLength(500_000)
  })

  test('by age', async () => {
    await fill('old', 1000, 30)
    await fill('young', 1000)
    expect((await store.prune({ olderThanMs: 24 * 3600_000 })).cacheMounts).toEqual(['/old'])
  })

  test('by a cap: the least recently used first, and no more than needed', async () => {
    await fill('a', 1_000_000, 3)
    await fill('b', 1_000_000, 2)
    await fill('c', 1_000_000, 1)
    const all = (await store.ledger()).usage().measure().allocatedBytes
    const options = { keepBytes: all - 1_500_000 }
    const dry = await store.prune({ ...options, dryRun: true })
    const report = await store.prune(options)
    expect([dry.cacheMounts, report.cacheMounts]).toEqual([
      ['/a', '/b'],
      ['/a', '/b'],
    ])
    expect(report.cap?.isKept).toBe(true)
  })
})

test('df counts them; fsck has nothing to say of them', async () => {
  using mount = await open('shared')
  writeFileSync(at(mount, 'file'), Buffer.alloc(100_000, 'x'))
  const { rows } = (await store.ledger()).usage().measure()
  expect(rows.find(({ kind }) => kind === 'cacheMounts')?.allocatedBytes).toBeGreaterThan(100_000)
  expect(await store.fsck()).toMatchObject({ problems: [], leftovers: [] })
})
