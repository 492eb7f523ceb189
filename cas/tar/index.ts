/**
 * Layer tars: a reader of every form in use, a writer of one canonical form, and the two ways between a tar and a directory tree in
 * overlayfs form (whiteouts as 0/0 character devices, opaque directories by attribute).
 *
 * Knows nothing of the store. Imports `linux` and `errors.ts` only.
 */
export { TAR_LIMITS, type SparseRegion, type TarEntry, type TarEntryType, type TarLimits } from './entry.ts'
export { TarReader, type TarHandler } from './reader.ts'
export { readTar, type ReadTarOptions } from './iterate.ts'
export { encodeHeader, END, padding, TarWriter, type TarOutputEntry } from './writer.ts'
export { copyTree, type TreeCopy } from './copy-tree.ts'
export { createUnpacker, type Unpacker, type UnpackOptions, type UnpackResult } from './unpack.ts'
export {
  packDirectory,
  packUpper,
  type LayerSink,
  type LowerLookup,
  type PackDirectoryOptions,
  type PackOptions,
  type PackResult,
} from './pack.ts'
