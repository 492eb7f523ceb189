/** What runs again, and what does not. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { chmodSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openStore } from '../cas/index.ts'
import { freshCommand } from './support/bundle.ts'
import { buildIn, openWorkshop, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

/*
 *   build: COPY lib -> RUN lib -> COPY app -> RUN app ----.
 *   docs:  COPY docs -> RUN docs ----------------------.  |
 *   last:  COPY --from=build -> COPY --from=docs -> RUN last
 */
const project = {
  Dockerfile: `FROM base AS build
COPY lib /src/lib
RUN cat /src/lib/a > /lib.out
COPY app /src/app
RUN cat /src/app/main | tr a-z A-Z > /app.out
FROM base AS docs
COPY docs /docs
RUN cat /docs/text > /docs.out
FROM base
COPY --from=build /lib.out /app.out /out/
COPY --from=docs /docs.out /out/
RUN cat /out/* > /all
`,
  'lib/a': 'one\n',
  'app/main': 'two\n',
  'docs/text': 'three\n',
}

const steps = (titles: readonly string[]): string[] =>
  titles.map((title) => title.replace(/^\[(\S+) .*\] /, '$1: '))

test('nothing changed: nothing runs, every step is cached, the image is the same', async () => {
  const context = shop.context(project)
  const first = await shop.build(context)
  expect(first.ran).toHaveLength(9)
  const again = await shop.build(context)
  expect(again.ran).toEqual([])
  expect(again.fromCache).toHaveLength(12)
  expect(again.events.map(({ kind }) => kind)).not.toContain('done')
  expect(again.manifestDigest).toBe(first.manifestDigest)
})

test('one source file changed: exactly the steps that follow from it run', async () => {
  const context = shop.context(project)
  await shop.build(context)
  writeFileSync(join(context, 'app/main'), 'other\n')
  const { ran, fromCache } = await shop.build(context)
  expect(steps(ran)).toEqual([
    'build: COPY app /src/app',
    'build: RUN cat /src/app/main | tr a-z A-Z > /app.out',
    'stage-2: COPY --from=build /lib.out /app.out /out/',
    'stage-2: COPY --from=docs /docs.out /out/',
    'stage-2: RUN cat /out/* > /all',
  ])
  expect(steps(fromCache)).toContain('docs: RUN cat /docs/text > /docs.out')
})

test('a change that a RUN makes nothing of stops there', async () => {
  const context = shop.context(project)
  await shop.build(context)
  // Upper case already: what the RUN makes of it is the same as of "two".
  writeFileSync(join(context, 'app/main'), 'TWO\n')
  const { ran } = await shop.build(context)
  expect(steps(ran)).toEqual([
    'build: COPY app /src/app',
    'build: RUN cat /src/app/main | tr a-z A-Z > /app.out',
  ])
})

test('times of files do not count, modes and names do', async () => {
  const context = shop.context({ Dockerfile: 'FROM base\nCOPY a* /\nRUN true\n', a: 'x' })
  await shop.build(context)
  utimesSync(join(context, 'a'), 1, 1)
  expect((await shop.build(context)).ran).toEqual([])
  writeFileSync(join(context, 'aa'), 'x')
  expect((await shop.build(context)).ran).toHaveLength(2)
  chmodSync(join(context, 'aa'), 0o755)
  expect((await shop.build(context)).ran).toHaveLength(2)
})

test('what the ignore file leaves out does not count', async () => {
  const context = shop.context({
    Dockerfile: 'FROM base\nCOPY . /src/\n',
    a: 'x',
    'b.log': '1',
    '.dockerignore': '*.log\nDockerfile',
  })
  await shop.build(context)
  writeFileSync(join(context, 'b.log'), '2')
  expect((await shop.build(context)).ran).toEqual([])
})

test('an argument counts from where it is declared', async () => {
  const context = shop.context({ Dockerfile: 'FROM base\nRUN echo 1 > /1\nARG V=a\nRUN echo $V > /2\n' })
  await shop.build(context)
  const { ran } = await shop.build(context, { buildArgs: new Map([['V', 'b']]) })
  expect(ran).toEqual(['[3/3] RUN echo $V > /2'])
})

test('a stage that nothing needs never runs, and its base need not exist', async () => {
  const context = shop.context({
    Dockerfile:
      'FROM base AS one\nRUN true\nFROM nowhere/at:all AS two\nRUN false\nFROM base AS three\nRUN false\nFROM one\nCMD ["x"]\n',
  })
  const { ran } = await shop.build(context)
  expect(ran).toEqual(['[one 2/2] RUN true'])
})

test('--target builds a stage and what it needs', async () => {
  const context = shop.context(project)
  const { ran, fromCache } = await shop.build(context, { target: 'docs', noCache: true })
  expect([...ran, ...fromCache].every((title) => title.startsWith('[docs '))).toBe(true)
})

