/** One 512-byte header block: v7, ustar, star and GNU (tar(5) of FreeBSD; "Basic Tar Format" in GNU tar's manual). */
import { BLOCK } from './entry.ts'
import { isAscii } from './names.ts'
import { parseNumeric, parseOctal } from './number.ts'

/** The fields as they stand; names as byte strings. */
export interface RawHeader {
  readonly format: 'v7' | 'ustar' | 'star' | 'gnu'
  /** The type's character; NUL for old files. */
  readonly flag: string
  readonly path: string
  readonly link: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  /** Seconds. */
  readonly mtime: number
  readonly uname: string
  readonly gname: string
  readonly major: number
  readonly minor: number
  /** The first numeric field that could not be read. */
  readonly invalid: string | undefined
}

export function isZeroBlock(block: Buffer, at: number): boolean {
  for (let i = at; i < at + BLOCK; i++) if (block[i] !== 0) return false
  return true
}

/** Decode the header at `at`, or say that its checksum is wrong. */
export function parseHeader(block: Buffer, at: number): RawHeader | 'checksum' {
  if (!hasValidChecksum(block, at)) return 'checksum'
  let invalid: string | undefined
  const number = (name: string, start: number, length: number): number => {
    const value = parseNumeric(block, at + start, length)
    if (value === undefined) invalid ??= name
    return value ?? 0
  }
  const format = formatOf(block, at)
  const flag = String.fromCharCode(block[at + 156] ?? 0)
  const isDevice = format !== 'v7' && (flag === '3' || flag === '4')
  const name = text(block, at, 100)
  const prefix = prefixOf(format, block, at)
  return {
    format,
    flag,
    path: prefix === '' ? name : `${prefix}/${name}`,
    link: text(block, at + 157, 100),
    mode: number('mode', 100, 8),
    uid: number('uid', 108, 8),
    gid: number('gid', 116, 8),
    size: number('size', 124, 12),
    mtime: number('mtime', 136, 12),
    uname: format === 'v7' ? '' : text(block, at + 265, 32),
    gname: format === 'v7' ? '' : text(block, at + 297, 32),
    major: isDevice ? number('device major', 329, 8) : 0,
    minor: isDevice ? number('device minor', 337, 8) : 0,
    invalid,
  }
}

/** The sum of all bytes with the checksum field as spaces; some old programs took the bytes as signed. */
function hasValidChecksum(block: Buffer, at: number): boolean {
  const expected = parseOctal(block, at + 148, 8)
  if (expected === undefined) return false
  let sum = 256
  let high = 0
  for (let i = at; i < at + BLOCK; i++) {
    const byte = block[i] ?? 0
    sum += byte
    high += byte >> 7
  }
  for (let i = at + 148; i < at + 156; i++) {
    const byte = block[i] ?? 0
    sum -= byte
    high -= byte >> 7
  }
  return expected === sum || expected === sum - 256 * high
}

function formatOf(block: Buffer, at: number): RawHeader['format'] {
  // "ustar" and then NUL, or two spaces and a NUL.
  if (block[at + 257] !== 0x75 || block.toString('latin1', at + 257, at + 262) !== 'ustar') return 'v7'
  const rest = block.toString('latin1', at + 262, at + 265)
  if (rest.startsWith('\0'))
    return block.toString('latin1', at + 508, at + 512) === 'tar\0' ? 'star' : 'ustar'
  return rest === '  \0' ? 'gnu' : 'v7'
}

function prefixOf(format: RawHeader['format'], block: Buffer, at: number): string {
  if (format === 'ustar') return text(block, at + 345, 155)
  if (format === 'star') return text(block, at + 345, 131)
  if (format === 'v7' || (isTime(block, at + 345) && isTime(block, at + 357))) return ''
  // Go before 1.8 wrote a ustar prefix into GNU headers, over atime and ctime; Go reads it back where these are no numbers.
  const prefix = text(block, at + 345, 155)
  return isAscii(prefix) ? prefix : ''
}

function isTime(block: Buffer, start: number): boolean {
  return block[start] === 0 || parseNumeric(block, start, 12) !== undefined
}

/** Up to the first NUL, as a byte string. */
function text(block: Buffer, start: number, length: number): string {
  if (block[start] === 0) return ''
  let end = start
  const limit = start + length
  while (end < limit && block[end] !== 0) end++
  return block.toString('latin1', start, end)
}
