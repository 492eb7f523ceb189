/** Opening a store, and putting its parts together. */
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { basename } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'
import { createBlobStore } from './blobs.ts'
import { createContext } from './context.ts'
import { openDatabase, type Database } from './database.ts'
import { createImageStore } from './images.ts'
import { chooseDriver } from '../drivers/choose.ts'
import type { DriverName } from '../drivers/types.ts'
import { createLayerStore, type DriverChoice } from './layers.ts'
import { sweepDeadLeases } from './lease.ts'
import { convertLegacy } from './legacy.ts'
import { storePaths, type StorePaths } from './paths.ts'
import { prune } from './prune.ts'
import { openStatCache } from '../stat-cache/stat-cache.ts'
import { createStepCache } from './steps.ts'
import type { Store } from './types.ts'

export interface OpenStoreOptions {
  /** Instead of the one that is found by probing. */
  readonly driver?: DriverName | undefined
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
  let chosen: DriverChoice | undefined
  const choose = (): DriverChoice => (chosen ??= chooseDriver(context, options.driver))
  const layers = createLayerStore(context, choose)
  try {
    await convertLegacy(context, layers)
  } catch (error) {
    db[Symbol.dispose]()
    throw error
  }
  const images = createImageStore(context, blobs)
  let closed = false
  return {
    path,
    blobs,
    layers,
    images,
    ledger: async () => (await import('../ledger/index.ts')).createLedger(context, images),
    steps: createStepCache(context),
    statCache: (directory) => openStatCache(paths.contexts, directory),
    lease: () => context.lease(),
    workDirectory: (prefix) => context.workDirectory(prefix),
    prune: async (how) => prune(context, how),
    [Symbol.asyncDispose]: async () => {
      if (closed) return
      closed = true
      await layers[Symbol.asyncDispose]()
      chosen?.driver[Symbol.dispose]()
      context.release()
      db[Symbol.dispose]()
    },
  }
}

function openFiles(paths: StorePaths): Database {
  try {
    if (!existsSync(paths.index)) make(paths)
    const db = openDatabase(paths.index)
    makeDirectories(paths)
    return db
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
  const ours = [...directoriesOf(paths).map((path) => basename(path)), 'blobs', 'epoch-0', 'epoch-1']
  const other = present.find((name) => !ours.includes(name) && !name.startsWith('index.db'))
  if (other !== undefined) {
    throw new TbuildError(
      'STORE_UNUSABLE',
      `${paths.root} is not a store: it holds ${JSON.stringify(other)}.`,
      {
        hint: 'Name an empty or a new directory.',
      },
    )
  }
  makeDirectories(paths)
}

function directoriesOf(paths: StorePaths): string[] {
  const { blobs, layers, segments, objects, trees, contexts, work, leases } = paths
  return [blobs, layers, segments, objects, trees, contexts, work, leases]
}

/** All that this format has; an older one had fewer. */
function makeDirectories(paths: StorePaths): void {
  for (const directory of directoriesOf(paths)) mkdirSync(directory, { recursive: true, mode: 0o700 })
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
