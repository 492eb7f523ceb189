/** How an ingest puts contents into the store, wherever the store keeps them. */
import type { ContentList } from './list.ts'
import type { ContentReader } from './reader.ts'

/**
 * The contents of one layer on their way in. Each is given in parts between `begin` and `end`; one that the store has is not kept again. Nothing counts
 * before `confirm`; disposing without it leaves the store as it was.
 */
export interface ContentWriter extends Disposable {
  readonly list: ContentList
  begin(): void
  append(bytes: Uint8Array): void
  /** `length` bytes at `position` of a file. Returns what was there: less where the file ends. */
  appendFrom(fd: number, position: number, length: number): number
  /** Number of the content in `list`. */
  end(): number
  /** All of a content whose digest is known; its number. */
  put(digest: Uint8Array, bytes: Uint8Array): number
  /** Instead of `end`: nothing was given. Its digest. */
  drop(): Buffer
  /** The number of a content that the store or this writer has; `undefined`: it must be written. */
  find(digest: Uint8Array): number | undefined
  /** Many digests, one after another, looked up at once: 1 us each, and 8 one by one. `find` knows them then. Whether all are there. */
  lookUp(digests: Buffer): boolean
  /** Was it written here, and just now? */
  isOwn(content: number): boolean
  /** What was written can be read back by its location. Also while a content is being given. */
  flush(): void
  /** Where the store's reader cannot read what has been written and is not recorded: one that can. */
  readonly reader?: ContentReader
  /** Everything written is durable when it resolves. */
  sync(): Promise<void>
  /** Looks again where contents are: others may have stored the same meanwhile, or moved some. The list's locations are right after it. */
  resolve(): void
  /** In a transaction, after `sync` and `resolve`. False when `resolve` must be called again: then the transaction's part is to be undone. */
  record(): boolean
  /** The transaction has been committed. */
  confirm(): void
}
