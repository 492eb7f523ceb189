/**
 * Contents as files, each named for its digest. They are written under temporary names in the process's work directory, made durable, and renamed into
 * place in the transaction that records them: a file that the index does not have is nobody's.
 */
import { createHash, hash, type Hash } from 'node:crypto'
import {
  closeSync,
  constants,
  existsSync,
  fsync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { isErrno, syncFileSystem } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'
import { objectPath } from '../store/paths.ts'
import { syncDirectory } from '../store/spool.ts'
import { FillBuffer } from './fill.ts'
import { claimContents } from './kind.ts'
import { ContentList } from './list.ts'
import { readVerified, type ContentReader } from './reader.ts'
import { createFinder, generationOf, insertContents } from './segments.ts'
import type { ContentWriter } from './types.ts'

const BUFFER = 4 * 1024 * 1024
const fsyncLater = promisify(fsync)
/** Of so many files it is quicker to sync the whole file system, also with other people's data: 0.4 s for 30,000 against 24 s. */
const MANY = 64
const AT_ONCE = 4

/** The last writer's buffer, for the next one. */
let spare: Buffer | undefined

export function createObjectWriter(context: StoreContext): ContentWriter {
  const { db, paths } = context
  claimContents(db, 'objects')
  const list = new ContentList()
  const buffer = new FillBuffer(spare ?? Buffer.allocUnsafeSlow(BUFFER))
  spare = undefined
  /** Of a content that is larger than the buffer: its file, and what of it is there. */
  let large: { readonly fd: number; readonly hash: Hash; size: number } | undefined
  let generation = generationOf(db)
  let fresh: number[] = []
  const known: number[] = []
  /** Known ones that collection has unrecorded meanwhile. */
  const revived = new Set<number>()
  /** Files that still have their temporary names, by the contents' numbers; the others of ours are in place. */
  const temporary = new Set<number>()
  const placed = new Set<number>()
  /** Directories of objects that were not there. */
  const made: string[] = []
  let hasConflict = false
  let recorded = false
  let confirmed = false
  let directory: { readonly path: string; readonly fd: number } | undefined

  const ownDirectory = (): { readonly path: string; readonly fd: number } => {
    if (directory !== undefined) return directory
    const path = context.workDirectory('objects')
    // Opened before anything is written: syncfs(2) tells of errors since then.
    directory = { path, fd: openSync(path, constants.O_RDONLY | constants.O_DIRECTORY) }
    return directory
  }
  const hexOf = (number: number): string => list.digest(number).toString('hex')
  const pathOf = (number: number): string =>
    temporary.has(number) ? join(ownDirectory().path, hexOf(number)) : objectPath(paths, hexOf(number))
  const partial = (): string => join(ownDirectory().path, 'partial')

  const spill = (): void => {
    large ??= { fd: openSync(partial(), 'w', 0o600), hash: createHash('sha256'), size: 0 }
    const part = buffer.bytes.subarray(0, buffer.filled)
    large.hash.update(part)
    write(large.fd, part)
    large.size += buffer.filled
    buffer.filled = 0
  }
  const digestRun = (): Buffer => {
    const rest = buffer.bytes.subarray(0, buffer.filled)
    return large === undefined ? hash('sha256', rest, 'buffer') : large.hash.update(rest).digest()
  }
  const forget = (): void => {
    buffer.filled = 0
    if (large === undefined) return
    closeSync(large.fd)
    large = undefined
  }
  const { lookup, find, lookUp } = createFinder(db, list, known)
  const keep = (digest: Buffer): number => {
    const rest = buffer.bytes.subarray(0, buffer.filled)
    const number = list.add(digest, buffer.filled + (large?.size ?? 0), { segment: 0, block: 0 })
    temporary.add(number)
    const path = pathOf(number)
    if (large === undefined) {
      const fd = openSync(path, 'wx', 0o600)
      try {
        write(fd, rest)
      } finally {
        closeSync(fd)
      }
    } else {
      write(large.fd, rest)
      renameSync(partial(), path)
    }
    fresh.push(number)
    return number
  }

  const place = (): void => {
    const directories = new Set<string>()
    const before = made.length
    for (const number of fresh) {
      const path = objectPath(paths, hexOf(number))
      const parent = dirname(path)
      if (!directories.has(parent)) {
        directories.add(parent)
        if (makeDirectory(parent)) made.push(parent)
      }
      if (placed.has(number) && existsSync(path)) continue
      renameSync(join(ownDirectory().path, hexOf(number)), path)
      placed.add(number)
      temporary.delete(number)
    }
    for (const path of directories) syncDirectory(path)
    if (made.length > before) syncDirectory(paths.objects)
  }
  /** What a transaction that was undone has left in place. */
  const takeBack = (): void => {
    if (placed.size === 0) return
    db.transaction(() => {
      for (const number of placed) {
        if (lookup(list.digest(number)) === undefined)
          rmSync(objectPath(paths, hexOf(number)), { force: true })
      }
      for (const path of made) removeIfEmpty(path)
    })
  }

  const readAt: ContentReader['read'] = (digest, location, offset, into) => {
    const number = list.find(digest)
    if (number === undefined || !temporary.has(number)) context.reader().read(digest, location, offset, into)
    else readWhole(pathOf(number), offset, into)
  }

  return {
    list,
    begin: forget,
    append: (bytes) => buffer.append(bytes, spill),
    appendFrom: (fd, position, length) => buffer.appendFrom(fd, position, length, spill),
    drop: () => {
      const digest = digestRun()
      forget()
      return digest
    },
    end: () => {
      const digest = digestRun()
      const number = find(digest) ?? keep(digest)
      forget()
      return number
    },
    put: (digest, bytes) => {
      const there = find(digest)
      if (there !== undefined) return there
      buffer.append(bytes, spill)
      const number = keep(Buffer.from(digest))
      forget()
      return number
    },
    find,
    lookUp,
    isOwn: (content) => temporary.has(content),
    flush: () => {},
    reader: {
      read: readAt,
      ahead: () => ({
        read: (digest, location, size) => readVerified(readAt, digest, location, size),
        forget: () => {},
      }),
      [Symbol.dispose]: () => {},
    },
    sync: async () => {
      if (fresh.length > MANY) await syncFileSystem(ownDirectory().fd)
      else {
        for (let from = 0; from < fresh.length; from += AT_ONCE)
          await Promise.all(fresh.slice(from, from + AT_ONCE).map((number) => syncFile(pathOf(number))))
      }
    },
    resolve: () => {
      const now = generationOf(db)
      // That another was faster is seldom, and `record` tells. Its file is as good as ours, which goes with the directory.
      if (hasConflict) {
        const theirs = new Set(fresh.filter((number) => lookup(list.digest(number)) !== undefined))
        known.push(...theirs)
        fresh = fresh.filter((number) => !theirs.has(number))
      }
      if (now !== generation || hasConflict) {
        revived.clear()
        for (const number of known) if (lookup(list.digest(number)) === undefined) revived.add(number)
      }
      generation = now
      hasConflict = false
    },
    record: () => {
      recorded = false
      if (generationOf(db) !== generation) return false
      if (!insertContents(db, list, [...fresh, ...revived])) {
        hasConflict = true
        return false
      }
      // Collection waits for us before it takes anything away.
      db.run('DELETE FROM dead_objects WHERE digest IN (SELECT digest FROM contents)')
      place()
      recorded = true
      return true
    },
    confirm: () => {
      confirmed = recorded
    },
    [Symbol.dispose]: () => {
      forget()
      if (!confirmed) takeBack()
      if (directory !== undefined) {
        closeSync(directory.fd)
        rmSync(directory.path, { recursive: true, force: true })
      }
      directory = undefined
      spare = buffer.bytes
    },
  }
}

function write(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at)
}

async function syncFile(path: string): Promise<void> {
  const fd = openSync(path, 'r')
  try {
    await fsyncLater(fd)
  } finally {
    closeSync(fd)
  }
}

function readWhole(path: string, offset: number, into: Uint8Array): void {
  const fd = openSync(path, 'r')
  try {
    for (let at = 0; at < into.length;) {
      const count = readSync(fd, into, at, into.length - at, offset + at)
      if (count === 0) throw new RangeError(`${path} ends before ${offset + into.length}`)
      at += count
    }
  } finally {
    closeSync(fd)
  }
}

/** Was it missing? */
function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path, { mode: 0o700 })
    return true
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false
    throw error
  }
}

function removeIfEmpty(path: string): void {
  try {
    rmdirSync(path)
  } catch (error) {
    if (!isErrno(error, 'ENOTEMPTY', 'ENOENT')) throw error
  }
}
