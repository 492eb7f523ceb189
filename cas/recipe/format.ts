/**
 * A recipe rebuilds a layer's tar, byte for byte, from the store's contents: `docs/formats.md`. The file is a magic line, blocks, and an end block:
 *
 *     block   u32 length of the packed part, u32 runs, u32 length of the operations, u32 length of the literals, u32 crc32 of all that follows;
 *             32 bytes of digest for each run; the packed part: zstd of the operations, then the literals
 *     end     five zeros as above, u64 length of the tar
 *
 * All little-endian. An operation is one number, `length * 4 + kind`, in LEB128.
 */
export const MAGIC: Buffer = Buffer.from('tbuild recipe 1\n')
export const BLOCK_HEADER = 20
export const DIGEST = 32

/** The next `length` of the block's literals. */
export const LITERAL = 0
/** The contents of the block's next digest, `length` bytes. */
export const RUN = 1
export const ZEROS = 2
/** Contents that the layer's index image needs and its tar does not have: no bytes. */
export const KEEP = 3
export type OperationKind = typeof LITERAL | typeof RUN | typeof ZEROS | typeof KEEP

/** A block is written when one of its parts has so many bytes; only a single literal may be longer. */
export const PART = 1024 * 1024
