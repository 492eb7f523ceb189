/** Files by descriptor and name: what `node:fs` cannot say. */
import { check, cstring, declare, declareAsync, declareSyscall, errno, type Path } from './libc.ts'
import { SysError } from './errors.ts'

export const O_PATH = 0o10000000
// openat2(2)
export const RESOLVE_NO_XDEV = 0x01
export const RESOLVE_NO_MAGICLINKS = 0x02
export const RESOLVE_NO_SYMLINKS = 0x04
export const RESOLVE_BENEATH = 0x08
export const RESOLVE_IN_ROOT = 0x10
// renameat2(2)
export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

export interface OpenHow {
  readonly flags: number
  readonly mode?: number
  /** `RESOLVE_*` bits. */
  readonly resolve?: number
}

const callOpenat2 = declareSyscall(437, ['int', 'const void *', 'const void *', 'size_t'])

/** openat2(2); O_CLOEXEC is always set. The kernel's EAGAIN (a rename raced with the walk) is retried. */
export function openat2(dirfd: number, path: Path, how: OpenHow): number {
  const name = cstring(path)
  const struct = new BigUint64Array([
    BigInt(how.flags | 0o2000000),
    BigInt(how.mode ?? 0),
    BigInt(how.resolve ?? 0),
  ])
  for (let tries = 0; ; tries++) {
    const fd = callOpenat2(dirfd, name, struct, 24)
    if (fd >= 0) return fd
    if (errno() !== 11 || tries === 32) throw new SysError('openat2', errno(), String(path))
  }
}

const callMkdirat = declare('int mkdirat(int, const void *, unsigned int)')
export function mkdirat(dirfd: number, path: Path, mode: number): void {
  check(callMkdirat(dirfd, cstring(path), mode), 'mkdirat', path)
}

const callMknodat = declare('int mknodat(int, const void *, unsigned int, uint64_t)')
/** mknod(2): `mode` holds the type (S_IFCHR, S_IFBLK, S_IFIFO, S_IFREG) and the permissions, less the umask. */
export function mknodat(dirfd: number, path: Path, mode: number, device = 0n): void {
  check(callMknodat(dirfd, cstring(path), mode, device), 'mknodat', path)
}

/** A device number in the form of glibc's makedev(3), which is what stat(2) gives too. */
export function makedev(major: number, minor: number): bigint {
  const [a, b] = [BigInt(major), BigInt(minor)]
  return ((a & 0xfffff000n) << 32n) | ((a & 0xfffn) << 8n) | ((b & 0xffffff00n) << 12n) | (b & 0xffn)
}

const callUnlinkat = declare('int unlinkat(int, const void *, int)')
export function unlinkat(dirfd: number, path: Path, options: { readonly directory?: boolean } = {}): void {
  check(callUnlinkat(dirfd, cstring(path), options.directory === true ? 0x200 : 0), 'unlinkat', path)
}

const callSymlinkat = declare('int symlinkat(const void *, int, const void *)')
export function symlinkat(target: Path, dirfd: number, path: Path): void {
  check(callSymlinkat(cstring(target), dirfd, cstring(path)), 'symlinkat', path)
}

const callReadlinkat = declare('intptr_t readlinkat(int, const void *, void *, size_t)')
/** The target's bytes; `path` may be empty for a descriptor opened on the link itself with O_PATH. */
export function readlinkat(dirfd: number, path: Path): Buffer {
  const out = Buffer.alloc(4096)
  return out.subarray(0, check(callReadlinkat(dirfd, cstring(path), out, out.length), 'readlinkat', path))
}

const callRenameat2 = declare('int renameat2(int, const void *, int, const void *, unsigned int)')
export function renameat2(from: number, oldPath: Path, to: number, newPath: Path, flags = 0): void {
  check(callRenameat2(from, cstring(oldPath), to, cstring(newPath), flags), 'renameat2', newPath)
}

const callUtimensat = declare('int utimensat(int, const void *, const void *, int)')
/**
 * Access and modification time in nanoseconds since 1970, of the name itself (a symlink is not followed). An access
 * time of `undefined` is left alone.
 */
export function setTimes(dirfd: number, path: Path, times: { atime?: bigint; mtime: bigint }): void {
  const UTIME_OMIT = (1n << 30n) - 2n
  const billion = 1_000_000_000n
  const split = (ns: bigint): [bigint, bigint] => {
    const rest = ((ns % billion) + billion) % billion
    return [(ns - rest) / billion, rest]
  }
  const struct = new BigInt64Array([
    ...(times.atime === undefined ? [0n, UTIME_OMIT] : split(times.atime)),
    ...split(times.mtime),
  ])
  check(callUtimensat(dirfd, cstring(path), struct, 0x100), 'utimensat', path)
}

const callSyncfs = declareAsync('int syncfs(int)')
/** syncfs(2): all of the file system is durable when it resolves. Errors since `fd` was opened are told, too (kernel 5.8). */
export async function syncFileSystem(fd: number): Promise<void> {
  const result = await callSyncfs(fd)
  if (result < 0) throw new SysError('syncfs', -result)
}

const callLseek = declare('int64_t lseek(int, int64_t, int)')
function seek(fd: number, offset: number, whence: number): number | undefined {
  const at = callLseek(fd, offset, whence)
  if (at >= 0) return at
  if (errno() === 6) return undefined
  throw new SysError('lseek', errno())
}

/** Start of the next data at or after `offset` (SEEK_DATA), or `undefined` when only a hole follows. */
export function nextData(fd: number, offset: number): number | undefined {
  return seek(fd, offset, 3)
}

/** Start of the next hole at or after `offset` (SEEK_HOLE); the file's end counts as one. */
export function nextHole(fd: number, offset: number): number | undefined {
  return seek(fd, offset, 4)
}
