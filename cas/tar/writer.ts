/**
 * The tar writer. One canonical form, so that equal trees give equal bytes, on every machine and in every run:
 * - ustar headers; names without leading `./`, directories with a trailing `/`, the root as `./`;
 * - mode: only 07777; uname and gname empty; device numbers 0 for what is no device;
 * - a PAX header (type x, named "PaxHeaders", mode 0644, owner 0, mtime 0) only where the header cannot say it: `path` and `linkpath` when
 *   longer than 100 bytes or not ASCII (the name field then holds the first 100 bytes; the ustar prefix is never used), `uid` and `gid`
 *   over 2097151, `size` from 8 GiB on, `mtime` with a fraction, before 1970 or after 2242, `SCHILY.xattr.*`;
 * - records sorted by key; numbers that a record overrides are 0 in the header; names in a record are their raw bytes, and where these are not
 *   UTF-8, `hdrcharset=BINARY` says so;
 * - files whole, never in a sparse form; two blocks of zeros at the end.
 */
import { readSync } from 'node:fs'
import { isUtf8 } from 'node:buffer'
import { BLOCK, tarError, type TarEntry, type TarEntryType } from './entry.ts'
import type { RawHeader } from './header.ts'
import { cleanPath, isAscii } from './names.ts'
import { formatPaxTime, splitTime } from './number.ts'
import { formatPaxRecord, paxXattrKey } from './pax.ts'

/** What the writer needs of a `TarEntry`; names may be byte strings (one character a byte), which saves a copy. */
export interface TarOutputEntry {
  readonly type: TarEntryType
  readonly path: Buffer | string
  readonly link?: Buffer | string | undefined
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtimeNs: bigint
  readonly major: number
  readonly minor: number
  readonly xattrs: ReadonlyMap<string, Buffer>
}

const flags: Readonly<Record<TarEntryType, number>> = {
  file: 48,
  hardlink: 49,
  symlink: 50,
  char: 51,
  block: 52,
  directory: 53,
  fifo: 54,
}

const MAX_OCTAL_7 = 0o7777777
const MAX_OCTAL_11 = 0o77777777777

/** The end marker. */
export const END: Buffer = Buffer.alloc(2 * BLOCK)

/** The zeros after contents of `size` bytes. */
export function padding(size: number): Buffer {
  return END.subarray(0, (BLOCK - (size % BLOCK)) % BLOCK)
}

let scratch = Buffer.allocUnsafeSlow(16 * BLOCK)

/** The header blocks of an entry: one, or three and more with a PAX header. Valid until the next call. */
export function encodeHeader(entry: TarEntry | TarOutputEntry): Buffer {
  const fields = fieldsOf(entry)
  const records = paxRecords(entry, fields)
  const paxBlocks = records.length === 0 ? 0 : BLOCK + roundUp(records.length)
  const length = paxBlocks + BLOCK
  if (length > scratch.length) scratch = Buffer.allocUnsafeSlow(length)
  if (paxBlocks > 0) {
    putPaxHeader(scratch, records.length)
    scratch.write(records, BLOCK, 'latin1')
    scratch.fill(0, BLOCK + records.length, paxBlocks)
  }
  putHeader(scratch, paxBlocks, fields)
  return scratch.subarray(0, length)
}

/** The last writer's buffer, for the next one: a fresh MiB for each of many small archives keeps the garbage collector busy (3 ms each). */
let spare: Buffer | undefined

/**
 * Writes an archive into `sink` in chunks of about `bufferSize` bytes, each valid only during the call. Contents go from a descriptor
 * straight into the buffer. `TAR_FILE_CHANGED` when they are fewer or more bytes than the entry's size.
 */
export class TarWriter {
  readonly #sink: (chunk: Buffer) => void
  readonly #buffer: Buffer
  #filled = 0
  #flushed = 0
  #remaining = 0
  #padding = 0
  #name = ''

  constructor(sink: (chunk: Buffer) => void, bufferSize: number = 1024 * 1024) {
    this.#sink = sink
    this.#buffer = spare?.length === bufferSize ? spare : Buffer.allocUnsafeSlow(bufferSize)
    spare = undefined
  }

  /** Bytes written so far. */
  get bytes(): number {
    return this.#flushed + this.#filled
  }

