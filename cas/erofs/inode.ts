/** An extended inode (64 bytes), and which numbers types have. */
import type { LayerTree, NodeType } from '../layer/tree.ts'
import type { SplitTime } from '../tar/number.ts'
import { INODE } from './format.ts'
import type { ImageOutput } from './output.ts'

const EXTENDED = 1
const FORMAT: Readonly<Record<NodeType, number>> = {
  file: 0o100000,
  directory: 0o040000,
  symlink: 0o120000,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  whiteout: 0o020000,
}
const FILE_TYPE: Readonly<Record<NodeType, number>> = {
  file: 1,
  directory: 2,
  char: 3,
  block: 4,
  fifo: 5,
  symlink: 7,
  whiteout: 3,
}
const TWO_32 = 2 ** 32

export interface InodeFields {
  /** `FLAT_PLAIN`, `FLAT_INLINE` or `CHUNK_BASED`. */
  readonly layout: number
  readonly size: number
  readonly links: number
  /** Bytes of extended attributes that follow, see `XattrTable`. */
  readonly xattrBytes: number
  /** First block of the data, chunk format or device number, as type and layout have it. */
  readonly union: number
  /** For 32-bit callers of stat(2). */
  readonly number: number
}

export function writeInode(out: ImageOutput, tree: LayerTree, inode: number, fields: InodeFields): void {
  const at = out.reserve(INODE)
  const { view } = out
  view.setUint16(at, (fields.layout << 1) | EXTENDED, true)
  view.setUint16(at + 2, fields.xattrBytes === 0 ? 0 : (fields.xattrBytes - 12) / 4 + 1, true)
  view.setUint16(at + 4, FORMAT[tree.type(inode)] | (tree.mode(inode) & 0o7777), true)
  putSize(view, at, fields)
  view.setUint32(at + 20, fields.number, true)
  view.setUint32(at + 24, tree.uid(inode), true)
  view.setUint32(at + 28, tree.gid(inode), true)
  putTime(view, at, { seconds: tree.mtimeSeconds(inode), nanoseconds: tree.mtimeNanoseconds(inode) })
  view.setUint32(at + 44, fields.links, true)
}

/** Into the inode at `at`. */
export function putSize(
  view: DataView,
  at: number,
  { size, union }: Pick<InodeFields, 'size' | 'union'>,
): void {
  // The low half is taken by setUint32 itself, modulo 2^32.
  view.setUint32(at + 8, size, true)
  view.setUint32(at + 12, Math.floor(size / TWO_32), true)
  view.setUint32(at + 16, union, true)
}

/** Into the inode at `at`. */
export function putTime(view: DataView, at: number, { seconds, nanoseconds }: SplitTime): void {
  view.setUint32(at + 32, seconds, true)
  view.setUint32(at + 36, Math.floor(seconds / TWO_32), true)
  view.setUint32(at + 40, nanoseconds, true)
}

/** What is in the inode at `at`, as it was written here. */
export function readInode(view: DataView, at: number): InodeFields & { readonly isDirectory: boolean } {
  const format = view.getUint16(at, true)
  const units = view.getUint16(at + 2, true)
  return {
    layout: format >> 1,
    isDirectory: (view.getUint16(at + 4, true) & 0o170000) === FORMAT.directory,
    xattrBytes: units === 0 ? 0 : 12 + (units - 1) * 4,
    size: view.getUint32(at + 8, true) + view.getUint32(at + 12, true) * TWO_32,
    union: view.getUint32(at + 16, true),
    number: view.getUint32(at + 20, true),
    links: view.getUint32(at + 44, true),
  }
}

/** What a directory entry says of what it leads to. */
export function fileType(tree: LayerTree, inode: number): number {
  return FILE_TYPE[tree.type(inode)]
}
