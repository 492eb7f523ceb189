/**
 * The ledger: where a store's bytes are, what sharing saved, what images have in common, and images' files read without a mount. Loaded when it is asked
 * for (`Store.ledger`). It reads the index, recipes and contents, and writes nothing; only reading images' files takes a lease on their layers.
 */
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { Image, ImageStore } from '../store/types.ts'
import { diffViews } from './diff.ts'
import { compareImages, type Compared } from './reuse.ts'
import { readSavings, type PendingSavings } from './savings.ts'
import type { Change, Reuse } from './types.ts'
import { readUsage, type PendingUsage } from './usage.ts'
import { createLayerReader, ImageView } from './view.ts'

export interface NamedImage {
  readonly name: string
  readonly image: Image
}

/** What an image is compared with when nothing is named. */
export interface Base {
  /** `undefined`: it is not an image of this store, but the image's own layers less the last. */
  readonly image: Image | undefined
  readonly layers: readonly DiffId[]
}

export interface Ledger {
  /** What occupies the store. Measured after the store was closed: see `usage.ts`. */
  usage(): PendingUsage
  savings(): PendingSavings
  /** An image's files; bottom layer first. Throws `LAYER_UNKNOWN`, `STORE_CORRUPT`. */
  view(layers: readonly DiffId[]): ImageView
  diff(before: readonly DiffId[], after: readonly DiffId[], options?: { readonly times?: boolean }): Change[]
  /** The largest image of the store that `image` is built on. */
  baseOf(image: Image): Base
  reuse(a: NamedImage, b: NamedImage): Reuse
}

export function createLedger(context: StoreContext, images: ImageStore): Ledger {
  const read = createLayerReader(context)
  const view = (layers: readonly DiffId[]): ImageView => new ImageView(context, layers.map(read))
  const seen = (one: NamedImage): Compared => ({ ...one, view: view(one.image.config.rootfs.diff_ids) })
  return {
    usage: () => readUsage(context, images),
    savings: () => readSavings(context, readUsage(context, images)),
    view,
    diff: (before, after, options) => diffViews(view(before), view(after), options),
    baseOf: (image) => baseOf(images, image),
    reuse: (a, b) => {
      return compareImages(context.db, seen(a), seen(b))
    },
  }
}

function baseOf(images: ImageStore, image: Image): Base {
  const chain = image.config.rootfs.diff_ids
  const isBelow = ({ config }: Image): boolean => {
    const { diff_ids: below } = config.rootfs
    return below.length > 0 && below.length < chain.length && below.every((diffId, i) => diffId === chain[i])
  }
  const [base] = images
    .list()
    .filter(isBelow)
    .toSorted((a, b) => b.config.rootfs.diff_ids.length - a.config.rootfs.diff_ids.length)
  return base === undefined
    ? { image: undefined, layers: chain.slice(0, -1) }
    : { image: base, layers: base.config.rootfs.diff_ids }
}

export type { PendingSavings } from './savings.ts'
export type { PendingUsage } from './usage.ts'
export type { ImageView, ViewNode } from './view.ts'
export type * from './types.ts'
