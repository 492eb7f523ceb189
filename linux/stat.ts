/**
 * stat(2) of a name in a directory and of a descriptor, by statx(2): a third of the time of Node's, which reaches a directory's names by way of
 * `/proc/self/fd/N/name` and makes a dozen BigInts of each answer.
 */
import { cstring, declare, errno, type Path } from './libc.ts'
import { SysError } from './errors.ts'

export type FileType = 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo' | 'socket'

/** inode(7): the type in a mode's upper four bits. */
const TYPES: Readonly<Record<number, FileType>> = {
  0o01: 'fifo',
  0o02: 'char',
  0o04: 'directory',
  0o06: 'block',
  0o10: 'file',
  0o12: 'symlink',
  0o14: 'socket',
}

const ENOENT = 2
const ENOTDIR = 20
const AT_SYMLINK_NOFOLLOW = 0x100
const AT_EMPTY_PATH = 0x1000
const STATX_BASIC_STATS = 0x7ff
const BILLION = 1_000_000_000n

const callStatx = declare('int statx(int, const void *, int, unsigned int, void *)')
const answer = Buffer.alloc(256)
const fields = new DataView(answer.buffer, answer.byteOffset, answer.length)

/** What a file is. */
export class Stat {
  readonly type: FileType = TYPES[fields.getUint16(28, true) >> 12] ?? 'file'
  /** 07777. */
  readonly mode: number = fields.getUint16(28, true) & 0o7777
  readonly nlink: number = fields.getUint32(16, true)
  readonly uid: number = fields.getUint32(20, true)
  readonly gid: number = fields.getUint32(24, true)
  readonly ino: bigint = fields.getBigUint64(32, true)
  /** Bytes. */
  readonly size: number = Number(fields.getBigUint64(40, true))
  /** Of 512 bytes. */
  readonly blocks: number = Number(fields.getBigUint64(48, true))
  /** Nanoseconds since 1970. */
  readonly ctimeNs: bigint = timeAt(96)
  readonly mtimeNs: bigint = timeAt(112)
  /** Of a device file; 0 of others. */
  readonly major: number = this.#isDevice() ? fields.getUint32(128, true) : 0
  readonly minor: number = this.#isDevice() ? fields.getUint32(132, true) : 0
  /** The file system, as one number. */
  readonly dev: number = fields.getUint32(136, true) * 2 ** 20 + fields.getUint32(140, true)

  #isDevice(): boolean {
    return this.type === 'char' || this.type === 'block'
  }

  isFile(): boolean {
    return this.type === 'file'
  }
  isDirectory(): boolean {
    return this.type === 'directory'
  }
  isSymbolicLink(): boolean {
    return this.type === 'symlink'
  }
}

function timeAt(at: number): bigint {
  return fields.getBigInt64(at, true) * BILLION + BigInt(fields.getUint32(at + 8, true))
}

/** Of the name itself, not followed; `undefined` when it is not there. */
export function statAt(dirfd: number, name: Path): Stat | undefined {
  if (callStatx(dirfd, cstring(name), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, answer) === 0) return new Stat()
  const code = errno()
  if (code === ENOENT || code === ENOTDIR) return undefined
  throw new SysError('statx', code, String(name))
}

export function statOf(fd: number): Stat {
  if (callStatx(fd, '', AT_EMPTY_PATH, STATX_BASIC_STATS, answer) === 0) return new Stat()
  throw new SysError('statx', errno(), `descriptor ${fd}`)
}
