/** A COPY of many files of which few have changed since the last build: the same image as when all is copied anew. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setXattr } from '../linux/index.ts'
import { openWorkshop, type Built, type Workshop } from './support/build.ts'

const DIRECTORIES = 40
const FILES = 42
/** Later than any file's time, so that only what a build itself makes has this one. */
const EPOCH = 4_000_000_000

let directory: string
let shop: Workshop
/** Where all is copied each time. */
let reference: Workshop
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'tbuild-revised-'))
  shop = await openWorkshop()
  reference = await openWorkshop()
})
afterAll(async () => {
  await shop[Symbol.asyncDispose]()
  await reference[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true })
})

let contexts = 0

/** More than is written at once, and more than is hashed at once. */
function contextOf(dockerfile: string): string {
  const context = join(directory, `context-${++contexts}`)
  for (let d = 0; d < DIRECTORIES; d++) {
    mkdirSync(join(context, 'tree', `d${d}`), { recursive: true })
    for (let f = 0; f < FILES; f++) writeFileSync(join(context, 'tree', `d${d}`, `f${f}`), randomBytes(9000))
  }
  symlinkSync('f1', join(context, 'tree/d7/link'))
  linkSync(join(context, 'tree/d7/f1'), join(context, 'tree/d7/second'))
  writeFileSync(join(context, 'tree/d7/empty'), '')
  setXattr(join(context, 'tree/d8/f1'), 'user.a', Buffer.from('b'))
  writeFileSync(join(context, 'Dockerfile'), dockerfile)
  writeFileSync(join(context, '.dockerignore'), 'Dockerfile\n')
  return context
}

const noteOf = ({ events }: Built): string | undefined =>
  events.flatMap((event) =>
    event.kind === 'note' && event.text.startsWith('changed') ? [event.text] : [],
  )[0]

/** Builds it, and sees that it is what a build without any cache gives, unless all was cached. What was said of the COPY. */
async function builtAs(context: string, epoch = EPOCH): Promise<string | undefined> {
  const built = await shop.build(context, { sourceDateEpoch: epoch })
  if (built.ran.length === 0) return undefined
  const whole = await reference.build(context, { sourceDateEpoch: epoch, noCache: true })
  expect(noteOf(whole)).toBeUndefined()
  expect(built.manifestDigest).toBe(whole.manifestDigest)
  return noteOf(built)
}

type Change = readonly [what: string, make: (tree: string) => void, note: string | undefined]

