/**
 * The content-addressed store: blobs, layers, images, cache records, leases, garbage collection.
 *
 * Knows nothing of Dockerfiles or containers. Imports `linux` only.
 */
export {
  MEDIA,
  type BlobDigest,
  type ContainerConfig,
  type Descriptor,
  type DiffId,
  type Digest,
  type Healthcheck,
  type HistoryEntry,
  type ImageConfig,
  type ImageIndex,
  type Manifest,
  type Platform,
} from './oci.ts'
export type {
  BlobStore,
  CacheMount,
  CacheMountRequest,
  Component,
  FormerLayer,
  Image,
  ImageStore,
  IngestOptions,
  Intake,
  Taken,
  KnownFile,
  SeenFile,
  Layer,
  LayerStore,
  LayerWriter,
  Notes,
  Pin,
  PruneOptions,
  PruneReport,
  Revision,
  Root,
  StatCache,
  StepCache,
  StepKey,
  StepResult,
  Store,
  StoredLayer,
  WritableRoot,
} from './store/types.ts'
export {
  readTar,
  TarReader,
  createUnpacker,
  type TarEntry,
  type TarEntryType,
  type TarHandler,
  type TarOutputEntry,
} from './tar/index.ts'
export type {
  Change,
  DiskUsage,
  FileEntry,
  ImageUsage,
  ImageView,
  LayerUsage,
  Ledger,
  Reuse,
  RowKind,
  Savings,
  ViewNode,
} from './ledger/index.ts'
export {
  repairStore,
  type FsckOptions,
  type FsckProblem,
  type FsckReport,
  type IndexRepair,
  type Leftover,
  type ProblemCode,
} from './fsck/index.ts'
export { TakenFile } from './store/taken.ts'
export { createTurns } from './store/turns.ts'
export { openStore, type OpenStoreOptions } from './store/open.ts'
export { DRIVER_NAMES, type DriverName } from './drivers/types.ts'
export {
  bytesOf,
  openTree,
  resolveInTree,
  show,
  type Resolved,
  type Stat,
  type Tree,
  type TreeEntry,
  type Walkable,
} from './tree/tree.ts'
export { parseJson } from './json.ts'
export { assertSameLayers, MAX_CONFIG_BYTES, parseConfig, parseIndex, parseManifest } from './parse-oci.ts'
