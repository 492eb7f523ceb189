/** Processes by descriptor (pidfd_open(2)): a pid can be reused, a descriptor cannot. */
import { check, declareSyscall } from './libc.ts'

const callOpen = declareSyscall(434, ['int', 'unsigned int'])
const callGetfd = declareSyscall(438, ['int', 'int', 'unsigned int'])
const callSignal = declareSyscall(424, ['int', 'int', 'const void *', 'unsigned int'])

export function pidfdOpen(pid: number): number {
  return check(callOpen(pid, 0), 'pidfd_open', String(pid))
}

/** A duplicate of descriptor `fd` of that process. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return check(callGetfd(pidfd, fd, 0), 'pidfd_getfd', String(fd))
}

export function pidfdSendSignal(pidfd: number, signal: number): void {
  check(callSignal(pidfd, signal, null, 0), 'pidfd_send_signal', String(signal))
}
