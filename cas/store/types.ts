/**
 * The store's face: what a builder, a registry client or a command may ask of it. How contents are kept and how a layer
 * becomes a directory to mount is the drivers' business (`LayerStore` has one suite for all of them).
 *
 * A layer's life: a *source* (tar stream, entries written one by one, or the upper of a writable root) is *ingested*: its
 * canonical tar is hashed (that is its DiffId), made durable, and recorded in the index. `Layer` is a handle that exists
 * from the moment the contents are fixed; `stored` resolves when the ingest is durable. Layers are stacked into a *root*, a
 * detached overlay mount known by descriptor only; where none can be mounted, a plain directory of all of them.
 */
import type { Stat } from '../../linux/index.ts'
import type { FsckOptions, FsckReport } from '../fsck/types.ts'
import type { Ledger } from '../ledger/index.ts'
import type { TarOutputEntry } from '../tar/index.ts'
import type { BlobDigest, Descriptor, DiffId, ImageConfig, Manifest } from '../oci.ts'

/** A layer that is in the store. */
export interface StoredLayer {
  readonly diffId: DiffId
  /** Of the uncompressed tar, in bytes. */
  readonly size: number
  /** Of one that came in just now, where `revise` can make others of it; packed. */
  readonly outline?: Uint8Array
}

/** A layer that others may be made of. */
export interface FormerLayer {
  readonly diffId: DiffId
  readonly outline: Uint8Array
}

/** What differs in one entry: the time, and of a file that neither was nor will be empty the contents. */
export interface Revision {
  /** Where in the former layer's tar its header begins. */
  readonly start: number
  readonly mtimeNs: bigint
  readonly contents?: { readonly digest: Uint8Array; readonly size: number }
}

export interface RevisedLayer {
  readonly layer: Layer
  /** By how many bytes each revision has moved what comes after it. */
  readonly shifts: readonly number[]
}

/** A layer that is in the store, or on its way into it. */
export interface Layer {
  readonly stored: Promise<StoredLayer>
}

/** A stack of layers as one tree. Closing it releases the mount, not the layers. */
export interface Root extends AsyncDisposable {
  /** Of a detached mount (or a plain directory when nothing needs a mount); read-only unless said otherwise. */
  readonly fd: number
}

export interface IngestOptions {
  readonly signal?: AbortSignal | undefined
}

/** A root with a fresh upper. Disposing it without `commit` throws the changes away. */
export interface WritableRoot extends Root {
  /**
   * Ends writing: nothing may write below `fd` any more. The changes become a layer, which serves as a lower at once and is ingested behind the
   * caller's back, unless `signal` aborts. Later modification times become `clampMtimeNs`, in the tar and in what is mounted.
   */
  commit(options?: IngestOptions & { readonly clampMtimeNs?: bigint | undefined }): Promise<Layer>
}

/** Writes one layer, entry by entry, in the order that a tar of the canonical form has: see `cas/tar/pack.ts`. */
export interface LayerWriter {
  /** Begin an entry; of a file, `size` bytes of contents must follow. Returns where in the tar its header begins. */
  entry(entry: TarOutputEntry): number
  data(chunk: Uint8Array): void
  /** Contents from `fd`, `length` bytes at `offset`. Throws `TAR_FILE_CHANGED` when there are fewer. */
  dataFrom(fd: number, offset: number, length: number): void
  zeros(length: number): void
  /** All of the contents, by their digest, if the store or the intake has them; false when not: then they must be written. */
  stored(digest: Uint8Array): boolean
  /** Lets the event loop have a turn, when one is due; call it between entries. */
  breathe(): Promise<void> | undefined
}

/**
 * Contents that come in before it is known which layer they are for, or whether for any: what has to be read to make a cache key is not read
 * again. Disposed without having been given to `write`, it leaves nothing.
 */
export interface Intake extends Disposable {
  /** Takes the contents of a file that is not empty, now or later; they are kept unless the store has them. */
  take(file: SeenFile): Taken
  /** Does the store, or this intake, have it? */
  has(digest: Uint8Array): boolean
}

