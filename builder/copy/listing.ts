/**
 * All that a COPY takes, packed: its digest is the cache key's, and compared with what the last COPY took, it tells entry by entry what differs. Modification times are
 * beside it: they are in the layer, but a fresh checkout of the same files is the same to the cache.
 */
import { createHash, type Hash } from 'node:crypto'
import type { TarEntryType } from '../../cas/index.ts'
import { relativeTo, type Found } from './found.ts'

/** One source, as its destination calls it, and what was found of it: a directory before what is in it. */
export interface Walked {
  readonly name: string
  /** Of a name with directories: see `directoriesAbove`. */
  readonly above: readonly (Found | undefined)[]
  readonly all: readonly Found[]
}

/** What has an entry, in this order. */
export function listedOf({ above, all }: Walked): readonly Found[] {
  return above.length === 0 ? all : [...above.filter((found) => found !== undefined), ...all]
}

/**
 * An entry: type and mode, uid, gid, how many names a directory has; then what may be other contents of the same file: size (low, high) and sha256. In words of 4 bytes. With
 * the names, in an order in which each directory comes before what is in it, these say what tree it is.
 */
const CHILDREN = 3
const SIZE = 4
const DIGEST = 6
const WORDS = 14
const RECORD = WORDS * 4
const FIXED = SIZE * 4
/** Seconds (low, high), nanoseconds. */
const TIME_WORDS = 3
const TIME = TIME_WORDS * 4
/** It has nothing but what most files have; all else of others is in a digest of its own. */
const USUAL = 1 << 16
const TYPE_BITS = 12
const TYPES: readonly TarEntryType[] = ['file', 'directory', 'symlink', 'char', 'block', 'fifo']
const TWO_32 = 2 ** 32
/** That many are compared at a time, before each is. */
const AT_ONCE = 1024

export class Listing {
  readonly entries: number
  readonly #records: Buffer
  readonly #times: Buffer
  /** Digest of what is unusual, then names. */
  readonly #rest: Buffer

  constructor(records: Buffer, times: Buffer, rest: Buffer) {
    this.entries = times.length / TIME
    this.#records = records
    this.#times = times
    this.#rest = rest
  }

  /** Of all but times. */
  get digest(): string {
    return `sha256:${createHash('sha256').update(this.#records).update(this.#rest).digest('hex')}`
  }

  get packed(): readonly Buffer[] {
    return [this.#records, this.#times, this.#rest]
  }

  static unpack(entries: number, packed: Buffer): Listing {
    const timesAt = entries * RECORD
    const restAt = timesAt + entries * TIME
    return new Listing(packed.subarray(0, timesAt), packed.subarray(timesAt, restAt), packed.subarray(restAt))
  }

  /** Numbers of the entries that differ from `former`; `undefined` where anything does but contents of usual files, and times of these and of directories. */
  differences(former: Listing): number[] | undefined {
    if (this.entries !== former.entries || !this.#rest.equals(former.#rest)) return undefined
    const different: number[] = []
    for (let from = 0; from < this.entries; from += AT_ONCE) {
      const to = Math.min(from + AT_ONCE, this.entries)
      if (this.#isSame(former, from, to)) continue
      for (let entry = from; entry < to; entry++) {
        if (this.#isSame(former, entry, entry + 1)) continue
        if (!isEqual(this.#records, former.#records, entry * RECORD, entry * RECORD + FIXED)) return undefined
        if (!this.#mayDiffer(entry)) return undefined
        different.push(entry)
      }
    }
    return different
  }

  #isSame(former: Listing, from: number, to: number): boolean {
    return (
      isEqual(this.#records, former.#records, from * RECORD, to * RECORD) &&
      isEqual(this.#times, former.#times, from * TIME, to * TIME)
    )
  }

  #mayDiffer(entry: number): boolean {
    const kind = this.#records.readUInt32LE(entry * RECORD)
    return (kind & USUAL) !== 0 || TYPES[(kind >> TYPE_BITS) & 0xf] === 'directory'
  }
}

function isEqual(a: Buffer, b: Buffer, from: number, to: number): boolean {
  return a.compare(b, from, to, from, to) === 0
}

export interface ListingOptions {
  /** Of all sources. */
  readonly entries: number
  /** Owners count. */
  readonly owners: boolean
  /** A directory that is named is copied itself, not only what is in it. */
  readonly itself: boolean
}

/** Makes a listing, source by source. */
export class Lister {
  readonly #options: ListingOptions
  readonly #words: Uint32Array<ArrayBuffer>
  readonly #records: Buffer
  readonly #times: Uint32Array<ArrayBuffer>
  readonly #unusual: Hash = createHash('sha256')
  /** Of several names. */
  readonly #inodes = new Map<string, number>()
  #names = ''
  #top: Found | undefined
  #count = 0

  constructor(options: ListingOptions) {
    this.#options = options
    this.#words = new Uint32Array(options.entries * WORDS)
    this.#records = Buffer.from(this.#words.buffer)
    this.#times = new Uint32Array(options.entries * TIME_WORDS)
  }

  source({ name, above, all }: Walked): void {
    const missing = above.map((found) => (found === undefined ? '-' : '+')).join('')
    this.#names += `${name.length} ${name} ${all.length}${missing}\n`
    // The source's name says what its top is called.
    if (all.length > 1)
      this.#names += `${all
        .slice(1)
        .map((found) => found.name)
        .join('/')}/`
    this.#top = all[0]
  }

  /** The source's next. */
  entry(found: Found): void {
    const { type, stats, children, known } = found
    const entry = this.#count++
    const time = entry * TIME_WORDS
    this.#times[time] = stats.mtimeSeconds
    this.#times[time + 1] = Math.floor(stats.mtimeSeconds / TWO_32)
    this.#times[time + 2] = stats.mtimeNanoseconds
    const isTop = found === this.#top
    const words = this.#words
    const at = entry * WORDS
    words[at] = TYPES.indexOf(type) << TYPE_BITS
    words[at + CHILDREN] = children.length
    if (isTop && type === 'directory' && !this.#options.itself) return
    const usual = known?.isPlain === true && stats.nlink === 1
    words[at] = stats.mode | (TYPES.indexOf(type) << TYPE_BITS) | (usual ? USUAL : 0)
    if (this.#options.owners) {
      words[at + 1] = stats.uid
      words[at + 2] = stats.gid
    }
    if (known !== undefined) {
      words[at + SIZE] = stats.size
      words[at + SIZE + 1] = Math.floor(stats.size / TWO_32)
      known.copyDigest(words, at + DIGEST)
    }
    if (!usual) this.#unusual.update(`${this.#describe(found)}\n`)
  }

  end(): Listing {
    const rest = Buffer.concat([this.#unusual.digest(), Buffer.from(this.#names, 'latin1')])
    return new Listing(this.#records, Buffer.from(this.#times.buffer), rest)
  }

  /** In a form that no two have. */
  #describe(found: Found): string {
    const { path, type, stats, link } = found
    const fields: unknown[] = [type, relativeTo(this.#top?.path ?? '', path)]
    if (link !== undefined) fields.push(link)
    if (type === 'char' || type === 'block') fields.push(`${stats.major}:${stats.minor}`)
    for (const [name, value] of found.xattrs) fields.push(name, value.toString('base64'))
    if (type === 'file' && stats.nlink > 1) {
      // Which names are one file, not which inode it is.
      const inode = `${stats.dev}:${stats.ino}`
      const number = this.#inodes.get(inode) ?? this.#inodes.size
      this.#inodes.set(inode, number)
      fields.push(`link ${number}`)
    }
    return JSON.stringify(fields)
  }
}
