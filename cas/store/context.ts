/** What the store's parts share: the index, the paths, and this process's lease, taken when something first needs it. */
import { closeSync, constants, mkdirSync, openSync } from 'node:fs'
import { join, relative } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { isErrno, openat2, openLayersDirectory } from '../../linux/index.ts'
import { createContentReader, type ContentReader } from '../contents/reader.ts'
import { createHashThread, type HashThread } from '../hashing/thread.ts'
import type { Digest } from '../oci.ts'
import type { Database } from './database.ts'
import { takeLease, type Lease } from './lease.ts'
import type { StorePaths } from './paths.ts'
import { storeReadOnly } from './read-only.ts'
import { createSpool, type Spool } from './spool.ts'

export interface StoreContext {
  readonly paths: StorePaths
  readonly db: Database
  /** Its disk is: `db` is a copy, and what is noted in it goes. */
  readonly isReadOnly: boolean
  /** Throws `STORE_READ_ONLY`. */
  readonly lease: () => Lease
  /** The lease's name, if one was taken. */
  readonly scope: string | undefined
  /** A path in this process's work directory, where nothing is yet. */
  readonly workPath: (prefix: string) => string
  readonly workDirectory: (prefix: string) => string
  readonly spool: () => Spool
  /** Of contents; its files stay open until the end. */
  readonly reader: () => ContentReader
  readonly hashThread: () => HashThread
  /** A directory of the store, to mount or to walk. The caller closes it. */
  readonly openDirectory: (path: string) => number
  /** Keep these from being pruned while this process lives. Inside a transaction. */
  readonly hold: (digests: readonly Digest[]) => void
  readonly release: () => void
}

/** @param scratch of a read-only store: where this process's files are instead of in a lease's work directory */
export function createContext(paths: StorePaths, db: Database, scratch?: string): StoreContext {
  let lease: Lease | undefined
  // Through it an overlay's options name "/layers/..." in a container's table of mounts, and no path of the host.
  let root: number | undefined
  let reader: ContentReader | undefined
  let hashThread: HashThread | undefined
  let count = 0
  const taken = (): Lease => {
    if (scratch !== undefined) throw storeReadOnly(paths)
    return (lease ??= takeLease(paths, db))
  }
  const workPath = (prefix: string): string => join(scratch ?? taken().workDirectory, `${prefix}-${++count}`)
  return {
    paths,
    db,
    isReadOnly: scratch !== undefined,
    lease: taken,
    get scope() {
      return lease?.scope
    },
    workPath,
    workDirectory: (prefix) => {
      const path = workPath(prefix)
      mkdirSync(path, { mode: 0o700 })
      return path
    },
    spool: () => createSpool(workPath('spool')),
    reader: () => (reader ??= createContentReader(paths)),
    hashThread: () => (hashThread ??= createHashThread(paths)),
    openDirectory: (path) => {
      root ??= openRoot(paths)
      return openat2(root, relative(paths.root, path), { flags: constants.O_RDONLY | constants.O_DIRECTORY })
    },
    hold: (digests) => {
      if (scratch !== undefined) return
      const { scope } = taken()
      for (const digest of digests) db.run('INSERT OR IGNORE INTO leased VALUES (?, ?)', scope, digest)
    },
    release: () => {
      lease?.release()
      lease = undefined
      reader?.[Symbol.dispose]()
      reader = undefined
      hashThread?.[Symbol.dispose]()
      hashThread = undefined
      if (root !== undefined) closeSync(root)
      root = undefined
    },
  }
}

/** Who is root, but may mount nothing, still makes whole directories: they need no mount. Throws `ROOT_REQUIRED`. */
function openRoot(paths: StorePaths): number {
  try {
    return openLayersDirectory(paths.root)
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'ENOSYS')) throw error
    if (process.geteuid?.() === 0) return openSync(paths.root, constants.O_RDONLY | constants.O_DIRECTORY)
    throw new TbuildError('ROOT_REQUIRED', 'Layers are unpacked and mounted by root only.', {
      hint: 'Run tbuild as root.',
      cause: error,
    })
  }
}
