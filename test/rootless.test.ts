/**
 * An ordinary user's tbuild: bin/tbuild as that user, which makes a user namespace of its own (runtime/launcher/rootless.c). The user is made for the test, with
 * the subordinate ids that useradd(8) gives.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { busyboxTar } from './support/build.ts'
import { freshCommand } from './support/bundle.ts'

const USER = 'tbuild-rootless'
const HOME = mkdtempSync(join(tmpdir(), 'tbuild-rootless-'))
const repository = dirname(dirname(freshCommand()))

beforeAll(() => {
  removeUser()
  execFileSync('useradd', ['--home-dir', HOME, '--shell', '/bin/sh', USER])
  mkdirSync(join(HOME, 'tbuild'))
  cpSync(join(import.meta.dirname, '../fixtures/hello'), join(HOME, 'hello'), { recursive: true })
  busyboxTar(join(HOME, 'base'), join(HOME, 'base.tar'))
  execFileSync('chown', ['-R', `${USER}:`, HOME])
  const { status, stderr } = tbuild('import', 'base.tar', 'base')
  if (status !== 0) throw new Error(stderr)
})
afterAll(() => {
  removeUser()
  rmSync(HOME, { recursive: true, force: true })
})

function removeUser(): void {
  spawnSync('userdel', [USER])
}

/** The repository may be where the user cannot look: it is mounted at home, in a mount namespace of this command's. */
const AS_USER = `mount --bind "$0" "$HOME/tbuild" && cd "$HOME" && exec setpriv --reuid=${USER} --regid=${USER} --init-groups --inh-caps=-all "$@"`
const asUser = (
  argv: readonly string[],
): [string, string[], { env: NodeJS.ProcessEnv; encoding: 'utf8' }] => [
  'unshare',
  ['--mount', 'sh', '-c', AS_USER, repository, ...argv],
  { env: { PATH: process.env['PATH'], HOME }, encoding: 'utf8' },
]
const run = (...argv: string[]) => spawnSync(...asUser(argv))
const tbuild = (...args: string[]) => run('tbuild/bin/tbuild', ...args)

/** Where newuidmap gains no privileges. */
const denied = (...args: string[]) => run('setpriv', '--no-new-privs', 'tbuild/bin/tbuild', ...args)
const inside = (command: string) => tbuild('run', 'base', 'sh', '-c', command)
const sleeps = (): boolean => spawnSync('pgrep', ['-f', '^sleep 7604']).status === 0
const layersOf = (json: string): unknown =>
  (JSON.parse(json) as { RootFS: { Layers: string[] } }[])[0]?.RootFS.Layers

function context(files: Readonly<Record<string, string>>): string {
  const directory = mkdtempSync(join(HOME, 'context-'))
  chmodSync(directory, 0o755)
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  return directory
}

const DOCKERFILE = `
FROM base AS first
RUN mkdir /d && echo one > /d/one && echo two > /d/two && chown 1000:1001 /d/two && chmod 4755 /d/two && mkdir /var && echo old > /var/old
RUN rm /d/one && echo three > /d/three && ln /d/three /d/link && rm -r /var && mkdir /var && echo new > /var/new
COPY --chown=7:8 file /copied/
FROM base
COPY --from=first / /all
RUN --mount=type=cache,target=/cache --mount=type=bind,from=first,target=/first cat /first/copied/file > /cache/x && cp -a /first/d /cache/x /
WORKDIR /w
USER 1000
RUN id -u
`

describe('builds', () => {
  test('with RUN, COPY and mounts, and the image has the digests of root’s', () => {
    const directory = context({ Dockerfile: DOCKERFILE, file: 'contents' })
    const built = tbuild(
      '--metadata-file',
      'metadata',
      '-t',
      'app',
      '--build-arg',
      'SOURCE_DATE_EPOCH=1',
      directory,
    )
    expect(built).toMatchObject({ status: 0, stderr: expect.stringContaining(' 1000\n') })
    expect(tbuild('info').stdout).toMatch(/^driver: +objects /m)
    const own = join(HOME, 'root')
    const options = {
      encoding: 'utf8',
      stdio: 'pipe',
      env: { ...process.env, TBUILD_STORE: own },
    } as const
    expect(tbuild('save', '-o', 'base.oci', 'base')).toMatchObject({ status: 0 })
    execFileSync(freshCommand(), ['load', '-i', join(HOME, 'base.oci')], options)
    execFileSync(freshCommand(), ['-t', 'app', '--build-arg', 'SOURCE_DATE_EPOCH=1', directory], options)
    const found = layersOf(tbuild('inspect', 'app').stdout)
    expect(found).toHaveLength(5)
    expect(found).toEqual(layersOf(execFileSync(freshCommand(), ['inspect', 'app'], options)))
  })

  test('by the copy driver as well', () => {
    const directory = context({ Dockerfile: DOCKERFILE, file: 'contents' })
    const args = ['--store', join(HOME, 'copy'), '--driver', 'copy']
    expect(tbuild('import', ...args, 'base.tar', 'base')).toMatchObject({ status: 0 })
    expect(tbuild('build', ...args, '-t', 'app', directory)).toMatchObject({ status: 0 })
  })

  test('an owner that the namespace does not have is named', () => {
    const directory = context({ Dockerfile: 'FROM base\nCOPY --chown=200000 file /f\nRUN true', file: '' })
    expect(tbuild(directory)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/OWNER_NOT_MAPPED[^]*\/etc\/subuid/),
    })
  })

  test('so is a user', () => {
    const directory = context({ Dockerfile: 'FROM base\nUSER 200000\nRUN true' })
    const message = expect.stringMatching(/OWNER_NOT_MAPPED[^]*\/etc\/subuid/)
    expect(tbuild(directory)).toMatchObject({ status: 1, stderr: message })
    expect(tbuild('run', '-u', '1:200000', 'base', 'true')).toMatchObject({ status: 125, stderr: message })
  })

  test('so is the owner of a cache', () => {
    const step = 'RUN --mount=type=cache,target=/c,uid=200000 true'
    expect(tbuild(context({ Dockerfile: `FROM base\n${step}` }))).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/hint: .*\/etc\/subuid/),
    })
  })

  test('a device in an archive is refused by name', () => {
    const directory = context({ Dockerfile: 'FROM base\nADD a.tar /' })
    execFileSync('tar', ['-cf', join(directory, 'a.tar'), '-C', '/', 'dev/null'])
    expect(tbuild(directory)).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/"dev\/null": a device, which only root .* \[TAR_DEVICE\]/),
    })
  })
})

