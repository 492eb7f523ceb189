/**
 * Numbers of the EROFS format, from the kernel's documentation (Documentation/filesystems/erofs.rst) and fs/erofs/erofs_fs.h. Everything is little-endian.
 */

/** Bytes of a block. The least that there is, because contents stand at multiples of 512 in a segment. */
export const BLOCK = 512
export const BLOCK_BITS = 9
/** Inodes are numbered (nid) by where they stand, in steps of this many bytes. */
export const SLOT = 32
/** Bytes of an extended inode. The short form has no time of its own. */
export const INODE = 64
/** Bytes of a chunk index. */
export const CHUNK_INDEX = 8
/** A chunk's size is a block's times a power of two up to this. */
export const MOST_CHUNK_BITS = 31
/** A block's address that means a hole; also what no address may reach. */
export const HOLE = 0xffff_ffff
export const MOST_BLOCKS = HOLE
/** Symlinks have at most a page, less the NUL. */
export const MOST_TARGET = 4095
export const MOST_NAME = 255

/** How an inode's data is laid out. */
export const FLAT_PLAIN = 0
/** The data after its last full block stands right behind the inode. */
export const FLAT_INLINE = 2
export const CHUNK_BASED = 4

export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to
}