  /** Begin an entry; a file's contents must follow, `size` bytes in all. */
  entry(entry: TarEntry | TarOutputEntry): void {
    this.#endEntry()
    this.#put(encodeHeader(entry))
    this.#remaining = entry.type === 'file' ? entry.size : 0
    this.#padding = padding(this.#remaining).length
    this.#name = byteString(entry.path)
  }

  data(chunk: Uint8Array): void {
    this.#take(chunk.length)
    this.#put(chunk)
  }

  zeros(length: number): void {
    this.#take(length)
    this.#zeros(length)
  }

  /** The next `length` bytes of the contents, from `position` of the descriptor. */
  dataFrom(fd: number, position: number, length: number): void {
    this.#take(length)
    let rest = length
    let from = position
    while (rest > 0) {
      if (this.#filled === this.#buffer.length) this.flush()
      const room = Math.min(rest, this.#buffer.length - this.#filled)
      const read = readSync(fd, this.#buffer, this.#filled, room, from)
      if (read === 0) throw this.#changed('it is shorter than it was when it was opened')
      this.#filled += read
      from += read
      rest -= read
    }
  }

  /** The end marker; everything reaches the sink. Returns the archive's length. */
  finish(): number {
    this.#endEntry()
    this.#put(END)
    this.flush()
    spare = this.#buffer
    return this.#flushed
  }

  flush(): void {
    if (this.#filled === 0) return
    this.#sink(this.#buffer.subarray(0, this.#filled))
    this.#flushed += this.#filled
    this.#filled = 0
  }

  #endEntry(): void {
    if (this.#remaining !== 0) throw this.#changed(`${this.#remaining} bytes of its contents are missing`)
    if (this.#padding > 0) this.#zeros(this.#padding)
    this.#padding = 0
  }

  #take(length: number): void {
    if (length > this.#remaining) throw this.#changed('its contents are longer than its size')
    this.#remaining -= length
  }

  #put(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) {
      if (this.#filled === this.#buffer.length) this.flush()
      const length = Math.min(chunk.length - at, this.#buffer.length - this.#filled)
      this.#buffer.set(
        at === 0 && length === chunk.length ? chunk : chunk.subarray(at, at + length),
        this.#filled,
      )
      this.#filled += length
      at += length
    }
  }

  #zeros(length: number): void {
    for (let rest = length; rest > 0;) {
      if (this.#filled === this.#buffer.length) this.flush()
      const part = Math.min(rest, this.#buffer.length - this.#filled)
      this.#buffer.fill(0, this.#filled, this.#filled + part)
      this.#filled += part
      rest -= part
    }
  }

  #changed(message: string) {
    return tarError('TAR_FILE_CHANGED', message, { name: this.#name })
  }
}

function byteString(name: Buffer | string): string {
  return typeof name === 'string' ? name : name.toString('latin1')
}

function nameOf(entry: TarOutputEntry): string {
  const path = cleanPath(byteString(entry.path))
  if (entry.type !== 'directory') return path
  return path === '' ? './' : `${path}/`
}

function roundUp(length: number): number {
  return Math.ceil(length / BLOCK) * BLOCK
}

/** What the one header block has to say; what it cannot is 0 there, or cut short. */
interface HeaderFields extends Omit<RawHeader, 'format' | 'flag' | 'uname' | 'gname' | 'invalid'> {
  readonly flag: number
}

/** `isTimeLong`: the time needs a record. */
function fieldsOf(entry: TarOutputEntry): HeaderFields & { readonly isTimeLong: boolean } {
  const { seconds, nanoseconds } = splitTime(entry.mtimeNs)
  const isTimeLong = nanoseconds !== 0 || seconds < 0 || seconds > MAX_OCTAL_11
  return {
    flag: flags[entry.type],
    path: nameOf(entry),
    link: entry.link === undefined ? '' : byteString(entry.link),
    mode: entry.mode & 0o7777,
    uid: entry.uid > MAX_OCTAL_7 ? 0 : entry.uid,
    gid: entry.gid > MAX_OCTAL_7 ? 0 : entry.gid,
    size: entry.type !== 'file' || entry.size > MAX_OCTAL_11 ? 0 : entry.size,
    mtime: isTimeLong ? 0 : seconds,
    major: entry.major,
    minor: entry.minor,
    isTimeLong,
  }
}

function fitsName(name: string): boolean {
  return name.length <= 100 && isAscii(name)
}

/** As a byte string; empty when the header says it all. */
function paxRecords(entry: TarOutputEntry, { path, link, isTimeLong }: ReturnType<typeof fieldsOf>): string {
  const mtime = isTimeLong ? formatPaxRecord('mtime', formatPaxTime(entry.mtimeNs)) : ''
  const isPlain =
    entry.xattrs.size === 0 &&
    fitsName(path) &&
    fitsName(link) &&
    entry.uid <= MAX_OCTAL_7 &&
    entry.gid <= MAX_OCTAL_7 &&
    entry.size <= MAX_OCTAL_11
  if (isPlain) return mtime
  const records: [string, string][] = []
  if (!fitsName(path)) records.push(['path', path])
  if (!fitsName(link)) records.push(['linkpath', link])
  if (records.some(([, name]) => !isUtf8(Buffer.from(name, 'latin1')))) records.push(['hdrcharset', 'BINARY'])
  if (entry.uid > MAX_OCTAL_7) records.push(['uid', String(entry.uid)])
  if (entry.gid > MAX_OCTAL_7) records.push(['gid', String(entry.gid)])
  if (entry.type === 'file' && entry.size > MAX_OCTAL_11) records.push(['size', String(entry.size)])
  if (isTimeLong) records.push(['mtime', formatPaxTime(entry.mtimeNs)])
  for (const [name, value] of entry.xattrs) {
    records.push([Buffer.from(paxXattrKey(name)).toString('latin1'), value.toString('latin1')])
  }
  return records
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => formatPaxRecord(key, value))
    .join('')
}

/** Of lengths that come again and again: most records are a time. */
const paxHeaders = new Map<number, Buffer>()
const MOST_PAX_HEADERS = 256

function putPaxHeader(out: Buffer, length: number): void {
  let block = paxHeaders.get(length)
  if (block === undefined) {
    const none = { link: '', uid: 0, gid: 0, mtime: 0, major: 0, minor: 0 }
    block = Buffer.alloc(BLOCK)
    putHeader(block, 0, { ...none, flag: 120, mode: 0o644, size: length, path: 'PaxHeaders' })
    if (paxHeaders.size < MOST_PAX_HEADERS) paxHeaders.set(length, block)
  }
  block.copy(out)
}

/** What all headers have in common, and the sum of its bytes, the checksum's taken as blanks. */
const template = Buffer.alloc(BLOCK)
for (const [at, digits] of [
  [100, 7],
  [108, 7],
  [116, 7],
  [124, 11],
  [136, 11],
  [329, 7],
  [337, 7],
] as const)
  template.fill('0', at, at + digits)
template.fill(' ', 148, 156)
template.write('ustar\x0000', 257, 'latin1')
const TEMPLATE_SUM: number = template.reduce((sum, byte) => sum + byte, 0)

/** One block. */
function putHeader(out: Buffer, at: number, fields: HeaderFields): void {
  template.copy(out, at)
  let sum = TEMPLATE_SUM
  sum += putName(out, at, fields.path)
  sum += putOctal(out, at + 100, 7, fields.mode)
  sum += putOctal(out, at + 108, 7, fields.uid)
  sum += putOctal(out, at + 116, 7, fields.gid)
  sum += putOctal(out, at + 124, 11, fields.size)
  sum += putOctal(out, at + 136, 11, fields.mtime)
  out[at + 156] = fields.flag
  sum += fields.flag
  sum += putName(out, at + 157, fields.link)
  sum += putOctal(out, at + 329, 7, fields.major)
  sum += putOctal(out, at + 337, 7, fields.minor)
  // Six digits, of which the first is always 0; a NUL, and the blank of the template.
  for (let i = at + 153, rest = sum; i >= at + 148; i--, rest >>= 3) out[i] = 48 + (rest & 7)
  out[at + 154] = 0
}

/** As far as there is room. The sum of its bytes. */
function putName(out: Buffer, at: number, name: string): number {
  let sum = 0
  for (let i = 0; i < name.length && i < 100; i++) sum += out[at + i] = name.charCodeAt(i)
  return sum
}

/** `digits` octal digits over as many zeros. By how much that is more than those. */
function putOctal(out: Buffer, at: number, digits: number, value: number): number {
  let sum = 0
  let rest = value
  for (let i = at + digits - 1; rest > 0 && i >= at; i--) {
    const digit = rest % 8
    out[i] = 48 + digit
    sum += digit
    rest = Math.floor(rest / 8)
  }
  return sum
}
