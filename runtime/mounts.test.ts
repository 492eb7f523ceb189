/** Mounts that a caller asks for, against roots that do not want them. */
import { describe, expect, test } from '@jest/globals'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ContainerMount } from './spec.ts'
import { busyboxRoot, run, type TestRoot } from './testing.ts'

const names = (box: TestRoot): string[] => readdirSync(box.upper, { recursive: true }).map(String).toSorted()
const tmpfs = (target: string): ContainerMount => ({ kind: 'tmpfs', target, readOnly: false })
const file = (target: string, more: { mode?: number; uid?: number; gid?: number } = {}): ContainerMount => ({
  kind: 'file',
  content: Buffer.from('hush\n'),
  mode: 0o400,
  uid: 0,
  gid: 0,
  target,
  readOnly: true,
  ...more,
})

function hostDirectory(): Disposable & { readonly path: string; readonly fd: number } {
  const path = mkdtempSync(join(tmpdir(), 'tbuild-mounts-'))
  const fd = openSync(path, 'r')
  return {
    path,
    fd,
    [Symbol.dispose]: () => {
      closeSync(fd)
      rmSync(path, { recursive: true })
    },
  }
}

test('a directory of the host, a tmpfs and a file of memory: each is there, and none leaves a trace', async () => {
  using box = busyboxRoot()
  using host = hostDirectory()
  const { stdout } = await run(
    box.root,
    'touch /a/b/host/made; stat -c "%a %u %g" /run/secrets/it; cat /run/secrets/it; touch /t/x; df -k /t | tail -1 | awk "{print \\$2}"',
    {
      mounts: [
        { kind: 'host', fd: host.fd, target: '/a/b/host', readOnly: false },
        { kind: 'tmpfs', target: '/t', readOnly: false, sizeBytes: 1 << 20 },
        file('/run/secrets/it', { mode: 0o640, uid: 7, gid: 8 }),
      ],
    },
  )
  expect(stdout).toBe('640 7 8\nhush\n1024\n')
  expect(readdirSync(host.path)).toEqual(['made'])
  expect(names(box)).toEqual([])
})

test('read-only is read-only, for root too; and no device opens', async () => {
  using box = busyboxRoot()
  using host = hostDirectory()
  const { stdout } = await run(
    box.root,
    'touch /ro/x 2>/dev/null || echo refused; echo x >/s 2>/dev/null || echo refused; mknod /rw/null c 1 3; cat /rw/null 2>/dev/null || echo refused',
    {
      mounts: [
        { kind: 'host', fd: host.fd, target: '/ro', readOnly: true },
        { kind: 'host', fd: host.fd, target: '/rw', readOnly: false },
        file('/s'),
      ],
    },
  )
  expect(stdout).toBe('refused\nrefused\nrefused\n')
})

test('a mount in a mount, also in one of the host: nothing of it shows on the host', async () => {
  using box = busyboxRoot()
  using host = hostDirectory()
  const { stdout } = await run(box.root, 'touch /h/in/x; ls /h /h/in', {
    mounts: [{ kind: 'host', fd: host.fd, target: '/h', readOnly: false }, tmpfs('/h/in')],
  })
  expect(stdout).toBe('/h:\nin\n\n/h/in:\nx\n')
  expect(readdirSync(join(host.path, 'in'))).toEqual([])
  expect(names(box)).toEqual([])
})

describe('hostile targets', () => {
  test('symlinks of the image lead nowhere but inside', async () => {
    using outside = hostDirectory()
    using box = busyboxRoot((lower) => {
      symlinkSync(outside.path, join(lower, 'out'))
      symlinkSync('../../../../..', join(lower, 'up'))
    })
    const { stdout } = await run(box.root, `ls -d ${outside.path}/x /etcetera`, {
      mounts: [tmpfs('/out/x'), tmpfs('/up/etcetera')],
    })
    expect(stdout).toBe(`/etcetera\n${outside.path}/x\n`)
    expect(readdirSync(outside.path)).toEqual([])
    expect(existsSync('/etcetera')).toBe(false)
  })

  test.each([
    ['the root', '/', /it is the root itself/],
    ['the root, by a symlink', '/to-root', /it is the root itself/],
    ['/proc', '/proc/self', /\/proc is the container's own/],
    ['/proc, by a symlink', '/to-proc/sys', /\/proc is the container's own/],
    ['/sys', '/sys', /\/sys is the container's own/],
    ['/dev', '/dev/null', /\/dev is the container's own/],
    ['a loop', '/loop/x', /too many symbolic links/],
    ['below a file', '/bin/busybox/x', /below a file|below one/],
    ['a directory on a file', '/bin/busybox', /directory cannot be mounted on a file/],
  ])('%s is refused', async (_, target, message) => {
    using box = busyboxRoot((lower) => {
      symlinkSync('/', join(lower, 'to-root'))
      symlinkSync('/proc', join(lower, 'to-proc'))
      symlinkSync('loop', join(lower, 'loop'))
    })
    await expect(run(box.root, 'true', { mounts: [tmpfs(target)] })).rejects.toThrow(message)
    expect(names(box)).toEqual([])
  })

  test('a file on a directory', async () => {
    using box = busyboxRoot((lower) => mkdirSync(join(lower, 'd')))
    await expect(run(box.root, 'true', { mounts: [file('/d')] })).rejects.toThrow(
      /file cannot be mounted on a directory/,
    )
  })

  test('a symlink in what is mounted, on the way to another target', async () => {
    using box = busyboxRoot()
    using host = hostDirectory()
    symlinkSync('/bin', join(host.path, 'link'))
    const mounts: ContainerMount[] = [{ kind: 'host', fd: host.fd, target: '/h', readOnly: false }]
    for (const target of ['/h/link', '/h/link/x']) {
      await expect(run(box.root, 'true', { mounts: [...mounts, tmpfs(target)] })).rejects.toThrow(
        /symbolic link in another mount/,
      )
    }
  })
})

test('/dev/shm can be replaced', async () => {
  using box = busyboxRoot()
  const { stdout } = await run(box.root, 'df -k /dev/shm | tail -1 | awk "{print \\$2}"', {
    mounts: [{ kind: 'tmpfs', target: '/dev/shm', readOnly: false, sizeBytes: 128 << 20 }],
  })
  expect(stdout).toBe('131072\n')
})

test('what the command does beside a target stays', async () => {
  using box = busyboxRoot((lower) => writeFileSync(join(lower, 'there'), 'x'))
  await run(box.root, 'touch /made/beside', { mounts: [tmpfs('/made/target')] })
  expect(names(box)).toEqual(['made', 'made/beside'])
})