/** A file of a tree, as it was seen. */
export interface SeenFile {
  /** The tree's descriptor, which stays open meanwhile, and the real path in it: a byte string. */
  readonly root: number
  readonly path: string
  readonly stats: Stat
  /** For reading. Throws when it is not the file that was seen any more. */
  open(): number
}

/** What is known when it has been read, for which each of these waits. Throws what `open` throws, `TAR_FILE_CHANGED`, and what reading throws. */
export interface Taken extends KnownFile {
  /** The store did not have it. */
  readonly isNew: boolean
}

export interface LayerStore {
  /** Name of the driver, and why it is this one, for `tbuild info`. */
  readonly driver: string
  readonly driverReason: string
  find(diffId: DiffId): StoredLayer | undefined
  /** A handle on a stored layer. Throws `LAYER_UNKNOWN`. */
  open(diffId: DiffId): Layer
  /**
   * A layer tar from outside: hostile. Nothing is visible until all of it has been checked.
   * Throws `DIGEST_MISMATCH` when `expected` is given and is not what arrived, and all that `createApplier` and `TarReader` throw.
   */
  ingestTar(
    source: AsyncIterable<Uint8Array>,
    options?: IngestOptions & { readonly expected?: DiffId | undefined },
  ): Promise<StoredLayer>
  intake(): Intake
  /** A layer of our own making. `intake`, if given, is used up. */
  write(
    fill: (writer: LayerWriter) => Promise<void>,
    options?: IngestOptions & { readonly intake?: Intake | undefined },
  ): Promise<Layer>
  /**
   * A layer that is a former one but for these entries: the same tar as `write` would give, in a fraction of the time. `undefined` where it must be written: the former
   * one is not there any more, or not as its outline says; an entry is not what its revision takes it for; contents are neither in the store nor in the intake. The
   * intake is used up only when there is a layer.
   * @param revisions in the order of the tar
   */
  revise(
    former: FormerLayer,
    revisions: readonly Revision[],
    options: IngestOptions & { readonly intake: Intake },
  ): Promise<RevisedLayer | undefined>
  /** Bottom layer first; none is an empty directory. Holds a lease on each layer until disposed. */
  mount(layers: readonly Layer[]): Promise<Root>
  /** For a `container`, which may live long, each file is in the page cache once, at the price of slower cold reads. */
  mountWritable(layers: readonly Layer[], use?: 'build' | 'container'): Promise<WritableRoot>
  /** The layer's tar, hashed while it streams. Throws `STORE_CORRUPT` at its end when it is not what was stored. */
  tar(diffId: DiffId): AsyncIterable<Buffer>
  /** Compressed forms of a layer that are known: descriptors as they stand in manifests. */
  compressed(diffId: DiffId): readonly Descriptor[]
  rememberCompressed(diffId: DiffId, descriptor: Descriptor): void
}

/** Configs, manifests and compressed layers, by the digest of their bytes. */
export interface BlobStore {
  /** Size in bytes, or `undefined` when it is not there. */
  size(digest: BlobDigest): number | undefined
  /** Whole and verified. Throws `BLOB_UNKNOWN`, `STORE_CORRUPT`. */
  read(digest: BlobDigest): Buffer
  /** Verified as it streams: only a stream that ended may be believed. `offset` for a part, which is not verified. */
  stream(digest: BlobDigest): AsyncIterable<Buffer>
  /** Durable when it returns. */
  write(bytes: Uint8Array): BlobDigest
  /**
   * Durable when it resolves. Throws `DIGEST_MISMATCH` or `SIZE_MISMATCH`, and then nothing is visible. `ready` is waited for before it becomes visible;
   * what it throws is thrown.
   */
  ingest(
    source: AsyncIterable<Uint8Array>,
    expected: { digest: BlobDigest; size: number },
    ready?: () => Promise<unknown> | undefined,
  ): Promise<void>
  /** `registry/repository` names in which a blob is known to be. */
  origins(digest: BlobDigest): readonly string[]
  rememberOrigin(digest: BlobDigest, repository: string): void
}

