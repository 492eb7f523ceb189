/** Contexts by name (`--build-context`), stages that run again, base images that have moved; and contexts from addresses on the command line. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openRegistry, parseReference } from '../registry/index.ts'
import { pushImage, type BuildRequest } from '../builder/index.ts'
import { startWebServer, type WebServer } from './support/http.ts'
import { openWorkshop, type Built, type Workshop } from './support/build.ts'
import { freshCommand } from './support/bundle.ts'
import { startRegistry } from './support/registry.ts'

const command = freshCommand()
let shop: Workshop
let server: WebServer
let url: string
let served: WebServer['served']

beforeAll(async () => {
  shop = await openWorkshop()
  server = await startWebServer()
  ;({ url, served } = server)
  serveRepository('/repo.git', {
    Dockerfile: 'FROM base\nCOPY sub/a /\nRUN cat a\n',
    'sub/a': 'from git\n',
    'sub/.dockerignore': 'a\n',
  })
})
afterAll(async () => {
  server[Symbol.dispose]()
  await shop[Symbol.asyncDispose]()
})

/** Served as files only. */
function serveRepository(at: string, files: Readonly<Record<string, string>>): void {
  const source = shop.context(files)
  const git = (...args: string[]): Buffer =>
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.org', '-C', source, ...args])
  git('init', '-q', '-b', 'main')
  git('add', '-A')
  git('commit', '-q', '-m', 'one')
  git('update-server-info')
  for (const path of readdirSync(join(source, '.git'), { recursive: true, encoding: 'utf8' })) {
    const file = join(source, '.git', path)
    if (statSync(file).isFile()) served.set(`${at}/${path}`, readFileSync(file))
  }
}

function build(
  dockerfile: string,
  contexts: Readonly<Record<string, string>>,
  more: Partial<BuildRequest> = {},
): Promise<Built> {
  const context = shop.context({ Dockerfile: dockerfile, mine: 'of the context\n' })
  return shop.build(context, { namedContexts: new Map(Object.entries(contexts)), ...more })
}

function tbuild(args: readonly string[], input = '') {
  const { promise, resolve, reject } = Promise.withResolvers<{
    code: number | null
    stdout: string
    stderr: string
  }>()
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: shop.directory,
    TBUILD_STORE: join(shop.directory, 'store'),
  }
  const child = spawn(command, args, { cwd: shop.directory, env, timeout: 60_000 })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => void (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => void (stderr += chunk.toString()))
  child.on('error', reject)
  child.on('close', (code) => resolve({ code, stdout, stderr }))
  child.stdin.end(input)
  return promise
}

describe('a directory', () => {
  test('is where --from takes files, with its own ignore file, as root’s; unchanged it is cached', async () => {
    const lib = shop.context({ a: '1\n', b: '2\n', '.dockerignore': 'b\n' })
    const text = 'FROM base\nCOPY --from=lib . /lib/\nCOPY mine /\nRUN ls -A /lib && stat -c %u:%g /lib/a\n'
    execFileSync('chown', ['7:8', join(lib, 'a')])
    expect((await build(text, { lib })).output).toBe('.dockerignore\na\n0:0\n')
    const again = await build(text, { lib })
    expect(again.ran).toEqual([])
    writeFileSync(join(lib, 'b'), 'ignored\n')
    expect((await build(text, { lib })).ran).toEqual([])
    writeFileSync(join(lib, 'a'), 'other\n')
    expect((await build(text, { lib })).ran.length).toBeGreaterThan(2)
  })

  test('is a base, of a stage and of an image; twice it is taken once', async () => {
    const root = shop.context({ 'etc/made': 'here\n' })
    const copied = await build(
      'FROM root AS one\nFROM root\nCOPY --from=one /etc/made /copy\nFROM base\nCOPY --from=1 / /x/\nRUN find /x -type f | sort\n',
      { root },
    )
    expect(copied.output).toBe('/x/copy\n/x/etc/made\n')
    expect(copied.ran.filter((title) => title.includes('COPY --from=root . /'))).toHaveLength(1)
  })

  test('what is missing in it is told with the reason', async () => {
    const lib = shop.context({ a: '', '.dockerignore': 'a\n' })
    await expect(build('FROM base\nCOPY --from=lib a /\n', { lib })).rejects.toMatchObject({
      code: 'COPY_NOT_FOUND',
      hint: 'it is there, but left out by .dockerignore:1: a',
      source: { line: 2 },
    })
    await expect(build('FROM base\nCOPY --from=lib a /\n', { lib: join(lib, 'none') })).rejects.toMatchObject(
      {
        code: 'CONTEXT_INVALID',
        source: { line: 2 },
      },
    )
  })
})

