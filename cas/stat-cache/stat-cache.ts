/**
 * Digests of files, by what stat(2) says of them, so that an unchanged file is not even opened. One packed file for each directory that is built from.
 *
 * A file is taken for unchanged when device, inode, size, modification and change time (nanoseconds) are those of the record. A program can set a
 * modification time, but not a change time: each write, rename, chmod and new link moves it. What remains, and what is done about it:
 * - Two changes within one tick of the kernel's clock have one time (4 ms and less; seconds on some network file systems). So a file that changed
 *   less than two seconds before it was read, or has a time in the future, gets no record: it is read again next time.
 * - An inode number that is used again comes with a new change time.
 * - A clock that is set back could bring an old change time again only to the nanosecond.
 * - Where a file system is not known to keep change times (trusted.ts), files are read each time.
 * - A file that somebody holds mapped for writing may change without a new time until the kernel writes the page back, which on tmpfs it never does. For
 *   those there is `--no-stat-cache`.
 *
 * File: records of 84 bytes: key, flags (4), sha256.
 */
import { hash } from 'node:crypto'
import { join } from 'node:path'
import { statOf, type Stat } from '../../linux/index.ts'
import type { KnownFile, StatCache } from '../store/types.ts'
import { encodeKey, fileSystemTime, INODE_WORDS, isSettled, key, KEY_WORDS, keyWords } from './key.ts'
import { NameCache } from './names.ts'
import { readNote, writeNote } from './note.ts'
import { LOCAL_OR_NETWORK, TrustedDevices } from './trusted.ts'

const EMPTY = Buffer.alloc(0)
const MAGIC = Buffer.from('tbuild stat 3\n\0\0')
const RECORD = 84
const FLAGS_AT = 48
const DIGEST_AT = 52
/** It has no extended attributes, which are not asked for then: setting one moves the change time. */
const PLAIN = 1
/** Records of files that were not asked for are kept while there are no more than so many times those that were. */
const MOST_UNUSED = 3

/** @param directory where the caches of all contexts are; @param context the path that this one is for */
export function openStatCache(directory: string, context: string): StatCache {
  const path = join(directory, hash('sha256', context).slice(0, 32))
  let known = index(load(path))
  /** Packed, and how many. */
  let fresh = EMPTY
  let freshCount = 0
  /** Of several names, of which each is looked at: only one record is kept. */
  const linked = new Set<string>()
  /** By the record's number. */
  let used = new Uint8Array(known.count)
  let uses = 0
  let now: bigint | undefined
  // Asked before anything is read: later would be too late.
  const timeOf = (): bigint => (now ??= fileSystemTime(directory))
  const names = new NameCache(`${path}.names`, timeOf)
  const trusted = new TrustedDevices(LOCAL_OR_NETWORK)

  return {
    find: ({ root, path: file, stats }) => {
      // Before anything is read, trusted or not.
      const at = trusted.has(stats.dev, () => pathBelow(root, file)) ? known.find(stats) : undefined
      if (at === undefined) {
        timeOf()
        return undefined
      }
      uses += 1 - (used[at / RECORD] ?? 1)
      used[at / RECORD] = 1
      return new Recorded(known.records, known.words, at)
    },
    remember: (stats, { digest, isPlain }) => {
      if (!trusted.has(stats.dev, nowhere) || !isSettled(stats, timeOf())) return
      encodeKey(stats)
      if (stats.nlink > 1) {
        const inode = keyWords.subarray(0, INODE_WORDS).join()
        if (linked.has(inode)) return
        linked.add(inode)
      }
      const at = freshCount++ * RECORD
      if (at === fresh.length) fresh = enlarged(fresh)
      fresh.set(key, at)
      fresh[at + FLAGS_AT] = isPlain ? PLAIN : 0
      fresh.set(digest, at + DIGEST_AT)
    },
    names: (fd, list) => {
      const stats = statOf(fd)
      if (!names.isTrusted(stats, fd)) return list()
      const there = names.find(stats)
      if (there !== undefined) return there
      const listed = list()
      names.remember(stats, listed)
      return listed
    },
    save: () => {
      names.save()
      if (freshCount === 0) return
      const all = known.records
      const most = (uses + freshCount) * MOST_UNUSED
      /** Moved to the front. */
      let added = 0
      for (let from = 0; from < freshCount * RECORD; from += RECORD) {
        // In the place of what was known of the inode before, so that the order stays the one in which files are asked for.
        const at = known.findInode(fresh, from)
        if (at === undefined) {
          if (added < from) fresh.copyWithin(added, from, from + RECORD)
          added += RECORD
        } else {
          fresh.copy(all, at, from, from + RECORD)
          used[at / RECORD] = 1
        }
      }
      const kept: Buffer[] = []
      let keptFrom = 0
      for (let at = 0, unused = 0; at < all.length; at += RECORD) {
        if (used[at / RECORD] === 1 || unused++ < most) continue
        kept.push(all.subarray(keptFrom, at))
        keptFrom = at + RECORD
      }
      const records = Buffer.concat([...kept, all.subarray(keptFrom), fresh.subarray(0, added)])
      writeNote(path, MAGIC, [records])
      known = index(records)
      fresh = EMPTY
      freshCount = 0
      linked.clear()
      used = new Uint8Array(known.count)
      uses = 0
    },
  }
}