const changes: readonly Change[] = [
  ['contents', (tree) => writeFileSync(`${tree}/d3/f3`, randomBytes(9000)), 'tree/d3/f3'],
  ['contents of another size', (tree) => appendFileSync(`${tree}/d0/f0`, 'more'), 'tree/d0/f0'],
  [
    'contents of many files',
    (tree) => {
      for (const d of [1, 2, 11, 39]) writeFileSync(`${tree}/d${d}/f5`, `${d} times short`)
    },
    'tree/d1/f5, tree/d11/f5, tree/d2/f5 and 1 more',
  ],
  [
    'contents, and the time of another',
    (tree) => {
      writeFileSync(`${tree}/d5/f5`, 'x')
      utimesSync(`${tree}/d6/f6`, 1.5, 1234.5)
    },
    'tree/d5/f5, tree/d6/f6',
  ],
  [
    'a file that was replaced, and so its directory',
    (tree) => {
      writeFileSync(`${tree}/../new`, 'replaced')
      renameSync(`${tree}/../new`, `${tree}/d9/f9`)
    },
    'tree/d9/f9',
  ],
  ['a mode', (tree) => chmodSync(`${tree}/d3/f3`, 0o755), undefined],
  ['contents after that', (tree) => writeFileSync(`${tree}/d3/f3`, 'again'), 'tree/d3/f3'],
  ['a new file', (tree) => writeFileSync(`${tree}/d4/new`, 'new'), undefined],
  ['the new file', (tree) => writeFileSync(`${tree}/d4/new`, 'newer'), 'tree/d4/new'],
  ['a file that is gone', (tree) => unlinkSync(`${tree}/d4/f40`), undefined],
  ['a name', (tree) => renameSync(`${tree}/d4/f4`, `${tree}/d4/f04`), undefined],
  [
    "a symlink's target",
    (tree) => {
      unlinkSync(`${tree}/d7/link`)
      symlinkSync('f2', `${tree}/d7/link`)
    },
    undefined,
  ],
  ['a file of two names', (tree) => appendFileSync(`${tree}/d7/second`, 'x'), undefined],
  ['a file with attributes', (tree) => appendFileSync(`${tree}/d8/f1`, 'x'), undefined],
  ['attributes', (tree) => setXattr(`${tree}/d8/f2`, 'user.b', Buffer.from('c')), undefined],
  ['an empty file', (tree) => writeFileSync(`${tree}/d7/empty`, 'no more'), undefined],
  ['a file that becomes empty', (tree) => truncateSync(`${tree}/d7/empty`), undefined],
  [
    'a file that gets a hole',
    (tree) => {
      writeFileSync(`${tree}/d9/f1`, Buffer.concat([randomBytes(8192), Buffer.alloc(65_536), randomBytes(5)]))
    },
    undefined,
  ],
  [
    'a file that becomes a directory',
    (tree) => {
      unlinkSync(`${tree}/d9/f2`)
      mkdirSync(`${tree}/d9/f2`)
    },
    undefined,
  ],
  ['a large file', (tree) => writeFileSync(`${tree}/d2/f2`, randomBytes(5_000_000)), 'tree/d2/f2'],
  ['and small again', (tree) => writeFileSync(`${tree}/d2/f2`, 'small'), 'tree/d2/f2'],
  [
    'a fifth of all files',
    (tree) => {
      for (let d = 0; d < 10; d++)
        for (let f = 10; f < FILES; f++) writeFileSync(`${tree}/d${d}/f${f}`, `${d}${f}`)
    },
    undefined,
  ],
]

const expectedNote = (note: string | undefined): string | undefined =>
  note === undefined ? undefined : `changed since it was last copied: ${note}`

test('each change gives the image that it gives without a cache; a RUN sees it', async () => {
  const context = contextOf('FROM base\nCOPY tree /tree\n')
  expect(await builtAs(context)).toBeUndefined()
  for (const [what, make, note] of changes) {
    make(join(context, 'tree'))
    expect([what, await builtAs(context)]).toEqual([what, expectedNote(note)])
  }
  writeFileSync(join(context, 'tree/d3/f3'), 'seen')
  writeFileSync(
    join(context, 'Dockerfile'),
    'FROM base\nCOPY tree /tree\nRUN cat /tree/d3/f3 && stat -c %Y /tree/d5\n',
  )
  const { output } = await shop.build(context, { sourceDateEpoch: EPOCH })
  expect(output).toBe(`seen${Math.floor(statSync(join(context, 'tree/d5')).mtimeMs / 1000)}\n`)
})

