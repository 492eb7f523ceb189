import { afterEach, beforeEach, describe, expect, test } from '@jest/globals'
import { chmod, mkdir, mkdtemp, readFile, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eraseCredentials, loadCredentials, storeCredentials } from './credentials.ts'

let directory: string
const before = { config: process.env['DOCKER_CONFIG'], path: process.env['PATH'] }

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'tbuild-credentials-'))
  process.env['DOCKER_CONFIG'] = directory
})
afterEach(async () => {
  if (before.config === undefined) delete process.env['DOCKER_CONFIG']
  else process.env['DOCKER_CONFIG'] = before.config
  process.env['PATH'] = before.path
  await rm(directory, { recursive: true, force: true })
})

const file = (): string => join(directory, 'config.json')
const write = (config: unknown): Promise<void> => writeFile(file(), JSON.stringify(config))
const read = async (): Promise<unknown> => JSON.parse(await readFile(file(), 'utf8'))
const b64 = (text: string): string => Buffer.from(text).toString('base64')

/** A helper that keeps what it is given in files, as pass and the keyrings do. */
async function installHelper(name: string): Promise<void> {
  const bin = join(directory, 'bin')
  await mkdir(bin, { recursive: true })
  const script = join(bin, `docker-credential-${name}`)
  await writeFile(
    script,
    `#!/bin/sh
input=$(cat); key=$(printf %s "$input" | tr -c 'a-z0-9\\n' _)
echo "$1" >> ${directory}/calls
case "$1" in
get) [ -f "${directory}/held-$key" ] || { echo "credentials not found in native keychain"; exit 1; }; cat "${directory}/held-$key" ;;
store) key=$(printf %s "$input" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr -c 'a-z0-9\\n' _); printf %s "$input" > "${directory}/held-$key" ;;
erase) rm "${directory}/held-$key" ;;
esac
`,
  )
  await chmod(script, 0o755)
  process.env['PATH'] = `${bin}:${before.path ?? ''}`
}

describe('auths', () => {
  test('no file is no credentials', async () => {
    expect(await loadCredentials('example.com')).toBeUndefined()
  })

  test('a password with colons and beyond Latin-1; NUL padding of old dockers', async () => {
    await write({ auths: { 'a.com': { auth: b64('me:pä:€') }, 'b.com': { auth: b64('me:x\0\0') } } })
    expect(await loadCredentials('a.com')).toEqual({ username: 'me', password: 'pä:€' })
    expect(await loadCredentials('b.com')).toEqual({ username: 'me', password: 'x' })
  })

  test('identity tokens, plain username and password', async () => {
    await write({
      auths: {
        'a.com': { auth: b64('<token>:'), identitytoken: 'id' },
        'b.com': { username: 'u', password: 'p' },
      },
    })
    expect(await loadCredentials('a.com')).toEqual({ identityToken: 'id' })
    expect(await loadCredentials('b.com')).toEqual({ username: 'u', password: 'p' })
  })

  test.each([
    'https://index.docker.io/v1/',
    'docker.io',
    'index.docker.io',
    'https://registry-1.docker.io/v2/',
  ])('docker.io is found under %s', async (key) => {
    await write({ auths: { [key]: { auth: b64('u:p') } } })
    expect(await loadCredentials('docker.io')).toEqual({ username: 'u', password: 'p' })
  })

  test('a key for a part of a registry, or for another port, is not used', async () => {
    await write({ auths: { 'a.com/team': { auth: b64('u:p') }, 'a.com:5000': { auth: b64('u:p') } } })
    expect(await loadCredentials('a.com')).toBeUndefined()
  })

  test.each(['[]', '{', '"x"'])(
    'a broken file %s is CONFIG_INVALID, says no secret, and is never overwritten',
    async (text) => {
      await writeFile(file(), text)
      await expect(loadCredentials('a.com')).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
      await expect(storeCredentials('a.com', { username: 'u', password: 'p' })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
      })
      expect(await readFile(file(), 'utf8')).toBe(text)
    },
  )

  test('odd shapes are ignored', async () => {
    await write({
      auths: { 'a.com': null, 'b.com': { auth: 7 }, 'c.com': { auth: '!!!' } },
      credHelpers: [],
      credsStore: 3,
    })
    for (const host of ['a.com', 'b.com', 'c.com']) expect(await loadCredentials(host)).toBeUndefined()
  })
})