describe('containers', () => {
  test('have the usual devices, no others, and nothing of the host’s files', () => {
    const { stdout, status } = inside(
      'echo x > /dev/null && head -c 3 /dev/zero | wc -c; ls /; mknod /x c 1 3; ls /home /root',
    )
    expect(status).not.toBe(0)
    expect(stdout).toBe('3\nbin\ndev\netc\nproc\nsys\ntmp\n')
    expect(inside('cat /proc/self/mountinfo').stdout).not.toMatch(new RegExp(`${HOME}|ext4|xfs|btrfs`))
  })

  test('root in one is the user outside', () => {
    expect(inside('id -u; cat /proc/self/uid_map').stdout).toMatch(/^0\n +0 +\d\d+ +1\n +1 +\d+ +65536\n$/)
    expect(inside('echo 1 > /proc/sys/kernel/panic')).toMatchObject({ status: 1 })
    expect(inside('grep CapEff /proc/self/status').stdout).toMatch(/00000000a80425fb/)
  })

  test('write to a pipe that another user made', () => {
    const [file, argv, options] = asUser(['tbuild/bin/tbuild', 'run', 'base', 'echo', 'written'])
    const piped = spawnSync('sh', ['-c', '"$0" "$@" | cat', file, ...argv], options)
    expect(piped).toMatchObject({ stdout: 'written\n', stderr: '' })
  })

  test('cannot be where /proc is masked, which is said', () => {
    const [, [, , , command, ...rest], options] = asUser(['tbuild/bin/tbuild', 'run', 'base', 'true'])
    const masked = `mount --bind /dev/null /proc/interrupts && ${command}`
    expect(spawnSync('unshare', ['--mount', 'sh', '-c', masked, ...rest], options)).toMatchObject({
      status: 125,
      stderr: expect.stringMatching(/mount \/proc: EPERM .*\nhint: .*systempaths=unmasked/),
    })
  })

  test('die with tbuild', async () => {
    const [file, argv, options] = asUser(['tbuild/bin/tbuild', 'run', 'base', 'sleep', '7604.5'])
    const child = spawn(file, argv, { ...options, stdio: 'ignore' })
    for (let i = 0; i < 200 && !sleeps(); i++) await wait(50)
    expect(sleeps()).toBe(true)
    child.kill('SIGKILL')
    for (let i = 0; i < 100 && sleeps(); i++) await wait(50)
    expect(sleeps()).toBe(false)
  })

  test('a limit that cannot be set is refused, not forgotten', () => {
    expect(tbuild('run', '--memory', '64m', 'base', 'true')).toMatchObject({
      status: 125,
      stderr: expect.stringContaining('LIMITS_UNAVAILABLE'),
    })
  })
})

