import { execFileSync } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import {
  AT_FDCWD,
  fileSystemUuid,
  mountErofs,
  mountOverlay,
  mountTmpfs,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  moveMount,
  openTree,
  setMountAttributes,
  SysError,
} from './index.ts'
import { scratch, type Scratch } from './testing.ts'

const withCode = (code: string): unknown => expect.objectContaining({ code })
const [major = 0, minor = 0] = release().split('.').map(Number)
/** Of kernel 6. */
const since = (least: number): boolean => major > 6 || (major === 6 && minor >= least)
const byDescriptor = since(13)
const mountTable = (): string => readFileSync('/proc/self/mountinfo', 'utf8')

/** A directory that holds files of these names, whose contents are its own name; open, for the caller to close. */
function directory(base: Scratch, name: string, files: readonly string[] = []): number {
  const path = join(base.path, name)
  mkdirSync(path)
  for (const file of files) writeFileSync(join(path, file), name)
  return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
}

/** What stands in a mount, `name=contents`. */
function listing(mount: number): string[] {
  const path = `/proc/self/fd/${mount}`
  return readdirSync(`${path}/.`).map((name) => `${name}=${readFileSync(`${path}/${name}`, 'utf8')}`)
}

function close(...fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd)
}

/** How many files an overlay of these shows, or its error's code. */
function filesOf(lowers: readonly number[]): number | string | undefined {
  try {
    const mount = mountOverlay({ lowers })
    const { length } = readdirSync(`/proc/self/fd/${mount}/.`)
    close(mount)
    return length
  } catch (error) {
    if (error instanceof SysError) return error.code
    throw error
  }
}

describe('an overlay by descriptors', () => {
  test('the topmost lower first, the upper over all; it stands in no mount table', () => {
    using base = scratch()
    const [top, bottom] = [directory(base, 'top', ['a', 'b']), directory(base, 'bottom', ['b', 'c'])]
    const [upper, work] = [directory(base, 'upper', ['a']), directory(base, 'work')]
    const mount = mountOverlay({ lowers: [top, bottom], upper: { upper, work } })
    close(top, bottom, upper, work)
    expect(listing(mount)).toEqual(['a=upper', 'b=top', 'c=bottom'])
    expect(mountTable()).not.toContain(' - overlay tbuild ')
    close(mount)
  })

  test('writes and deletions go into the upper and leave the lower alone', () => {
    using base = scratch()
    const [lower, upper, work] = [
      directory(base, 'lower', ['a', 'b']),
      directory(base, 'upper'),
      directory(base, 'work'),
    ]
    const mount = mountOverlay({ lowers: [lower], upper: { upper, work } })
    writeFileSync(`/proc/self/fd/${mount}/a`, 'changed')
    rmSync(`/proc/self/fd/${mount}/b`)
    expect(listing(mount)).toEqual(['a=changed'])
    expect(listing(lower)).toEqual(['a=lower', 'b=lower'])
    expect(statSync(join(base.path, 'upper/b')).isCharacterDevice()).toBe(true)
    close(mount, lower, upper, work)
  })

  test('directories whose names no option string could hold', () => {
    using base = scratch()
    const names = ['a:b', 'a,b', 'a\\b', ' ', 'n'.repeat(255)]
    const lowers = names.map((name, i) => directory(base, name, [`${i}`]))
    const mount = mountOverlay({ lowers })
    expect(readdirSync(`/proc/self/fd/${mount}/.`)).toEqual(['0', '1', '2', '3', '4'])
    close(mount, ...lowers)
  })

  test('without an upper it is read-only', () => {
    using base = scratch()
    const lowers = [directory(base, 'top', ['a']), directory(base, 'bottom', ['b'])]
    const mount = mountOverlay({ lowers })
    expect(() => writeFileSync(`/proc/self/fd/${mount}/c`, '')).toThrow(withCode('EROFS'))
    close(mount, ...lowers)
  })

  // By name, an option's value holds 128.
  test.each([
    [128, 128],
    [129, byDescriptor ? 129 : 'E2BIG'],
    [200, byDescriptor ? 200 : 'E2BIG'],
  ])('%i layers: %s', (count, expected) => {
    using base = scratch()
    const lowers = Array.from({ length: count }, (_, i) => directory(base, `${i}`, [`${i}`]))
    expect(filesOf(lowers)).toBe(expected)
    close(...lowers)
  })

  test('the last descriptor unmounts: the work directory can serve again at once', () => {
    using base = scratch()
    const [lower, upper, work] = [directory(base, 'lower'), directory(base, 'upper'), directory(base, 'work')]
    for (let i = 0; i < 3; i++) {
      const mount = mountOverlay({ lowers: [lower], upper: { upper, work } })
      writeFileSync(`/proc/self/fd/${mount}/${i}`, '')
      close(mount)
      // What a volatile mount leaves behind to say that it was one.
      rmSync(join(base.path, 'work/work'), { recursive: true, force: true })
    }
    expect(readdirSync(join(base.path, 'upper')).toSorted()).toEqual(['0', '1', '2'])
    close(lower, upper, work)
  })

  test('a lower that is a file, or no descriptor; the working directory stays', () => {
    using base = scratch()
    writeFileSync(join(base.path, 'f'), '')
    const [file, lower] = [openSync(join(base.path, 'f'), 'r'), directory(base, 'lower')]
    const before = process.cwd()
    for (const lowers of [
      [lower, file],
      [file, lower],
    ]) {
      expect(() => mountOverlay({ lowers })).toThrow(withCode('EINVAL'))
    }
    expect(() => mountOverlay({ lowers: [lower, 99_999] })).toThrow(withCode('EBADF'))
    expect(process.cwd()).toBe(before)
    close(file, lower)
  })
})