test.each([
  ['to the root of what is there', 'FROM base\nCOPY . /\n'],
  ['to a new directory', 'FROM base\nWORKDIR /a/b\nCOPY . .\n'],
  ['with owner and mode', 'FROM base\nCOPY --chown=1:2 --chmod=u+x,go-rwx tree /tree\n'],
  ['with excludes', 'FROM base\nCOPY --exclude=d1 --exclude=**/f7 tree /tree\n'],
  [
    'with parents',
    'FROM base\nCOPY --parents tree/d1 tree/d2 tree/d3 tree/d39 tree/d5 tree/d1? tree/d2? tree/d3? /x/\n',
  ],
  [
    'of several sources, of which later ones hide names',
    'FROM base\nCOPY tree/d* tree/d0/f0 /x/\nCOPY tree /tree\n',
  ],
  [
    'of another stage of the same',
    'FROM base AS one\nCOPY tree /one\nFROM base\nCOPY tree /two\nCOPY --from=one /one /one\n',
  ],
  ['onto nothing', 'FROM scratch\nCOPY tree /tree\n'],
])('%s', async (_, dockerfile) => {
  const context = contextOf(dockerfile)
  await builtAs(context)
  const tree = join(context, 'tree')
  for (const file of ['d3/f3', 'd39/f41']) {
    writeFileSync(join(tree, file), randomBytes(10_000))
    expect(await builtAs(context)).toBe(`changed since it was last copied: tree/${file}`)
  }
  // What may be hidden or left out, and times of directories, of which one is named itself.
  writeFileSync(join(tree, 'd1/f1'), 'hidden?')
  utimesSync(tree, 1, 77.5)
  utimesSync(join(tree, 'd2'), 1, 78.25)
  await builtAs(context)
  writeFileSync(join(tree, 'd1/f7'), 'left out?')
  await builtAs(context)
  // Above all that is named with parents.
  writeFileSync(join(tree, 'd39/f41'), 'and a mode')
  chmodSync(tree, 0o710)
  await builtAs(context)
})

test('times that are clamped', async () => {
  const context = contextOf('FROM base\nCOPY tree /tree\n')
  await builtAs(context, 1000)
  writeFileSync(join(context, 'tree/d3/f3'), 'one')
  utimesSync(join(context, 'tree/d4/f4'), 1, 999)
  expect(await builtAs(context, 1000)).toMatch('tree/d3/f3, tree/d4/f4')
  writeFileSync(join(context, 'tree/d3/f3'), 'two')
  // Another clamp makes other times of all files.
  expect(await builtAs(context, 1001)).toBeUndefined()
})

test('another base is another parent', async () => {
  const context = contextOf('FROM base\nWORKDIR /one\nCOPY tree /tree\n')
  await builtAs(context)
  writeFileSync(join(context, 'tree/d3/f3'), 'one')
  writeFileSync(join(context, 'Dockerfile'), 'FROM base\nWORKDIR /tree/x\nCOPY tree /tree\n')
  expect(await builtAs(context)).toBeUndefined()
  writeFileSync(join(context, 'tree/d3/f3'), 'two')
  expect(await builtAs(context)).toMatch('tree/d3/f3')
})

test('what was left of the last one is gone, damaged, or not to be used', async () => {
  const context = contextOf('FROM base\nCOPY tree /tree\n')
  const change = (): void => writeFileSync(join(context, 'tree/d3/f3'), randomBytes(20))
  await builtAs(context)
  const notes = join(shop.store.path, 'contexts')
  const spoil = (how: (path: string) => void): void => {
    for (const name of execFileSync('ls', [notes], { encoding: 'utf8' }).trim().split('\n'))
      if (name.endsWith('.note')) how(join(notes, name))
  }
  for (const how of [
    (path: string) => rmSync(path),
    (path: string) => truncateSync(path, 1000),
    (path: string) => {
      const bytes = readFileSync(path)
      bytes[5000] = (bytes[5000] ?? 0) ^ 1
      writeFileSync(path, bytes)
    },
  ]) {
    change()
    expect(await builtAs(context)).toMatch('tree/d3/f3')
    spoil(how)
    change()
    expect(await builtAs(context)).toBeUndefined()
  }
  change()
  const uncached = await shop.build(context, { sourceDateEpoch: EPOCH, noCache: true })
  expect(noteOf(uncached)).toBeUndefined()
  change()
  const unseen = await shop.build(context, { sourceDateEpoch: EPOCH, noStatCache: true })
  expect(noteOf(unseen)).toBeUndefined()
  // The last layer was taken away.
  const images = shop.store.images.list()
  for (const { manifestDigest } of images)
    if (shop.store.images.byName('docker.io/library/base:latest')?.manifestDigest !== manifestDigest)
      shop.store.images.remove(manifestDigest)
  change()
  await builtAs(context)
})

test('the store is sound after all that', async () => {
  expect(await shop.store.fsck({ quick: true })).toMatchObject({ problems: [] })
})
