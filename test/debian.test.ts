/**
 * The main road on a real distribution: a Debian base, a C project in two stages, a registry, and what other tools make of the image. Through
 * the installed command (bin/tbuild and the bundle), as a user has it.
 */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startRegistry, type RealRegistry } from './support/registry.ts'

const ROOT = join(import.meta.dirname, '..')
const directory = mkdtempSync(join(tmpdir(), 'tbuild-debian-'))
const podmanRoots = [
  '--root',
  join(directory, 'podman'),
  '--runroot',
  join(directory, 'podman-run'),
  '--storage-driver=vfs',
]
let registry: RealRegistry
let image: string

beforeAll(async () => {
  registry = await startRegistry()
  image = `${registry.host}/team/greet:1.0`
  run(
    'mmdebstrap',
    '--variant=minbase',
    '--include=gcc,libc6-dev',
    '--quiet',
    'bookworm',
    join(directory, 'debian.tar'),
  )
  tbuild('import', join(directory, 'debian.tar'), 'debian')
}, 600_000)
afterAll(async () => {
  await registry[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})

function run(program: string, ...args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] })
}

function tbuild(...args: readonly string[]): string {
  return tbuildOn('store', ...args)
}

function tbuildOn(store: string, ...args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(join(ROOT, 'bin/tbuild'), args, {
    encoding: 'utf8',
    env: { ...process.env, TBUILD_STORE: join(directory, store) },
  })
  if (status !== 0) throw new Error(`tbuild ${args.join(' ')} ended with ${status}:\n${stderr}`)
  return stdout + stderr
}

test('builds a C project in two stages, and again from the cache', () => {
  const project = join(ROOT, 'fixtures/c-project')
  const first = tbuild('--progress', 'plain', '-t', image, project)
  expect(first).toMatch(/RUN gcc[^\n]*\n(.*\n)*.*hello, nobody/)
  const again = tbuild('--progress', 'plain', '-t', image, project)
  expect(again).not.toContain('DONE')
  expect(again.match(/CACHED/g)).toHaveLength(6)
})

test('runs it', () => {
  expect(tbuild('run', image)).toBe('hello, world\n')
  expect(tbuild('run', '--network', 'none', image, 'you')).toBe('hello, you\n')
  const { status, stdout } = spawnSync(
    join(ROOT, 'bin/tbuild'),
    ['run', 'debian', 'sh', '-c', 'cat /etc/debian_version; exit 7'],
    {
      encoding: 'utf8',
      env: { ...process.env, TBUILD_STORE: join(directory, 'store') },
    },
  )
  expect([status, stdout]).toEqual([7, expect.stringMatching(/^12\./)])
})

test('pushes it; another store pulls and runs it', () => {
  tbuild('push', image)
  expect(tbuildOn('other', 'pull', image)).toContain('team/greet')
  expect(tbuildOn('other', 'run', image, 'again')).toBe('hello, again\n')
})

test('skopeo reads it', () => {
  const said = JSON.parse(run('skopeo', 'inspect', '--tls-verify=false', `docker://${image}`)) as Record<
    string,
    unknown
  >
  expect(said).toMatchObject({ RepoTags: ['1.0'], Os: 'linux', Layers: [expect.stringMatching(/^sha256:/)] })
})

test('umoci unpacks it, crun and runc run it', () => {
  const layout = join(directory, 'layout')
  run('skopeo', 'copy', '--quiet', '--src-tls-verify=false', `docker://${image}`, `oci:${layout}:1`)
  const bundle = join(directory, 'bundle')
  run('umoci', 'unpack', '--image', `${layout}:1`, bundle)
  const path = join(bundle, 'config.json')
  const config = JSON.parse(readFileSync(path, 'utf8')) as {
    process: Record<string, unknown>
    linux: { namespaces: { type: string }[]; resources?: unknown }
  }
  config.process = { ...config.process, terminal: false, rlimits: [], args: ['/greet', 'bundle'] }
  delete config.linux.resources
  config.linux.namespaces = config.linux.namespaces.filter(
    ({ type }) => !['network', 'user', 'cgroup'].includes(type),
  )
  writeFileSync(path, JSON.stringify(config))
  expect(run('runc', 'run', '--bundle', bundle, `tbuild-test-${process.pid}`)).toBe('hello, bundle\n')
  // crun takes v1 or v2, not both: the empty v2 tree that stands beside v1 on some machines is put out of its sight.
  const script =
    'umount /sys/fs/cgroup/unified 2>/dev/null; exec crun --cgroup-manager=disabled run --bundle "$1" "$2"'
  expect(run('unshare', '-m', 'sh', '-c', script, 'sh', bundle, `tbuild-crun-${process.pid}`)).toBe(
    'hello, bundle\n',
  )
})

test('podman pulls and runs it', () => {
  run('podman', ...podmanRoots, 'pull', '--quiet', '--tls-verify=false', image)
  const limits = ['--ulimit', 'nofile=512:512', '--ulimit', 'nproc=512:512']
  const options = ['--runtime', 'runc', '--cgroup-manager=cgroupfs']
  expect(
    run('podman', ...podmanRoots, ...options, 'run', '--rm', '--network=none', ...limits, image, 'podman'),
  ).toBe('hello, podman\n')
})

test('saves it for docker and podman to load', () => {
  const file = join(directory, 'greet.tar')
  tbuild('save', '-o', file, image)
  expect(run('podman', ...podmanRoots, 'load', '--quiet', '-i', file)).toContain('team/greet')
  expect(tbuildOn('third', 'load', '-i', file)).toContain('team/greet')
  expect(tbuildOn('third', 'run', image)).toBe('hello, world\n')
})
