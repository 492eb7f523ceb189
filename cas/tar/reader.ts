/**
 * The tar tokenizer: v7, ustar, star, GNU and PAX archives, in one pass. What is accepted, and which field wins, is as in Go's
 * archive/tar, since that is how Docker and containerd read layers; where we are stricter, we refuse with an error and never
 * read something else than they would. Global PAX headers are checked and otherwise ignored, as there.
 */
import { parseHeader, isZeroBlock, type RawHeader } from './header.ts'
import { BLOCK, noXattrs, TAR_LIMITS, tarError, WHITEOUT_PREFIX } from './entry.ts'
import type { SparseRegion, TarEntry, TarEntryType, TarLimits } from './entry.ts'
import { cleanPath, longestComponent } from './names.ts'
import { parseDecimal, parseNumeric, parsePaxTime } from './number.ts'
import { parsePax, paxXattrs } from './pax.ts'
import {
  addOldRegions,
  areValidRegions,
  parsePaxSparseMap,
  parseSparseMap1,
  paxSparseFormat,
} from './sparse.ts'

/** Called in the order of the archive: `entry`, `data` any number of times, `end`; then the next. */
export interface TarHandler {
  entry(entry: TarEntry): void
  /**
   * A part of a file's contents at `offset` of the file. It is a view of the bytes that were fed: valid during the call only, and
   * never a copy, so all that no `data` call shows is header, map or padding. Holes of sparse files are skipped.
   */
  data(chunk: Buffer, offset: number): void
  end(): void
}

type State = 'header' | 'meta' | 'oldSparse' | 'sparseMap' | 'data' | 'padding' | 'end'
type MetaType = 'x' | 'g' | 'L' | 'K'

/** Header fields once PAX and GNU records are applied; paths as byte strings, not yet cleaned. */
interface Pending {
  readonly header: RawHeader
  readonly type: TarEntryType
  path: string
  link: string
  uid: number
  gid: number
  uname: string
  gname: string
  mtimeNs: bigint
  xattrs: ReadonlyMap<string, Buffer>
  /** Bytes in the archive. */
  stored: number
  /** Bytes of the file. */
  size: number
}

const types: Readonly<Record<string, TarEntryType>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  S: 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'char',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

/**
 * Feed it the archive in chunks of any size, then call `finish`. Bytes after the end marker are ignored (Docker hashes but
 * does not read them). Errors: `TAR_HEADER`, `TAR_CHECKSUM`, `TAR_NUMBER`, `TAR_PAX`, `TAR_SPARSE`, `TAR_TYPE`, `TAR_NAME_TOO_LONG`,
 * `TAR_TOO_LARGE` (a bound of `limits`), `TAR_TRUNCATED`; after one the reader is of no more use.
 */
export class TarReader {
  readonly #handler: TarHandler
  readonly #limits: TarLimits
  #state: State = 'header'
  /** Bytes consumed. */
  #offset = 0
  /** Where the current entry's header stands, for errors. */
  #headerOffset = 0
  readonly #block = Buffer.alloc(BLOCK)
  #filled = 0
  #zeroBlock = false

  #metaType: MetaType = 'x'
  #meta = Buffer.alloc(0)
  #metaFilled = 0
  #metaSize = 0
  #pax: Map<string, string> | undefined
  #longName = ''
  #longLink = ''

  #pending: Pending | undefined
  #regions: SparseRegion[] = []
  #mapBytes = 0
  #mapBlocks: Buffer[] = []

  /** Stored bytes of the entry that are still to come, and the padding after them. */
  #remaining = 0
  #padding = 0
  #sparse: readonly SparseRegion[] | undefined
  #region = 0
  #position = 0

  constructor(handler: TarHandler, limits: Partial<TarLimits> = {}) {
    this.#handler = handler
    this.#limits = { ...TAR_LIMITS, ...limits }
  }