describe('storing', () => {
  test('0600, other keys kept, old spellings of the host replaced, nothing left behind', async () => {
    await write({ auths: { 'https://a.com/v1/': { auth: 'eA==' }, 'b.com': {} }, psFormat: 'x' })
    await storeCredentials('a.com', { username: 'u', password: 'p' })
    expect(await read()).toEqual({ auths: { 'b.com': {}, 'a.com': { auth: b64('u:p') } }, psFormat: 'x' })
    expect((await stat(file())).mode & 0o777).toBe(0o600)
    expect(await readdir(directory)).toEqual(['config.json'])
    expect(await loadCredentials('a.com')).toEqual({ username: 'u', password: 'p' })
  })

  test('a missing directory is made; docker.io gets its odd key; erasing works once', async () => {
    process.env['DOCKER_CONFIG'] = join(directory, 'new', 'er')
    await storeCredentials('docker.io', { username: 'u', password: 'p' })
    const stored: unknown = JSON.parse(await readFile(join(directory, 'new', 'er', 'config.json'), 'utf8'))
    expect(stored).toEqual({ auths: { 'https://index.docker.io/v1/': { auth: b64('u:p') } } })
    expect(await eraseCredentials('docker.io')).toBe(true)
    expect(await eraseCredentials('docker.io')).toBe(false)
    expect(await loadCredentials('docker.io')).toBeUndefined()
  })

  test('a link stays a link', async () => {
    const real = join(directory, 'real.json')
    await writeFile(real, '{}')
    await symlink(real, file())
    await storeCredentials('a.com', { username: 'u', password: 'p' })
    expect(JSON.parse(await readFile(real, 'utf8'))).toHaveProperty(['auths', 'a.com'])
  })
})

describe('helpers', () => {
  test('credsStore: store, get, erase', async () => {
    await installHelper('keep')
    await write({ credsStore: 'keep' })
    expect(await loadCredentials('a.com')).toBeUndefined()
    await storeCredentials('a.com', { username: 'u', password: 's3cret' })
    expect(await readFile(file(), 'utf8')).not.toContain('s3cret')
    expect(await loadCredentials('a.com')).toEqual({ username: 'u', password: 's3cret' })
    await storeCredentials('docker.io', { identityToken: 'tok' })
    expect(await loadCredentials('docker.io')).toEqual({ identityToken: 'tok' })
    expect(await eraseCredentials('a.com')).toBe(true)
    expect(await loadCredentials('a.com')).toBeUndefined()
  })

  test('credHelpers win for their host only', async () => {
    await installHelper('one')
    await write({ credHelpers: { 'a.com': 'one' }, auths: { 'b.com': { auth: b64('u:p') } } })
    await storeCredentials('a.com', { username: 'x', password: 'y' })
    expect(await loadCredentials('a.com')).toEqual({ username: 'x', password: 'y' })
    expect(await loadCredentials('b.com')).toEqual({ username: 'u', password: 'p' })
  })

  test('a helper that is not installed is named', async () => {
    await write({ credsStore: 'no-such-helper' })
    await expect(loadCredentials('a.com')).rejects.toMatchObject({
      code: 'CREDENTIAL_HELPER_FAILED',
      message: expect.stringMatching(/docker-credential-no-such-helper.*not installed/),
    })
  })

  test.each(['../evil', 'a/b', '-x', 'a b'])('a helper named %j is not run', async (name) => {
    await write({ credsStore: name })
    await expect(loadCredentials('a.com')).rejects.toMatchObject({ code: 'CREDENTIAL_HELPER_FAILED' })
  })

  test('a helper that prints without end is stopped', async () => {
    await installHelper('loud')
    await writeFile(join(directory, 'bin', 'docker-credential-loud'), '#!/bin/sh\nexec yes\n')
    await write({ credsStore: 'loud' })
    await expect(loadCredentials('a.com')).rejects.toMatchObject({ code: 'CREDENTIAL_HELPER_FAILED' })
  })
})
