/** Advisory locks on open files (flock(2)): held by the open file description, freed by the kernel however we die. */
import { declare, declareAsync, errno } from './libc.ts'
import { SysError } from './errors.ts'

export type LockKind = 'shared' | 'exclusive' | 'unlock'

const operation = { shared: 1, exclusive: 2, unlock: 8 } as const
const LOCK_NB = 4
const EWOULDBLOCK = 11

const call = declare('int flock(int, int)')
const callBlocking = declareAsync('int flock(int, int)')

/** Take the lock if it is free; `false` when another holds it. */
export function flock(fd: number, kind: LockKind): boolean {
  if (call(fd, operation[kind] | LOCK_NB) === 0) return true
  if (errno() === EWOULDBLOCK) return false
  throw new SysError('flock', errno())
}

/** Wait for the lock, off the main thread. */
export async function flockWait(fd: number, kind: LockKind): Promise<void> {
  if (flock(fd, kind)) return
  for (;;) {
    const result = await callBlocking(fd, operation[kind])
    if (result === 0) return
    if (result !== -4) throw new SysError('flock', -result)
  }
}
