/** A RUN in a build: what it sees, how it fails, what it may not do. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { hostname } from 'node:os'
import type { BuildRequest } from '../builder/index.ts'
import { cgroupsOf, openWorkshop, type Built, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

const build = (dockerfile: string, more?: Partial<BuildRequest>): Promise<Built> =>
  shop.build(shop.context({ Dockerfile: dockerfile }), more)
const output = async (command: string, more?: Partial<BuildRequest>): Promise<string> =>
  (await build(`FROM base\nRUN ${command}\n`, more)).output
/** Of this store only: other tests run beside. */
const leftovers = (): string[] => [
  ...readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(shop.directory)),
  ...cgroupsOf(shop.store.lease().scope),
]

describe('it sees', () => {
  test('itself as PID 1, and only its own processes', async () => {
    expect(await output('echo $$; cd /proc; echo [0-9]*')).toBe('1\n1\n')
  })

  test('a host name of its own', async () => {
    const name = await output('hostname')
    expect(name).toBe('tbuild\n')
    expect(name).not.toBe(`${hostname()}\n`)
  })

  test('no mount of the host, and no path of it', async () => {
    const table = await output('cat /proc/mounts /proc/self/mountinfo')
    expect(table).not.toMatch(/ext4|xfs|btrfs|\/tmp\/|\/var\//)
    expect(table).not.toContain(shop.directory)
  })

  test('/proc/kcore and friends masked', async () => {
    expect(
      await output('for f in kcore keys timer_list; do [ ! -e /proc/$f ] || wc -c < /proc/$f; done'),
    ).toMatch(/^(0\n)*$/)
  })

  test('exactly the 14 default capabilities, seccomp, no new privileges', async () => {
    expect(await output("grep -E '^(CapEff|CapBnd|Seccomp|NoNewPrivs):' /proc/self/status")).toBe(
      'CapBnd:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n'
        .split('\n')
        .toSorted((a, b) => order.indexOf(a.split(':')[0] ?? '') - order.indexOf(b.split(':')[0] ?? ''))
        .join('\n'),
    )
  })
  const order = ['CapEff', 'CapBnd', 'NoNewPrivs', 'Seccomp', '']

  test('USER, its home, its groups, WORKDIR, ENV, SHELL', async () => {
    const built = await build(`FROM base
USER ann
WORKDIR /home/ann
ENV GREETING="hello there"
SHELL ["/bin/sh", "-euc"]
RUN id; echo $HOME; pwd; echo $GREETING; echo "[$0]"
RUN ["/bin/echo", "$GREETING"]
`)
    expect(built.output).toBe(
      'uid=1000(ann) gid=1001(ann) groups=10(wheel),1001(ann)\n/home/ann\n/home/ann\nhello there\n[/bin/sh]\n$GREETING\n',
    )
  })

  test('only loopback with --network=none', async () => {
    expect(await output("ls /sys/class/net; ip -o addr show lo | grep -c 'inet '")).toBe('lo\n1\n')
    expect(await output('ls /sys/class/net | grep -c .', { network: 'host' })).toBe(
      `${readdirSync('/sys/class/net').length}\n`,
    )
  })
})

describe('it may not', () => {
  test.each([
    ['mount', 'mount -t tmpfs none /tmp'],
    ['write /proc/sys', 'echo x > /proc/sys/kernel/hostname'],
    ['write to what is mounted on /etc', 'echo 1.2.3.4 x >> /etc/hosts'],
  ])('%s', async (_, command) => {
    await expect(output(command)).rejects.toMatchObject({ code: 'RUN_FAILED' })
  })
})

describe('heredocs', () => {
  test('a script for the shell', async () => {
    expect((await build('FROM base\nENV A=1\nRUN <<EOF\necho one\necho $A\nEOF\n')).output).toBe('one\n1\n')
  })

  test('a script with an interpreter of its own, which leaves nothing behind', async () => {
    const built = await build(
      'FROM base\nRUN <<EOF\n#!/bin/awk -f\nBEGIN { print "awk" }\nEOF\nRUN ls -A /\n',
    )
    expect(built.output).toMatch(/^awk\n/)
    expect(built.output).not.toContain('.tbuild')
  })

  test('its word is no path: nothing is written through a link of the image to the host', async () => {
    const victim = join(shop.directory, 'victim')
    mkdirSync(victim)
    const built = build(
      `FROM base\nRUN ln -s ${victim} /.tbuild-a && ln -s ${victim} /a\nRUN <<a/evil\n#!/bin/sh\necho ran\na/evil\n`,
    )
    expect((await built).output).toBe('ran\n')
    expect(readdirSync(victim)).toEqual([])
  })

  test('standard input of a command', async () => {
    expect((await build('FROM base\nRUN cat <<A - <<B\na\nA\nb\nB\n')).output).toBe('b\n')
  })
})

describe('when it fails', () => {
  test('the error names the line, the command, the exit code and the last lines of its output', async () => {
    const dockerfile =
      'FROM base\nRUN true\n\nRUN echo first && \\\n    seq 30 && echo oh no >&2 && \\\n    exit 42\n'
    const error: unknown = await build(dockerfile).catch((thrown: unknown) => thrown)
    expect(error).toMatchObject({ code: 'RUN_FAILED', source: { line: 4 } })
    const { message, source } = error as { message: string; source: { frame: string } }
    expect(message).toContain('exit code: 42')
    expect(message).toContain('/bin/sh -c echo first')
    expect(message.split('\n').slice(-2)).toEqual(['  | 30', '  | oh no'])
    expect(source.frame).toContain('4 | RUN echo first && \\')
    expect(source.frame).toContain('^^^')
  })

  test('a command that is not there', async () => {
    await expect(build('FROM base\nRUN ["nosuch"]\n')).rejects.toMatchObject({
      code: 'COMMAND_NOT_FOUND',
      source: { line: 2 },
    })
  })

  test('an ACL that the kernel does not set on a lower layer: what to do instead', async () => {
    const failing = output('echo "setfacl: /d: Operation not supported" >&2; exit 1')
    await expect(failing).rejects.toMatchObject({
      code: 'RUN_FAILED',
      hint: expect.stringMatching(/chmod.*--driver copy/),
    })
  })

  test('a signal', async () => {
    await expect(output('kill -9 $$; sleep 5 & kill -TERM $!; wait $!')).rejects.toMatchObject({
      code: 'RUN_FAILED',
    })
  })

  test('the other stages stop, and say so', async () => {
    const built = shop.build(
      shop.context({
        Dockerfile:
          'FROM base AS slow\nRUN sleep 60\nFROM base AS bad\nRUN sleep 0.3; exit 1\nFROM base\nCOPY --from=slow /a /\nCOPY --from=bad /b /\n',
      }),
    )
    await expect(built).rejects.toMatchObject({ code: 'RUN_FAILED', source: { line: 4 } })
    expect(leftovers()).toEqual([])
  })

  test('over its memory limit: said as that, and nothing is left', async () => {
    const built = output('tail /dev/zero', { limits: { memoryBytes: 64 * 1024 * 1024 } })
    await expect(built).rejects.toMatchObject({ code: 'RUN_OUT_OF_MEMORY' })
    await expect(built).rejects.toThrow('exceeded its memory limit of 64 MiB')
    expect(leftovers()).toEqual([])
  })

  test('over its limit of processes', async () => {
    const built = output('for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; wait', { limits: { pids: 4 } })
    await expect(built).rejects.toThrow(/can't fork|Resource temporarily unavailable/)
  })

  test('interrupted: the reason comes through, nothing is left', async () => {
    const controller = new AbortController()
    const built = output('sleep 60', { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('enough')), 300)
    await expect(built).rejects.toThrow('enough')
    expect(leftovers()).toEqual([])
  })
})

describe('copying', () => {
  const files = {
    a: '1',
    'dir/b': '2',
    'dir/sub/c': '3',
    'x.txt': 'x',
    'y.txt': 'y',
    '.hidden': 'h',
    '.wh.passwd': '',
    'wh/.wh.group': '',
  }
  const listing = async (instructions: string): Promise<string[]> => {
    const dockerfile = `FROM base\n${instructions}\nRUN cd / && find out -exec stat -c '%n %a %u:%g' {} + | sort\n`
    const built = await shop.build(shop.context({ ...files, Dockerfile: dockerfile }))
    return built.output.trim().split('\n')
  }

  test('globs, owners by name, modes', async () => {
    expect(await listing('COPY --chown=ann:wheel --chmod=640 *.txt /out/')).toEqual([
      'out 755 1000:10',
      'out/x.txt 640 1000:10',
      'out/y.txt 640 1000:10',
    ])
    expect(await listing('COPY --chown=1234 --chmod=u+x,go-r a /out/deep/er')).toEqual([
      'out 755 1234:1234',
      'out/deep 755 1234:1234',
      'out/deep/er 700 1234:1234',
    ])
  })

  test('a pattern that matches nothing copies nothing, as in BuildKit', async () => {
    const lines = await listing(
      'COPY no*thing /out/never/\nCOPY a no*thing .no[n]e /out/\nCOPY no*thing /out/never/',
    )
    expect(lines).toEqual(['out 755 0:0', 'out/a 644 0:0'])
  })

  test('a directory’s contents, not the directory', async () => {
    expect((await listing('COPY dir /out')).map((line) => line.split(' ')[0])).toEqual([
      'out',
      'out/b',
      'out/sub',
      'out/sub/c',
    ])
  })

  test('through symbolic links of the image, never out of it', async () => {
    const built = await build(
      'FROM base\nRUN mkdir /real && ln -s ../../../../real /link && ln -s /etc/../../../real /abs\nCOPY <<X /link/in\nhere\nX\nCOPY <<Y /abs/\nthere\nY\nRUN cd /real && grep . *\n',
    )
    expect(built.output).toBe('Y:there\nin:here\n')
  })

  test('of a context that points outside: the link is copied, not what it leads to', async () => {
    const context = shop.context({ Dockerfile: 'FROM base\nCOPY d /out\nRUN readlink /out/l\n', 'd/f': '' })
    const { symlinkSync } = await import('node:fs')
    symlinkSync('/etc/shadow', `${context}/d/l`)
    expect((await shop.build(context)).output).toBe('/etc/shadow\n')
    symlinkSync('/etc/shadow', `${context}/evil`)
    const evil = shop.context({ Dockerfile: 'FROM base\nCOPY evil /out\n' })
    symlinkSync('/etc/shadow', `${evil}/evil`)
    await expect(shop.build(evil)).rejects.toMatchObject({ code: 'COPY_NOT_FOUND' })
  })

  test.each([
    ['COPY nothing /', 'COPY_NOT_FOUND'],
    ['COPY no/such/* /', 'COPY_NOT_FOUND'],
    ['COPY a x.txt /out', 'COPY_DESTINATION'],
    ['COPY ../../../etc/passwd /', 'COPY_NOT_FOUND'],
    ['COPY --from=nowhere a /', 'IMAGE_NOT_FOUND'],
    ['COPY --chown=nobody-here a /', 'USER_UNKNOWN'],
    ['COPY --chmod=9 a /', 'CHMOD_INVALID'],
    ['COPY a /etc/passwd/x', 'PATH_NOT_DIRECTORY'],
    ['COPY dir /bin/busybox', 'COPY_OVER_FILE'],
    ['COPY .wh.passwd /etc/', 'COPY_RESERVED_NAME'],
    ['COPY wh /etc', 'COPY_RESERVED_NAME'],
    ['COPY a /etc/.wh.passwd', 'COPY_RESERVED_NAME'],
    ['WORKDIR /.wh.etc', 'COPY_RESERVED_NAME'],
    [`WORKDIR /${'n'.repeat(256)}`, 'COPY_NAME_TOO_LONG'],
    ['COPY <<../../etc/x /d/\nx\n../../etc/x', 'HEREDOC_NAME'],
    ['RUN --mount=type=ssh true', 'UNSUPPORTED'],
  ])('refused by name: %s', async (instruction, code) => {
    const context = shop.context({ ...files, Dockerfile: `FROM base\n${instruction}\n` })
    await expect(shop.build(context)).rejects.toMatchObject({ code, source: { line: 2 } })
  })

  test('what an ignore file left out is named with its line', async () => {
    const context = shop.context({
      ...files,
      Dockerfile: 'FROM base\nCOPY x.txt /\n',
      '.dockerignore': '# none\n*.txt\n',
    })
    await expect(shop.build(context)).rejects.toMatchObject({
      hint: 'it is there, but left out by .dockerignore:2: *.txt',
    })
  })
})