  /** True once the end marker was read: the rest of the stream is not interpreted. */
  get ended(): boolean {
    return this.#state === 'end'
  }

  feed(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      const before = at
      switch (this.#state) {
        case 'header':
        case 'oldSparse':
        case 'sparseMap':
          at = this.#feedBlock(chunk, at)
          break
        case 'meta':
          at = this.#feedMeta(chunk, at)
          break
        case 'data':
          at = this.#feedData(chunk, at)
          break
        case 'padding': {
          const length = Math.min(this.#padding, chunk.length - at)
          this.#padding -= length
          at += length
          if (this.#padding === 0) this.#state = 'header'
          break
        }
        case 'end':
          at = chunk.length
          break
      }
      this.#offset += at - before
    }
  }

  /** The stream is over. Without an end marker it is complete when it stops between entries or in the padding of one. */
  finish(): void {
    if (this.#state === 'end') return
    const between = this.#state === 'padding' || (this.#state === 'header' && this.#filled === 0)
    if (between && this.#pax === undefined && this.#longName === '' && this.#longLink === '') return
    throw this.#error('TAR_TRUNCATED', 'the archive ends in the middle of it')
  }

  #feedBlock(chunk: Buffer, at: number): number {
    if (this.#filled === 0 && chunk.length - at >= BLOCK) {
      this.#takeBlock(chunk, at)
      return at + BLOCK
    }
    const length = Math.min(BLOCK - this.#filled, chunk.length - at)
    chunk.copy(this.#block, this.#filled, at, at + length)
    this.#filled += length
    if (this.#filled === BLOCK) {
      this.#filled = 0
      this.#takeBlock(this.#block, 0)
    }
    return at + length
  }

  #takeBlock(block: Buffer, at: number): void {
    if (this.#state === 'header') this.#takeHeader(block, at)
    else if (this.#state === 'oldSparse') this.#takeOldSparse(block.subarray(at, at + BLOCK))
    else this.#takeSparseMap(block.subarray(at, at + BLOCK))
  }

  #takeHeader(block: Buffer, at: number): void {
    this.#headerOffset = this.#offset
    this.#pending = undefined
    if (block[at] === 0 && isZeroBlock(block, at)) {
      if (this.#zeroBlock) this.#state = 'end'
      this.#zeroBlock = true
      return
    }
    if (this.#zeroBlock) throw this.#error('TAR_HEADER', 'a header after a block of zeros')
    const header = parseHeader(block, at)
    if (header === 'checksum') throw this.#error('TAR_CHECKSUM', 'the header checksum does not match')
    if (header.invalid !== undefined) {
      throw this.#error('TAR_NUMBER', `${header.invalid} is not a number in range`, header.path)
    }
    const { flag } = header
    if (flag === 'x' || flag === 'g' || flag === 'L' || flag === 'K') this.#beginMeta(flag, header)
    else this.#beginEntry(header, block, at)
  }

  #beginMeta(type: MetaType, header: RawHeader): void {
    if (header.size < 0) throw this.#error('TAR_NUMBER', 'its size is negative', header.path)
    if (header.size > this.#limits.header) {
      throw this.#error('TAR_TOO_LARGE', `an extended header of ${header.size} bytes`, header.path)
    }
    this.#metaType = type
    this.#metaSize = header.size
    this.#metaFilled = 0
    if (this.#meta.length < header.size) this.#meta = Buffer.allocUnsafeSlow(Math.max(8192, header.size))
    this.#padding = paddingOf(header.size)
    if (header.size === 0) this.#takeMeta()
    else this.#state = 'meta'
  }

  #feedMeta(chunk: Buffer, at: number): number {
    const length = Math.min(this.#metaSize - this.#metaFilled, chunk.length - at)
    chunk.copy(this.#meta, this.#metaFilled, at, at + length)
    this.#metaFilled += length
    if (this.#metaFilled === this.#metaSize) this.#takeMeta()
    return at + length
  }

  #takeMeta(): void {
    this.#state = this.#padding === 0 ? 'header' : 'padding'
    const bytes = this.#meta.subarray(0, this.#metaSize)
    if (this.#metaType === 'L' || this.#metaType === 'K') {
      const nul = bytes.indexOf(0)
      const name = bytes.toString('latin1', 0, nul < 0 ? bytes.length : nul)
      if (this.#metaType === 'L') this.#longName = name
      else this.#longLink = name
      return
    }
    const records = parsePax(bytes)
    if (records === undefined) throw this.#error('TAR_PAX', 'a malformed PAX header')
    if (this.#metaType === 'x') this.#pax = records
    // Go hands a global header out as an entry of its own, which ends what is pending.
    else this.#clearMeta()
  }

  #clearMeta(): void {
    this.#pax = undefined
    this.#longName = ''
    this.#longLink = ''
  }

  #beginEntry(header: RawHeader, block: Buffer, at: number): void {
    const pax = this.#pax
    const path = this.#longName || pax?.get('path') || header.path
    let type = types[header.flag]
    if (type === undefined) {
      throw this.#error('TAR_TYPE', `unknown entry type ${JSON.stringify(header.flag)}`, path)
    }
    // Archives older than ustar mark a directory by its name only. Go looks after the records are applied.
    if (header.flag === '\0' && path.endsWith('/')) type = 'directory'
    const pending: Pending = {
      header,
      type,
      path,
      link: this.#longLink || pax?.get('linkpath') || header.link,
      uid: header.uid,
      gid: header.gid,
      uname: header.uname,
      gname: header.gname,
      mtimeNs: BigInt(header.mtime) * 1_000_000_000n,
      xattrs: noXattrs,
      stored: header.size,
      size: header.size,
    }
    this.#pending = pending
    this.#clearMeta()
    if (pax !== undefined) this.#applyPax(pending, pax)
    if (pending.stored < 0) throw this.#error('TAR_NUMBER', 'its size is negative')
    if (type !== 'file') pending.stored = 0
    if (header.flag === 'S') this.#beginOldSparse(pending, block, at)
    else if (pax === undefined) this.#emit(pending, undefined)
    else this.#beginPaxSparse(pending, pax)
  }

  #applyPax(pending: Pending, pax: ReadonlyMap<string, string>): void {
    const whole = (key: string, otherwise: number): number => {
      const text = pax.get(key)
      if (text === undefined || text === '') return otherwise
      const value = parseDecimal(text)
      if (value === undefined) throw this.#error('TAR_NUMBER', `PAX ${key} is not a number in range`)
      return value
    }
    pending.stored = whole('size', pending.stored)
    pending.size = pending.stored
    pending.uid = whole('uid', pending.uid)
    pending.gid = whole('gid', pending.gid)
    pending.uname = pax.get('uname') || pending.uname
    pending.gname = pax.get('gname') || pending.gname
    for (const key of ['mtime', 'atime', 'ctime']) {
      const text = pax.get(key) ?? ''
      const ns = text === '' ? undefined : parsePaxTime(text)
      if (text !== '' && ns === undefined) throw this.#error('TAR_NUMBER', `PAX ${key} is not a time`)
      if (key === 'mtime' && ns !== undefined) pending.mtimeNs = ns
    }
    const xattrs = paxXattrs(pax)
    if (xattrs === undefined) return
    let bytes = 0
    for (const [name, value] of xattrs) bytes += name.length + value.length
    if (xattrs.size > this.#limits.xattrs || bytes > this.#limits.xattrBytes) {
      throw this.#error('TAR_TOO_LARGE', `${xattrs.size} extended attributes of ${bytes} bytes`)
    }
    pending.xattrs = xattrs
  }

  #beginOldSparse(pending: Pending, block: Buffer, at: number): void {
    const header = block.subarray(at, at + BLOCK)
    const size = parseNumeric(header, 483, 12)
    if (pending.header.format !== 'gnu' || size === undefined) throw this.#sparseError()
    pending.size = size
    this.#regions = []
    this.#mapBytes = 0
    if (!addOldRegions(this.#regions, header, 386, 4)) throw this.#sparseError()
    if ((header[482] ?? 0) === 0) this.#emit(pending, this.#regions)
    else this.#state = 'oldSparse'
  }

  #takeOldSparse(block: Buffer): void {
    const pending = this.#pending
    if (pending === undefined) return
    this.#mapBytes += BLOCK
    if (this.#mapBytes > this.#limits.header) throw this.#error('TAR_TOO_LARGE', 'its sparse map is too long')
    if (!addOldRegions(this.#regions, block, 0, 21)) throw this.#sparseError()
    if ((block[504] ?? 0) === 0) this.#emit(pending, this.#regions)
  }

  #beginPaxSparse(pending: Pending, pax: ReadonlyMap<string, string>): void {
    const format = paxSparseFormat(pax)
    if (format === 'none') {
      this.#emit(pending, undefined)
      return
    }
    if (pending.type !== 'file') throw this.#sparseError()
    pending.path = pax.get('GNU.sparse.name') || pending.path
    const text = pax.get('GNU.sparse.size') || pax.get('GNU.sparse.realsize') || ''
    const size = text === '' ? pending.size : parseDecimal(text)
    if (size === undefined) throw this.#sparseError()
    pending.size = size
    if (format === '1.0') {
      this.#mapBytes = 0
      this.#mapBlocks = []
      if (pending.stored < BLOCK) throw this.#sparseError()
      this.#state = 'sparseMap'
      return
    }
    const regions = parsePaxSparseMap(pax)
    if (regions === undefined) throw this.#sparseError()
    this.#emit(pending, regions)
  }

  #takeSparseMap(block: Buffer): void {
    const pending = this.#pending
    if (pending === undefined) return
    this.#mapBytes += BLOCK
    if (this.#mapBytes > this.#limits.header) throw this.#error('TAR_TOO_LARGE', 'its sparse map is too long')
    if (this.#mapBytes > pending.stored) throw this.#sparseError()
    this.#mapBlocks.push(Buffer.from(block))
    // Parsed once, when all its lines are there: linear in the map's length.
    const blocks = this.#mapBlocks.length
    const last = this.#mapBytes + BLOCK > Math.min(pending.stored, this.#limits.header)
    if (!last && !this.#isMapComplete(block)) return
    const regions = parseSparseMap1(blocks === 1 ? block : Buffer.concat(this.#mapBlocks))
    if (regions === 'more' && !last) return
    if (regions === undefined || regions === 'more') throw this.#sparseError()
    this.#mapBlocks = []
    pending.stored -= this.#mapBytes
    this.#emit(pending, regions)
  }

  /** Counts the map's lines as its blocks arrive. */
  #mapLines = 0
  #mapWanted: number | undefined
  #isMapComplete(block: Buffer): boolean {
    if (this.#mapBlocks.length === 1) {
      const end = block.indexOf(10)
      const count = end < 0 ? undefined : parseDecimal(block.toString('latin1', 0, end))
      if (count === undefined || count < 0) throw this.#sparseError()
      this.#mapLines = 0
      this.#mapWanted = 1 + 2 * count
    }
    for (let at = block.indexOf(10); at >= 0; at = block.indexOf(10, at + 1)) this.#mapLines++
    return this.#mapLines >= (this.#mapWanted ?? 0)
  }

  #emit(pending: Pending, regions: readonly SparseRegion[] | undefined): void {
    const { header, type } = pending
    const path = this.#cleaned(pending.path)
    for (const id of [pending.uid, pending.gid]) {
      // 2^32 - 1 means "leave it as it is" to chown(2).
      if (id < 0 || id > 0xffff_fffe) throw this.#error('TAR_NUMBER', `owner ${id} is out of range`)
    }
    if (regions !== undefined && !areValidRegions(regions, pending.size, pending.stored)) {
      throw this.#sparseError()
    }
    const isLink = type === 'symlink' || type === 'hardlink'
    if (type === 'symlink' && pending.link.length > this.#limits.path) throw this.#tooLong('link target')
    const link = type === 'hardlink' ? this.#cleaned(pending.link) : pending.link
    const isDevice = type === 'char' || type === 'block'
    if (isDevice && !(isIn(header.major, 0xfff) && isIn(header.minor, 0xfffff))) {
      throw this.#error('TAR_NUMBER', `device ${header.major}:${header.minor} is out of range`)
    }
    this.#remaining = pending.stored
    this.#padding = paddingOf(pending.stored)
    this.#sparse = regions
    this.#region = 0
    this.#position = 0
    this.#handler.entry({
      type,
      path: Buffer.from(path, 'latin1'),
      ...(isLink ? { link: Buffer.from(link, 'latin1') } : undefined),
      mode: header.mode & 0o7777,
      uid: pending.uid,
      gid: pending.gid,
      ...(pending.uname === '' ? undefined : { uname: fromBytes(pending.uname) }),
      ...(pending.gname === '' ? undefined : { gname: fromBytes(pending.gname) }),
      size: type === 'file' ? pending.size : 0,
      mtimeNs: pending.mtimeNs,
      major: isDevice ? header.major : 0,
      minor: isDevice ? header.minor : 0,
      xattrs: pending.xattrs,
      ...(regions === undefined ? undefined : { sparse: regions }),
    })
    this.#state = 'data'
    if (this.#remaining === 0) this.#endEntry()
  }

  #cleaned(name: string): string {
    if (name.length <= 100) return cleanPath(name)
    const clean = cleanPath(name)
    const bare = withoutWhiteout(clean)
    if (bare.length > this.#limits.path) throw this.#tooLong('name')
    if (longestComponent(bare) > this.#limits.name) throw this.#tooLong("name's component")
    return clean
  }

  #feedData(chunk: Buffer, at: number): number {
    let length = Math.min(this.#remaining, chunk.length - at)
    let offset = this.#position
    if (this.#sparse !== undefined) {
      // Positions are within the region; empty regions (the file's end) hold nothing.
      let region = this.#sparse[this.#region]
      while (region !== undefined && this.#position === region.length) {
        region = this.#sparse[++this.#region]
        this.#position = 0
      }
      if (region === undefined) throw this.#sparseError()
      length = Math.min(length, region.length - this.#position)
      offset = region.offset + this.#position
    }
    this.#handler.data(chunk.subarray(at, at + length), offset)
    this.#position += length
    this.#remaining -= length
    if (this.#remaining === 0) this.#endEntry()
    return at + length
  }

  #endEntry(): void {
    this.#state = this.#padding === 0 ? 'header' : 'padding'
    this.#handler.end()
  }

  #error(code: string, message: string, name = this.#pending?.path) {
    return tarError(code, message, { ...(name === undefined ? {} : { name }), offset: this.#headerOffset })
  }

  #sparseError() {
    return this.#error('TAR_SPARSE', 'its map of a sparse file is malformed')
  }

  #tooLong(what: string) {
    return this.#error('TAR_NAME_TOO_LONG', `its ${what} is longer than Linux allows`)
  }
}

/** A name that is deleted may be as long as any other: the mark before it does not count. */
function withoutWhiteout(path: string): string {
  const start = path.lastIndexOf('/') + 1
  if (!path.startsWith(WHITEOUT_PREFIX, start)) return path
  return path.slice(0, start) + path.slice(start + WHITEOUT_PREFIX.length)
}

function isIn(value: number, max: number): boolean {
  return value >= 0 && value <= max
}

function paddingOf(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK
}

function fromBytes(text: string): string {
  return Buffer.from(text, 'latin1').toString()
}
