/**
 * Dead places: what of them can be freed. Only whole blocks of the file system can, so neighbours count as one; what is left at the edges, in a block that a
 * living content or a neighbour's edge shares, stays on record until the neighbour dies too or the segment is compacted.
 */
import { BLOCK } from '../contents/reader.ts'

/** In a segment; `block` and `blocks` of 512 bytes. */
export interface DeadPlace {
  readonly block: number
  readonly blocks: number
}

/** Neighbours together. */
export interface Region extends DeadPlace {
  /** The records that it is made of, by their first blocks. */
  readonly records: readonly number[]
  /** Bytes in the file that are whole blocks of the file system; none when `to` is `from`. */
  readonly from: number
  readonly to: number
  /** What is left: new records. */
  readonly rest: readonly DeadPlace[]
}

/**
 * @param places ascending
 * @param granule bytes of a block of the file system
 */
export function regionsOf(places: readonly DeadPlace[], granule: number): Region[] {
  const regions: Region[] = []
  for (let i = 0; i < places.length;) {
    const { block } = places[i] ?? { block: 0 }
    let end = block
    const records: number[] = []
    for (let place = places[i]; place !== undefined && place.block <= end; place = places[++i]) {
      end = Math.max(end, place.block + place.blocks)
      records.push(place.block)
    }
    regions.push({ block, blocks: end - block, records, ...cut(block * BLOCK, end * BLOCK, granule) })
  }
  return regions
}

function cut(start: number, end: number, granule: number): Pick<Region, 'from' | 'to' | 'rest'> {
  const from = Math.ceil(start / granule) * granule
  const to = Math.floor(end / granule) * granule
  if (to <= from) return { from, to: from, rest: [{ block: start / BLOCK, blocks: (end - start) / BLOCK }] }
  const edges = [
    [start, from],
    [to, end],
  ] as const
  const rest = edges.flatMap(([a, b]) => (a < b ? [{ block: a / BLOCK, blocks: (b - a) / BLOCK }] : []))
  return { from, to, rest }
}
