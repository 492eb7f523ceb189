/** What `fsck` tells, and what its parts share. Stable: the command's JSON is this report. */
import type { Driver } from '../drivers/types.ts'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'

export interface FsckOptions {
  /** Whether everything is there and fits together, but not what the contents' bytes are. */
  readonly quick?: boolean | undefined
  readonly repair?: boolean | undefined
  readonly signal?: AbortSignal | undefined
  /** Bytes that were read, of how many; now and then. */
  readonly onProgress?: (done: number, total: number) => void
}

/** `docs/formats.md` says of each what it means and what `--repair` does. */
export type ProblemCode =
  | 'INDEX_DAMAGED'
  | 'INDEX_STALE'
  | 'ROW_INVALID'
  | 'SEGMENT_MISSING'
  | 'SEGMENT_SHORT'
  | 'SEGMENT_LENGTH_WRONG'
  | 'SIDECAR_DAMAGED'
  | 'CONTENT_MISSING'
  | 'CONTENT_DAMAGED'
  | 'CONTENTS_OVERLAP'
  | 'DEAD_WRONG'
  | 'BLOB_MISSING'
  | 'BLOB_DAMAGED'
  | 'BLOB_SIZE_WRONG'
  | 'LAYER_RECIPE_DAMAGED'
  | 'LAYER_CONTENT_MISSING'
  | 'LAYER_DAMAGED'
  | 'LAYER_ROW_WRONG'
  | 'LAYER_IMAGE_MISSING'
  | 'LAYER_IMAGE_DAMAGED'
  | 'LAYER_SEGMENTS_WRONG'
  | 'LAYER_TREE_MISSING'
  | 'IMAGE_DAMAGED'
  | 'IMAGE_LAYER_MISSING'
  | 'IMAGE_ROW_WRONG'
  | 'NAME_DANGLING'
  | 'NAMES_FILE_DAMAGED'
  | 'NAMES_WRONG'
  | 'LEASE_DANGLING'

export interface FsckProblem {
  readonly code: ProblemCode
  /** A sentence. */
  readonly what: string
  /** A path in the store, or a row of the index (`index.db: layers sha256:...`). */
  readonly where: string
  /** Names of the images that need it (digests of those without a name), sorted. */
  readonly images: readonly string[]
  /** What `--repair` does, or did. */
  readonly repair: string
  /** It is in order again, or what could not be saved is out of the index. */
  readonly repaired: boolean
}

/** A file without a record: what a process left that died, or what the next collection takes away. No error. */
export interface Leftover {
  /** In the store. */
  readonly path: string
  /** Of disk blocks. */
  readonly bytes: number
}

export interface FsckReport {
  readonly problems: readonly FsckProblem[]
  readonly leftovers: readonly Leftover[]
  /** Names of images that repair had to take out of the index; build or pull them again. */
  readonly lost: readonly string[]
  /** `bytes`: of the contents, each once. */
  readonly counts: {
    readonly contents: number
    readonly bytes: number
    readonly layers: number
    readonly images: number
    readonly blobs: number
  }
  readonly seconds: number
}

/** What a problem touches, for the names of images. */
export interface Affected {
  /** In hex. */
  readonly content?: string
  readonly layer?: DiffId
  readonly blob?: BlobDigest
  readonly manifest?: BlobDigest
}

/** A problem that was found, with what mends it: run in the order in which they were found. */
export interface Finding extends Pick<FsckProblem, 'code' | 'what' | 'where' | 'repair'> {
  readonly affects: Affected
  /** None: nothing can be done here. */
  readonly mend?: () => void | Promise<void>
}

/** One pass over the store. */
export interface Pass {
  readonly context: StoreContext
  readonly driver: () => Driver
  /** A layer that is lost, from its compressed form; whether it is stored now. */
  readonly restore: (diffId: DiffId) => Promise<boolean>
  readonly quick: boolean
  readonly findings: Finding[]
  /** Contents that cannot be had, in hex. */
  readonly badContents: Set<string>
  /** Lets the event loop have a turn when one is due. Throws when the check was called off. */
  readonly breathe: () => Promise<void> | undefined
  /** So many bytes were read. */
  readonly read: (bytes: number) => void
  /** An image had to go. */
  lose(names: readonly string[]): void
}
