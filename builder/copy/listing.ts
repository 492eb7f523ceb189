/**
 * All that a COPY takes, packed, so that it can be compared with what the last one took, and what differs be told entry by entry. Two listings that are equal make
 * equal layers of equal parents.
 */
import { createHash } from 'node:crypto'
import type { TarEntryType } from '../../cas/index.ts'
import type { Found } from './found.ts'
import { isUsual, lineOf } from './source.ts'

/** One source, as the destination has it, and what was found of it: a directory before what is in it. */
export interface Walked {
  readonly name: string
  readonly all: readonly Found[]
}

/**
 * An entry: type and mode, uid, gid, how many names a directory has; and what may differ of a usual file, or of a directory: mtime (seconds twice, nanoseconds),
 * size (twice), sha256. Words of 4 bytes, little-endian.
 */
const FIXED = 4
const MTIME = 4
const SIZE = 7
const DIGEST = 9
const WORDS = 17
const RECORD = WORDS * 4
const USUAL = 1 << 16
const TYPES: readonly TarEntryType[] = ['file', 'directory', 'symlink', 'char', 'block', 'fifo']
const TYPE_AT = 12
const TWO_32 = 2 ** 32
/** Records that are compared at a time. */
const AT_ONCE = 1024

export class Listing {
  readonly count: number
  readonly #records: Buffer
  /** All names, and a digest of all that only few entries have: attributes, targets of links, several names. */
  readonly #rest: Buffer

  private constructor(records: Buffer, rest: Buffer) {
    this.count = records.length / RECORD
    this.#records = records
    this.#rest = rest
  }

  static of(walked: readonly Walked[], owners: boolean): Listing {
    const count = walked.reduce((sum, { all }) => sum + all.length, 0)
    const words = new Uint32Array(count * WORDS)
    const records = Buffer.from(words.buffer)
    const unusual = createHash('sha256')
    const inodes = new Map<string, number>()
    let names = ''
    let at = 0
    for (const { name, all } of walked) {
      names += `${name.length} ${name} ${all.length}\n`
      for (const found of all) {
        names += `${found.name}/`
        encode(words, at, found)
        if (isUsual(found)) records.set(found.known?.digest ?? NOTHING, (at + DIGEST) * 4)
        else unusual.update(`${lineOf(found, found.path, owners, inodes)}\n`)
        at += WORDS
      }
    }
    return new Listing(records, Buffer.concat([unusual.digest(), Buffer.from(names, 'latin1')]))
  }

  get packed(): readonly Buffer[] {
    return [this.#records, this.#rest]
  }

  static unpack(entries: number, packed: Buffer): Listing {
    return new Listing(packed.subarray(0, entries * RECORD), packed.subarray(entries * RECORD))
  }

  /** Numbers of the entries that are not as in `former`; `undefined` where more is different than a usual file's contents, and times of these and of directories. */
  differences(former: Listing): number[] | undefined {
    if (this.count !== former.count || !this.#rest.equals(former.#rest)) return undefined
    const different: number[] = []
    for (let from = 0; from < this.count; from += AT_ONCE) {
      const to = Math.min(from + AT_ONCE, this.count)
      if (this.#isSame(former, from * RECORD, to * RECORD)) continue
      for (let i = from; i < to; i++) {
        if (this.#isSame(former, i * RECORD, (i + 1) * RECORD)) continue
        if (!this.#isSame(former, i * RECORD, i * RECORD + FIXED * 4)) return undefined
        if (!this.isUsualFile(i) && !this.isDirectory(i)) return undefined
        different.push(i)
      }
    }
    return different
  }

  #isSame(former: Listing, from: number, to: number): boolean {
    return this.#records.compare(former.#records, from, to, from, to) === 0
  }

  isUsualFile(entry: number): boolean {
    return (this.#records.readUInt32LE(entry * RECORD) & USUAL) !== 0
  }
  isDirectory(entry: number): boolean {
    return TYPES[(this.#records.readUInt32LE(entry * RECORD) >> TYPE_AT) & 0xf] === 'directory'
  }
}

const NOTHING = Buffer.alloc(32)

function encode(words: Uint32Array, at: number, found: Found): void {
  const { type, stats, children } = found
  words[at] = stats.mode | (TYPES.indexOf(type) << TYPE_AT) | (isUsual(found) ? USUAL : 0)
  words[at + 1] = stats.uid
  words[at + 2] = stats.gid
  words[at + 3] = children.length
  words[at + MTIME] = stats.mtimeSeconds
  words[at + MTIME + 1] = Math.floor(stats.mtimeSeconds / TWO_32)
  words[at + MTIME + 2] = stats.mtimeNanoseconds
  if (type !== 'file') return
  words[at + SIZE] = stats.size
  words[at + SIZE + 1] = Math.floor(stats.size / TWO_32)
}
