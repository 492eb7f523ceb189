/** Mounts by key: each is made once, however many roots stand on it, and closed when none has for some seconds. */
import { closeSync } from 'node:fs'
import type { Lower } from './types.ts'

export interface Lowers extends Disposable {
  /** Counts as used until it is released. */
  use(key: string, mount: () => Promise<number>): Promise<Lower>
  /** One that nobody uses at the moment; it is the caller's then. */
  take(key: string): number | undefined
}

interface Entry {
  readonly mounting: Promise<number>
  fd: number | undefined
  users: number
  timer: NodeJS.Timeout | undefined
}

/** A mount takes 0.3 ms, but its page cache goes with it: the next step of a build finds it still there. */
const IDLE_MS = 5_000

/** @param closing told of those that are closed right after */
export function createLowers(closing: (mounts: ReadonlyMap<string, number>) => void = () => {}): Lowers {
  const entries = new Map<string, Entry>()

  const release = (key: string, entry: Entry, fd: number): void => {
    if (--entry.users > 0 || entries.get(key) !== entry) return
    const close = (): void => {
      entries.delete(key)
      closing(new Map([[key, fd]]))
      closeSync(fd)
    }
    entry.timer = setTimeout(close, IDLE_MS).unref()
  }

  return {
    use: async (key, mount) => {
      let entry = entries.get(key)
      if (entry === undefined) {
        entry = { mounting: mount(), fd: undefined, users: 0, timer: undefined }
        entries.set(key, entry)
      }
      const its = entry
      clearTimeout(its.timer)
      its.users++
      try {
        const fd = (its.fd = await its.mounting)
        return { fd, release: once(() => release(key, its, fd)) }
      } catch (error) {
        if (entries.get(key) === its) entries.delete(key)
        throw error
      }
    },
    take: (key) => {
      const { fd, users, timer } = entries.get(key) ?? {}
      if (fd === undefined || users !== 0) return undefined
      clearTimeout(timer)
      entries.delete(key)
      return fd
    },
    [Symbol.dispose]: () => {
      const open = new Map<string, number>()
      for (const [key, { fd, timer, mounting }] of entries) {
        clearTimeout(timer)
        if (fd !== undefined) open.set(key, fd)
        else void mounting.then(closeSync, () => {})
      }
      entries.clear()
      if (open.size > 0) closing(open)
      for (const fd of open.values()) closeSync(fd)
    },
  }
}

function once(work: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    work()
  }
}
