/** Writes the image: superblock, shared attributes, inodes, data; `layout.ts` says where each stands. */
import { LayerTree } from '../layer/tree.ts'
import { chunkBits, chunkFormat, writeChunkTable, type Locate } from './chunks.ts'
import { writeDirectory } from './directory.ts'
import {
  BLOCK,
  CHUNK_BASED,
  CHUNK_INDEX,
  FLAT_INLINE,
  FLAT_PLAIN,
  HOLE,
  INODE,
  roundUp,
  SLOT,
} from './format.ts'
import { writeInode } from './inode.ts'
import { blocksOf, dataSize, isInline, layOut, type Layout } from './layout.ts'
import { ImageOutput } from './output.ts'
import { encodeSuperblock } from './superblock.ts'

export interface ErofsOptions {
  /** 16 bytes, by which a mounted image can be told from others. */
  readonly uuid: Buffer
  /** Data devices in order (device 1, 2, ...): `blocks` of 512 bytes each. */
  readonly devices: readonly { readonly blocks: number }[]
  /** Where a content is, in one piece. `device` counts from 1; `block` of 512 bytes. */
  readonly locate: Locate
  /** Gets the image in parts, in order; each valid during the call only. */
  readonly sink: (chunk: Buffer) => void
}

/**
 * Metadata-only EROFS image of a layer: returns its length in bytes. Equal trees give equal bytes, in whatever order their inodes were made. Whiteouts are 0/0
 * character devices and opaque directories have `trusted.overlay.opaque`, the root excepted: what is below a layer, only its user knows.
 *
 * Throws, each naming the file: `LAYER_SPARSE` (holes not at multiples of 512 bytes, or too many), `LAYER_XATTR`, `LAYER_NAME`, `LAYER_SYMLINK`,
 * `LAYER_DEVICE` (what no file can have); `LAYER_TOO_LARGE`. Nothing has been written then.
 */
export function writeErofs(tree: LayerTree, options: ErofsOptions): number {
  const { devices, uuid } = options
  const layout = layOut(tree, devices.length)
  const out = new ImageOutput(options.sink)
  const { xattrBlock, metadataBlock, blocks, nid, order } = layout
  const rootNid = nid[LayerTree.ROOT] ?? 0
  out.bytes(
    encodeSuperblock({ uuid, devices, inodes: order.length, blocks, metadataBlock, xattrBlock, rootNid }),
  )
  layout.xattrs.writeShared(out)
  writeInodes(out, tree, layout, options)
  writeData(out, tree, layout)
  out.padTo(blocks * BLOCK)
  out.flush()
  return blocks * BLOCK
}

function writeInodes(out: ImageOutput, tree: LayerTree, layout: Layout, options: ErofsOptions): void {
  const base = layout.metadataBlock * BLOCK
  let dataBlock = layout.dataBlock
  for (const [i, inode] of layout.order.entries()) {
    const position = base + (layout.nid[inode] ?? 0) * SLOT
    out.padTo(position)
    const body = layout.xattrs.body(inode)
    const type = tree.type(inode)
    const common = { xattrBytes: body.length, number: i + 1, links: tree.links(inode) }
    if (type === 'file') {
      writeFile(out, tree, inode, body, common, options)
    } else if (type === 'directory' || type === 'symlink') {
      const size = dataSize(tree, layout.directorySize, inode)
      const behind = position + INODE + body.length
      const dataBlocks = blocksOf(behind, size)
      const inline = isInline(behind, size)
      writeInode(out, tree, inode, {
        ...common,
        layout: inline ? FLAT_INLINE : FLAT_PLAIN,
        size,
        links: type === 'directory' ? 2 + (layout.subdirectories[inode] ?? 0) : common.links,
        union: dataBlocks === 0 ? HOLE : dataBlock,
      })
      out.bytes(body)
      if (inline) writeInlineData(out, tree, inode, layout)
      dataBlock += dataBlocks
    } else {
      writeInode(out, tree, inode, {
        ...common,
        layout: FLAT_PLAIN,
        size: 0,
        union: encodeDevice(tree, inode),
      })
      out.bytes(body)
    }
  }
}

function writeFile(
  out: ImageOutput,
  tree: LayerTree,
  inode: number,
  body: Buffer,
  common: { readonly xattrBytes: number; readonly number: number; readonly links: number },
  options: ErofsOptions,
): void {
  const size = tree.size(inode)
  if (size === 0) {
    writeInode(out, tree, inode, { ...common, layout: FLAT_PLAIN, size, union: HOLE })
    out.bytes(body)
    return
  }
  const pieces = tree.pieces(inode)
  const bits = chunkBits(tree, inode, size, pieces)
  writeInode(out, tree, inode, { ...common, layout: CHUNK_BASED, size, union: chunkFormat(bits) })
  out.bytes(body)
  out.padTo(roundUp(out.position, CHUNK_INDEX))
  writeChunkTable(out, size, bits, pieces, options.locate, options.devices.length)
}

function writeInlineData(out: ImageOutput, tree: LayerTree, inode: number, layout: Layout): void {
  if (tree.isDirectory(inode)) {
    writeDirectory(out, tree, layout.entries(inode), 'last', layout.nid)
  } else {
    const target = Buffer.from(tree.target(inode), 'latin1')
    out.bytes(target.subarray(target.length - (target.length % BLOCK)))
  }
}

/** In the same order as the inodes, which say where each one's data begins. */
function writeData(out: ImageOutput, tree: LayerTree, layout: Layout): void {
  const base = layout.metadataBlock * BLOCK
  out.padTo(layout.dataBlock * BLOCK)
  for (const inode of layout.order) {
    const size = dataSize(tree, layout.directorySize, inode)
    if (size === 0) continue
    const behind = base + (layout.nid[inode] ?? 0) * SLOT + INODE + layout.xattrs.body(inode).length
    const bytes = blocksOf(behind, size) * BLOCK
    if (bytes === 0) continue
    if (tree.isDirectory(inode)) {
      const part = isInline(behind, size) ? 'leading' : 'all'
      writeDirectory(out, tree, layout.entries(inode), part, layout.nid)
    } else {
      const end = out.position + bytes
      out.bytes(Buffer.from(tree.target(inode), 'latin1').subarray(0, bytes))
      out.padTo(end)
    }
  }
}

/** As the kernel's new_encode_dev. Zero for a whiteout and for what is no device. */
function encodeDevice(tree: LayerTree, inode: number): number {
  const [major, minor] = tree.device(inode)
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}
