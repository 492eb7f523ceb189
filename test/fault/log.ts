/** The tracer's log as operations. Paths are bytes as Latin-1 text, relative to the store, which is `.` itself. */
import { parseMarks, type Mark } from './facts.ts'

interface Attributes {
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** A file's inode number tells which file it is, also after its name has gone; it is used again when the file is gone. */
interface OnFile {
  readonly path: string
  readonly ino: number
}

export type Change =
  | ({ readonly name: 'create' | 'mkdir' | 'tmpfile' } & OnFile & Attributes)
  | ({ readonly name: 'symlink'; readonly target: string } & OnFile & Attributes)
  /** `mode` with the file's type. */
  | ({ readonly name: 'mknod'; readonly rdev: number } & OnFile & Attributes)
  | { readonly name: 'rename' | 'exchange'; readonly path: string; readonly to: string }
  | ({ readonly name: 'link' } & OnFile)
  | { readonly name: 'unlink' | 'rmdir'; readonly path: string }
  | ({ readonly name: 'write'; readonly offset: number; readonly data: Buffer } & OnFile)
  | ({ readonly name: 'truncate'; readonly size: number } & OnFile)
  | ({ readonly name: 'punch'; readonly offset: number; readonly length: number } & OnFile)
  | ({ readonly name: 'attr'; readonly mtime: number } & OnFile & Attributes)
  | ({ readonly name: 'xattr'; readonly attribute: string; readonly value: Buffer } & OnFile)
  | ({ readonly name: 'rmxattr'; readonly attribute: string } & OnFile)
  | ({ readonly name: 'fsync' | 'fdatasync' } & OnFile)
  | { readonly name: 'sync' }

export type Operation = {
  /** How many operations there were when the call began. */
  readonly entry: number
  /** When it ended, in seconds since 1970. */
  readonly time: number
} & (Change | { readonly name: 'marks'; readonly marks: readonly Mark[] } | Fault)

/** The call that a fault was injected into. */
export interface Fault {
  readonly name: 'fault'
  readonly call: string
  readonly path: string
}

export interface Log {
  readonly operations: readonly Operation[]
  /** Of those that change the disk; and those of them that need room on it. */
  readonly calls: number
  readonly allocating: number
}

/** `log`: whole, or as far as a killed tracer got. */
export function parseLog(log: Buffer): Log {
  const operations: Operation[] = []
  let at = 0
  const data = (length: number): Buffer => {
    at += length
    return log.subarray(at - length, at)
  }
  while (at < log.length) {
    const newline = log.indexOf(10, at)
    if (newline < 0) break
    const [name = '', entry = '', time = '', ...fields] = log.toString('latin1', at, newline).split(' ')
    at = newline + 1
    if (name === 'end') return { operations, calls: Number(entry), allocating: Number(time) }
    operations.push({ entry: Number(entry), time: Number(time), ...parse(name, fields, data) })
  }
  return { operations, calls: 0, allocating: 0 }
}

type Body = Change | Fault | { readonly name: 'marks'; readonly marks: readonly Mark[] }

function parse(name: string, fields: readonly string[], data: (length: number) => Buffer): Body {
  const text = (index: number): string => decode(fields[index] ?? '')
  const number = (index: number): number => Number(fields[index])
  const file = { path: text(0), ino: number(1) }
  const attributes = { mode: number(2), uid: number(3), gid: number(4) }
  switch (name) {
    case 'create':
    case 'mkdir':
    case 'tmpfile':
      return { name, ...file, ...attributes }
    case 'symlink':
      return { name, ...file, ...attributes, target: text(5) }
    case 'mknod':
      return { name, ...file, ...attributes, rdev: number(5) }
    case 'rename':
    case 'exchange':
      return { name, path: text(0), to: text(1) }
    case 'unlink':
    case 'rmdir':
      return { name, path: text(0) }
    case 'link':
    case 'fsync':
    case 'fdatasync':
      return { name, ...file }
    case 'write':
      return { name, ...file, offset: number(2), data: data(number(3)) }
    case 'truncate':
      return { name, ...file, size: number(2) }
    case 'punch':
      return { name, ...file, offset: number(2), length: number(3) }
    case 'attr':
      return { name, ...file, ...attributes, mtime: number(5) }
    case 'xattr':
      return { name, ...file, attribute: text(2), value: data(number(3)) }
    case 'rmxattr':
      return { name, ...file, attribute: text(2) }
    case 'sync':
      return { name }
    case 'mark':
      return { name: 'marks', marks: parseMarks(data(number(0)).toString()) }
    case 'fault':
      return { name, call: fields[0] ?? '', path: text(1) }
    default:
      throw new Error(`the tracer wrote ${JSON.stringify(name)}`)
  }
}

function decode(name: string): string {
  return name.replaceAll(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}
