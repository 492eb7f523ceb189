/** What pulls, pushes, saves and loads tell while they run. */
import type { BlobDigest, DiffId } from '../../cas/index.ts'

export type LayerProgress =
  /** It begins to move. */
  | 'started'
  /** It is being compressed; `digest` is its DiffId. */
  | 'compressing'
  /** It was there already. */
  | 'exists'
  /** The registry took it over from another of its repositories. */
  | 'mounted'
  | 'done'

export type TransferEvent =
  /** `size` in bytes, as it is sent or received. */
  | {
      readonly kind: 'layer'
      readonly digest: BlobDigest | DiffId
      readonly size: number
      readonly state: LayerProgress
    }
  /** Bytes of a layer so far, about every MiB; goes back when something is sent again. */
  | { readonly kind: 'progress'; readonly digest: BlobDigest | DiffId; readonly bytes: number }
  /** A line that the user should see. */
  | { readonly kind: 'note'; readonly text: string }

export type TransferObserver = (event: TransferEvent) => void
