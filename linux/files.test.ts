import {
  closeSync,
  constants,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import {
  AT_FDCWD,
  makedev,
  mkdirat,
  mknodat,
  nextData,
  nextHole,
  O_PATH,
  openat2,
  pipe,
  readlinkat,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  renameat2,
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  setTimes,
  symlinkat,
  unlinkat,
} from './index.ts'
import { scratch } from './testing.ts'

const { O_RDONLY, O_DIRECTORY, O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW, S_IFCHR, S_IFIFO } = constants
const withCode = (code: string): unknown => expect.objectContaining({ code })

/** Runs with a directory that has `inside`, and symlinks in and out of it. */
function inRoot(work: (fd: number, path: string) => void): void {
  using base = scratch()
  const root = join(base.path, 'root')
  mkdirSync(root)
  writeFileSync(join(base.path, 'outside'), 'outside')
  writeFileSync(join(root, 'inside'), 'inside')
  symlinkSync('inside', join(root, 'in'))
  symlinkSync('../outside', join(root, 'up'))
  symlinkSync('/inside', join(root, 'absolute'))
  const fd = openSync(root, O_RDONLY | O_DIRECTORY)
  try {
    work(fd, root)
  } finally {
    closeSync(fd)
  }
}

function contentsOf(dirfd: number, path: string, resolve: number): string {
  const fd = openat2(dirfd, path, { flags: O_RDONLY, resolve })
  try {
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

describe('openat2', () => {
  test('beneath: nothing leads out, by .., by a symlink or from the root', () => {
    inRoot((fd) => {
      expect(contentsOf(fd, 'in', RESOLVE_BENEATH)).toBe('inside')
      for (const path of ['../outside', 'up', 'absolute', '/inside']) {
        expect(() => contentsOf(fd, path, RESOLVE_BENEATH)).toThrow(withCode('EXDEV'))
      }
    })
  })

  test('in root: .. and / stop there', () => {
    inRoot((fd) => {
      expect(contentsOf(fd, 'absolute', RESOLVE_IN_ROOT)).toBe('inside')
      expect(contentsOf(fd, '/../../inside', RESOLVE_IN_ROOT)).toBe('inside')
      expect(() => contentsOf(fd, 'up', RESOLVE_IN_ROOT)).toThrow(withCode('ENOENT'))
    })
  })

  test('no symlinks, no magic links, no other mounts', () => {
    inRoot((fd) => {
      expect(() => contentsOf(fd, 'in', RESOLVE_NO_SYMLINKS)).toThrow(withCode('ELOOP'))
      expect(contentsOf(fd, 'in', RESOLVE_NO_MAGICLINKS)).toBe('inside')
      expect(() => contentsOf(AT_FDCWD, `/proc/self/fd/${fd}/inside`, RESOLVE_NO_MAGICLINKS)).toThrow(
        withCode('ELOOP'),
      )
      expect(() => contentsOf(AT_FDCWD, '/proc/self/status', RESOLVE_NO_XDEV)).toThrow(withCode('EXDEV'))
    })
  })

  test('makes a file of the mode that is given, and closes on exec', () => {
    inRoot((dirfd, path) => {
      const flags = O_WRONLY | O_CREAT | O_EXCL
      const fd = openat2(dirfd, 'new', { flags, mode: 0o640 })
      expect(lstatSync(join(path, 'new')).mode & 0o777).toBe(0o640)
      const [, open] = /^flags:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? []
      expect(Number.parseInt(open ?? '', 8) & 0o2000000).toBe(0o2000000)
      closeSync(fd)
      expect(() => openat2(dirfd, 'new', { flags, mode: 0o640 })).toThrow(withCode('EEXIST'))
    })
  })

  test('a name that would be cut at its NUL is refused', () => {
    inRoot((fd) => expect(() => openat2(fd, 'inside\0x', { flags: O_RDONLY })).toThrow(withCode('EINVAL')))
  })
})

describe('names that are not UTF-8', () => {
  const name = Buffer.from('gr\xfc\xdf\xff', 'latin1')

  test('for every call that takes one', () => {
    using base = scratch()
    const dirfd = openSync(base.path, O_RDONLY | O_DIRECTORY)
    mkdirat(dirfd, name, 0o755)
    expect(readdirSync(base.path, 'latin1')).toEqual(['gr\xfc\xdf\xff'])
    setTimes(dirfd, name, { mtime: 5n })
    const fd = openat2(dirfd, name, { flags: O_DIRECTORY })
    symlinkat(name, fd, name)
    expect(readlinkat(fd, name)).toEqual(name)
    renameat2(fd, name, dirfd, 'link')
    unlinkat(dirfd, name, { directory: true })
    expect(readdirSync(base.path)).toEqual(['link'])
    closeSync(fd)
    closeSync(dirfd)
  })
})

describe('setTimes', () => {
  test.each([0n, 1n, 999_999_999n, 1_234_567_890_123_456_789n, -1n, -1_000_000_000n, -1_500_000_001n])(
    '%s ns',
    (mtime) => {
      using base = scratch()
      setTimes(AT_FDCWD, base.path, { mtime, atime: mtime + 7n })
      const stats = lstatSync(base.path, { bigint: true })
      expect([stats.mtimeNs, stats.atimeNs]).toEqual([mtime, mtime + 7n])
    },
  )

  test('of a symlink itself, and without a time of access that one stays', () => {
    using base = scratch()
    const [file, link] = [join(base.path, 'f'), join(base.path, 'l')]
    writeFileSync(file, '')
    symlinkSync('f', link)
    setTimes(AT_FDCWD, file, { mtime: 3n, atime: 4n })
    setTimes(AT_FDCWD, link, { mtime: 5n, atime: 6n })
    setTimes(AT_FDCWD, link, { mtime: 7n })
    const times = [file, link].map((path) => lstatSync(path, { bigint: true }))
    expect(times.map(({ mtimeNs, atimeNs }) => [mtimeNs, atimeNs])).toEqual([
      [3n, 4n],
      [7n, 6n],
    ])
  })
})

describe('nodes', () => {
  test.each([
    [0, 0],
    [1, 3],
    [259, 70_000],
    [4095, 1_048_575],
  ])('device %i:%i', (major, minor) => {
    using base = scratch()
    const path = join(base.path, 'd')
    mknodat(AT_FDCWD, path, S_IFCHR | 0o600, makedev(major, minor))
    const stats = lstatSync(path, { bigint: true })
    expect([stats.isCharacterDevice(), stats.rdev]).toEqual([true, makedev(major, minor)])
  })

  test('a fifo; the same name again is EEXIST', () => {
    using base = scratch()
    const path = join(base.path, 'p')
    mknodat(AT_FDCWD, path, S_IFIFO | 0o600)
    expect(lstatSync(path).isFIFO()).toBe(true)
    expect(() => mknodat(AT_FDCWD, path, S_IFIFO | 0o600)).toThrow(withCode('EEXIST'))
  })

  test('unlinkat wants to be told of a directory', () => {
    using base = scratch()
    const path = join(base.path, 'd')
    mkdirSync(path)
    expect(() => unlinkat(AT_FDCWD, path)).toThrow(withCode('EISDIR'))
    unlinkat(AT_FDCWD, path, { directory: true })
    expect(() => unlinkat(AT_FDCWD, path, { directory: true })).toThrow(withCode('ENOENT'))
  })

  test('renameat2 spares what is there, or exchanges it', () => {
    using base = scratch()
    const [a, b] = ['a', 'b'].map((name) => join(base.path, name)) as [string, string]
    writeFileSync(a, 'a')
    writeFileSync(b, 'b')
    expect(() => renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE)).toThrow(withCode('EEXIST'))
    renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE)
    expect([readFileSync(a, 'utf8'), readFileSync(b, 'utf8')]).toEqual(['b', 'a'])
  })

  test("readlinkat of a link's own descriptor, and of the longest target", () => {
    using base = scratch()
    const path = join(base.path, 'l')
    const target = 't'.repeat(4095)
    symlinkat(target, AT_FDCWD, path)
    const fd = openat2(AT_FDCWD, path, { flags: O_PATH | O_NOFOLLOW })
    expect(readlinkat(fd, '').toString()).toBe(target)
    expect(readlinkSync(path)).toBe(target)
    closeSync(fd)
  })
})

describe('holes', () => {
  test('data and holes beyond 4 GiB, and what follows the end', () => {
    using base = scratch()
    const fd = openSync(join(base.path, 'f'), 'w+')
    const far = 5 * 2 ** 30
    ftruncateSync(fd, far + 8192)
    writeSync(fd, Buffer.alloc(4096, 'x'), 0, 4096, 8192)
    writeSync(fd, Buffer.alloc(4096, 'x'), 0, 4096, far)
    expect([nextData(fd, 0), nextHole(fd, 8192), nextData(fd, 12_288), nextHole(fd, far)]).toEqual([
      8192,
      12_288,
      far,
      far + 4096,
    ])
    expect([nextData(fd, 10_000), nextHole(fd, 0)]).toEqual([10_000, 0])
    expect([
      nextData(fd, far + 4096),
      nextHole(fd, far + 4096),
      nextData(fd, far + 8192),
      nextHole(fd, far + 8192),
    ]).toEqual([undefined, far + 4096, undefined, undefined])
    closeSync(fd)
  })

  test('the end of a full file counts as a hole', () => {
    using base = scratch()
    writeFileSync(join(base.path, 'f'), 'abc')
    const fd = openSync(join(base.path, 'f'), 'r')
    expect([nextData(fd, 0), nextHole(fd, 0)]).toEqual([0, 3])
    closeSync(fd)
  })

  test('what cannot be sought in', () => {
    const { readEnd, writeEnd } = pipe()
    expect(() => nextData(readEnd, 0)).toThrow(withCode('ESPIPE'))
    closeSync(readEnd)
    closeSync(writeEnd)
  })
})
