/** A file on its way into the store: written under a temporary name, hashed as it is written, made durable, then renamed. */
import { createHash } from 'node:crypto'
import { closeSync, fsync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import type { Digest } from '../oci.ts'

export interface Spool extends Disposable {
  readonly path: string
  readonly size: number
  write(chunk: Uint8Array): void
  /** Durable when it resolves; the digest of all that was written. */
  finish(): Promise<Digest>
  finishSync(): Digest
  /** Gives the finished file its name; it stays when the spool is disposed. */
  moveTo(path: string): void
}

const fsyncLater = promisify(fsync)

/** The directory's entries are durable when this returns. */
export function syncDirectory(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}

/** Disposing it removes the file, if it still has its temporary name. */
export function createSpool(path: string): Spool {
  const hash = createHash('sha256')
  let fd: number | undefined = openSync(path, 'wx', 0o600)
  let size = 0
  let moved = false
  const opened = (): number => {
    if (fd === undefined) throw new Error('the spool is closed')
    return fd
  }
  const close = (): void => {
    if (fd !== undefined) closeSync(fd)
    fd = undefined
  }
  const digest = (): Digest => `sha256:${hash.digest('hex')}` as Digest
  return {
    path,
    get size() {
      return size
    },
    write: (chunk) => {
      hash.update(chunk)
      for (let at = 0; at < chunk.length;) at += writeSync(opened(), chunk, at, chunk.length - at)
      size += chunk.length
    },
    finish: async () => {
      await fsyncLater(opened())
      close()
      return digest()
    },
    finishSync: () => {
      fsyncSync(opened())
      close()
      return digest()
    },
    moveTo: (name) => {
      renameSync(path, name)
      moved = true
    },
    [Symbol.dispose]: () => {
      close()
      if (!moved) rmSync(path, { force: true })
    },
  }
}
