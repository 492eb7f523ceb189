/** Opening a store, and putting its parts together. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import { createBlobStore } from './blobs.ts'
import { createContext } from './context.ts'
import { openDatabase, type Database } from './database.ts'
import { createImageStore } from './images.ts'
import { createLayerStore } from './layers.ts'
import { sweepDeadLeases } from './lease.ts'
import { storePaths, type StorePaths } from './paths.ts'
import { prune } from './prune.ts'
import { createStepCache } from './steps.ts'
import type { Store } from './types.ts'

export interface OpenStoreOptions {
  /**
   * Is told the scopes of processes that died, before their work directories go: what they left of cgroups must go first, for their
   * containers' last processes may still be dying.
   */
  readonly beforeSweep?: (deadScopes: ReadonlySet<string>) => Promise<void>
}

/**
 * Opens the store at `path`, makes it if there is none, and cleans up after processes that died. Costs 2 ms when there is nothing to do.
 * Throws `STORE_UNUSABLE` (no permission, not a store, read-only), `STORE_TOO_NEW`, `STORE_CORRUPT`.
 */
export async function openStore(path: string, options: OpenStoreOptions = {}): Promise<Store> {
  const paths = storePaths(path)
  const db = openFiles(paths)
  const context = createContext(paths, db)
  try {
    await sweepDeadLeases(paths, db, undefined, options.beforeSweep ?? (async () => {}))
  } catch (error) {
    db[Symbol.dispose]()
    throw error
  }
  const blobs = createBlobStore(context)
  const layers = createLayerStore(context)
  let closed = false
  return {
    path,
    blobs,
    layers,
    images: createImageStore(context, blobs),
    steps: createStepCache(context),
    lease: () => context.lease(),
    workDirectory: (prefix) => context.workDirectory(prefix),
    prune: async (how) => prune(context, how),
    [Symbol.asyncDispose]: async () => {
      if (closed) return
      closed = true
      await layers[Symbol.asyncDispose]()
      context.release()
      db[Symbol.dispose]()
    },
  }
}

function openFiles(paths: StorePaths): Database {
  try {
    if (!existsSync(paths.index)) make(paths)
    return openDatabase(paths.index)
  } catch (error) {
    if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ENOSPC', 'ERR_SQLITE_ERROR')) throw error
    throw new TbuildError('STORE_UNUSABLE', `The store ${paths.root} cannot be used: ${message(error)}`, {
      hint: 'Choose another directory with --store or TBUILD_STORE, or run as its owner.',
      cause: error,
    })
  }
}

function make(paths: StorePaths): void {
  mkdirSync(paths.root, { recursive: true, mode: 0o711 })
  const present = readdirSync(paths.root)
  const ours = ['blobs', 'layers', 'work', 'leases', 'index.db', 'index.db-wal', 'index.db-shm']
  const other = present.find((name) => !ours.includes(name))
  if (other !== undefined) {
    throw new TbuildError(
      'STORE_UNUSABLE',
      `${paths.root} is not a store: it holds ${JSON.stringify(other)}.`,
      {
        hint: 'Name an empty or a new directory.',
      },
    )
  }
  for (const directory of [paths.blobs, paths.layers, paths.work, paths.leases]) {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
