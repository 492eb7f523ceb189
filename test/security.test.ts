/** What a RUN can see and do. */
import { beforeAll, afterAll, describe, expect, test } from '@jest/globals'
import { chmodSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { busyboxRoot, run, type TestRoot } from '../runtime/testing.ts'

let box: TestRoot
beforeAll(() => {
  box = busyboxRoot()
})
afterAll(() => box[Symbol.dispose]())

const output = async (command: string): Promise<string> => (await run(box.root, command)).stdout
const status = async (field: string, user = ''): Promise<string> => {
  const { stdout } = await run(box.root, ['grep', '-w', field, '/proc/self/status'], { user })
  return stdout.replace(/^\w+:\t/, '').trim()
}

describe('what it sees', () => {
  test('it is PID 1', async () => expect(await output('echo $$')).toBe('1\n'))

  test('only its own processes', async () => {
    expect(
      await output("ls /proc | grep -E '^[0-9]+$' | head -1; sleep 0 & wait; cd /proc; echo [0-9]*"),
    ).toMatch(/^1\n1( \d)?\n$/)
  })

  test('a host name of its own', async () => {
    expect(await output('hostname; cat /etc/hostname')).toBe('box\nbox\n')
    expect(hostname()).not.toBe('box')
  })

  test('no mount of the host, and no path of the host in its mount table', async () => {
    const lines = (await output('cat /proc/self/mountinfo')).trim().split('\n')
    const types = lines.map((line) => line.split(' - ')[1]?.split(' ')[0])
    // With cgroup v2 its own cgroup is there too, read-only, as in docker.
    const own = new Set(types.filter((type) => type !== 'cgroup2'))
    expect(own).toEqual(new Set(['devpts', 'mqueue', 'overlay', 'proc', 'sysfs', 'tmpfs']))
    for (const line of lines) expect(line).not.toMatch(/\/tmp\/|\/var\/|\/root|\/home|ext4|xfs|btrfs/)
  })

  test('its cgroup is the root of its view', async () => {
    for (const line of (await output('cat /proc/self/cgroup')).trim().split('\n'))
      expect(line).toMatch(/:\/$/)
  })

  test('no descriptor but its stdio', async () => {
    // 3 is the directory that ls itself reads.
    expect(await output('ls /proc/self/fd')).toBe('0\n1\n2\n3\n')
    // Counted here: in a pipeline ls can see the shell's own pipe.
    expect((await output('ls -l /proc/1/fd')).match(/pipe:/g)).toHaveLength(2)
  })

  test('no environment of ours', async () =>
    expect(await output('env -u PWD -u SHLVL env')).toBe('PATH=/bin\n'))

  test('kernel files are masked', async () => {
    const masked =
      '/proc/kcore /proc/keys /proc/timer_list /proc/latency_stats /proc/sched_debug /proc/interrupts'
    expect(
      await output(
        `for f in ${masked}; do [ -e $f ] && wc -c < $f; done; ls /sys/firmware /proc/acpi /proc/scsi 2>/dev/null | grep -v :`,
      ),
    ).toMatch(/^(0\n|\n)+$/)
  })
})

describe('what it may do', () => {
  test('exactly the 14 default capabilities', async () => {
    expect(await status('CapEff')).toBe('00000000a80425fb')
    expect(await status('CapPrm')).toBe('00000000a80425fb')
    expect(await status('CapBnd')).toBe('00000000a80425fb')
    expect(await status('CapInh')).toBe('0000000000000000')
    expect(await status('CapAmb')).toBe('0000000000000000')
  })

  test('none of them for another user', async () => {
    expect(await status('CapEff', '1000')).toBe('0000000000000000')
    expect(await status('CapPrm', '1000')).toBe('0000000000000000')
    expect(await status('CapBnd', '1000')).toBe('00000000a80425fb')
  })

  test('filtered, without new privileges', async () => {
    expect(await status('Seccomp')).toBe('2')
    expect(await status('NoNewPrivs')).toBe('1')
  })

  test('default signals, umask 022', async () => {
    for (const field of ['SigBlk', 'SigIgn']) expect(await status(field)).toBe('0000000000000000')
    expect(await output('umask')).toBe('0022\n')
  })

  const refused = [
    ['mount', 'mount -t tmpfs none /bin'],
    ['umount a mask', 'umount /proc/keys'],
    ['remount /sys', 'mount -o remount,rw /sys'],
    ['write /proc/sys', 'echo x > /proc/sys/kernel/hostname'],
    ['write sysrq', 'echo h > /proc/sysrq-trigger'],
    ['write /sys', 'echo 1 > /sys/kernel/profiling'],
    ['a cgroup', 'mkdir /sys/fs/cgroup/x'],
    ['unshare', 'unshare -m true'],
    ['a user namespace', 'unshare -U true'],
    ['hostname', 'hostname other'],
    ['the kernel log', 'dmesg'],
    ['write what is mounted on /etc', 'echo x > /etc/hosts'],
    ['a disk through a node of its own', 'mknod /disk b 254 0 && cat /disk'],
    ['a disk through a node in /dev', 'mknod /dev/disk b 254 0 && cat /dev/disk'],
    ['memory through a node in /dev/shm', 'mknod /dev/shm/mem c 1 1 && cat /dev/shm/mem'],
  ] as const
  test.each(refused)('refused: %s', async (_, command) => {
    const outcome = await run(box.root, command)
    expect(outcome.exitCode).not.toBe(0)
    expect(outcome.stderr).toMatch(/denied|not permitted|[Rr]ead-only|nonexistent/)
  })

  test('the usual devices work', async () => {
    const script = `echo x > /dev/null; head -c4 /dev/zero | wc -c; head -c4 /dev/urandom | wc -c; echo x > /dev/full;
      echo out > /dev/stdout; echo err > /dev/stderr; touch /dev/shm/x /dev/mqueue/.. && ls /dev/pts /dev/mqueue`
    const { stdout, stderr } = await run(box.root, script)
    expect(stdout).toBe('4\n4\nout\n/dev/mqueue:\n\n/dev/pts:\nptmx\n')
    expect(stderr).toMatch(/No space left[^]*err\n/)
  })

  test('/dev/stdout opens for a user who is not root', async () => {
    expect((await run(box.root, 'echo out > /dev/stdout', { user: '1000' })).stdout).toBe('out\n')
  })
})

/** Run a command in a root that `prepare` has changed. */
const attempt = async (
  prepare: (lower: string) => void,
  command = 'true',
  more: Parameters<typeof run>[2] = {},
) => {
  using root = busyboxRoot(prepare)
  return await run(root.root, command, more)
}

describe('hostile images', () => {
  for (const name of ['proc', 'sys', 'dev']) {
    test(`/${name} is a symlink`, async () => {
      const outcome = attempt((lower) => symlinkSync('/etc', `${lower}/${name}`))
      await expect(outcome).rejects.toMatchObject({ code: 'ROOT_INVALID' })
    })
    test(`/${name} is a file`, async () => {
      await expect(attempt((lower) => writeFileSync(`${lower}/${name}`, ''))).rejects.toMatchObject({
        code: 'ROOT_INVALID',
      })
    })
  }

  test('/etc leads out of the root', async () => {
    const before = readFileSync('/etc/hostname', 'utf8')
    const { stdout } = await attempt(
      (lower) => symlinkSync('../../../../etc', `${lower}/etc`),
      'cat /etc/hostname',
    ).catch((error: Error) => ({ stdout: error.message }))
    expect(stdout).toMatch(/box|symbolic link/)
    expect(readFileSync('/etc/hostname', 'utf8')).toBe(before)
  })

  test('/etc/resolv.conf leads to a file of the host', async () => {
    const victim = `/tmp/tbuild-victim-${process.pid}`
    const { exitCode } = await attempt((lower) => {
      mkdirSync(`${lower}/etc`)
      symlinkSync(`../../../../../..${victim}`, `${lower}/etc/resolv.conf`)
    }, 'test -s /etc/resolv.conf; test -e /etc/hosts')
    expect(exitCode).toBe(0)
    expect(existsSync(victim)).toBe(false)
  })

  test('/etc/resolv.conf is a loop, a directory, a magic link', async () => {
    for (const make of [
      (path: string) => symlinkSync('resolv.conf', path),
      (path: string) => mkdirSync(path),
    ]) {
      const outcome = attempt((lower) => {
        mkdirSync(`${lower}/etc`)
        make(`${lower}/etc/resolv.conf`)
      })
      await expect(outcome).rejects.toMatchObject({ code: 'ROOT_INVALID' })
    }
    const magic = await attempt((lower) => {
      mkdirSync(`${lower}/etc`)
      symlinkSync('/proc/self/fd/4/x', `${lower}/etc/resolv.conf`)
    }, 'true')
    expect(magic.exitCode).toBe(0)
  })

  test('/etc/passwd is a fifo', async () => {
    const { execFileSync } = await import('node:child_process')
    const outcome = attempt((lower) => {
      mkdirSync(`${lower}/etc`)
      execFileSync('mkfifo', [`${lower}/etc/passwd`])
    })
    await expect(outcome).rejects.toMatchObject({ code: 'USER_DATABASE_INVALID' })
  })

  test('/etc/passwd is a terabyte', async () => {
    const { truncateSync } = await import('node:fs')
    const outcome = attempt((lower) => {
      mkdirSync(`${lower}/etc`)
      writeFileSync(`${lower}/etc/passwd`, '')
      truncateSync(`${lower}/etc/passwd`, 2 ** 40)
    })
    await expect(outcome).rejects.toMatchObject({ code: 'USER_DATABASE_INVALID' })
  })

  test.each(['/proc/self/fd/3', '/proc/self/fd/4', '/proc/self/fd/5', '/proc/self/fd/8'])(
    'the working directory is %s, a descriptor of the host',
    async (cwd) => {
      await expect(attempt(() => {}, 'pwd', { cwd })).rejects.toMatchObject({ code: 'CWD_MISSING' })
    },
  )

  test('the command’s interpreter is /proc/self/exe: the launcher cannot be written', async () => {
    const { stdout, exitCode } = await attempt((lower) => {
      writeFileSync(`${lower}/evil`, '#!/proc/self/exe\n')
      chmodSync(`${lower}/evil`, 0o755)
    }, '/evil; ls -l /proc/self/exe')
    expect(exitCode).toBe(0)
    expect(stdout).toContain('/bin/busybox')
  })

  test('a directory removed by the command is not in our way', async () => {
    expect((await attempt(() => {}, 'cd /; mv /etc /elsewhere; ls /elsewhere')).exitCode).toBe(0)
  })
})

test('cleaning up after a root leaves no directory', () => {
  const root = busyboxRoot()
  root[Symbol.dispose]()
  expect(existsSync(root.lower)).toBe(false)
  rmSync(root.lower, { recursive: true, force: true })
})
