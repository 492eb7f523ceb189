/**
 * What the ledger tells. All sizes in bytes. The JSON of the commands is these, see docs/ledger.md, but paths, which are byte strings here (one character a
 * byte), are text there.
 */
import type { BlobDigest, DiffId } from '../oci.ts'

/** Everything that occupies the store's directory is in exactly one row. */
export type RowKind =
  /** Contents that one layer alone has, several have, and none has. */
  | 'layerContents'
  | 'sharedContents'
  | 'unusedContents'
  /** Places of contents that were taken away, still to be freed; segments whose contents have been copied elsewhere. */
  | 'deadContents'
  /** In segments: from the end of each content to the next multiple of 512. */
  | 'padding'
  /**
   * The rest of the blocks of segments and objects: up to the file system's block, parts of blocks next to a hole, the file system's own lists. Negative where
   * it keeps files in fewer blocks than they have bytes, or where files are missing.
   */
  | 'rounding'
  /** Beyond what the index has of the segments: an ingest is at work, or died. */
  | 'unfinishedContents'
  /** The segments' sidecars. */
  | 'segmentLists'
  | 'recipes'
  | 'indexImages'
  /** Layers as directories. */
  | 'trees'
  | 'compressedLayers'
  | 'manifests'
  /** Blobs that belong to no image and no layer. */
  | 'otherBlobs'
  /** The index's pages of build steps. */
  | 'cacheRecords'
  /** The rest of it, and the copy of the images' names. */
  | 'database'
  | 'statCaches'
  /** What RUN --mount=type=cache has kept. */
  | 'cacheMounts'
  | 'work'
  | 'leases'
  | 'directories'
  /** Recipes, index images, trees, contents and blobs that the index does not name. */
  | 'unrecorded'
  | 'other'

export interface UsageRow {
  readonly kind: RowKind
  /** Disk blocks (st_blocks). */
  readonly allocatedBytes: number
  /** Files; of the contents' rows, contents. */
  readonly count: number
}

/** `contentBytes` = `repeatedBytes` + `sharedBytes` + `uniqueBytes`. */
export interface ContentUsage {
  /** Of files' data, each time that it occurs. */
  readonly contentBytes: number
  /** Occurrences after the first, in this layer or image itself. */
  readonly repeatedBytes: number
  /** Once each: what others have as well. */
  readonly sharedBytes: number
  /** Once each: what nothing else in the store has. */
  readonly uniqueBytes: number
}

export interface CompressedForm {
  readonly digest: BlobDigest
  readonly mediaType: string
  readonly size: number
  /** 0 when the store does not hold it. */
  readonly allocatedBytes: number
}

export interface LayerUsage extends ContentUsage {
  readonly diffId: DiffId
  /** Of the uncompressed tar: what `tbuild images` adds up. */
  readonly tarBytes: number
  readonly distinctContents: number
  readonly uniqueContents: number
  readonly recipeBytes: number
  readonly indexImageBytes: number
  readonly treeBytes: number
  /** What it alone occupies: unique contents, recipe, index image, tree. */
  readonly allocatedBytes: number
  readonly compressed: readonly CompressedForm[]
  /** Names of the images that it is part of, or their digests. */
  readonly images: readonly string[]
  /** Layers with contents that it has too, most bytes first. */
  readonly sharedWith: readonly { readonly diffId: DiffId; readonly bytes: number }[]
  /** Its recipe cannot be read, or contents that it names are not in the index. */
  readonly isDamaged: boolean
}

export interface ImageUsage extends ContentUsage {
  readonly id: BlobDigest
  readonly manifestDigest: BlobDigest
  readonly names: readonly string[]
  /** Bottom first, as in the config. */
  readonly layers: readonly DiffId[]
  /** Of its layers' tars. */
  readonly tarBytes: number
  /** Of the smallest known compressed form of each layer; `null` when there is a layer of which none is known. */
  readonly compressedBytes: number | null
  /** What would be free if it went alone: unique contents; layers, blobs and config that nothing else has. */
  readonly allocatedBytes: number
  readonly sharedWith: readonly ImageShare[]
}

export interface ImageShare {
  readonly manifestDigest: BlobDigest
  readonly names: readonly string[]
  /** Whole layers that both have, and their tars. */
  readonly layers: number
  readonly layerBytes: number
  /** Contents that both have, once each; those of the common layers included. */
  readonly contentBytes: number
}

