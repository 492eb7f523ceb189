import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import {
  closeSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { AT_FDCWD, statAt, type Stat } from '../../linux/index.ts'
import { openStatCache } from './stat-cache.ts'

let scratch: string
let caches: string
let slash: number
let count = 0
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'stat-cache-'))
  slash = openSync('/', 'r')
})
afterAll(() => {
  closeSync(slash)
  rmSync(scratch, { recursive: true })
})
beforeEach(() => {
  caches = join(scratch, `caches-${++count}`)
  mkdirSync(caches)
})

const look = (path: string): Stat => {
  const stats = statAt(AT_FDCWD, path)
  if (stats === undefined) throw new Error(`no ${path}`)
  return stats
}
const digestOf = (path: string): Buffer => hash('sha256', readFileSync(path), 'buffer')

/** As if it had been written that long ago: its change time cannot be set, so the clock of the cache's file system is what is waited for. */
const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 2100))

function file(contents: string): string {
  const path = join(scratch, `file-${++count}`)
  writeFileSync(path, contents)
  return path
}

/** By a descriptor of the root. */
const seen = (path: string, stats = look(path)) => ({ root: slash, path: path.slice(1), stats })

/** Reads what is not known, as a build does; the paths that were read. */
function scan(paths: readonly string[]): string[] {
  const cache = openStatCache(caches, '/context')
  const read = paths.filter((path) => {
    const stats = look(path)
    const known = cache.find(seen(path, stats))
    if (known !== undefined) {
      if (known.isPlain && known.digest.equals(digestOf(path))) return false
      throw new Error('it is another file')
    }
    cache.remember(stats, { digest: digestOf(path), isPlain: true })
    return true
  })
  cache.save()
  return read
}

test('an unchanged file is not read again; renamed or linked it is, for that moves its change time', async () => {
  const [a, b] = [file('a'), file('b')]
  await settle()
  expect(scan([a, b])).toEqual([a, b])
  expect(scan([a, b])).toEqual([])
  renameSync(a, `${a}-renamed`)
  linkSync(b, `${b}-linked`)
  expect(scan([`${a}-renamed`, b])).toEqual([`${a}-renamed`, b])
})

test('an edit in the second of the scan is seen, of the same size and with its time put back', async () => {
  const path = file('one')
  // Too young: no record.
  expect(scan([path])).toEqual([path])
  expect(scan([path])).toEqual([path])
  await settle()
  scan([path])
  const { mtimeMs } = statSync(path)
  writeFileSync(path, 'two')
  utimesSync(path, mtimeMs / 1000, mtimeMs / 1000)
  expect(scan([path])).toEqual([path])
})

test('times in the future are not trusted: a clock that was set back', async () => {
  const path = file('x')
  utimesSync(path, Date.now() / 1000 + 3600, Date.now() / 1000 + 3600)
  await settle()
  expect(scan([path])).toEqual([path])
  expect(scan([path])).toEqual([path])
})

test('an inode that is used again is another file', async () => {
  const directory = join(scratch, 'tmpfs')
  mkdirSync(directory)
  // A small file system, on which inodes come again.
  execFileSync('mkfs.ext4', ['-q', '-O', '^has_journal', '-N', '16', `${directory}.img`, '1M'])
  execFileSync('mount', ['-o', 'loop', `${directory}.img`, directory])
  try {
    const path = join(directory, 'a')
    writeFileSync(path, 'first')
    const { ino } = look(path)
    await settle()
    scan([path])
    rmSync(path)
    const other = join(directory, 'b')
    writeFileSync(other, 'other')
    expect(look(other).ino).toBe(ino)
    expect(scan([other])).toEqual([other])
  } finally {
    execFileSync('umount', [directory])
  }
})

test('a damaged, torn or foreign cache file counts as none', async () => {
  const path = file('x')
  await settle()
  scan([path])
  const [name = ''] = readdirSync(caches)
  const whole = readFileSync(join(caches, name))
  for (let at = 0; at < whole.length; at += 7) {
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ 1
    for (const bytes of [flipped, whole.subarray(0, at)]) {
      writeFileSync(join(caches, name), bytes)
      expect(openStatCache(caches, '/context').find(seen(path))).toBeUndefined()
    }
  }
})

test('of a file system that may have other times nothing is remembered', async () => {
  const path = file('x')
  await settle()
  const stats = Object.assign(look(path), { dev: 99_999 })
  for (const [place, isRemembered] of [
    ['/proc/version', false],
    [path, true],
  ] as const) {
    for (const isSecond of [false, true]) {
      const cache = openStatCache(caches, `/context of ${place}`)
      expect(cache.find(seen(place, stats)) !== undefined).toBe(isSecond && isRemembered)
      cache.remember(stats, { digest: digestOf(path), isPlain: true })
      cache.save()
    }
  }
})

