/**
 * The layer that this COPY of a build context gave last. Where the next one would differ from it by nothing but what some files hold, and by times, that layer is revised:
 * nothing is written that was written before, and nothing of the parent is mounted. A directory in which names were made keeps the time at which that was.
 */
import type { DiffId, Intake, Layer, Revision, Store } from '../../cas/index.ts'
import type { Found } from '../copy/found.ts'
import { Listing, listedOf, type Walked } from '../copy/listing.ts'
import type { SolveContext } from './context.ts'

/** Fewer are written in the time in which a former layer is looked at. */
export const LEAST_ENTRIES = 1500
/** When more than this share has changed, writing is as quick. */
const MOST_CHANGED = 1 / 8

export interface Copied {
  readonly walked: readonly Walked[]
  readonly listing: Listing
  readonly parents: readonly Layer[]
  /** Later times became this one; nanoseconds. */
  readonly latest: bigint | undefined
}

/** What a note says first. Then come where each entry's header is in the layer's tar (float64, NaN: nowhere) and the listing. */
interface Head {
  readonly entries: number
  readonly parents: readonly DiffId[]
  readonly latest: string
  readonly diffId: DiffId
  /** Base64. */
  readonly outline: string
}

interface Note {
  readonly head: Head
  readonly starts: Float64Array
  readonly listing: Listing
}

export class Former {
  readonly #store: Store
  readonly #place: string
  readonly #copied: Copied
  readonly #parents: readonly Layer[]
  readonly #entries: readonly Found[]
  readonly #background: (work: Promise<unknown>) => void
  readonly #atEnd: SolveContext['atEnd']

  /**
   * @param place the same for the next build of the same instruction and context
   * @param background what goes on after the layer is there
   */
  constructor(
    context: SolveContext,
    place: string,
    copied: Copied,
    background: (work: Promise<unknown>) => void,
  ) {
    this.#background = background
    this.#atEnd = (work) => context.atEnd(work)
    this.#store = context.store
    this.#place = place
    this.#copied = copied
    this.#parents = [...copied.parents]
    this.#entries = copied.walked.flatMap(listedOf)
  }

  /** The layer, if it can be made so, of which the next one may then be made; and what has changed. */
  async revise(
    intake: Intake,
    signal: AbortSignal,
  ): Promise<{ readonly layer: Layer; readonly changed: readonly Found[] } | undefined> {
    const note = await this.#note()
    const different = note && this.#copied.listing.differences(note.listing)
    if (note === undefined || different === undefined) return undefined
    if (different.length > note.head.entries * MOST_CHANGED) return undefined
    const { head, starts } = note
    const revisions = this.#revisions(different, starts)
    const { layers } = this.#store
    const former = { diffId: head.diffId, outline: Buffer.from(head.outline, 'base64') }
    const revised = await layers.revise(former, revisions, { intake, signal })
    if (revised === undefined) return undefined
    this.#keep(revised.layer, shifted(starts, revisions, revised.shifts))
    return { layer: revised.layer, changed: different.flatMap((number) => this.#entries[number] ?? []) }
  }

  /** It has been written. */
  written(layer: Layer): void {
    this.#keep(
      layer,
      Float64Array.from(this.#entries, ({ start }) => start ?? Number.NaN),
    )
  }

  async #note(): Promise<Note | undefined> {
    const bytes = this.#store.notes.read(this.#place)
    const note = bytes && unpack(bytes)
    if (note?.head.latest !== String(this.#copied.latest)) return undefined
    const parents = await storedSoFar(this.#parents)
    return parents?.join() === note.head.parents.join() ? note : undefined
  }

  #revisions(different: readonly number[], starts: Float64Array): Revision[] {
    const { latest } = this.#copied
    return different
      .flatMap((number): Revision[] => {
        const start = starts[number] ?? Number.NaN
        const entry = this.#entries[number]
        // Where it is not in the layer, nothing is that it says: another source has the same name, or only what is in a directory was copied.
        if (entry === undefined || Number.isNaN(start)) return []
        const { stats, known } = entry
        const mtimeNs = latest !== undefined && stats.mtimeNs > latest ? latest : stats.mtimeNs
        if (known === undefined) return [{ start, mtimeNs }]
        return [{ start, mtimeNs, contents: { digest: known.digest, size: stats.size } }]
      })
      .toSorted((a, b) => a.start - b.start)
  }

  #keep(layer: Layer, starts: Float64Array): void {
    const keep = async (): Promise<void> => {
      const { diffId, outline } = await layer.stored
      const parents = await Promise.all(this.#parents.map(async ({ stored }) => (await stored).diffId))
      if (outline === undefined) return
      const head: Head = {
        entries: starts.length,
        parents,
        latest: String(this.#copied.latest),
        diffId,
        outline: Buffer.from(outline).toString('base64'),
      }
      this.#atEnd(() => this.#store.notes.write(this.#place, pack(head, starts, this.#copied.listing)))
    }
    this.#background(keep())
  }
}

/** `undefined` while one of them is still on its way: nobody waits for it here. */
async function storedSoFar(layers: readonly Layer[]): Promise<DiffId[] | undefined> {
  const all = Promise.all(layers.map(async ({ stored }) => (await stored).diffId))
  return await Promise.race([all, new Promise<undefined>((resolve) => void setImmediate(resolve, undefined))])
}

/** Where they are when what was before them has been revised. */
function shifted(
  starts: Float64Array,
  revisions: readonly Revision[],
  shifts: readonly number[],
): Float64Array {
  // Contents of the same size, as a rule.
  if (shifts.every((shift) => shift === 0)) return starts
  const ends = revisions.map(({ start }) => start)
  const moves = [0]
  for (const shift of shifts) moves.push((moves.at(-1) ?? 0) + shift)
  return starts.map((start) => start + (moves[before(ends, start)] ?? 0))
}

/** How many of the sorted numbers are less. */
function before(sorted: readonly number[], value: number): number {
  let low = 0
  for (let high = sorted.length; low < high;) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? Infinity) < value) low = middle + 1
    else high = middle
  }
  return low
}

function pack(head: Head, starts: Float64Array, listing: Listing): readonly Uint8Array[] {
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32LE(json.length)
  return [length, json, Buffer.from(starts.buffer), ...listing.packed]
}

function unpack(note: Buffer): Note {
  const startsAt = 4 + note.readUInt32LE()
  const head = JSON.parse(note.toString('utf8', 4, startsAt)) as Head
  const listingAt = startsAt + head.entries * 8
  const starts = new Float64Array(head.entries)
  note.copy(Buffer.from(starts.buffer), 0, startsAt, listingAt)
  return { head, starts, listing: Listing.unpack(head.entries, note.subarray(listingAt)) }
}