/** An image: a manifest and the config it names. Its id is the config's digest, as docker has it. */
export interface Image {
  readonly id: BlobDigest
  readonly manifestDigest: BlobDigest
  readonly manifest: Manifest
  readonly config: ImageConfig
  /** Full references (`docker.io/library/app:latest`), sorted. */
  readonly names: readonly string[]
  /** Milliseconds since 1970: when it came into this store. */
  readonly storedAt: number
}

/** Names are opaque here, compared as they stand. */
export interface ImageStore {
  /**
   * Record an image; config and manifest blobs and all layers must be stored. Durable when it returns; idempotent.
   * Throws `LAYER_UNKNOWN` or `BLOB_UNKNOWN` (e.g. pruned meanwhile).
   */
  put(manifestDigest: BlobDigest, names: readonly string[]): Image
  /** Points a name at an image; takes it from another that had it. */
  tag(name: string, manifestDigest: BlobDigest): void
  /** False when there was no such name. */
  untag(name: string): boolean
  /** Removes the image and all its names; layers go by `prune`. */
  remove(manifestDigest: BlobDigest): void
  byName(name: string): Image | undefined
  byManifest(manifestDigest: BlobDigest): Image | undefined
  /** By a prefix of the id or manifest digest, with or without `sha256:`, at least 2 digits. All that match, each id once. */
  byPrefix(prefix: string): readonly Image[]
  /** Newest first. */
  list(): readonly Image[]
}

/** One named input of a step. */
export type Component = readonly [name: string, value: string]

/** Digest over a step's components. */
export type StepKey = string & { readonly __stepKey: true }

export interface StepResult {
  readonly key: StepKey
  readonly diffId: DiffId
  /** RFC 3339, for the image's history. */
  readonly created: string
}

/** What steps gave. A record is only as good as its layer: `find` answers when that is stored. */
export interface StepCache {
  find(key: StepKey): StepResult | undefined
  /** The components are kept, so that a miss can be explained by the first that differs. */
  record(result: StepResult, components: readonly Component[], title: string): void
  /** A key of cheap inputs that stands for a component which is dear to compute, e.g. a digest of contents. */
  alias(cheap: StepKey, value: string): void
  resolve(cheap: StepKey): string | undefined
  /** The image that a whole build gave, by the digest of everything that went into it. */
  findImage(key: StepKey): BlobDigest | undefined
  recordImage(key: StepKey, manifestDigest: BlobDigest): void
}

/** A directory that is kept between builds: see `cas/cache-mounts`. */
export interface CacheMountRequest {
  /** The same key, the same directory. */
  readonly key: string
  /** For people: what `prune` calls it. */
  readonly name: string
  /** shared: with others who say so; private: alone, in another one if need be; locked: alone, after the others. */
  readonly sharing: 'shared' | 'private' | 'locked'
  /** Fills a new one, which is empty, root's and 0755. */
  readonly fill?: ((directory: string) => Promise<void>) | undefined
  readonly signal?: AbortSignal | undefined
  /** Is told once when it has to wait. */
  readonly notice?: (() => void) | undefined
}

/** In use until it is disposed and every copy of `lock` is closed. */
export interface CacheMount extends Disposable {
  /** Of the directory to mount. */
  readonly fd: number
  /** To be inherited by what may write to it when this process is dead. */
  readonly lock: number
}

export interface PruneOptions {
  /** Only tell what would go. What compaction would win is not told. */
  readonly dryRun?: boolean | undefined
  /** Also compressed layers of images with a name that can be fetched again; with `keepBytes`, also images without a name. */
  readonly all?: boolean | undefined
  /** Only what was last used longer ago, to the hour. */
  readonly olderThanMs?: number | undefined
  /** The least recently used first, until the store takes no more disk blocks (in bytes) than this. Without it: everything that nothing needs. */
  readonly keepBytes?: number | undefined
  /** Compact each segment that has a block to win, not only those where it is worth the copying. */
  readonly compact?: boolean | undefined
  /** Gives up waiting: what was not freed then is freed by the next collection. */
  readonly signal?: AbortSignal | undefined
  /** Is told once that it takes longer, for another collection is at work, or ingests that began before are. */
  readonly notice?: ((what: 'collection' | 'ingests') => void) | undefined
}

