/**
 * Work stays in proportion to the archive, whatever it says: were it not so, one of these would not end in a minute. With TBUILD_MEASURE set, speeds are
 * printed.
 */
import { expect, test } from '@jest/globals'
import { noXattrs, type TarEntry } from '../tar/entry.ts'
import { createApplier } from './apply.ts'
import { LayerTree } from './tree.ts'

const ROOT = LayerTree.ROOT

test('a million files, 10 in a directory', () => {
  const tree = applied(function* () {
    for (let i = 0; i < 1_000_000; i++) {
      const number = Math.floor(i / 10)
      const parent = `usr/lib/node_modules/package-${number % 1000}/dist/${number}`
      yield i % 10 === 0 ? entry(parent, { type: 'directory' }) : entry(`${parent}/some-module-${i % 10}.js`)
    }
  })
  expect(tree.inodes).toBeGreaterThan(1_000_000)
})

test('one name a million times', () => {
  const tree = applied(function* () {
    for (let i = 0; i < 1_000_000; i++) yield entry('d/f')
  })
  expect(tree.children(tree.lookup(ROOT, 'd') ?? -1)).toHaveLength(1)
})

test('a directory that is filled, and a symlink in its place, in turns', () => {
  const tree = applied(function* () {
    for (let i = 0; i < 100_000; i++) {
      yield entry('a/b/f')
      yield link('a', 'x')
      yield entry('a', { type: 'directory' })
    }
  })
  expect(tree.children(ROOT)).toHaveLength(1)
})

test('a directory of 100,000 names in which one is replaced 100,000 times', () => {
  const tree = applied(function* () {
    for (let i = 0; i < 100_000; i++) yield entry(`d/${i}`)
    for (let i = 0; i < 100_000; i++) yield entry('d/0', { type: i % 2 === 0 ? 'directory' : 'file' })
  })
  expect(tree.children(tree.lookup(ROOT, 'd') ?? -1)).toHaveLength(100_000)
})

test('paths of 2,000 components, no two with the same first', () => {
  const tree = applied(function* () {
    for (let i = 0; i < 1000; i++) yield entry(`${i}${'/d'.repeat(2000)}/f`)
  })
  expect(tree.inodes).toBe(1 + 1000 * 2002)
})

test('a tree of 2,000 levels that is removed', () => {
  const tree = applied(() => [entry(`${'d/'.repeat(2000)}f`), entry('d')])
  expect(tree.type(tree.lookup(ROOT, 'd') ?? -1)).toBe('file')
})

test('a chain of 40 symlinks, each with a target of 1,600 components', () => {
  const tree = applied(function* () {
    yield* chain
    for (let i = 0; i < 50_000; i++) {
      yield entry(`l39/${i}/f`)
      yield entry(`g${i}/f`)
    }
  })
  expect(tree.children(tree.lookup(ROOT, 'd') ?? -1)).toHaveLength(50_000)
})

test('the same, walked anew for each entry because a symlink is replaced', () => {
  const tree = applied(function* () {
    yield* chain
    for (let i = 0; i < 1000; i++) {
      yield link('s', 'l38')
      yield entry('s/f')
    }
  })
  expect(tree.children(tree.lookup(ROOT, 'd') ?? -1)).toHaveLength(1)
})

function entry(path: string, more: Partial<TarEntry> = {}): TarEntry {
  const plain = {
    type: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    size: 1,
    mtimeNs: 0n,
    major: 0,
    minor: 0,
  } as const
  return { ...plain, xattrs: noXattrs, path: Buffer.from(path), ...more }
}

function link(path: string, target: string): TarEntry {
  return entry(path, { type: 'symlink', link: Buffer.from(target) })
}

const chain: readonly TarEntry[] = [
  entry('d', { type: 'directory' }),
  link('l0', 'd'),
  ...Array.from({ length: 39 }, (_, i) => link(`l${i + 1}`, `${'d/../'.repeat(800)}l${i}`)),
]

function applied(entries: () => Iterable<TarEntry>): LayerTree {
  const tree = new LayerTree()
  const applier = createApplier(tree)
  const start = performance.now()
  let count = 0
  for (const one of entries()) {
    applier.entry(one)
    count++
  }
  const rate = (count / (performance.now() - start)) * 1000
  if (process.env['TBUILD_MEASURE'] !== undefined) {
    process.stderr.write(`${count} entries, ${Math.round(rate)} a second: ${testName()}\n`)
  }
  return tree
}

function testName(): string {
  return expect.getState().currentTestName ?? ''
}
