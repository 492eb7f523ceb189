/**
 * How a store keeps contents: in segments, or each in a file of its own. Its first ingest decides, for good: what mounts layers relies on it.
 */
import { TbuildError } from '../../errors.ts'
import type { Database } from '../store/database.ts'

export type ContentKind = 'segments' | 'objects'

/** `undefined`: nothing was ever stored. */
export function contentKind(db: Database): ContentKind | undefined {
  const decided = db.get("SELECT value FROM meta WHERE key = 'contents'")?.['value']
  if (decided === 'segments' || decided === 'objects') return decided
  // An index that was made anew from what there is.
  if (db.get('SELECT 1 AS one FROM segments LIMIT 1') !== undefined) return 'segments'
  const content = db.get('SELECT segment FROM contents LIMIT 1')
  if (content === undefined) return undefined
  return Number(content['segment']) === 0 ? 'objects' : 'segments'
}

/** Before the first content is written. Throws `DRIVER_UNUSABLE` when the store has the other kind. */
export function claimContents(db: Database, kind: ContentKind): void {
  if (contentKind(db) === kind) return
  db.transaction(() => {
    const decided = contentKind(db)
    if (decided === undefined) db.run("INSERT INTO meta VALUES ('contents', ?)", kind)
    else if (decided !== kind) throw otherKind(decided)
  })
}

export function otherKind(decided: ContentKind): TbuildError {
  const [keeps, drivers] =
    decided === 'segments' ? ['contents in segments', 'erofs or copy'] : ['each content in a file', 'objects']
  return new TbuildError(
    'DRIVER_UNUSABLE',
    `This store keeps ${keeps}, which is for the driver ${drivers}.`,
    {
      hint: 'Leave out --driver and TBUILD_DRIVER, or choose another store with --store.',
    },
  )
}
