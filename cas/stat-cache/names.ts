/**
 * Names in directories, by what stat(2) says of these: each name that is made, removed or renamed moves its directory's times. As safe as the digests of files are
 * (`stat-cache.ts`), for the same reasons, on file systems that are known to keep such times: FAT has none for its root.
 *
 * File: for each directory its key, length of what follows (4 bytes, little-endian), and the names with `/` between them.
 */
import type { Stat } from '../../linux/index.ts'
import { encodeKey, isSettled, key, KEY_WORDS } from './key.ts'
import { readNote, writeNote } from './note.ts'
import { LOCAL, TrustedDevices } from './trusted.ts'

const MAGIC = Buffer.from('tbuild names 1\n\0')
const KEY = KEY_WORDS * 4
const HEAD = KEY + 4
/** Of fewer nothing is kept. */
const LEAST_NAMES = 1000

export class NameCache {
  readonly #path: string
  readonly #now: () => bigint
  #known: Buffer
  /** By inode: where its record begins. */
  readonly #records = new Map<number, number>()
  readonly #fresh = new Map<number, Buffer>()
  #names = 0
  readonly #trusted = new TrustedDevices(LOCAL)

  /** @param now the time, no later than the first question that had no answer */
  constructor(path: string, now: () => bigint) {
    this.#path = path
    this.#now = now
    this.#known = readNote(path, MAGIC) ?? Buffer.alloc(0)
    for (let at = 0; at < this.#known.length; at = this.#endOf(at))
      this.#records.set(inodeOf(this.#known.readUInt32LE(at + 8), this.#known.readUInt32LE(at + 12)), at)
  }

  /** Whether the file system that the open directory is on moves its times. */
  isTrusted({ dev }: Stat, directory: number): boolean {
    return this.#trusted.has(dev, () => `/proc/self/fd/${directory}`)
  }

  #endOf(at: number): number {
    return at + HEAD + this.#known.readUInt32LE(at + KEY)
  }

  /** Of an unchanged directory; byte strings, in their order. */
  find(stats: Stat): string[] | undefined {
    const at = this.#records.get(inodeOf(stats.inoLow, stats.inoHigh))
    encodeKey(stats)
    if (at === undefined || this.#known.compare(key, 0, KEY, at, at + KEY) !== 0) {
      this.#now()
      return undefined
    }
    const text = this.#known.toString('latin1', at + HEAD, this.#endOf(at))
    return text === '' ? [] : text.split('/')
  }

  /** After `find` has not found it: `stats` as they were then. */
  remember(stats: Stat, names: readonly string[]): void {
    if (!isSettled(stats, this.#now())) return
    const text = names.join('/')
    const record = Buffer.alloc(HEAD + text.length)
    encodeKey(stats)
    record.set(key)
    record.writeUInt32LE(text.length, KEY)
    record.write(text, HEAD, 'latin1')
    this.#fresh.set(inodeOf(stats.inoLow, stats.inoHigh), record)
    this.#names += names.length
  }

  save(): void {
    if (this.#fresh.size === 0 || (this.#known.length === 0 && this.#names < LEAST_NAMES)) return
    const kept: Buffer[] = []
    for (const [inode, at] of this.#records)
      kept.push(this.#fresh.get(inode) ?? this.#known.subarray(at, this.#endOf(at)))
    const added = [...this.#fresh].flatMap(([inode, record]) => (this.#records.has(inode) ? [] : [record]))
    writeNote(this.#path, MAGIC, [...kept, ...added])
    this.#fresh.clear()
  }
}

function inodeOf(low: number, high: number): number {
  return high * 2 ** 32 + low
}
