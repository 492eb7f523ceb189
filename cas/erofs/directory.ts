/**
 * A directory's data: blocks that each hold entries (12 bytes), then their names. No entry crosses a block, and the whole is in the order of the names'
 * bytes, `.` and `..` not excepted: the kernel looks names up by halving, first among the blocks and then in one.
 */
import { LayerTree } from '../layer/tree.ts'
import { BLOCK } from './format.ts'
import { fileType } from './inode.ts'
import type { ImageOutput } from './output.ts'

const ENTRY = 12

export type Entries = readonly (readonly [name: string, inode: number])[]

/** All of a directory, sorted. The root is its own parent. */
export function entriesOf(tree: LayerTree, directory: number, parent: number): Entries {
  const entries = tree.children(directory)
  insert(entries, '.', directory)
  insert(entries, '..', parent)
  return entries
}

function insert(entries: [name: string, inode: number][], name: string, inode: number): void {
  let low = 0
  for (let high = entries.length; low < high;) {
    const middle = (low + high) >>> 1
    if ((entries[middle]?.[0] ?? '') < name) low = middle + 1
    else high = middle
  }
  entries.splice(low, 0, [name, inode])
}

/** Bytes of the data: full blocks, and of the last one what is used. */
export function directorySize(entries: Entries): number {
  let size = 0
  for (let first = 0; ; size += BLOCK) {
    const end = blockEnd(entries, first)
    if (end === entries.length) return size + bytesOf(entries, first, end)
    first = end
  }
}

/** The blocks before the last one, the last one as it is (no padding), or all, padded. */
export type Part = 'leading' | 'last' | 'all'

export function writeDirectory(
  out: ImageOutput,
  tree: LayerTree,
  entries: Entries,
  part: Part,
  nid: Uint32Array,
): void {
  for (let first = 0; first < entries.length;) {
    const end = blockEnd(entries, first)
    const isLast = end === entries.length
    if (part === 'all' || (part === 'last') === isLast) {
      const size = part === 'last' ? bytesOf(entries, first, end) : BLOCK
      writeBlock(out, tree, entries, first, end, size, nid)
    }
    first = end
  }
}

function writeBlock(
  out: ImageOutput,
  tree: LayerTree,
  entries: Entries,
  first: number,
  end: number,
  size: number,
  nid: Uint32Array,
): void {
  const at = out.reserve(size)
  let entryAt = at
  let nameOffset = (end - first) * ENTRY
  for (let i = first; i < end; i++) {
    const [name, inode] = entries[i] ?? ['', LayerTree.ROOT]
    out.view.setUint32(entryAt, nid[inode] ?? 0, true)
    out.view.setUint16(entryAt + 8, nameOffset, true)
    out.view.setUint8(entryAt + 10, fileType(tree, inode))
    out.text(at + nameOffset, name)
    entryAt += ENTRY
    nameOffset += name.length
  }
}

/** Index behind the last entry of the block that begins with entry `first`. */
function blockEnd(entries: Entries, first: number): number {
  let used = 0
  for (let i = first; i < entries.length; i++) {
    used += ENTRY + (entries[i]?.[0].length ?? 0)
    if (used > BLOCK) return i
  }
  return entries.length
}

function bytesOf(entries: Entries, first: number, end: number): number {
  let bytes = 0
  for (let i = first; i < end; i++) bytes += ENTRY + (entries[i]?.[0].length ?? 0)
  return bytes
}