test('--no-cache runs everything, and what it made serves the next build', async () => {
  const context = shop.context(project)
  await shop.build(context)
  const all = await shop.build(context, { noCache: true })
  expect(all.ran).toHaveLength(9)
  expect((await shop.build(context)).ran).toEqual([])
})

test('a failing build keeps the steps that were done', async () => {
  const context = shop.context({ Dockerfile: 'FROM base\nRUN echo done-once > /x\nRUN exit 1\n' })
  await expect(shop.build(context)).rejects.toMatchObject({ code: 'RUN_FAILED' })
  writeFileSync(join(context, 'Dockerfile'), 'FROM base\nRUN echo done-once > /x\nRUN true\n')
  expect((await shop.build(context)).ran).toEqual(['[3/3] RUN true'])
})

test('the directories above what COPY --parents takes belong to it, but for their times', async () => {
  const context = shop.context({
    Dockerfile: `FROM base AS made
COPY a /src/a
RUN chmod 711 /src && chown 3:4 /src/a
FROM base
COPY --parents a/b/file a/b/other /x/
COPY --from=made --parents /src/a/b/file /y/
RUN stat -c %a:%u:%g /x/a /x/a/b /y/src /y/src/a
`,
    'a/b/file': 'file',
    'a/b/other': 'other',
  })
  for (const path of ['a', 'a/b']) chmodSync(join(context, path), 0o755)
  expect((await shop.build(context)).output).toBe('755:0:0\n755:0:0\n711:0:0\n755:3:4\n')
  utimesSync(join(context, 'a'), 1, 2)
  expect((await shop.build(context)).ran).toEqual([])
  chmodSync(join(context, 'a'), 0o700)
  expect((await shop.build(context)).output).toBe('700:0:0\n755:0:0\n711:0:0\n755:3:4\n')
  const dockerfile = join(context, 'Dockerfile')
  writeFileSync(dockerfile, readFileSync(dockerfile, 'utf8').replace('chown 3:4', 'chown 5:6'))
  expect((await shop.build(context)).output).toBe('700:0:0\n755:0:0\n711:0:0\n755:5:6\n')
})

test('a build that is all in the cache mounts nothing', async () => {
  await using other = await openWorkshop()
  const context = other.context(project)
  const log = join(other.directory, 'strace')
  const calls = 'fsopen,fspick,fsmount,open_tree,mount,move_mount,clone,clone3,fork,vfork,unshare'
  const { path } = other.store
  await other.store[Symbol.asyncDispose]()
  const traced = (): string => {
    const command = [freshCommand(), 'build', '--store', path, '--network', 'none', '-t', 'app', context]
    execFileSync('strace', ['-f', '-qq', '-e', `trace=${calls}`, '-o', log, ...command], { stdio: 'ignore' })
    return readFileSync(log, 'utf8')
  }
  const mounts = /(?:fsopen|open_tree|fsmount)\(/
  expect(traced()).toMatch(mounts)
  const again = traced()
  expect(again).toMatch(/clone/)
  expect(again).not.toMatch(mounts)
  expect(again).not.toMatch(/mount\(|unshare\(|CLONE_NEW/)
})

test('independent stages run side by side', async () => {
  const context = shop.context({
    Dockerfile: `FROM base AS a
RUN sleep 1; echo a > /a
FROM base AS b
RUN sleep 1; echo b > /b
FROM base
COPY --from=a /a /
COPY --from=b /b /
`,
  })
  const { events } = await shop.build(context, { noCache: true })
  const kinds = events
    .filter((event) => ('title' in event ? event.title.includes('RUN') : event.kind === 'done'))
    .map(({ kind }) => kind)
  expect(kinds.slice(0, 2)).toEqual(['started', 'started'])
})

test('prune leaves what a named image needs, and its steps in the cache; the rest goes', async () => {
  await using other = await openWorkshop()
  const context = other.context({
    Dockerfile:
      'FROM base AS build\nRUN echo from-build > /made; echo rest > /rest\nFROM base\nCOPY --from=build /made /\nRUN cat /made\n',
  })
  const path = other.store.path
  const built = await other.build(context)
  // What a living process uses stays.
  expect((await other.store.prune()).layers).toEqual([])
  await other.store[Symbol.asyncDispose]()

  await using store = await openStore(path)
  const dry = await store.prune({ dryRun: true })
  expect(dry.layers).toHaveLength(1)
  expect(dry.freedBytes).toBeGreaterThan(0)
  expect(await store.prune()).toEqual(dry)
  expect((await store.prune()).layers).toEqual([])
  const again = await buildIn(store, context)
  expect(again.ran).toEqual([])
  expect(again.manifestDigest).toBe(built.manifestDigest)
})
