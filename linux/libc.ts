/**
 * libc through koffi. `import 'koffi'` costs 8 to 15 ms, the native module in its platform package 1 to 2 ms; so that
 * file is opened directly, and the package's own loader is the way out when the layout is not the expected one.
 */
import { createRequire } from 'node:module'
import { SysError } from './errors.ts'

/** A file name: text, or bytes where it need not be UTF-8. */
export type Path = string | Buffer

export const AT_FDCWD = -100

interface Library {
  func(declaration: string): NativeFunction
  func(name: string, result: string, parameters: readonly string[]): NativeFunction
}
type NativeArgument = number | bigint | string | Buffer | ArrayBufferView | null
export type NativeFunction = ((...args: NativeArgument[]) => number) & {
  async(...args: [...NativeArgument[], (error: Error | null, result: number) => void]): void
}
interface Koffi {
  load(path: string | null): Library
  errno(): number
}

const native = { x64: 'linux_x64', arm64: 'linux_arm64' } as Readonly<Record<string, string>>

let koffi: Koffi | undefined
let library: Library | undefined

/** Load koffi and libc now. Every function here does so by itself on first use; call it to choose the moment. */
export function loadKernelCalls(): void {
  libc()
}

function libc(): Library {
  if (library !== undefined) return library
  const require = createRequire(import.meta.url)
  try {
    const root = require.resolve(`@koromix/koffi-linux-${process.arch}/package.json`)
    const module: { exports: unknown } = { exports: {} }
    process.dlopen(module, root.replace(/package\.json$/, `${native[process.arch]}/koffi.node`))
    koffi = module.exports as Koffi
  } catch {
    koffi = require('koffi') as Koffi
  }
  library = koffi.load('libc.so.6')
  return library
}

/** Declare a libc function on first use; a declaration costs 25 us. */
export function declare(declaration: string): (...args: NativeArgument[]) => number {
  let fn: NativeFunction | undefined
  return (...args) => (fn ??= libc().func(declaration))(...args)
}

/** A function of this very program, or of a library that it came with; `undefined` when there is none of that name. */
export function declareOwn(declaration: string): NativeFunction | undefined {
  libc()
  try {
    return koffi?.load(null).func(declaration)
  } catch {
    return undefined
  }
}

/** As `declare`, called on koffi's own thread: for calls that block. */
export function declareAsync(declaration: string): (...args: NativeArgument[]) => Promise<number> {
  let fn: NativeFunction | undefined
  return (...args) =>
    new Promise((resolve, reject) => {
      fn ??= libc().func(declaration)
      // errno is the thread's own: right in this callback, 0 after an await.
      fn.async(...args, (error: Error | null, result: number) => {
        if (error instanceof Error) reject(error)
        else resolve(result < 0 ? -errno() : result)
      })
    })
}

/** A system call that older C libraries do not wrap, by its number (the same on x86-64 and arm64 from 424 on). */
export function declareSyscall(
  number: number,
  parameters: readonly string[],
): (...args: NativeArgument[]) => number {
  let fn: NativeFunction | undefined
  return (...args) => {
    fn ??= libc().func('syscall', 'intptr_t', ['long', ...parameters])
    return fn(number, ...args)
  }
}

/** The calling thread's errno; to be read right after the call. */
export function errno(): number {
  return koffi === undefined ? 0 : koffi.errno()
}

/** For a call; koffi ends text with a NUL itself. A name with a NUL inside would silently be cut short, so it is refused. */
export function cstring(path: Path): string | Buffer {
  if (path.includes('\0')) throw new SysError('path', 22, JSON.stringify(path.toString()))
  return typeof path === 'string' ? path : Buffer.concat([path, END])
}

const END = Buffer.alloc(1)

/** The result of a call, or a `SysError` when it is -1. */
export function check(result: number, syscall: string, subject?: Path): number {
  if (result < 0) throw new SysError(syscall, errno(), subject === undefined ? undefined : String(subject))
  return result
}