test('many files: records of those that went are dropped in time', async () => {
  const old = Array.from({ length: 50 }, () => file('old'))
  await settle()
  scan(old)
  const recent = Array.from({ length: 5 }, () => file('recent'))
  await settle()
  scan(recent)
  // Five that are used keep fifteen that are not.
  expect(scan(old)).toHaveLength(35)
  expect(readdirSync(caches)).toHaveLength(1)
})

test('a file of several names, changed, is known again', async () => {
  const [path, other] = [file('a'), file('b')]
  linkSync(path, `${path}-linked`)
  await settle()
  const all = [path, other, `${path}-linked`]
  scan(all)
  expect(scan(all)).toEqual([])
  writeFileSync(path, 'changed')
  await settle()
  expect(scan(all)).toEqual([path, `${path}-linked`])
  expect(scan(all)).toEqual([])
})

const LEAST = 1000
const fill = (directory: string, files: number): void => {
  mkdirSync(directory)
  for (let i = 0; i < files; i++) writeFileSync(join(directory, `${i}-\u00fc`), '')
}
/** Names, and which directories were listed for them. */
const walk = (directories: readonly string[]): { names: string[][]; listed: string[] } => {
  const cache = openStatCache(caches, '/context')
  const listed: string[] = []
  const names = directories.map((directory) => {
    const fd = openSync(directory, 'r')
    const found = cache.names(fd, () => {
      listed.push(directory)
      return readdirSync(directory, 'latin1').toSorted()
    })
    closeSync(fd)
    return [...found]
  })
  cache.save()
  return { names, listed }
}

test('an unchanged directory is not listed; a name that is made, removed or renamed is seen', async () => {
  const directories = ['one', 'two', 'empty'].map((name) => join(scratch, `${name}-${++count}`))
  const [one = '', two = '', empty = ''] = directories
  fill(one, LEAST)
  fill(two, 10)
  fill(empty, 0)
  await settle()
  const first = walk(directories)
  expect(first.listed).toEqual(directories)
  expect(walk(directories)).toEqual({ ...first, listed: [] })
  writeFileSync(join(one, '5-\u00fc'), 'other contents are no other names')
  expect(walk(directories).listed).toEqual([])
  for (const change of [
    () => writeFileSync(join(two, 'new'), ''),
    () => renameSync(join(two, 'new'), join(two, 'newer')),
    () => rmSync(join(two, 'newer')),
    () => renameSync(join(two, '3-\u00fc'), join(empty, 'moved')),
  ]) {
    const { mtimeMs } = statSync(two)
    change()
    // A program can put back the one time.
    utimesSync(two, mtimeMs / 1000, mtimeMs / 1000)
    const { names, listed } = walk(directories)
    expect(listed).toContain(two)
    expect(listed).not.toContain(one)
    expect(names).toEqual(directories.map((directory) => readdirSync(directory, 'latin1').toSorted()))
  }
  // Too young: nothing is remembered of it yet.
  expect(walk(directories).listed).toEqual([two, empty])
  await settle()
  walk(directories)
  expect(walk(directories).listed).toEqual([])
})

test('of few names nothing is kept; a file that is not whole is none', async () => {
  const small = join(scratch, `small-${++count}`)
  fill(small, 10)
  const large = join(scratch, `large-${++count}`)
  fill(large, LEAST)
  await settle()
  walk([small])
  expect(readdirSync(caches)).toEqual([])
  const { names } = walk([large, small])
  const [name = ''] = readdirSync(caches)
  const whole = readFileSync(join(caches, name))
  for (let at = 0; at < whole.length; at += 97) {
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ 1
    for (const bytes of [flipped, whole.subarray(0, at)]) {
      writeFileSync(join(caches, name), bytes)
      expect(walk([large, small])).toEqual({ names, listed: [large, small] })
    }
  }
})

test('on a file system that is not known to move times all is listed', async () => {
  const directory = join(scratch, 'ramfs')
  mkdirSync(directory)
  execFileSync('mount', ['-t', 'ramfs', 'none', directory])
  try {
    for (let i = 0; i < LEAST; i++) writeFileSync(join(directory, `${i}`), '')
    await settle()
    walk([directory])
    expect(walk([directory]).listed).toEqual([directory])
  } finally {
    execFileSync('umount', [directory])
  }
})
