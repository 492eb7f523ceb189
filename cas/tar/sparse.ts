/** GNU's sparse formats: "old" (type S), and 0.0, 0.1 and 1.0 in PAX records ("Storing Sparse Files" in GNU tar's manual). */
import type { SparseRegion } from './entry.ts'
import { parseDecimal, parseNumeric } from './number.ts'

export type PaxSparse = 'none' | '0.x' | '1.0'

/** Which format the records announce. 0.0 and 0.1 came without a version; of an unknown version the file is an ordinary one. */
export function paxSparseFormat(records: ReadonlyMap<string, string>): PaxSparse {
  const major = records.get('GNU.sparse.major') ?? ''
  const minor = records.get('GNU.sparse.minor') ?? ''
  if (major === '0' && (minor === '0' || minor === '1')) return '0.x'
  if (major === '1' && minor === '0') return '1.0'
  if (major !== '' || minor !== '') return 'none'
  return (records.get('GNU.sparse.map') ?? '') === '' ? 'none' : '0.x'
}

/** The map of formats 0.0 and 0.1: "offset,length,offset,length..." and the number of pairs. */
export function parsePaxSparseMap(records: ReadonlyMap<string, string>): SparseRegion[] | undefined {
  const count = parseDecimal(records.get('GNU.sparse.numblocks') ?? '')
  const text = records.get('GNU.sparse.map') ?? ''
  const fields = text === '' ? [] : text.split(',')
  if (count === undefined || count < 0 || fields.length !== 2 * count) return undefined
  return toRegions(fields)
}

/**
 * Format 1.0: the map stands before the data, as decimal lines (count, then offset and length in turn), filled up to a block.
 * @returns `'more'` while it does not end in these bytes
 */
export function parseSparseMap1(bytes: Buffer): SparseRegion[] | 'more' | undefined {
  const countEnd = bytes.indexOf(10)
  if (countEnd < 0) return bytes.length > 512 ? undefined : 'more'
  const count = parseDecimal(bytes.toString('latin1', 0, countEnd))
  if (count === undefined || count < 0 || count > 1e6) return undefined
  const fields = bytes.toString('latin1', countEnd + 1).split('\n')
  return fields.length <= 2 * count ? 'more' : toRegions(fields.slice(0, 2 * count))
}

function toRegions(fields: readonly string[]): SparseRegion[] | undefined {
  const regions: SparseRegion[] = []
  for (let i = 0; i < fields.length; i += 2) {
    const offset = parseDecimal(fields[i] ?? '')
    const length = parseDecimal(fields[i + 1] ?? '')
    if (offset === undefined || length === undefined) return undefined
    regions.push({ offset, length })
  }
  return regions
}

/** Add the pairs of an old GNU header (`start` 386, 4 pairs) or extension block (0, 21 pairs); false when malformed. */
export function addOldRegions(regions: SparseRegion[], block: Buffer, start: number, pairs: number): boolean {
  for (let i = 0; i < pairs; i++) {
    const at = start + i * 24
    if (block[at] === 0) break
    const offset = parseNumeric(block, at, 12)
    const length = parseNumeric(block, at + 12, 12)
    if (offset === undefined || length === undefined) return false
    regions.push({ offset, length })
  }
  return true
}

/** In order, apart, inside the file, and together as long as the data in the archive. */
export function areValidRegions(regions: readonly SparseRegion[], size: number, stored: number): boolean {
  if (size < 0) return false
  let end = 0
  let total = 0
  for (const { offset, length } of regions) {
    if (offset < end || length < 0 || offset + length > size) return false
    end = offset + length
    total += length
  }
  return total === stored
}
