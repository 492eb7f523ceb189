/** ADD of addresses: a server and a git daemon of our own, on loopback. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect, createServer as createTcpServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { openWorkshop, type Workshop } from './support/build.ts'

let shop: Workshop
let server: Server
let daemon: ChildProcess
let url: string
let git: string
let repository: string
const requests: IncomingMessage[] = []
const served = new Map<string, { body: Buffer; headers: Record<string, string> }>()

beforeAll(async () => {
  shop = await openWorkshop()
  server = createServer(answer)
  url = `http://127.0.0.1:${await listen(server)}`
  repository = join(shop.directory, 'git/repo')
  mkdirSync(join(repository, 'sub'), { recursive: true })
  run('init', '-q', '-b', 'main')
  writeFileSync(join(repository, 'top'), 'one')
  writeFileSync(join(repository, 'sub/inner'), 'inner')
  commit('one')
  run('tag', '-a', '-m', 'first', 'v1')
  const port = await freePort()
  daemon = spawn(
    'git',
    [
      'daemon',
      `--base-path=${join(shop.directory, 'git')}`,
      '--export-all',
      '--listen=127.0.0.1',
      `--port=${port}`,
    ],
    { stdio: 'ignore', detached: true },
  )
  git = `git://127.0.0.1:${port}/repo`
  await reachable(port)
})
afterAll(async () => {
  server.close()
  // git daemon is a child of the git that was started: the group is ended.
  if (daemon.pid !== undefined) process.kill(-daemon.pid, 'SIGKILL')
  await shop[Symbol.asyncDispose]()
})
beforeEach(() => {
  requests.length = 0
})

function answer(request: IncomingMessage, response: ServerResponse): void {
  requests.push(request)
  const found = served.get(request.url ?? '')
  const etag = found?.headers['etag']
  if (request.url === '/to-file') response.writeHead(302, { location: 'file:///etc/passwd' }).end()
  else if (request.url === '/cut') {
    response.writeHead(200, { 'content-length': '100' })
    response.write('half')
    setImmediate(() => response.destroy())
  } else if (found === undefined) response.writeHead(404).end()
  else if (etag !== undefined && request.headers['if-none-match'] === etag) response.writeHead(304).end()
  else response.writeHead(200, found.headers).end(found.body)
}

function run(...args: string[]): string {
  return execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.org', ...args], {
    cwd: repository,
    encoding: 'utf8',
  }).trim()
}
function commit(message: string): string {
  run('add', '-A')
  run('commit', '-q', '-m', message)
  return run('rev-parse', 'HEAD')
}
async function listen(one: { listen: Server['listen']; address: Server['address'] }): Promise<number> {
  await new Promise<void>((resolve) => void one.listen(0, '127.0.0.1', () => resolve()))
  return (one.address() as AddressInfo).port
}
async function freePort(): Promise<number> {
  const probe = createTcpServer()
  const port = await listen(probe as unknown as Server)
  await new Promise((resolve) => void probe.close(resolve))
  return port
}
async function reachable(port: number): Promise<void> {
  for (;;) {
    const ok = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => void socket.end(() => resolve(true)))
      socket.on('error', () => resolve(false))
    })
    if (ok) return
    await wait(20)
  }
}
const serve = (path: string, body: string | Buffer, headers: Record<string, string> = {}): void =>
  void served.set(path, { body: Buffer.from(body), headers })
const dockerfile = (...lines: string[]): string =>
  shop.context({ Dockerfile: `FROM base\n${lines.join('\n')}\n` })
const sha256 = (text: string | Buffer): string => `sha256:${createHash('sha256').update(text).digest('hex')}`

test('a file from an address: its name, mode, owner and time', async () => {
  serve('/dir/na%20me.txt?x=1', 'hello', { 'last-modified': 'Wed, 21 Oct 2015 07:28:00 GMT' })
  serve('/plain', 'plain')
  const { output } = await shop.build(
    dockerfile(
      `ADD ${url}/dir/na%20me.txt?x=1 /in/`,
      `ADD --chown=7:8 --chmod=755 ${url}/plain /as/other`,
      `RUN stat -c '%n %a %u:%g %Y' '/in/na me.txt' /as/other && cat '/in/na me.txt' /as/other`,
    ),
  )
  expect(output).toBe('/in/na me.txt 600 0:0 1445412480\n/as/other 755 7:8 0\nhelloplain')
})

test('with a checksum the second build asks nobody; with a wrong one there is no image', async () => {
  serve('/sum', 'sum')
  const context = dockerfile(`ADD --checksum=${sha256('sum')} ${url}/sum /sum`)
  await shop.build(context)
  expect(requests).toHaveLength(1)
  const again = await shop.build(context)
  expect(requests).toHaveLength(1)
  expect(again.ran.filter((title) => title.includes('ADD'))).toEqual([])
  const wrong = shop.build(dockerfile(`ADD --checksum=${sha256('other')} ${url}/sum /sum`))
  await expect(wrong).rejects.toMatchObject({ code: 'CHECKSUM_MISMATCH', source: { line: 2 } })
})

test('an ETag spares the contents; new contents make a new layer, the same ones do not', async () => {
  serve('/etag', 'one', { etag: '"1"' })
  const context = dockerfile(`ADD ${url}/etag /etag`, 'RUN cat /etag')
  expect((await shop.build(context)).output).toBe('one')
  requests.length = 0
  expect((await shop.build(context)).ran.filter((title) => title.includes('ADD'))).toEqual([])
  expect(requests.map(({ headers }) => headers['if-none-match'])).toEqual(['"1"'])
  serve('/etag', 'two', { etag: '"2"' })
  expect((await shop.build(context)).output).toBe('two')
  serve('/etag', 'two', { etag: '"3"' })
  expect((await shop.build(context)).output).toBe('')
  expect((await shop.build(context, { noCache: true })).output).toBe('two')
})

test('a fetched archive is a file, and unpacked when asked', async () => {
  const tree = join(shop.directory, 'archive')
  mkdirSync(tree)
  writeFileSync(join(tree, 'inside'), 'inside')
  execFileSync('tar', ['-C', tree, '-czf', join(shop.directory, 'a.tgz'), 'inside'])
  // The encoding must not be undone on the way.
  serve('/a.tgz', readFileSync(join(shop.directory, 'a.tgz')))
  const { output } = await shop.build(
    dockerfile(
      `ADD ${url}/a.tgz /kept/`,
      `ADD --unpack ${url}/a.tgz /out/`,
      'RUN ls /kept && cat /out/inside',
    ),
  )
  expect(output).toBe('a.tgz\ninside')
})

describe('an archive of the context', () => {
  test.each([
    ['a.tar', '-cf'],
    ['a.tgz', '-czf'],
    ['a.tar.zst', '--zstd -cf'],
    ['a.tar.xz', '-cJf'],
    ['a.tar.bz2', '-cjf'],
  ])('%s is unpacked, and copied when it ends after 40 bytes', async (name, flags) => {
    const context = dockerfile(
      `ADD ${name} ${name}.not /out/`,
      'RUN ls /out && cat /out/inside && wc -c < /out/noise',
    )
    const tree = join(context, 'tree')
    mkdirSync(tree)
    writeFileSync(join(tree, 'inside'), 'inside')
    // More than is read at a time.
    writeFileSync(join(tree, 'noise'), randomBytes(3_000_000))
    execFileSync('tar', ['-C', tree, ...flags.split(' '), join(context, name), 'noise', 'inside'])
    writeFileSync(join(context, `${name}.not`), readFileSync(join(context, name)).subarray(0, 40))
    expect((await shop.build(context)).output).toBe(`${name}.not\ninside\nnoise\ninside3000000\n`)
  })

  test('a compressed file that is no tar is copied', async () => {
    const context = dockerfile('ADD note.gz /', 'RUN zcat /note.gz')
    writeFileSync(join(context, 'note.gz'), gzipSync('note'))
    expect((await shop.build(context)).output).toBe('note')
  })

  test('a program that is missing is named: the archive is not copied instead', async () => {
    const context = dockerfile('ADD a.tar.xz /')
    writeFileSync(join(context, 'a.tar.xz'), Buffer.from('fd377a585a000000', 'hex'))
    const path = process.env['PATH']
    process.env['PATH'] = '/nonexistent'
    try {
      await expect(shop.build(context)).rejects.toMatchObject({ code: 'TOOL_MISSING', source: { line: 2 } })
    } finally {
      process.env['PATH'] = path
    }
  })

  test('a bomb is refused', async () => {
    const context = dockerfile('ADD bomb.tgz /')
    const zeros = join(shop.directory, 'zeros')
    execFileSync('truncate', ['-s', '100M', zeros])
    execFileSync('tar', ['-C', shop.directory, '-czf', join(context, 'bomb.tgz'), 'zeros'])
    await expect(shop.build(context)).rejects.toMatchObject({ code: 'LAYER_BOMB', source: { line: 2 } })
  })

  test('one that ends early is an error, not half of it', async () => {
    const context = dockerfile('ADD cut.tgz /')
    const noise = join(shop.directory, 'noise')
    writeFileSync(noise, randomBytes(100_000))
    execFileSync('tar', ['-C', shop.directory, '-czf', join(context, 'cut.tgz'), 'noise'])
    truncateSync(join(context, 'cut.tgz'), 50_000)
    await expect(shop.build(context)).rejects.toMatchObject({
      code: 'COMPRESSION_INVALID',
      message: expect.stringContaining('cut.tgz'),
      source: { line: 2 },
    })
  })
})

test.each([
  ['a missing file', '/missing', 'FETCH_FAILED', /404/],
  ['a redirect to a file of this machine', '/to-file', 'FETCH_FAILED', /./],
  ['a connection that breaks', '/cut', 'FETCH_FAILED', /./],
])('%s is an error with its place', async (_, path, code, message) => {
  const failed = shop.build(dockerfile(`ADD ${url}${path} /x`))
  await expect(failed).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message),
    source: { line: 2 },
  })
})

test('--checksum is refused for files of the context, and when it is none', async () => {
  await expect(shop.build(dockerfile(`ADD --checksum=${sha256('')} a /x`))).rejects.toMatchObject({
    code: 'CHECKSUM_SOURCES',
  })
  await expect(shop.build(dockerfile(`ADD --checksum=md5:1 ${url}/x /x`))).rejects.toMatchObject({
    code: 'CHECKSUM_INVALID',
  })
})

test('a git repository: branch, tag, commit, directory; .git only when asked', async () => {
  const first = run('rev-parse', 'v1^{}')
  writeFileSync(join(repository, 'top'), 'two')
  commit('two')
  const { output } = await shop.build(
    dockerfile(
      `ADD ${git} /head`,
      `ADD ${git}#v1 /tag`,
      `ADD --checksum=${first} ${git}#${first} /commit`,
      `ADD --chown=5:6 --exclude=top ${git}#main:sub /sub`,
      `ADD --keep-git-dir ${git}#main /kept`,
      'RUN cat /head/top /tag/top /commit/top && ls -A /head /sub && stat -c %u:%g /sub/inner && cat /kept/.git/HEAD',
    ),
  )
  const head = run('rev-parse', 'HEAD')
  expect(output).toBe(`twooneone/head:\nsub\ntop\n\n/sub:\ninner\n5:6\n${head}\n`)
})

test('a branch that has moved is built anew, one that has not is not fetched', async () => {
  const context = dockerfile(`ADD ${git}#main /src`, 'RUN cat /src/top')
  await shop.build(context)
  expect((await shop.build(context)).output).toBe('')
  writeFileSync(join(repository, 'top'), 'three')
  commit('three')
  expect((await shop.build(context)).output).toBe('three')
})

test.each([
  ['#nowhere', 'GIT_REF_NOT_FOUND'],
  ['#main:nowhere', 'COPY_NOT_FOUND'],
  ['-missing', 'GIT_FAILED'],
])('git %s is an error with its place', async (more, code) => {
  await expect(shop.build(dockerfile(`ADD ${git}${more} /x`))).rejects.toMatchObject({
    code,
    source: { line: 2 },
  })
})

test('a commit that was not to be is refused', async () => {
  const failed = shop.build(dockerfile(`ADD --checksum=${'0'.repeat(40)} ${git}#main /x`))
  await expect(failed).rejects.toMatchObject({ code: 'CHECKSUM_MISMATCH' })
})
