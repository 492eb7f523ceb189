/** Disk blocks of files: fallocate(2), copy_file_range(2). */
import { SysError } from './errors.ts'
import { check, declare, errno } from './libc.ts'

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

const callCopy = declare('intptr_t copy_file_range(int, void *, int, void *, size_t, unsigned int)')

/**
 * Copies `length` bytes, which are there, from `offset` to the same place in another file of the file system. Where it can let files share blocks (XFS, btrfs),
 * they do, and nothing is written.
 */
export function copyRange(from: number, to: number, offset: number, length: number): void {
  // The kernel moves both on.
  const source = new BigInt64Array([BigInt(offset)])
  const target = new BigInt64Array([BigInt(offset)])
  for (let rest = length; rest > 0;) {
    const copied = callCopy(from, source, to, target, rest, 0)
    if (copied < 0) throw new SysError('copy_file_range', errno())
    if (copied === 0) throw new SysError('copy_file_range', ENODATA, 'the file became shorter')
    rest -= copied
  }
}

const ENODATA = 61
