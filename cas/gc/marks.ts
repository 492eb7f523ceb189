/**
 * Which contents layers need. There are no counters: a content is live when the recipe of a recorded layer names it, and recipes are lists of digests that
 * are read without unpacking anything (32 bytes for each; 600,000 take half a second).
 *
 * Reading them needs no lock: a layer that is recorded meanwhile is marked when the lock is held (`catchUp`), and only the holder of the collection's lock takes layers away.
 */
import { TbuildError } from '../../errors.ts'
import { ContentList } from '../contents/list.ts'
import type { DiffId } from '../oci.ts'
import { recipeDigests } from '../recipe/read.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import { recipePath } from '../store/paths.ts'

export class Marks {
  /** The content table as it was: digest, size, place. */
  readonly contents: ContentList
  /** Layers whose recipes cannot be read: while there is one, nobody knows what is live. */
  readonly damaged: DiffId[] = []
  readonly #context: StoreContext
  readonly #live: Uint8Array
  readonly #done: Set<string>

  /** @param without layers that do not count */
  constructor(context: StoreContext, without: ReadonlySet<string> = new Set()) {
    this.#context = context
    // The contents first: the layers of all of them are then among those that are read.
    this.contents = readContents(context.db)
    this.#live = new Uint8Array(this.contents.count)
    this.#done = new Set(without)
    this.catchUp()
  }

  /** Marks what layers need that were recorded since. */
  catchUp(): void {
    for (const { diff_id } of this.#context.db.all('SELECT diff_id FROM layers'))
      this.mark(String(diff_id) as DiffId)
  }

  mark(diffId: DiffId): void {
    if (this.#done.has(diffId)) return
    this.#done.add(diffId)
    const { paths } = this.#context
    const isReadable = eachDigest(recipePath(paths, diffId), (digest) => {
      const content = this.contents.find(digest)
      if (content !== undefined) this.#live[content] = 1
    })
    if (!isReadable) this.damaged.push(diffId)
  }

  isLive(content: number): boolean {
    return this.#live[content] === 1
  }

  /** Numbers of the contents that no layer needs. */
  unneeded(): number[] {
    const found: number[] = []
    for (let content = 0; content < this.contents.count; content++)
      if (this.#live[content] !== 1) found.push(content)
    return found
  }
}

/** False when the recipe is damaged. */
export function eachDigest(recipe: string, visit: (digest: Buffer) => void): boolean {
  try {
    for (const digest of recipeDigests(recipe)) visit(digest)
    return true
  } catch (error) {
    if (error instanceof TbuildError && error.code === 'STORE_CORRUPT') return false
    throw error
  }
}

export function readContents(db: Database): ContentList {
  const contents = new ContentList()
  for (const [digest, segment, block, size] of db.scan('SELECT digest, segment, block, size FROM contents')) {
    contents.add(digest as Uint8Array, Number(size), { segment: Number(segment), block: Number(block) })
  }
  return contents
}
