/** Errors of system calls, with the errno by name (errno(3)). */
import { constants } from 'node:os'
import { TbuildError } from '../errors.ts'

const names = new Map<number, string>()
for (const [name, number] of Object.entries(constants.errno)) {
  if (!names.has(number)) names.set(number, name)
}
// Aliases share a number; these are the names that strerrorname_np(3) gives.
names.set(constants.errno.EAGAIN, 'EAGAIN')
names.set(constants.errno.EOPNOTSUPP, 'EOPNOTSUPP')
// Of these Node knows nothing.
names.set(15, 'ENOTBLK')
names.set(117, 'EUCLEAN')

export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`
}

/** A system call that failed. `code` is the errno's name, as in Node's own errors, so that callers test one field. */
export class SysError extends TbuildError {
  override readonly name = 'SysError'
  readonly errno: number
  readonly syscall: string

  constructor(syscall: string, errno: number, subject?: string) {
    const code = errnoName(errno)
    super(code, `${syscall}${subject === undefined ? '' : ` ${subject}`}: ${code}`)
    this.errno = errno
    this.syscall = syscall
  }
}

/**
 * Is this an error (ours or Node's) with one of these errno names? By its shape: under jest an error of `node:fs` is made in
 * another realm, where `instanceof Error` is false.
 */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code))
}
