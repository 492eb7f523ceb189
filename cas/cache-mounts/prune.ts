/** Which directories of `RUN --mount=type=cache` go when the store is pruned. One that is in use never does. */
import { closeSync, readdirSync, readFileSync, renameSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import { allocatedBytes } from '../gc/allocated.ts'
import type { StoreContext } from '../store/context.ts'
import { discard } from '../store/discard.ts'
import type { StorePaths } from '../store/paths.ts'
import { lockEntry } from './cache-mounts.ts'

export interface IdleCache {
  readonly path: string
  /** As the Dockerfile calls it. */
  readonly name: string
  /** Milliseconds since 1970. */
  readonly usedAt: number
  readonly bytes: number
}

export interface CachePolicy {
  /** Only what was last used before: milliseconds since 1970. */
  readonly before: number | undefined
  /** Go on until so much is freed, in bytes; `undefined`: all. */
  readonly bytes: number | undefined
}

/** The least recently used first. */
export function chooseCaches(paths: StorePaths, { before, bytes }: CachePolicy): IdleCache[] {
  if (bytes !== undefined && bytes <= 0) return []
  const idle = list(paths)
    .filter(({ path, usedAt }) => (before === undefined || usedAt < before) && isIdle(path))
    .toSorted((a, b) => a.usedAt - b.usedAt)
  const chosen: IdleCache[] = []
  let freed = 0
  for (const cache of idle) {
    if (bytes !== undefined && freed >= bytes) break
    const measured = { ...cache, bytes: allocatedBytes(cache.path) }
    chosen.push(measured)
    freed += measured.bytes
  }
  return chosen
}

/** Returns those that went: others are in use by now. */
export async function removeCaches(
  context: StoreContext,
  caches: readonly IdleCache[],
): Promise<readonly IdleCache[]> {
  const gone: IdleCache[] = []
  for (const cache of caches) {
    const lock = lockEntry(cache.path, 'exclusive')
    if (typeof lock !== 'number') continue
    try {
      const trash = join(context.workDirectory('trash'), 'cache')
      renameSync(cache.path, trash)
      await discard(join(trash, '..'))
      gone.push(cache)
    } finally {
      closeSync(lock)
    }
  }
  return gone
}

function list({ cacheMounts }: StorePaths): Omit<IdleCache, 'bytes'>[] {
  return readdirSync(cacheMounts, { withFileTypes: true }).flatMap((entry) => {
    const path = join(cacheMounts, entry.name)
    const stats = entry.isDirectory() ? statSync(path, { throwIfNoEntry: false }) : undefined
    return stats === undefined ? [] : [{ path, name: nameOf(path) ?? entry.name, usedAt: stats.mtimeMs }]
  })
}

function nameOf(path: string): string | undefined {
  try {
    const about: unknown = JSON.parse(readFileSync(join(path, 'about'), 'utf8'))
    return typeof about === 'object' && about !== null && 'name' in about ? String(about.name) : undefined
  } catch (error) {
    // It goes all the same.
    if (error instanceof SyntaxError || isErrno(error, 'ENOENT', 'ENOTDIR', 'EISDIR')) return undefined
    throw error
  }
}

function isIdle(path: string): boolean {
  const lock = lockEntry(path, 'exclusive')
  if (typeof lock !== 'number') return false
  closeSync(lock)
  return true
}
