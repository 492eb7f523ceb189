/** Opening a store, and putting its parts together. */
import { closeSync, existsSync, mkdirSync, openSync, readdirSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
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
import { isOnReadOnlyDisk, openReadOnly, storeReadOnly, type ReadOnlyStore } from './read-only.ts'
import { storePaths, type StorePaths } from './paths.ts'
import { keptSequence, namesSequence } from './names.ts'
import { openNotes } from '../stat-cache/note.ts'
import { openStatCache } from '../stat-cache/stat-cache.ts'
import { syncDirectory } from './spool.ts'
import { createStepCache } from './steps.ts'
import { dueBytes } from '../gc/due.ts'
import { pinsOf } from '../gc/pins.ts'
import { giveReserve, isFull, keepReserve, makeRoom } from '../gc/room.ts'
import { createUsage } from '../gc/usage.ts'
import type { Store } from './types.ts'

export interface OpenStoreOptions {
  /** Instead of the one that is found by probing. */
  readonly driver?: DriverName | undefined
  /** The store is only looked at: then it may be on a disk that is mounted read-only. */
  readonly onlyReads?: boolean
  /**
   * Is told the scopes of processes that died, before their work directories go: what they left of cgroups must go first, for their
   * containers' last processes may still be dying.
   */
  readonly beforeSweep?: (deadScopes: ReadonlySet<string>) => Promise<void>
}

/**
 * Opens the store at `path`, makes it if there is none, and cleans up after processes that died. Costs 2 ms when there is nothing to do.
 * Throws `STORE_UNUSABLE` (no permission, not a store), `STORE_READ_ONLY`, `STORE_TOO_NEW`, `STORE_CORRUPT`.
 */
export async function openStore(path: string, options: OpenStoreOptions = {}): Promise<Store> {
  const { paths, db, wasFull, readOnly } = await openIndex(storePaths(path), options.onlyReads)
  const context = createContext(paths, db, readOnly?.scratch)
  try {
    if (readOnly === undefined)
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
    if (readOnly === undefined) await convertLegacy(context, layers)
  } catch (error) {
    db[Symbol.dispose]()
    throw error
  }
  const images = createImageStore(context, blobs)
  const usage = createUsage(context)
  let closed = false
  return {
    path,
    blobs,
    layers,
    images,
    ledger: async () => (await import('../ledger/index.ts')).createLedger(context, images),
    steps: createStepCache(context, usage),
    statCache: (directory) => openStatCache(paths.contexts, directory),
    notes: openNotes(paths.contexts),
    cacheMount: async (request) =>
      (await import('../cache-mounts/cache-mounts.ts')).openCacheMount(context, request),
    lease: () => context.lease(),
    workDirectory: (prefix) => context.workDirectory(prefix),
    prune: async (how) => {
      const { collect } = await import('../gc/collect.ts')
      return await collect(context, () => choose().driver, { wait: true, ...how })
    },
    collectIfDue: async (maxBytes) => {
      // What it takes to find out is loaded; the rest is when it is due.
      const keepBytes = dueBytes(context, maxBytes)
      if (keepBytes === undefined) return undefined
      const { collect } = await import('../gc/collect.ts')
      return await collect(context, () => choose().driver, { all: true, keepBytes, wait: false })
    },
    pins: () => pinsOf(context),
    fsck: async (how) =>
      (await import('../fsck/fsck.ts')).fsck({ context, blobs, layers, driver: () => choose().driver }, how),
    [Symbol.asyncDispose]: async () => {
      if (closed) return
      closed = true
      await layers[Symbol.asyncDispose]()
      chosen?.driver[Symbol.dispose]()
      usage.flush()
      context.release()
      db[Symbol.dispose]()
      if (readOnly === undefined) keepReserve(paths, { wasGiven: wasFull })
      else readOnly[Symbol.dispose]()
    },
  }
}

interface OpenIndex {
  readonly paths: StorePaths
  readonly db: Database
  readonly wasFull: boolean
  readonly readOnly?: ReadOnlyStore
}

async function openIndex(paths: StorePaths, onlyReads = false): Promise<OpenIndex> {
  if (!isOnReadOnlyDisk(paths)) return { paths, ...openWithRoom(paths) }
  if (!onlyReads) throw storeReadOnly(paths)
  const kept = orUnusable(paths, () => keptSequence(paths))
  const readOnly = await openReadOnly(paths, (copy) => openChecked(paths, kept, copy))
  return { paths: readOnly.paths, db: readOnly.db, wasFull: false, readOnly }
}

/** A full disk is the time when a store must open, to be pruned. */
function openWithRoom(paths: StorePaths): { readonly db: Database; readonly wasFull: boolean } {
  let failure: unknown
  for (const give of [() => 1, giveReserve, makeRoom]) {
    if (give(paths) === 0) continue
    try {
      return { db: openFiles(paths), wasFull: failure !== undefined }
    } catch (error) {
      if (!(error instanceof TbuildError) || !isFull(error.cause)) throw error
      failure = error
    }
  }
  throw failure
}

function openFiles(paths: StorePaths): Database {
  return orUnusable(paths, () => {
    const isNew = !existsSync(paths.index)
    if (isNew) make(paths)
    const db = openChecked(paths, keptSequence(paths))
    makeDirectories(paths)
    if (isNew) syncDirectory(paths.root)
    return db
  })
}

/**
 * @param kept is read before the index, which is never behind it
 * @param index the index, or a copy of it
 */
function openChecked(paths: StorePaths, kept: number | undefined, index = paths.index): Database {
  const db = openDatabase(index, () => refuseLostIndex(paths), paths.index)
  if (kept === undefined || kept <= namesSequence(db)) return db
  db[Symbol.dispose]()
  throw lostIndex(`The store's index ${paths.index} is older than what else is in the store`)
}

/** ENOENT: of a place that takes no directories. */
const UNUSABLE = ['EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'ENOSPC', 'ERR_SQLITE_ERROR'] as const

/** What the disk or its permissions refuse is `STORE_UNUSABLE`. */
export function orUnusable<T>({ root }: StorePaths, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!isErrno(error, ...UNUSABLE)) throw error
    const [why, hint] = isFull(error)
      ? [
          'its disk is full.',
          'Make some room on that disk, then run tbuild prune. What is in its directory contexts/ is only a cache.',
        ]
      : [
          message(error),
          'Choose another directory with --store or TBUILD_STORE, or run as its owner, on a disk that can be written to.',
        ]
    throw new TbuildError('STORE_UNUSABLE', `The store ${root} cannot be used: ${why}`, {
      hint,
      cause: error,
    })
  }
}

