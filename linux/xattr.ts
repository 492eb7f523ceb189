/**
 * Extended attributes (xattr(7)) of an open file, or of a name itself, symlinks not followed. To reach a file by descriptor and name, pass
 * `/proc/self/fd/N/name`, which takes longer than all else.
 */
import { check, cstring, declare, errno, type Path } from './libc.ts'
import { SysError } from './errors.ts'

const ENODATA = 61
const EOPNOTSUPP = 95

const callList = declare('intptr_t llistxattr(const void *, void *, size_t)')
const callListOpen = declare('intptr_t flistxattr(int, void *, size_t)')
const callGetOpen = declare('intptr_t fgetxattr(int, const char *, void *, size_t)')
const callGet = declare('intptr_t lgetxattr(const void *, const char *, void *, size_t)')
const callSet = declare('int lsetxattr(const void *, const char *, const void *, size_t, int)')
const callRemove = declare('int lremovexattr(const void *, const char *)')

// One buffer for all calls: most files have none or one, and a fresh 64 KiB for each would cost more than the call.
const scratch = Buffer.allocUnsafeSlow(65536)

/** Names, sorted; none where the file system has no attributes. */
export function listXattrs(file: Path | number): string[] {
  const size =
    typeof file === 'number'
      ? callListOpen(file, scratch, scratch.length)
      : callList(cstring(file), scratch, scratch.length)
  if (size === 0) return []
  if (size < 0) {
    if (errno() === EOPNOTSUPP) return []
    throw new SysError(typeof file === 'number' ? 'flistxattr' : 'llistxattr', errno(), String(file))
  }
  return scratch
    .toString('utf8', 0, size - 1)
    .split('\0')
    .toSorted()
}

/** The value, or `undefined` when there is no such attribute. */
export function getXattr(file: Path | number, name: string): Buffer | undefined {
  const size =
    typeof file === 'number'
      ? callGetOpen(file, name, scratch, scratch.length)
      : callGet(cstring(file), name, scratch, scratch.length)
  if (size >= 0) return Buffer.from(scratch.subarray(0, size))
  const code = errno()
  if (code === ENODATA || code === EOPNOTSUPP) return undefined
  throw new SysError(typeof file === 'number' ? 'fgetxattr' : 'lgetxattr', code, String(file))
}

export function setXattr(path: Path, name: string, value: Uint8Array): void {
  check(callSet(cstring(path), name, value, value.length, 0), 'lsetxattr', `${name} of ${String(path)}`)
}

export function removeXattr(path: Path, name: string): void {
  check(callRemove(cstring(path), name), 'lremovexattr', `${name} of ${String(path)}`)
}