export interface PruneReport {
  readonly layers: readonly DiffId[]
  readonly blobs: readonly BlobDigest[]
  readonly images: readonly BlobDigest[]
  readonly steps: number
  /** Directories of RUN --mount=type=cache, as the Dockerfiles call them. */
  readonly cacheMounts: readonly string[]
  /** Of disk blocks, in bytes: those that the files had before less those that they have after. */
  readonly freedBytes: number
  readonly compactedSegments: number
  /** Of contents that were taken away, but are freed by a later collection. */
  readonly waitingBytes: number
  /** Layers whose recipes are damaged: while they are recorded, nobody knows which contents are needed, and none are freed. */
  readonly damaged: readonly DiffId[]
  /** When `keepBytes` was given. */
  readonly cap?: {
    readonly keepBytes: number
    readonly allocatedBytes: number
    readonly isKept: boolean
    /** What holds the rest, when it is not kept. */
    readonly pins: readonly Pin[]
  }
}

/** Something that keeps bytes in the store. */
export interface Pin {
  /**
   * image: has a name; untagged: has none; process: uses it; cache: what no image needs; ingest: is being stored; dead: was taken away, but cannot be freed
   * yet; index: what the store needs for itself.
   */
  readonly kind: 'image' | 'untagged' | 'process' | 'cache' | 'ingest' | 'dead' | 'index'
  readonly name: string
  /** All that it holds; others may hold some of it, too. */
  readonly bytes: number
  /** What it alone holds. */
  readonly ownBytes: number
}

/** What is known of a file without looking at it again. */
export interface KnownFile {
  /** sha256 of its contents. */
  readonly digest: Buffer
  /** It has no extended attributes. */
  readonly isPlain: boolean
  /** The digest as eight words, little-endian, for which no view of it is made. */
  copyDigest(into: Uint32Array, at: number): void
}

/** Digests of files, and names in directories, of a directory that is built from: see `cas/stat-cache`. */
export interface StatCache {
  /** Of a file that is unchanged since it was remembered. A view, valid until `save`. */
  find(file: Pick<SeenFile, 'root' | 'path' | 'stats'>): KnownFile | undefined
  /** Names in a directory that is open, in the order of their bytes: if it is unchanged since they were listed, those; else what `list` gives. */
  names(directory: number, list: () => string[]): readonly string[]
  /** After `find` has not found it: `stats` as they were then, and when the file was opened to be read. */
  remember(stats: Stat, file: Pick<KnownFile, 'digest' | 'isPlain'>): void
  save(): void
}

/** Bytes by a key, for whoever makes something of a build context that may be of use to the next build. They may be gone at any time. */
export interface Notes {
  /** What was written, whole. */
  read(key: string): Buffer | undefined
  write(key: string, parts: readonly Uint8Array[]): void
}

export interface Store extends AsyncDisposable {
  readonly path: string
  readonly blobs: BlobStore
  readonly layers: LayerStore
  readonly images: ImageStore
  readonly steps: StepCache
  /** Where the bytes are; images' files without a mount. */
  ledger(): Promise<Ledger>
  /** @param context absolute path of the directory */
  statCache(context: string): StatCache
  readonly notes: Notes
  cacheMount(request: CacheMountRequest): Promise<CacheMount>
  /** This process's lease: a name, and the descriptor whose lock holds it (to be inherited by what must keep it). */
  lease(): { readonly scope: string; readonly fd: number }
  /** A fresh directory of this process's, removed with its lease. */
  workDirectory(prefix: string): string
  /** Removes untagged images, layers, blobs and cache records that no image or lease needs, cache mounts that nobody uses: all, or by age or a cap. */
  prune(options?: PruneOptions): Promise<PruneReport>
  /**
   * Prunes when the store takes more than `maxBytes` (default: a share of the disk), by last use, down to nine tenths of that. `undefined` when it was
   * not due, which takes no time to find out. Waits for nobody.
   */
  collectIfDue(maxBytes?: number): Promise<PruneReport | undefined>
  /** Why what is in the store stays, most bytes first. */
  pins(): readonly Pin[]
  /** Checks everything, beside whatever goes on; with `repair`, mends what can be mended and takes the rest out of the index. */
  fsck(options?: FsckOptions): Promise<FsckReport>
}
