/** What a tar entry says, its bounds, and the one way its errors are worded. */
import { TbuildError } from '../../errors.ts'

export type TarEntryType = 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'

/** A data region of a sparse file, in bytes of the file (not of the archive). */
export interface SparseRegion {
  readonly offset: number
  readonly length: number
}

/** An entry as decoded: PAX, GNU and ustar fields applied. */
export interface TarEntry {
  readonly type: TarEntryType
  /**
   * Raw bytes of the name, without leading `./` and `/`, trailing `/`, empty and `.` components; empty for the root
   * itself. `..` stays: the consumer refuses it.
   */
  readonly path: Buffer
  /** A symlink's target verbatim; a hard link's target cleaned as `path` is. */
  readonly link?: Buffer
  /** Permission bits with setuid, setgid and sticky (07777). */
  readonly mode: number
  /** At most 2^32 - 2. */
  readonly uid: number
  readonly gid: number
  readonly uname?: string
  readonly gname?: string
  /** Bytes of the contents, holes included; 0 for what is not a file. */
  readonly size: number
  /** Nanoseconds since 1970; may be negative. */
  readonly mtimeNs: bigint
  /** Of a device; else 0. */
  readonly major: number
  readonly minor: number
  readonly xattrs: ReadonlyMap<string, Buffer>
  /** The data regions, in order, when the archive held the file in a sparse form. The rest of it is zeros. */
  readonly sparse?: readonly SparseRegion[]
}

/** Do its holes, if any, begin and end at blocks of 512 bytes, as those of a file that is mounted must? */
export function hasAlignedHoles({ size, sparse }: Pick<TarEntry, 'size' | 'sparse'>): boolean {
  return (sparse ?? []).every(({ offset, length }) => {
    const end = offset + length
    return length === 0 || (offset % BLOCK === 0 && (end % BLOCK === 0 || end === size))
  })
}

/** Bounds on what an archive may make us hold in memory. */
export interface TarLimits {
  /** Bytes of one PAX header, long name or sparse map. */
  readonly header: number
  /** Bytes of a path or link target: PATH_MAX less its NUL, which no system call passes. */
  readonly path: number
  /** Bytes of one component (NAME_MAX). */
  readonly name: number
  /** Attributes of one entry, and the bytes of their names and values together. */
  readonly xattrs: number
  readonly xattrBytes: number
}

export const TAR_LIMITS: TarLimits = {
  header: 1024 * 1024,
  path: 4095,
  name: 255,
  xattrs: 1024,
  xattrBytes: 1024 * 1024,
}

export const BLOCK = 512
export const noXattrs: ReadonlyMap<string, Buffer> = new Map()

/** Whiteouts as layers spell them (OCI image-spec, layer.md). */
export const WHITEOUT_PREFIX = '.wh.'
export const WHITEOUT_META_PREFIX = '.wh..wh.'
export const WHITEOUT_OPAQUE = '.wh..wh..opq'

/** `message` reads on from "archive entry NAME (at byte N): ". */
export function tarError(code: string, message: string, where: { name?: string; offset?: number } = {}) {
  const at = where.offset === undefined ? '' : ` (at byte ${where.offset})`
  const of = where.name === undefined ? 'archive' : `archive entry ${quoteName(where.name)}`
  return new TbuildError(code, `${of}${at}: ${message}`)
}

/** A name (one character a byte) as it may be shown: UTF-8 where it is, quoted, cut at 200 characters. */
export function quoteName(name: string): string {
  const text = Buffer.from(name, 'latin1').toString()
  const cut = text.length > 200 ? `${text.slice(0, 200)}...` : text
  // What would change the order in which a terminal shows a line, or break it.
  return JSON.stringify(cut).replaceAll(
    /[\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16)}`,
  )
}