const OTHER_FILES = ['blobs', 'epoch-0', 'epoch-1', 'collection', 'migration', 'names.json', 'lost+found']

function make(paths: StorePaths): void {
  makeRoot(paths.root)
  const present = readdirSync(paths.root)
  const ours = [...directoriesOf(paths).map((path) => basename(path)), ...OTHER_FILES]
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
  // Another process may have made it meanwhile, and put something in.
  if (!existsSync(paths.index)) refuseLostIndex(paths)
  makeDirectories(paths)
  keepReserve(paths)
}

/** With the directories above it. Node's own way never ends where a file system takes no directories (/proc). */
function makeRoot(path: string): void {
  if (existsSync(path)) return
  makeRoot(dirname(path))
  try {
    mkdirSync(path, { mode: 0o711 })
  } catch (error) {
    if (!isErrno(error, 'EEXIST')) throw error
  }
}

/** Contents that no index knows would be taken for nobody's. Throws `STORE_CORRUPT`. */
function refuseLostIndex(paths: StorePaths): void {
  const { blobs, layers, segments, objects } = paths
  const isEmpty = [blobs, layers, segments, objects].every(
    (directory) => !existsSync(directory) || readdirSync(directory).length === 0,
  )
  if (!isEmpty) throw lostIndex(`The store ${paths.root} has lost its index`)
}

function lostIndex(what: string): TbuildError {
  return new TbuildError('STORE_CORRUPT', `${what}.`, {
    hint: 'tbuild fsck --repair makes it anew from the files of the store; it must not be in use.',
  })
}

function directoriesOf(paths: StorePaths): string[] {
  const { blobs, layers, segments, objects, trees, contexts, cacheMounts, work, leases } = paths
  return [blobs, layers, segments, objects, trees, contexts, cacheMounts, work, leases]
}

/** All that this format has; an older one had fewer. */
function makeDirectories(paths: StorePaths): void {
  const made = directoriesOf(paths).filter(
    (directory) => mkdirSync(directory, { recursive: true, mode: 0o700 }) !== undefined,
  )
  // A reader on a read-only mount can lock only what is there: also the first collection is one that it holds off.
  const collection = join(paths.root, 'collection')
  if (!existsSync(collection)) closeSync(openSync(collection, 'a', 0o600))
  if (made.length === 0) return
  // What is synced in a directory is lost with the directory's own name.
  for (const directory of new Set([...made.map((path) => dirname(path)), paths.root, dirname(paths.root)])) {
    syncDirectory(directory)
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