test('a tmpfs of the mode and size that were asked for', () => {
  const mount = mountTmpfs({ mode: '711', size: '64k' }, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
  expect(fstatSync(mount).mode & 0o7777).toBe(0o711)
  const path = `/proc/self/fd/${mount}/f`
  expect(() => writeFileSync(path, Buffer.alloc(100_000))).toThrow(withCode('ENOSPC'))
  expect(() => mountTmpfs({ nonsense: '1' })).toThrow(withCode('EINVAL'))
  close(mount)
})

test('a mount made read-only and without execution', () => {
  const mount = mountTmpfs({})
  const path = `/proc/self/fd/${mount}/script`
  writeFileSync(path, '#!/bin/sh\n', { mode: 0o755 })
  setMountAttributes(mount, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC)
  expect(() => writeFileSync(path, '')).toThrow(withCode('EROFS'))
  expect(() => execFileSync(path.replace('self', String(process.pid)))).toThrow(withCode('EACCES'))
  close(mount)
})

test('a clone of a tree is a mount of its own', () => {
  using base = scratch()
  writeFileSync(join(base.path, 'f'), 'x')
  const clone = openTree(AT_FDCWD, base.path, { clone: true })
  setMountAttributes(clone, MOUNT_ATTR_RDONLY)
  expect(() => writeFileSync(`/proc/self/fd/${clone}/f`, '')).toThrow(withCode('EROFS'))
  writeFileSync(join(base.path, 'f'), 'y')
  expect(listing(clone)).toEqual(['f=y'])
  close(clone)
  expect(() => openTree(AT_FDCWD, join(base.path, 'gone'))).toThrow(withCode('ENOENT'))
})

test('a detached mount can be given a place', () => {
  using base = scratch()
  const place = join(base.path, 'place')
  mkdirSync(place)
  const mount = mountTmpfs({})
  moveMount(mount, place)
  close(mount)
  try {
    writeFileSync(join(place, 'f'), 'x')
    expect(mountTable()).toContain(` ${place} `)
  } finally {
    execFileSync('umount', [place])
  }
  expect(existsSync(join(place, 'f'))).toBe(false)
})

// What is in an image, and that its UUID is the mount's: cas/erofs.
test('a file that is no EROFS image, and one where none can be mounted, are refused; no descriptor is left', () => {
  using base = scratch()
  const tmpfs = mountTmpfs({})
  const before = readdirSync('/proc/self/fd').length
  for (const [place, code] of [
    [base.path, 'EINVAL'],
    [`/proc/self/fd/${tmpfs}`, 'ENOTBLK'],
  ] as const) {
    writeFileSync(join(place, 'image'), Buffer.alloc(4096))
    const image = openSync(join(place, 'image'), 'r')
    expect(() => mountErofs(image, [])).toThrow(since(12) ? withCode(code) : SysError)
    close(image)
  }
  expect(readdirSync('/proc/self/fd')).toHaveLength(before)
  close(tmpfs)
})

test('file systems are told apart by their UUIDs; one that has none is no error', () => {
  const [one, other] = [mountTmpfs({}), mountTmpfs({})]
  const uuids = [one, one, other].map((mount) => fileSystemUuid(mount)?.toString('hex'))
  expect(uuids.map((uuid) => uuid?.length)).toEqual(
    since(9) ? [32, 32, 32] : [undefined, undefined, undefined],
  )
  expect(new Set(uuids).size).toBe(since(9) ? 2 : 1)
  const proc = openSync('/proc', 'r')
  expect(fileSystemUuid(proc)).toBeUndefined()
  close(proc, one, other)
})
