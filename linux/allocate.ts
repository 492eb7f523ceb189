/** Disk blocks of files: fallocate(2). */
import { check, declare } from './libc.ts'

const FALLOC_FL_KEEP_SIZE = 0x01
const FALLOC_FL_PUNCH_HOLE = 0x02

const call = declare('int fallocate(int, int, int64_t, int64_t)')

/**
 * Frees the blocks of `length` bytes from `offset` on; they read as zeros, and the file's size stays. What covers a block only in part is zeroed, not
 * freed. Throws `EOPNOTSUPP` where the file system cannot.
 */
export function punchHole(fd: number, offset: number, length: number): void {
  check(call(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length), 'fallocate')
}
