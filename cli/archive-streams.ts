/** Archives as arguments: a file, or `-` and nothing for standard input and output. */
import { createReadStream, createWriteStream, realpathSync, renameSync, rmSync, statSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { UsageError } from './arguments/usage-error.ts'

export interface Input extends AsyncDisposable {
  readonly stream: Readable
}

/** `-` or `undefined` is standard input. @throws UsageError `TERMINAL_REFUSED` */
export function openInput(file: string | undefined): Input {
  if (file === undefined || file === '-') {
    if (process.stdin.isTTY)
      throw new UsageError('TERMINAL_REFUSED', 'An archive is not read from a terminal.', {
        hint: 'name a file, or pipe it in: ... < archive.tar',
      })
    return { stream: process.stdin, [Symbol.asyncDispose]: async () => void process.stdin.destroy() }
  }
  const stream = createReadStream(file, { highWaterMark: 1024 * 1024 })
  // Who reads is told, later as well; before that an error would end the process.
  stream.on('error', () => {})
  return { stream, [Symbol.asyncDispose]: async () => void stream.destroy() }
}

/**
 * Writes an archive to standard output, or to a file under another name that is renamed when it is whole and durable. Into a device or a pipe it is written; a
 * symbolic link stays one.
 */
export async function writeArchive(
  file: string | undefined,
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  if (file === undefined) return pipeline(source, process.stdout, { signal, end: false })
  const there = statSync(file, { throwIfNoEntry: false })
  if (there !== undefined && !there.isFile()) return pipeline(source, createWriteStream(file), { signal })
  const target = there === undefined ? file : realpathSync(file)
  const partial = `${target}.partial-${process.pid}`
  try {
    await pipeline(source, createWriteStream(partial, { flags: 'wx', flush: true }), { signal })
    renameSync(partial, target)
  } catch (error) {
    rmSync(partial, { force: true })
    throw error
  }
}

/** Before anything is read: @throws UsageError `TERMINAL_REFUSED` */
export function refuseTerminal(file: string | undefined): void {
  if (file === undefined && process.stdout.isTTY)
    throw new UsageError('TERMINAL_REFUSED', 'An archive is not written to a terminal.', {
      hint: 'name a file: -o FILE, or redirect standard output',
    })
}