/** A byte string's. */
function pathBelow(root: number, path: string): Buffer {
  return Buffer.from(`/proc/self/fd/${root}/${path}`, 'latin1')
}

/** `find` has asked. */
function nowhere(): never {
  throw new Error('a file is remembered that was not looked for')
}

/** Most digests are only copied. */
class Recorded implements KnownFile {
  readonly #records: Buffer
  readonly #words: Uint32Array
  readonly #at: number

  constructor(records: Buffer, words: Uint32Array, at: number) {
    this.#records = records
    this.#words = words
    this.#at = at
  }

  get digest(): Buffer {
    return this.#records.subarray(this.#at + DIGEST_AT, this.#at + RECORD)
  }
  get isPlain(): boolean {
    return this.#records[this.#at + FLAGS_AT] === PLAIN
  }
  copyDigest(into: Uint32Array, at: number): void {
    const from = (this.#at + DIGEST_AT) / 4
    for (let i = 0; i < DIGEST_WORDS; i++) into[at + i] = this.#words[from + i] ?? 0
  }
}

function enlarged(records: Buffer): Buffer<ArrayBuffer> {
  const larger = Buffer.alloc(Math.max(64 * RECORD, records.length * 2))
  records.copy(larger)
  return larger
}

interface Index {
  readonly records: Buffer
  /** The same. */
  readonly words: Uint32Array
  readonly count: number
  /** Where the record of exactly this file begins. */
  find(stats: Stat): number | undefined
  /** Where the one begins that is of the same device and inode as the one at `at`. */
  findInode(from: Buffer, at: number): number | undefined
}

/** Of 4 bytes each, of a record. */
const WORDS = RECORD / 4
const DIGEST_WORDS = (RECORD - DIGEST_AT) / 4

/**
 * No two records are of one inode. Files are asked for in the order in which they were remembered, but for some; for those there is a table, made when the first of
 * them is asked for.
 */
function index(records: Buffer): Index {
  const count = records.length / RECORD
  const words = new Uint32Array(records.buffer, records.byteOffset, count * WORDS)
  let next = 0
  let table: ((inode: Uint32Array) => number | undefined) | undefined
  const lookup = (inode: Uint32Array): number | undefined => (table ??= createTable(words, count))(inode)
  const isSameInode = (record: number): boolean => isSame(words, record * WORDS, keyWords, 0, INODE_WORDS)
  return {
    records,
    words,
    count,
    find: (stats) => {
      if (count === 0) return undefined
      encodeKey(stats)
      const found = next < count && isSameInode(next) ? next : lookup(keyWords)
      if (found === undefined) return undefined
      next = found + 1
      return isSame(words, found * WORDS, keyWords, 0, KEY_WORDS) ? found * RECORD : undefined
    },
    findInode: (from, at) => {
      from.copy(key, 0, at, at + key.length)
      const found = lookup(keyWords)
      return found === undefined ? undefined : found * RECORD
    },
  }
}

/** Looks up device and inode. Open addressing by the latter; of two records of one inode the later counts. */
function createTable(words: Uint32Array, count: number): (inode: Uint32Array) => number | undefined {
  const mask = 2 ** Math.ceil(Math.log2(count * 2 + 2)) - 1
  const table = new Uint32Array(mask + 1)
  /** The slot of the record that begins with the same words, or the free one. */
  const slotOf = (inode: Uint32Array, from: number): number => {
    let slot = Math.imul(inode[from + 2] ?? 0, 0x9e3779b1) & mask
    for (; table[slot] !== 0; slot = (slot + 1) & mask)
      if (isSame(words, ((table[slot] ?? 0) - 1) * WORDS, inode, from, INODE_WORDS)) break
    return slot
  }
  for (let i = 0; i < count; i++) table[slotOf(words, i * WORDS)] = i + 1
  return (inode) => {
    const found = table[slotOf(inode, 0)] ?? 0
    return found === 0 ? undefined : found - 1
  }
}

function isSame(a: Uint32Array, from: number, b: Uint32Array, at: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (a[from + i] !== b[at + i]) return false
  return true
}

/** The records; none when the file is missing or not whole. */
function load(path: string): Buffer {
  const records = readNote(path, MAGIC) ?? EMPTY
  return records.length % RECORD === 0 ? records : EMPTY
}