describe('a name', () => {
  test('stands for a stage, whose instructions do not count; by its number too', async () => {
    const lib = shop.context({ a: 'given\n' })
    const text =
      'FROM nosuch AS Lib\nRUN false\nFROM base\nCOPY --from=0 a /\nCOPY --from=LIB a /b\nRUN cat a b\n'
    expect((await build(text, { lib })).output).toBe('given\ngiven\n')
    const target = await build(text, { lib }, { target: 'lib' })
    expect(shop.image(target).config.rootfs.diff_ids).toHaveLength(1)
    const based = 'FROM nosuch AS lib\nRUN false\nFROM lib\nFROM base\nCOPY --from=1 . /x/\nRUN ls /x\n'
    expect((await build(based, { lib })).output).toBe('a\n')
  })

  test('is that of an image in any of its spellings, and no other tag', async () => {
    const base = 'docker-image://base'
    for (const [name, from] of [
      ['debian', 'debian:latest'],
      ['debian:latest', 'docker.io/library/debian'],
      ['debian:12', 'debian:12'],
    ] as const)
      expect(
        (await build(`FROM ${from}\nRUN echo is here\n`, { [name]: base }, { noCache: true })).output,
      ).toBe('is here\n')
    await expect(build('FROM localhost:9/debian:11\n', { 'localhost:9/debian': base })).rejects.toMatchObject(
      {
        code: 'IMAGE_NOT_FOUND',
      },
    )
    await expect(build('FROM base\n', { 'No Name': base })).rejects.toMatchObject({ code: 'CONTEXT_NAME' })
  })

  test('is what a mount takes from as well: a directory, an image, a stage’s place', async () => {
    const lib = shop.context({ a: 'mounted\n', b: '', '.dockerignore': 'b\n' })
    const text = `FROM nosuch AS stage
RUN false
FROM base
RUN --mount=from=lib,target=/m cat /m/a; ls /m
RUN --mount=from=stage,target=/m cat /m/a; ls /m
RUN --mount=from=image,target=/i ls /i/bin/sh
`
    const contexts = { lib, stage: lib, image: 'docker-image://base' }
    expect((await build(text, contexts)).output).toBe('mounted\na\nmounted\na\n/i/bin/sh\n')
  })

  test('that nothing asks for is not looked at', async () => {
    expect(
      (await build('FROM base\nRUN echo x\n', { other: `${url}/none.git` }, { noCache: true })).output,
    ).toBe('x\n')
  })

  test('an image brings its config', async () => {
    await build(
      'FROM base\nENV A=1\nWORKDIR /work\nONBUILD ENV B=2\n',
      {},
      { tags: ['docker.io/library/mine:1'] },
    )
    const { output } = await build('FROM nosuch\nRUN echo $A $B && pwd\n', {
      nosuch: 'docker-image://mine:1',
    })
    expect(output).toBe('1 2\n/work\n')
    const empty = await build('FROM nosuch AS x\nFROM base\nCOPY --from=x / /x/\nRUN ls /x | wc -l\n', {
      nosuch: 'docker-image://scratch',
    })
    expect(empty.output).toBe('0\n')
  })
})

test('a repository, a part of it, and a file from an address', async () => {
  served.set('/file.txt', Buffer.from('fetched\n'))
  const text =
    'FROM base\nCOPY --from=lib . /x/\nRUN cd /x && find . -type f | sort && cat */a a context 2>/dev/null; true\n'
  const more = { noCache: true }
  expect((await build(text, { lib: `${url}/repo.git` }, more)).output).toBe(
    './Dockerfile\n./sub/.dockerignore\n./sub/a\nfrom git\n',
  )
  expect((await build(text, { lib: `${url}/repo.git#main:sub` }, more)).output).toBe(
    './.dockerignore\n./a\nfrom git\n',
  )
  expect((await build(text, { lib: `${url}/file.txt` }, more)).output).toBe('./context\nfetched\n')
  await expect(build(text, { lib: `${url}/repo.git#main:none` }, more)).rejects.toMatchObject({
    code: 'CONTEXT_INVALID',
  })
  await expect(build(text, { lib: `${url}/none` }, more)).rejects.toMatchObject({
    code: 'FETCH_FAILED',
    source: { line: 2 },
  })
})