export interface DiskUsage {
  readonly store: string
  /** The sum of all rows: the disk's own count of the store's directory. */
  readonly allocatedBytes: number
  readonly rows: readonly UsageRow[]
  /** Newest first. */
  readonly images: readonly ImageUsage[]
  /** Largest first. */
  readonly layers: readonly LayerUsage[]
}

export interface RepeatedDirectory {
  /** With a leading `/`. */
  readonly path: string
  readonly repeatedBytes: number
  readonly files: number
  readonly layers: number
}

export type PackageKind = 'npm' | 'debian' | 'python' | 'alpine'

export interface RepeatedPackage {
  readonly kind: PackageKind
  readonly name: string
  readonly version: string
  /** Places where it is, in all layers. */
  readonly copies: number
  readonly layers: number
  /** Of the files of all copies. */
  readonly bytes: number
  readonly repeatedBytes: number
}

export interface Savings {
  readonly images: number
  readonly layers: number
  /** Tars of all images, as if each had its own layers. */
  readonly imageBytes: number
  /** Each layer once. */
  readonly afterLayerSharingBytes: number
  /** And each content once; headers and holes as in the tars. */
  readonly afterFileSharingBytes: number
  /** What is kept instead of those: contents, recipes, index images. Lengths of files, not blocks. */
  readonly storedBytes: number
  readonly layerSharingSavedBytes: number
  readonly fileSharingSavedBytes: number
  /** Of the smallest known compressed form of each layer, and how many layers have one. */
  readonly compressedBytes: number
  readonly compressedLayers: number
  /** Of the whole store, with all that belongs to no image: as `DiskUsage`. */
  readonly allocatedBytes: number
  /** Most first; a directory's part excludes that of the directories in the list which lie in it. */
  readonly directories: readonly RepeatedDirectory[]
  readonly packages: readonly RepeatedPackage[]
}

export interface FileCount {
  readonly files: number
  readonly bytes: number
}

export interface ReuseSide {
  readonly name: string
  readonly layers: number
  readonly tarBytes: number
  readonly total: FileCount
  /** The other has the same contents, at another path. */
  readonly elsewhere: FileCount
  /** The other has something else at this path, and these contents nowhere. */
  readonly changed: FileCount
  /** The other has neither this path nor these contents. */
  readonly only: FileCount
}

export interface SharedLayer {
  readonly diffId: DiffId
  readonly tarBytes: number
  /** From the bottom, 0 is the lowest; `null` where that image does not have it. */
  readonly a: number | null
  readonly b: number | null
  /** All below is the same too. */
  readonly sameChain: boolean
  /** Images that have it, by name: what keeps it. */
  readonly pinnedBy: readonly string[]
  /** Build steps that would be taken from the cache for it. */
  readonly cacheRecords: number
}

export interface DifferingFile {
  readonly path: string
  readonly kind: 'changed' | 'onlyA' | 'onlyB'
  /** 0 where it is not. */
  readonly bytesA: number
  readonly bytesB: number
}

export interface Reuse {
  readonly a: ReuseSide
  readonly b: ReuseSide
  /** From the bottom of A, then those of B alone. */
  readonly layers: readonly SharedLayer[]
  /** Tars of the layers that both have. */
  readonly sharedLayerBytes: number
  /** Same contents at the same path. */
  readonly samePath: FileCount
  /** Largest first, at most 50. */
  readonly differing: readonly DifferingFile[]
}

export type ChangeKind = 'A' | 'C' | 'D' | 'M'
export type ChangedAspect = 'type' | 'content' | 'target' | 'device' | 'mode' | 'owner' | 'xattrs' | 'mtime'

export interface Change {
  /** `A` added, `D` deleted, `C` other contents (or type, target, device), `M` other metadata only. */
  readonly kind: ChangeKind
  /** With a leading `/`. Of a deleted directory: only itself is told. */
  readonly path: string
  readonly what: readonly ChangedAspect[]
  /** Of a file; 0 for all else, and where it is not. */
  readonly bytesBefore: number
  readonly bytesAfter: number
}

/** What is said of a name in an image. */
export interface FileEntry {
  readonly path: string
  readonly type: 'file' | 'directory' | 'symlink' | 'char' | 'block' | 'fifo'
  /** 07777. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Of a file, holes included; of a symlink its target's length. */
  readonly size: number
  /** Names in its layer; of a directory 1. */
  readonly links: number
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
  readonly target: string
  readonly device: readonly [major: number, minor: number]
  readonly xattrs: ReadonlyMap<string, Buffer>
}
