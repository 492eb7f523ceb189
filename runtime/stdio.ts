/** The container's stdin, stdout and stderr. */
import { closeSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { pipe } from '../linux/index.ts'
import type { ContainerSpec, Stdio } from './spec.ts'

type ChildStdio = 'ignore' | 'inherit' | number

export interface StdioEnds extends Disposable {
  /** For `spawn`. */
  readonly child: readonly [ChildStdio, ChildStdio, ChildStdio]
  /** This process's ends of the pipes. */
  readonly own: { stdin?: Writable; stdout?: Readable; stderr?: Readable }
  /** To be called once the child has them: a pipe ends when its last writer closes it. */
  closeChildEnds(): void
}

export function openStdio(wanted: ContainerSpec['stdio']): StdioEnds {
  const own: StdioEnds['own'] = {}
  let toClose: number[] = []
  const open = (name: 'stdin' | 'stdout' | 'stderr', how: Stdio): ChildStdio => {
    if (how !== 'pipe') return how
    const { readEnd, writeEnd } = pipe()
    const [ours, theirs] = name === 'stdin' ? [writeEnd, readEnd] : [readEnd, writeEnd]
    toClose.push(theirs)
    const socket = new Socket({ fd: ours, readable: name !== 'stdin', writable: name === 'stdin' })
    if (name === 'stdin') socket.on('error', () => {}) // EPIPE: the container does not read it
    own[name] = socket
    return theirs
  }
  const closeChildEnds = (): void => {
    for (const fd of toClose) closeSync(fd)
    toClose = []
  }
  return {
    child: [open('stdin', wanted.stdin), open('stdout', wanted.stdout), open('stderr', wanted.stderr)],
    own,
    closeChildEnds,
    [Symbol.dispose]: () => {
      closeChildEnds()
      for (const stream of Object.values(own)) (stream as Socket).destroy()
    },
  }
}
