/** Flags of `build`: the table in docs/ is the program's own, nothing of docker's is missing, and what works does. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { BUILD_OPTIONS } from '../cli/arguments/build-options.ts'
import { parseCommandLine } from '../cli/arguments/parse.ts'
import type { Option } from '../cli/arguments/types.ts'
import { build } from '../cli/commands/build.ts'
import { parseOutput } from '../cli/outputs/parse.ts'
import { parseSecrets } from '../cli/secrets.ts'
import { freshCommand } from './support/bundle.ts'
import { startRegistry } from './support/registry.ts'

const scratch = mkdtempSync(join(tmpdir(), 'tbuild-flags-'))
const command = freshCommand()
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

const options: Readonly<Record<string, Option>> = BUILD_OPTIONS
/** `docker build --help` and `docker buildx build --help`, with those that they hide. */
const DOCKERS =
  `add-host allow annotation attest build-arg build-context builder cache-from cache-to call cgroup-parent check compress
  cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems debug detach disable-content-trust file force-rm iidfile invoke isolation label load
  memory memory-swap metadata-file network no-cache no-cache-filter output platform policy print progress provenance pull push quiet rm root
  sbom secret security-opt server-config shm-size squash ssh stream tag target ulimit`.split(/\s+/)

function tbuild(...args: readonly string[]) {
  return tbuildWith(Buffer.alloc(0), ...args)
}

function tbuildWith(input: Buffer, ...args: readonly string[]) {
  const env = { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: join(scratch, 'store') }
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: scratch, env, input, timeout: 60_000 })
  return { status, stdout, stderr: stderr.toString() }
}

function readMember(name: string): string {
  return execFileSync('tar', ['-xOf', join(scratch, 'oci.tar'), name], { encoding: 'utf8' })
}

beforeAll(() => {
  mkdirSync(join(scratch, 'context/tree'), { recursive: true })
  writeFileSync(join(scratch, 'context/tree/file'), 'contents\n', { mode: 0o640 })
  symlinkSync('../outside', join(scratch, 'context/tree/link'))
  writeFileSync(join(scratch, 'context/Dockerfile'), 'FROM scratch\nCOPY --chown=7:8 tree /tree\n')
})

describe('the table', () => {
  const rows = readFileSync(resolve(import.meta.dirname, '../docs/build-flags.md'), 'utf8').matchAll(
    /^\| `--([a-z-]+)`(?: `-(\w)`)? *\| (\w+) +\|/gm,
  )
  const told = Object.fromEntries([...rows].map(([, name = '', short, state]) => [name, { short, state }]))

  test('is that of the program', () => {
    const own = Object.entries(options).map(([name, { kind, short, hidden }]) => {
      const state = kind === 'refused' ? 'refused' : hidden === true ? 'accepted' : 'works'
      return [name, { short, state }]
    })
    expect(told).toEqual(Object.fromEntries(own))
  })

  test('leaves out nothing that docker has', () => {
    expect(DOCKERS.filter((name) => !Object.hasOwn(told, name))).toEqual([])
  })
})

test('each refused flag is refused by its name, with its advice', () => {
  const refused = Object.entries(options).filter(([, { kind }]) => kind === 'refused')
  expect(refused.length).toBeGreaterThan(20)
  for (const [name, option] of refused) {
    const argv = [`--${name}${option.kind === 'refused' && option.value !== undefined ? '=x' : ''}`, '.']
    expect(() => parseCommandLine('build', build, argv)).toThrow(
      expect.objectContaining({
        code: 'OPTION_UNSUPPORTED',
        message: `tbuild has no --${name}.`,
        hint: option.help,
      }),
    )
  }
  expect(tbuild('build', '--squash', 'context')).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('tbuild has no --squash. [OPTION_UNSUPPORTED]\nhint: '),
  })
})

test('what asks for what is so anyway is let through', () => {
  const flags = [
    '--load',
    '--rm',
    '--provenance=false',
    '--sbom=false',
    '--squash=false',
    '--allow=network.host',
  ]
  expect(tbuild('build', '-q', ...flags, '--cpu-quota', '50000', 'context')).toMatchObject({
    status: 0,
    stderr: '',
  })
})

test('the context may come in on standard input: a tar, or a Dockerfile alone', () => {
  const tar = execFileSync('tar', ['-C', join(scratch, 'context'), '-cz', '.'])
  const ids = [
    tbuildWith(tar, 'build', '-q', '-'),
    tbuildWith(Buffer.from('FROM scratch\nLABEL a=b\n'), 'build', '-q', '-'),
  ]
  for (const { status, stderr } of ids) expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
})

