/**
 * Directories that `RUN --mount=type=cache` keeps between builds. They are in no layer and no key, and are never synced: what is lost is only made again.
 *
 * `cache-mounts/KEY-N/` holds `data`, which is what is mounted, and `about`, which says in JSON whose it is. KEY is a digest of what the caller calls the
 * cache; there are several only when somebody needed one for itself while the others were in use. Whoever uses one has the directory
 * locked (flock(2)), shared or exclusively, and so has the container's launcher: a kill -9 frees it when everything that writes to it is dead. What
 * wants to remove one needs the exclusive lock. A new one is filled in the work directory and locked before it gets its name.
 * The directory's modification time is its last use.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  futimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { hash } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { AT_FDCWD, flock, isErrno, RENAME_NOREPLACE, renameat2, type LockKind } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'
import { discard } from '../store/discard.ts'
import type { StorePaths } from '../store/paths.ts'
import type { CacheMount, CacheMountRequest } from '../store/types.ts'

const PAUSE_MS = 100

/** As BuildKit chooses: the first that the lock can be had of; else `locked` waits, and the others get a new one. */
export async function openCacheMount(context: StoreContext, request: CacheMountRequest): Promise<CacheMount> {
  const { sharing, signal, notice } = request
  const kind: LockKind = sharing === 'shared' ? 'shared' : 'exclusive'
  const key = hash('sha256', request.key).slice(0, 32)
  for (let isTold = false; ;) {
    signal?.throwIfAborted()
    const names = entriesOf(context.paths, key)
    let isBusy = false
    for (const name of names) {
      const lock = lockEntry(join(context.paths.cacheMounts, name), kind)
      if (typeof lock === 'number') return using(context.paths, name, lock)
      if (lock === 'busy') isBusy = true
    }
    if (isBusy && sharing === 'locked') {
      if (!isTold) notice?.()
      isTold = true
      // Its own error would not say why.
      await setTimeout(PAUSE_MS, undefined, signal && { signal }).catch(() => {})
      continue
    }
    const last = names.at(-1)
    const made = await create(context, request, `${key}-${last === undefined ? 0 : numberOf(last) + 1}`, kind)
    if (made !== undefined) return made
  }
}

/** A descriptor that holds the lock. */
export function lockEntry(path: string, kind: LockKind): number | 'busy' | 'gone' {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'gone'
    throw error
  }
  const isLocked = flock(fd, kind)
  // Who removes one has renamed it while it was locked.
  if (isLocked && statSync(path, { throwIfNoEntry: false })?.ino === fstatSync(fd).ino) return fd
  closeSync(fd)
  return isLocked ? 'gone' : 'busy'
}

const ENTRY = /^([0-9a-f]{32})-(\d+)$/

/** In the order of their numbers. */
function entriesOf({ cacheMounts }: StorePaths, key: string): string[] {
  return readdirSync(cacheMounts)
    .filter((name) => ENTRY.exec(name)?.[1] === key)
    .toSorted((a, b) => numberOf(a) - numberOf(b))
}

function numberOf(name: string): number {
  return Number(ENTRY.exec(name)?.[2] ?? -1)
}

function using({ cacheMounts }: StorePaths, name: string, lock: number): CacheMount {
  let fd: number
  try {
    touch(lock)
    fd = openSync(
      join(cacheMounts, name, 'data'),
      constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW,
    )
  } catch (error) {
    closeSync(lock)
    throw error
  }
  return {
    fd,
    lock,
    [Symbol.dispose]: () => {
      touch(lock)
      closeSync(fd)
      closeSync(lock)
    },
  }
}

function touch(lock: number): void {
  const now = new Date()
  futimesSync(lock, now, now)
}

/** `undefined` when somebody else has taken the name. */
async function create(
  context: StoreContext,
  { key, name, fill }: CacheMountRequest,
  entry: string,
  kind: LockKind,
): Promise<CacheMount | undefined> {
  const base = context.workDirectory('cache')
  const data = join(base, 'data')
  mkdirSync(data)
  // Whatever the umask is.
  chmodSync(data, 0o755)
  await fill?.(data)
  writeFileSync(join(base, 'about'), `${JSON.stringify({ name, key })}\n`, { mode: 0o600 })
  const lock = lockEntry(base, kind)
  if (typeof lock !== 'number') throw new Error('a directory of our own is locked by somebody else')
  try {
    renameat2(AT_FDCWD, base, AT_FDCWD, join(context.paths.cacheMounts, entry), RENAME_NOREPLACE)
  } catch (error) {
    closeSync(lock)
    await discard(base)
    if (isErrno(error, 'EEXIST')) return undefined
    throw error
  }
  return using(context.paths, entry, lock)
}
