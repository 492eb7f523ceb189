/** Pipes (pipe(7)). Node's own `'pipe'` stdio is a socket pair, which cannot be opened again as `/dev/stdout`. */
import { check, declare } from './libc.ts'

const call = declare('int pipe2(void *, int)')

/** Both ends, close-on-exec. */
export function pipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const fds = new Int32Array(2)
  check(call(fds, 0o2000000), 'pipe2')
  return { readEnd: fds[0] ?? -1, writeEnd: fds[1] ?? -1 }
}