describe('the namespace', () => {
  test('has all the ranges of the user, but for what cannot be mapped', () => {
    const [uid, old] = [String(statSync(HOME).uid), readFileSync('/etc/subuid', 'utf8')]
    const lines = ['# x', 'x', `${USER}:x:y`, `${uid}:400000:100`, `${USER}:400050:100`, `${USER}:${uid}:1`]
    appendFileSync('/etc/subuid', [...lines, `${USER}:4294967290:9999`, `${USER}:500000:7`, ''].join('\n'))
    try {
      const { stdout } = inside('cat /proc/self/uid_map')
      expect(stdout.split('\n').map((line) => line.trim().split(/ +/).slice(1))).toEqual([
        [uid, '1'],
        [expect.any(String), '65536'],
        ['400000', '100'],
        ['500000', '7'],
        [],
      ])
    } finally {
      writeFileSync('/etc/subuid', old)
    }
  })

  test('is there when SIGCHLD is ignored, and whatever TBUILD_ROOTLESS says', () => {
    const command = "trap '' CHLD; TBUILD_ROOTLESS=no-ids exec tbuild/bin/tbuild run base sh -c 'id -u'"
    expect(run('sh', '-c', command)).toMatchObject({ status: 0, stdout: '0\n' })
  })

  test('alone can remove what a killed build left; outside it stays', async () => {
    const step = 'mkdir /d && touch /d/f && chown -R 1000 /d && chmod 0 /d && sleep 7604.6'
    const directory = context({ Dockerfile: `FROM base\nRUN ${step}` })
    const [file, argv, options] = asUser(['tbuild/bin/tbuild', directory])
    const child = spawn(file, argv, { ...options, stdio: 'ignore' })
    for (let i = 0; i < 200 && !sleeps(); i++) await wait(50)
    child.kill('SIGKILL')
    for (let i = 0; i < 100 && sleeps(); i++) await wait(50)
    const work = join(HOME, '.local/share/tbuild/work')
    expect(denied('images')).toMatchObject({ status: 0 })
    expect(readdirSync(work)).toHaveLength(1)
    expect(tbuild('images')).toMatchObject({ status: 0 })
    expect(readdirSync(work)).toEqual([])
  })

  test('where it cannot be made, what needs none works; the rest says why', () => {
    expect(denied('images')).toMatchObject({ status: 0, stdout: expect.stringContaining('base') })
    expect(denied('import', 'missing.tar', 'x').stderr).toContain('ROOT_REQUIRED')
    expect(denied('import', 'base.tar', 'x')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/ROOT_REQUIRED\]\nhint: .*setuid root, which no_new_privs forbids/),
    })
    const programs = join(HOME, 'programs')
    mkdirSync(programs)
    symlinkSync('/bin/sh', join(programs, 'sh'))
    const unmapped = (...args: string[]) => run('env', `PATH=${programs}`, 'tbuild/bin/tbuild', ...args)
    expect(unmapped('images')).toMatchObject({ status: 0, stderr: '' })
    expect(unmapped('import', 'base.tar', 'x')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/ROOT_REQUIRED\]\nhint: .*install newuidmap/),
    })
  })
})

test('the store is the user’s, adds up, is well, and goes', () => {
  const store = join(HOME, '.local/share/tbuild')
  expect(statSync(store).uid).toBe(statSync(HOME).uid)
  expect(tbuild('fsck')).toMatchObject({ status: 0 })
  const { allocatedBytes } = JSON.parse(tbuild('df', '--json').stdout) as { allocatedBytes: number }
  const [blocks = ''] = execFileSync('du', ['-s', '--block-size=512', store], { encoding: 'utf8' }).split(
    '\t',
  )
  expect(allocatedBytes).toBe(Number(blocks) * 512)
  expect(tbuild('rmi', 'app', 'base')).toMatchObject({ status: 0 })
  expect(tbuild('prune', '--all', '--force')).toMatchObject({ status: 0 })
  expect(execFileSync('find', [join(store, 'objects'), '-type', 'f'], { encoding: 'utf8' })).toBe('')
})

test('without subordinate ids, what needs no namespace works; the rest says what is missing', () => {
  execFileSync('usermod', ['--del-subuids', '1-4294967295', '--del-subgids', '1-4294967295', USER])
  expect(tbuild('version')).toMatchObject({ status: 0 })
  expect(tbuild('images')).toMatchObject({ status: 0 })
  expect(tbuild('import', 'base.tar', 'base')).toMatchObject({
    status: 1,
    stderr: expect.stringMatching(/ROOT_REQUIRED\]\nhint: .*usermod --add-subuids/),
  })
})

test('the store’s contract is kept in a user namespace', () => {
  // It is the same suite (cas/drivers/contract.ts), by a process that is root of such a namespace.
  const jest = [
    '--experimental-vm-modules',
    '--disable-warning=ExperimentalWarning',
    'node_modules/jest/bin/jest.js',
  ]
  execFileSync('usermod', ['--add-subuids', '100000-165535', '--add-subgids', '100000-165535', USER])
  mkdirSync(join(HOME, 'tmp'))
  execFileSync('chown', [USER, join(HOME, 'tmp')])
  const args = ['--cacheDirectory', join(HOME, 'tmp/jest'), 'test/drivers', '-t', 'the driver objects']
  // In the repository it may be where the user cannot look: see AS_USER.
  const node = process.execPath.replace(`${repository}/`, '')
  const command = 'cd tbuild && TMPDIR=$HOME/tmp exec runtime/launcher/launcher "$0" "$@"'
  const { status, stderr } = run('sh', '-c', command, node, ...jest, ...args)
  expect([status, /Tests: .*/.exec(stderr)?.[0], stderr]).toEqual([
    0,
    expect.stringMatching(/ 3\d passed/),
    expect.anything(),
  ])
}, 240_000)
