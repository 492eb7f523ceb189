/** One collection at a time, and the waits of collection: for another one, and for ingests that began before. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { flock } from '../../linux/index.ts'
import type { Database } from '../store/database.ts'
import { currentEpoch, isOver, type Epoch } from '../store/epoch.ts'
import type { StorePaths } from '../store/paths.ts'

export interface Waiting {
  /** False: never. */
  readonly wait: boolean
  readonly signal?: AbortSignal | undefined
  /** Is told once when a wait takes longer than a second. */
  readonly notice?: ((what: 'collection' | 'ingests') => void) | undefined
}

/** `undefined` when another collection is at work and `wait` is false. */
export async function lockCollection(paths: StorePaths, how: Waiting): Promise<Disposable | undefined> {
  const fd = openSync(join(paths.root, 'collection'), 'a', 0o600)
  try {
    if (await until(() => flock(fd, 'exclusive'), how, 'collection'))
      return { [Symbol.dispose]: () => closeSync(fd) }
  } catch (error) {
    closeSync(fd)
    throw error
  }
  closeSync(fd)
  return undefined
}

/**
 * Have all ingests ended that began before the present epoch? Only then may what was unrecorded before it be freed; and only then may a new one begin,
 * for two take turns.
 */
export async function olderIngestsEnded(paths: StorePaths, db: Database, how: Waiting): Promise<boolean> {
  const older: Epoch = currentEpoch(db) === 0 ? 1 : 0
  return await until(() => isOver(paths, older), how, 'ingests')
}

const NOTICE_MS = 1000
const MOST_PAUSE_MS = 200

async function until(test: () => boolean, how: Waiting, what: 'collection' | 'ingests'): Promise<boolean> {
  const since = performance.now()
  let isTold = false
  for (let pause = 1; !test(); pause = Math.min(MOST_PAUSE_MS, pause * 2)) {
    if (!how.wait) return false
    if (!isTold && performance.now() - since > NOTICE_MS) {
      isTold = true
      how.notice?.(what)
    }
    await setTimeout(pause, undefined, how.signal && { signal: how.signal })
  }
  return true
}
