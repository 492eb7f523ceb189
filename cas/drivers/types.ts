/**
 * What differs between ways of keeping layers: where contents go, and how a layer becomes a directory that overlayfs takes as a lower. Recipes, index,
 * leases and collection are the same for all (cas/store).
 */
import type { ContentList } from '../contents/list.ts'
import type { ContentWriter } from '../contents/types.ts'
import type { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'

export const DRIVER_NAMES = ['erofs', 'objects', 'copy'] as const
export type DriverName = (typeof DRIVER_NAMES)[number]

/**
 * What a lower is for. `build`: files are read once, soon. `container`: they may stay in the page cache for long, so each is to be there once, not also as
 * a part of the store's file.
 */
export type Use = 'build' | 'container'

/** What a driver mounts of a layer, as a file: durable under a temporary name. */
export interface IndexImage {
  readonly path: string
  /** What tells it from other images of the layer: see `placeImage`. */
  readonly uuid: Buffer
  /** The segments that it reads, as devices 1, 2, ... */
  readonly segments: readonly number[]
}

/** A file or directory of a layer that has another time than in an older one, or other contents. */
export interface RevisedName {
  /** A byte string, without a `/` at either end. */
  readonly path: string
  readonly mtimeNs: bigint
  /** Of a file: its number, and bytes. */
  readonly contents?: { readonly content: number; readonly size: number }
}

/** A directory that overlayfs takes as a lower. */
export interface Lower {
  /** The driver's. */
  readonly fd: number
  /** Another one, to be put right above it. */
  readonly above?: number | undefined
  /** Of a mount: nobody needs it on behalf of this caller any more. An overlay that stands on it keeps it by itself, but not for others to share. */
  readonly release?: () => void
}

export interface Driver extends Disposable {
  readonly name: DriverName
  contentWriter(): ContentWriter
  /** After the contents' locations are final. `undefined`: this driver needs none. */
  index(tree: LayerTree, contents: ContentList): Promise<IndexImage | undefined>
  /**
   * The same of a layer that is a stored one but for these names, made from that one's. `undefined` where that cannot be done: one is made when the layer is first
   * mounted.
   */
  revisedIndex?(
    former: DiffId,
    names: readonly RevisedName[],
    contents: ContentList,
  ): Promise<IndexImage | undefined>
  /** A stored layer as a directory in overlayfs form. The caller holds a lease on the layer. */
  lower(diffId: DiffId, use: Use): Promise<Lower>
  /** A directory that holds data of the lowers' files, for overlayfs alone (`OverlaySpec.data`); the descriptor is the driver's. */
  dataLower?(): number
  /** Several stored layers, bottom first, as one, for stacks that are higher than overlayfs takes. */
  merged?(diffIds: readonly DiffId[], use: Use): Promise<Lower>
  /**
   * Where overlays cannot be mounted: these layers, bottom first, as one plain directory, which nobody may change. The caller holds leases on them. There is no
   * other way to make roots then: `lower` is not called.
   */
  readonly whole?: (diffIds: readonly DiffId[]) => Promise<Lower>
}