test('an OCI layout: by tag, by digest, the only one; a damaged blob is refused', async () => {
  const layout = join(shop.directory, 'layout')
  mkdirSync(layout)
  const built = await build(
    'FROM base\nRUN echo in the layout > /made\n',
    {},
    { tags: ['docker.io/library/saved:7'] },
  )
  const image = shop.image(built)
  const file = join(shop.directory, 'layout.tar')
  execFileSync(command, ['save', '-o', file, 'saved:7'], {
    env: { ...process.env, TBUILD_STORE: join(shop.directory, 'store') },
  })
  execFileSync('tar', ['-C', layout, '-xf', file])
  const { manifests } = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as {
    manifests: { digest: string }[]
  }
  await using other = await openWorkshop()
  const take = (where: string): Promise<Built> =>
    other.build(other.context({ Dockerfile: 'FROM nosuch\nRUN cat /made\n' }), {
      namedContexts: new Map([['nosuch', where]]),
      noCache: true,
    })
  const digest = manifests[0]?.digest ?? ''
  for (const suffix of ['', ':7', `@${digest}`, `:other@${digest}`])
    expect((await take(`oci-layout://${layout}${suffix}`)).output).toBe('in the layout\n')
  expect(other.store.images.byManifest(image.manifestDigest)?.names ?? []).toEqual([])
  await expect(take(`oci-layout://${layout}:8`)).rejects.toMatchObject({ code: 'ARCHIVE_INVALID' })
  await expect(take(`oci-layout://${layout}/none`)).rejects.toMatchObject({ code: 'CONTEXT_INVALID' })

  await using third = await openWorkshop()
  const blobs = join(layout, 'blobs/sha256')
  const { layers } = JSON.parse(readFileSync(join(blobs, digest.slice(7)), 'utf8')) as {
    layers: { digest: string }[]
  }
  const damaged = join(blobs, layers.at(-1)?.digest.slice(7) ?? '')
  const bytes = readFileSync(damaged)
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1
  writeFileSync(damaged, bytes)
  await expect(
    third.build(third.context({ Dockerfile: 'FROM nosuch\n' }), {
      namedContexts: new Map([['nosuch', `oci-layout://${layout}`]]),
    }),
  ).rejects.toMatchObject({ code: 'DIGEST_MISMATCH' })
})

describe('stages that run again', () => {
  const TEXT = `FROM base AS low
RUN echo low >> /proc/self/fd/1
FROM low AS mid
RUN echo mid
FROM base AS side
RUN echo side; echo same > /file
FROM base
RUN echo first
COPY --from=side /file /
RUN echo last
COPY --from=mid /bin/sh /sh
`
  test('and those that stand on them; what copies the same from them does not', async () => {
    const context = shop.context({ Dockerfile: TEXT })
    await shop.build(context)
    expect((await shop.build(context)).output).toBe('')
    expect((await shop.build(context, { noCacheStages: ['SIDE'] })).output).toBe('side\n')
    expect((await shop.build(context, { noCacheStages: ['low'] })).output).toBe('low\nmid\n')
    expect(
      (await shop.build(context, { noCacheStages: ['mid', 'side'] })).output.split('\n').toSorted().join(),
    ).toBe(',mid,side')
  })

  test('what they make anew is what is copied', async () => {
    const context = shop.context({
      Dockerfile:
        'FROM base AS now\nRUN cat /proc/uptime > /now\nFROM base\nCOPY --from=now /now /\nRUN cat /now\n',
    })
    const { output } = await shop.build(context)
    expect((await shop.build(context)).output).toBe('')
    const other = await shop.build(context, { noCacheStages: ['now'] })
    expect(other.output).toMatch(/^\d/)
    expect(other.output).not.toBe(output)
    expect((await shop.build(context)).imageId).toBe(other.imageId)
  })

  test('what is mounted from them is what they make anew', async () => {
    const context = shop.context({
      Dockerfile:
        'FROM base AS now\nRUN cat /proc/uptime > /now\nFROM base\nRUN --mount=from=now,target=/m cat /m/now\n',
    })
    const { output } = await shop.build(context)
    const other = await shop.build(context, { noCacheStages: ['now'] })
    expect(other.output).toMatch(/^\d/)
    expect(other.output).not.toBe(output)
    expect((await shop.build(context)).imageId).toBe(other.imageId)
  })

  test('one that is not there is warned of', async () => {
    const { events } = await build('FROM base\nRUN echo x\n', {}, { noCacheStages: ['typo'] })
    expect(events.filter(({ kind }) => kind === 'warning')).toMatchObject([
      { message: 'there is no stage "typo" to run without the cache' },
    ])
  })
})

