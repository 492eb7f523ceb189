/** Build contexts that are no directory: streams, addresses, git. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { execFileSync } from 'node:child_process'
import { gzipSync } from 'node:zlib'
import { join } from 'node:path'
import { mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { startWebServer, type WebServer } from './support/http.ts'
import { openWorkshop, type Workshop } from './support/build.ts'

let shop: Workshop
let server: WebServer
let url: string
let served: WebServer['served']

beforeAll(async () => {
  shop = await openWorkshop()
  server = await startWebServer()
  ;({ url, served } = server)
})
afterAll(async () => {
  server[Symbol.dispose]()
  await shop[Symbol.asyncDispose]()
})

const FILES = {
  Dockerfile: 'FROM base\nCOPY . /all\nRUN find /all -type f | sort && cat /all/a\n',
  'other/Other.Dockerfile': 'FROM base\nRUN echo other\n',
  '.dockerignore': '*.log\n.dockerignore\nDockerfile\nother\n',
  a: 'a\n',
  'b.log': '',
}
const tarOf = (directory: string): Buffer => execFileSync('tar', ['-C', directory, '-cf', '-', '.'])
async function* stream(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1000) yield bytes.subarray(at, at + 1000)
}

test('an ignore file that is a fifo is an error, and is not waited for', async () => {
  const context = shop.context({ Dockerfile: 'FROM base\nCOPY . /x\n' })
  execFileSync('mkfifo', [join(context, '.dockerignore')])
  await expect(shop.build(context)).rejects.toMatchObject({ code: 'IGNORE_FILE_INVALID' })
})

test.each([
  ['plain', (bytes: Buffer) => bytes],
  ['compressed', (bytes: Buffer) => gzipSync(bytes)],
])('a tar from a stream, %s; its ignore file counts', async (_, pack) => {
  const tar = pack(tarOf(shop.context(FILES)))
  const more = { contextStream: stream(tar), dockerfile: 'Dockerfile', noCache: true }
  expect((await shop.build('-', more)).output).toBe('/all/a\na\n')
  const other = { contextStream: stream(tar), dockerfile: 'other/Other.Dockerfile', noCache: true }
  expect((await shop.build('-', other)).output).toBe('other\n')
})

test('a Dockerfile from a stream has an empty context', async () => {
  const text = (line: string): AsyncGenerator<Uint8Array> => stream(Buffer.from(`FROM base\n${line}\n`))
  expect((await shop.build('-', { contextStream: text('COPY . /x\nRUN ls -A /x; echo end') })).output).toBe(
    'end\n',
  )
  await expect(shop.build('-', { contextStream: text('COPY a /') })).rejects.toMatchObject({
    code: 'COPY_NOT_FOUND',
    source: { file: 'Dockerfile', line: 2 },
  })
  await expect(shop.build('-', { contextStream: stream(Buffer.alloc(0)) })).rejects.toMatchObject({
    code: 'CONTEXT_INVALID',
  })
})

test('an archive and a Dockerfile from an address; a Dockerfile outside of the archive', async () => {
  served.set('/context.tar.gz', gzipSync(tarOf(shop.context(FILES))))
  served.set('/Dockerfile', Buffer.from('FROM base\nRUN echo fetched\n'))
  const archive = `${url}/context.tar.gz`
  const whole = await shop.build(archive, { dockerfile: 'Dockerfile', noCache: true })
  expect(whole.output).toBe('/all/a\na\n')
  expect((await shop.build(`${url}/Dockerfile`, { dockerfile: 'Dockerfile' })).output).toBe('fetched\n')
  const outside = join(shop.context({ Dockerfile: 'FROM base\nCOPY a /\nRUN cat a\n' }), 'Dockerfile')
  expect((await shop.build(archive, { dockerfile: outside })).output).toBe('a\n')
  await expect(shop.build(`${url}/none`, { dockerfile: 'Dockerfile' })).rejects.toMatchObject({
    code: 'FETCH_FAILED',
  })
  await expect(shop.build(archive, { dockerfile: 'none' })).rejects.toMatchObject({
    code: 'DOCKERFILE_NOT_FOUND',
  })
})

test('symlinks of a context lead to no file of this machine', async () => {
  const outside = join(shop.context({ Dockerfile: 'FROM base\nRUN echo outside\n' }), 'Dockerfile')
  const linked = join(shop.directory, 'linked')
  mkdirSync(linked)
  symlinkSync(outside, join(linked, 'Dockerfile'))
  const build = (directory: string): Promise<unknown> =>
    shop.build('-', { contextStream: stream(tarOf(directory)), dockerfile: 'Dockerfile' })
  await expect(build(linked)).rejects.toMatchObject({ code: 'DOCKERFILE_NOT_FOUND' })
  const ignoring = shop.context({ Dockerfile: 'FROM base\n' })
  symlinkSync('/etc/shadow', join(ignoring, '.dockerignore'))
  await expect(build(ignoring)).rejects.toMatchObject({ code: 'CONTEXT_INVALID' })
})

test('a git repository, also from a server that gives files only; a directory of it; one that is not there', async () => {
  const source = shop.context({ 'sub/Dockerfile': 'FROM base\nCOPY a /\nRUN cat a\n', 'sub/a': 'from git\n' })
  const git = (...args: string[]): Buffer =>
    execFileSync('git', ['-c', 'user.name=a', '-c', 'user.email=a@example.org', '-C', source, ...args])
  git('init', '-q', '-b', 'main')
  git('add', '-A')
  git('commit', '-q', '-m', 'one')
  git('update-server-info')
  for (const path of readdirSync(join(source, '.git'), { recursive: true, encoding: 'utf8' })) {
    const file = join(source, '.git', path)
    if (statSync(file).isFile()) served.set(`/repo.git/${path}`, readFileSync(file))
  }
  const more = { dockerfile: 'Dockerfile' }
  expect((await shop.build(`${url}/repo.git#main:sub`, more)).output).toBe('from git\n')
  await expect(shop.build(`${url}/repo.git`, more)).rejects.toMatchObject({ code: 'DOCKERFILE_NOT_FOUND' })
  await expect(shop.build(`${url}/none.git#main`, more)).rejects.toMatchObject({ code: 'GIT_FAILED' })
})