describe('secret', () => {
  const file = join(scratch, 'a,secret')
  beforeAll(() => writeFileSync(file, 'hunter2'))

  test.each([
    [`id=a,"src=${file}"`, { file }],
    [`type=file,ID=a,"source=${file}"`, { file }],
    ['id=a,env=V', { env: 'V' }],
    ['id=a,type=env,src=V', { env: 'V' }],
    ['id=a,type=env', { env: 'a' }],
  ])('%s', (text, source) => {
    expect(parseSecrets([text])).toEqual(new Map([['a', source]]))
  })

  test('an id alone is the variable, or else the file', () => {
    expect(parseSecrets(['id=HOME'])).toEqual(new Map([['HOME', { env: 'HOME' }]]))
    expect(() => parseSecrets(['id=no-such-thing'])).toThrow('cannot be read')
  })

  test.each(['', 'src=x', 'id=a,type=vault', 'id=a,size=1', 'id', `id=a,src=${scratch}`, 'id=a,src=/none'])(
    '%j is refused',
    (text) => {
      expect(() => parseSecrets([text])).toThrow('--secret')
    },
  )

  test('the command gives it to a RUN, and keeps it from everywhere else', () => {
    const base = join(scratch, 'secret-base')
    mkdirSync(base)
    const dockerfile =
      'FROM scratch\nCOPY busybox /busybox\nRUN --mount=type=secret,id=a ["/busybox", "wc", "-c", "/run/secrets/a"]\n'
    writeFileSync(join(base, 'Dockerfile'), dockerfile)
    copyFileSync('/bin/busybox', join(base, 'busybox'))
    const { status, stderr } = tbuild('build', '--progress=plain', '--secret', `id=a,"src=${file}"`, base)
    expect({ status, stderr }).toEqual({ status: 0, stderr: expect.stringContaining('7 /run/secrets/a') })
    expect(stderr).not.toContain('hunter2')
    expect(spawnSync('grep', ['-rF', 'hunter2', join(scratch, 'store')]).status).toBe(1)
  })
})

describe('output', () => {
  test.each([
    ['out', { type: 'local', dest: 'out' }],
    ['-', { type: 'tar', dest: undefined }],
    ['type=oci,"dest=a,b.tar"', { type: 'oci', dest: 'a,b.tar' }],
    ['type=docker', { type: 'image', names: [], push: false }],
    ['type=docker,dest=-', { type: 'docker', dest: undefined }],
    ['type=image,"name=a,b",push=true', { type: 'image', names: ['a', 'b'], push: true }],
    ['type=registry', { type: 'image', names: [], push: true }],
  ])('%s', (text, output) => {
    expect(parseOutput(text)).toEqual(output)
  })

  test.each(['', 'dest=x', 'type=local', 'type=zip', 'type=oci,compression=zstd', 'type=oci,dest'])(
    '%j is refused',
    (text) => {
      expect(() => parseOutput(text)).toThrow('--output')
    },
  )

  test('a directory has the files; what is in the way is replaced and never followed', () => {
    mkdirSync(join(scratch, 'elsewhere'))
    mkdirSync(join(scratch, 'out'))
    symlinkSync('../elsewhere', join(scratch, 'out/tree'))
    writeFileSync(join(scratch, 'out/mine'), '')
    expect(tbuild('build', '-q', '-o', 'out', 'context').status).toBe(0)
    expect(readdirSync(join(scratch, 'elsewhere'))).toEqual([])
    expect(readdirSync(join(scratch, 'out')).toSorted()).toEqual(['mine', 'tree'])
    const stats = lstatSync(join(scratch, 'out/tree/file'))
    expect([stats.mode & 0o777, stats.uid]).toEqual([0o640, process.getuid?.()])
    expect(lstatSync(join(scratch, 'out/tree/link')).isSymbolicLink()).toBe(true)
  })

  test('a tar has owners too, and standard output to itself', () => {
    const { status, stdout } = tbuild('build', '-q', '-o', '-', 'context')
    expect(status).toBe(0)
    const listing = execFileSync('tar', ['--numeric-owner', '-tv'], { input: stdout, encoding: 'utf8' })
    expect(listing).toMatch(/^-rw-r----- 7\/8 +9 .* tree\/file\n.* tree\/link -> \.\.\/outside$/m)
  })

  test('an archive has the name, and the annotation in its manifest', () => {
    const { status } = tbuild(
      'build',
      '-q',
      '-t',
      'named',
      '--annotation',
      'a=b',
      '-o',
      'type=oci,dest=oci.tar',
      'context',
    )
    expect(status).toBe(0)
    const [entry] = (JSON.parse(readMember('index.json')) as { manifests: { digest: string }[] }).manifests
    expect(entry).toMatchObject({ annotations: { 'org.opencontainers.image.ref.name': 'latest' } })
    expect(JSON.parse(readMember(`blobs/${entry?.digest.replace(':', '/')}`))).toMatchObject({
      annotations: { a: 'b' },
    })
  })
})

test('metadata and push: the digest is that of the registry', async () => {
  await using registry = await startRegistry()
  expect(tbuild('build', '--push', 'context')).toMatchObject({ status: 2 })
  const name = `${registry.host}/app:1`
  const files = ['--metadata-file', 'metadata', '--iidfile', 'iid']
  expect(tbuild('build', '--push', '--insecure', '-t', name, ...files, 'context')).toMatchObject({
    status: 0,
  })
  const metadata = JSON.parse(readFileSync(join(scratch, 'metadata'), 'utf8')) as Record<string, string>
  const response = await fetch(`http://${registry.host}/v2/app/manifests/1`, {
    headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
  })
  expect(metadata).toEqual({
    'containerimage.config.digest': readFileSync(join(scratch, 'iid'), 'utf8'),
    'containerimage.digest': response.headers.get('docker-content-digest'),
    'image.name': name,
  })
})
