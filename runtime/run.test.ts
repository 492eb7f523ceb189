import { describe, expect, test } from '@jest/globals'
import { once } from 'node:events'
import { chmodSync, closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { cgroupDriver } from './cgroup/index.ts'
import { memoryLimitMessage, runContainer, type UlimitName } from './index.ts'
import { busyboxRoot, run, specFor } from './testing.ts'

const cgroupsOf = (scope: string): string[] =>
  cgroupDriver()
    .list()
    .filter((name) => name.includes(`-${scope}-`))

describe('how a command ends', () => {
  test('exit code', async () => {
    using box = busyboxRoot()
    expect(await run(box.root, 'exit 7')).toMatchObject({ exitCode: 7, oomKilled: false })
    expect(await run(box.root, 'true')).toMatchObject({ exitCode: 0 })
  })

  test('a signal is 128 + n and has its name', async () => {
    using box = busyboxRoot()
    const container = await runContainer(specFor(box.root, ['sleep', '1000']))
    container.kill('SIGKILL')
    expect(await container.exited).toMatchObject({ exitCode: 137, signal: 'SIGKILL', oomKilled: false })
  })

  test('usage is read back', async () => {
    using box = busyboxRoot()
    const { usage } = await run(box.root, 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done')
    expect(usage.cpuMicros).toBeGreaterThan(1000)
    expect(usage.peakMemoryBytes).toBeGreaterThan(100_000)
  })

  test('stdout ends when the container ends, though a child of it had it open', async () => {
    using box = busyboxRoot()
    const { stdout, exitCode } = await run(box.root, 'sleep 1000 & echo first')
    expect({ stdout, exitCode }).toEqual({ stdout: 'first\n', exitCode: 0 })
  })

  test('a megabyte each way', async () => {
    using box = busyboxRoot()
    const container = await runContainer(
      specFor(box.root, ['cat'], { stdio: { stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' } }),
    )
    const sent = Buffer.alloc(1 << 20, 'abcdefgh')
    container.stdin?.end(sent)
    const got: Buffer[] = []
    for await (const chunk of container.stdout ?? []) got.push(chunk as Buffer)
    expect(Buffer.concat(got).equals(sent)).toBe(true)
    expect((await container.exited).exitCode).toBe(0)
  })

  test('many containers at once', async () => {
    using boxes = new DisposableStack()
    const roots = Array.from({ length: 8 }, () => boxes.use(busyboxRoot()).root)
    const all = await Promise.all(roots.map((root, i) => run(root, `exit ${i}`)))
    expect(all.map(({ exitCode }) => exitCode)).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  })
})

describe('signals are forwarded to PID 1', () => {
  for (const signal of [
    'SIGTERM',
    'SIGINT',
    'SIGHUP',
    'SIGQUIT',
    'SIGUSR1',
    'SIGUSR2',
    'SIGWINCH',
  ] as const) {
    test(`${signal} reaches a handler`, async () => {
      using box = busyboxRoot()
      const name = signal.slice(3)
      const script = `trap 'echo got ${name}; exit 3' ${name}; echo ready; while true; do sleep 0.05; done`
      const container = await runContainer(specFor(box.root, ['sh', '-c', script]))
      let output = ''
      for await (const chunk of container.stdout ?? []) {
        output += String(chunk)
        if (output === 'ready\n') container.kill(signal)
      }
      expect(output).toBe(`ready\ngot ${name}\n`)
      expect((await container.exited).exitCode).toBe(3)
    })
  }

  test('as PID 1 in Docker, one without a handler does not get SIGTERM', async () => {
    using box = busyboxRoot()
    const container = await runContainer(specFor(box.root, ['sleep', '1000']))
    container.kill('SIGTERM')
    await setTimeout(100)
    container.kill('SIGKILL')
    expect(await container.exited).toMatchObject({ signal: 'SIGKILL' })
  })
})

describe('what cannot be launched', () => {
  const cases: readonly (readonly [string, Parameters<typeof run>[2], readonly string[], string, RegExp])[] =
    [
      [
        'command not in PATH',
        {},
        ['nosuch'],
        'COMMAND_NOT_FOUND',
        /exec: "nosuch": executable file not found in \$PATH/,
      ],
      ['missing path', {}, ['/nosuch'], 'COMMAND_NOT_FOUND', /exec: "\/nosuch": no such file or directory/],
      ['not executable', {}, ['/text'], 'COMMAND_NOT_EXECUTABLE', /permission denied/],
      ['a directory', {}, ['/bin'], 'COMMAND_NOT_EXECUTABLE', /permission denied/],
      ['no program', {}, ['/garbage'], 'COMMAND_NOT_EXECUTABLE', /exec format error/],
      [
        'missing working directory',
        { cwd: '/nosuch' },
        ['true'],
        'CWD_MISSING',
        /Working directory \/nosuch/,
      ],
      ['unknown user', { user: 'nosuch' }, ['true'], 'USER_UNKNOWN', /nosuch/],
      ['a NUL byte', {}, ['true', 'a\0b'], 'SPEC_INVALID', /NUL/],
      ['no command', {}, [], 'SPEC_INVALID', /no command/],
    ]
  test.each(cases)('%s', async (_, more, args, code, message) => {
    using box = busyboxRoot((lower) => {
      writeFileSync(`${lower}/text`, 'x')
      writeFileSync(`${lower}/garbage`, 'x\u0001garbage')
      chmodSync(`${lower}/garbage`, 0o755)
    })
    const failure = run(box.root, args, { ...more, scope: 'fail' })
    await expect(failure).rejects.toMatchObject({ code, message: expect.stringMatching(message) })
    expect(cgroupsOf('fail')).toEqual([])
  })

  test('a root that is no mount: the step and its errno are named', async () => {
    const fd = openSync('/tmp', 'r')
    try {
      await expect(run(fd, 'true')).rejects.toMatchObject({
        code: 'LAUNCH_FAILED',
        message: expect.stringMatching(/E[A-Z]+$/),
      })
    } finally {
      closeSync(fd)
    }
  })
})

describe('limits', () => {
  test('over its memory limit: killed, and said so', async () => {
    using box = busyboxRoot()
    const eat = 'a=x; while true; do a=$a$a; done'
    const outcome = await run(box.root, eat, { limits: { memoryBytes: 16 << 20 }, scope: 'oom' })
    expect(outcome).toMatchObject({ exitCode: 137, oomKilled: true })
    expect(outcome.usage.peakMemoryBytes).toBeLessThanOrEqual(16 << 20)
    expect(cgroupsOf('oom')).toEqual([])
    expect(memoryLimitMessage(64 << 20)).toBe('exceeded its memory limit of 64 MiB')
  })

  test('a child killed for memory whose parent succeeds is no failure', async () => {
    using box = busyboxRoot()
    const script = "sh -c 'a=x; while true; do a=$a$a; done' 2>/dev/null; true"
    const outcome = await run(box.root, script, { limits: { memoryBytes: 16 << 20 } })
    // v2 kills the whole group.
    const whole = cgroupDriver().version === 2
    expect(outcome).toMatchObject({ exitCode: whole ? 137 : 0, oomKilled: whole })
  })

  test('processes are limited', async () => {
    using box = busyboxRoot()
    const outcome = await run(box.root, 'for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; wait', {
      limits: { pids: 5 },
    })
    expect(outcome.exitCode).not.toBe(0)
    expect(outcome.stderr).toMatch(/can't fork/)
  })

  test('a CPU limit is set', async () => {
    using box = busyboxRoot()
    const container = await runContainer(
      specFor(box.root, ['sleep', '1000'], { limits: { cpus: 0.5 }, scope: 'cpus' }),
    )
    const [name] = cgroupsOf('cpus')
    // Where it is depends on the cgroup that the tests are in: /tbuild, or beside a login's session.
    const file = `${name}/cpu.${cgroupDriver().version === 1 ? 'cfs_quota_us' : 'max'}`
    const path = readdirSync('/sys/fs/cgroup', { recursive: true, encoding: 'utf8' }).find((entry) =>
      entry.endsWith(file),
    )
    const found = readFileSync(`/sys/fs/cgroup/${path}`, 'utf8')
    expect(found).toMatch(/^50000\b/)
    container.kill('SIGKILL')
    await container.exited
  })
})

describe('network', () => {
  test('none has loopback up and nothing else', async () => {
    using box = busyboxRoot()
    const { stdout } = await run(
      box.root,
      'cat /proc/net/dev | tail -n +3; ping -c1 -W1 127.0.0.1 >/dev/null && echo up',
    )
    expect(stdout).toMatch(/^ +lo:[^\n]*\nup\n$/)
  })

  test('host reaches a server on loopback', async () => {
    using box = busyboxRoot()
    const server = createServer((socket) => socket.end('hello\n'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : undefined
    const host = await run(box.root, `nc 127.0.0.1 ${port} </dev/null`, { network: 'host' })
    const none = await run(box.root, `nc 127.0.0.1 ${port} </dev/null`, { network: 'none' })
    server.close()
    expect(host.stdout).toBe('hello\n')
    expect(none.exitCode).not.toBe(0)
  })
})

const ulimits = (...args: [UlimitName, number, number][]) => ({
  ulimits: args.map(([name, soft, hard]) => ({ name, soft, hard })),
})

describe('limits of processes', () => {
  test('are set, soft and hard, before the command and for good', async () => {
    using box = busyboxRoot()
    const wanted = ulimits(['nofile', 64, 128], ['core', 0, 0], ['fsize', 4096, Infinity], ['nproc', 50, 60])
    const { stdout } = await run(
      box.root,
      'grep -E "open files|core|file size|processes" /proc/self/limits',
      wanted,
    )
    expect(stdout.split('\n').map((line) => line.trim().split(/ {2,}/).slice(0, 3).join())).toEqual([
      'Max file size,4096,unlimited',
      'Max core file size,0,0',
      'Max processes,50,60',
      'Max open files,64,128',
      '',
    ])
    const raised = await run(box.root, 'ulimit -Hn 129 || echo no', wanted)
    expect(raised.stdout).toBe('no\n')
    const large = await run(box.root, 'head -c 5000 /dev/zero > /file; echo $?; wc -c < /file', wanted)
    expect(large.stdout).toMatch(/^1[0-9]+\n4096\n$|^1\n4096\n$/)
  })

  test('one that this process may not raise is told, once and by its name', async () => {
    using box = busyboxRoot()
    const above = Number(readFileSync('/proc/sys/fs/nr_open', 'utf8')) + 1
    await expect(run(box.root, 'true', ulimits(['nofile', above, above]))).rejects.toMatchObject({
      code: 'ULIMIT_DENIED',
      message: expect.stringContaining(`The hard limit nofile cannot be ${above}`),
      hint: expect.stringMatching(/^give --ulimit nofile=(\d+|-1) or less$/),
    })
    await expect(run(box.root, 'true', ulimits(['nofile', 5, 4]))).rejects.toMatchObject({
      code: 'SPEC_INVALID',
    })
  })
})