test('--pull takes a tag that has moved; without it what is there is used, and told', async () => {
  await using registry = await startRegistry()
  const name = `${registry.host}/moved:1`
  const push = async (text: string): Promise<void> => {
    await using maker = await openWorkshop()
    const built = await maker.build(maker.context({ Dockerfile: `FROM base\nRUN echo ${text} > /which\n` }))
    await using opened = await openRegistry(parseReference(name))
    await pushImage(maker.store, opened, parseReference(name), maker.image(built))
  }
  await push('old')
  const text = `FROM ${name}\nRUN cat /which\n`
  const more = { noCache: true }
  expect((await build(text, {}, more)).output).toBe('old\n')
  await push('new')
  const local = await build(text, {}, more)
  expect(local.output).toBe('old\n')
  expect(local.events).toContainEqual(
    expect.objectContaining({
      kind: 'note',
      text: 'the image in the store; --pull asks its registry for a newer one',
    }),
  )
  const pulled = await build(text, {}, { ...more, pull: true })
  expect(pulled.output).toBe('new\n')
  expect(pulled.events.some(({ kind }) => kind === 'note')).toBe(false)
  // Its id is not asked for anywhere.
  expect(
    (await build(`FROM ${shop.image(pulled).id.slice(7)}\nRUN cat /which\n`, {}, { ...more, pull: true }))
      .output,
  ).toBe('new\n')
  await expect(build('FROM base\n', {}, { pull: true, tags: [] })).rejects.toMatchObject({
    code: 'IMAGE_NOT_FOUND',
    hint: expect.stringContaining('without --pull the one in the store is used'),
  })
})

describe('the command line', () => {
  test('builds and checks a repository, also with a Dockerfile from elsewhere', async () => {
    expect(await tbuild(['build', '--network=none', `${url}/repo.git`])).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/\[internal\] load git source .*repo\.git\n[^]*from git/),
    })
    const text = 'FROM base\nCOPY a /\nRUN sed s/git/stdin/ a\n'
    expect(await tbuild(['build', '-f', '-', `${url}/repo.git#main:sub`], text)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('left out by .dockerignore:1: a'),
    })
    expect(await tbuild(['build', '--check', `${url}/repo.git`])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/\nDockerfile:1\n[^]*1 remark\n$/),
    })
    served.set('/Dockerfile', Buffer.from('from base\nRUN echo x\n'))
    expect(await tbuild(['check', `${url}/Dockerfile`])).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('ConsistentInstructionCasing'),
    })
  })

  test('takes a Dockerfile from standard input beside a directory, whose ignore file counts', async () => {
    const context = shop.context({ Dockerfile: 'FROM nosuch\n', a: '', b: '', '.dockerignore': 'b\n' })
    const made = await tbuild(['build', '-f', '-', context], 'FROM base\nCOPY . /x\nRUN ls /x\n')
    expect(made).toMatchObject({ code: 0, stderr: expect.stringMatching(/ Dockerfile\n#\d+ [\d.]+ a\n#/) })
    expect(made.stderr).not.toMatch(/^#\d+ [\d.]+ b$/m)
    expect(await tbuild(['build', '-f', '-', context], 'FROM base\nWHAT\n')).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('Dockerfile:2\n2 | WHAT\n'),
    })
  })

  test('--build-context is relative to here, and what is wrong with it is told', async () => {
    const context = shop.context({ Dockerfile: 'FROM base\nCOPY --from=lib a /\nRUN cat a\n' })
    rmSync(join(shop.directory, 'lib'), { recursive: true, force: true })
    const given = ['build', '--build-context', 'lib=lib', context]
    expect(await tbuild(given)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('There is no directory "lib". [CONTEXT_NOT_FOUND]'),
    })
    mkdirSync(join(shop.directory, 'lib'))
    writeFileSync(join(shop.directory, 'lib/a'), 'relative\n')
    expect(await tbuild(given)).toMatchObject({ code: 0, stderr: expect.stringContaining(' relative\n') })
    for (const wrong of ['lib', 'lib=', '=lib', 'lib=target:x'])
      expect(await tbuild(['build', '--build-context', wrong, context])).toMatchObject({
        code: 2,
        stderr: expect.stringContaining('[OPTION_VALUE]'),
      })
    expect(
      await tbuild(['build', '--build-context', 'lib=lib', '--no-cache', '--no-cache-filter=x', context]),
    ).toMatchObject({
      code: 2,
    })
  })
})
