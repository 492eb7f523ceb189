/** Where the store has a content, by its digest, as the index says. */
import type { Database } from '../store/database.ts'
import type { Location } from './list.ts'

/** Of many contents: the statement is prepared once. */
export function locatorOf(db: Database): (digest: Buffer) => Location | undefined {
  const lookup = db.columns('SELECT segment, block FROM contents WHERE digest = ?')
  return (digest) => {
    const row = lookup(digest)
    return row && { segment: Number(row[0]), block: Number(row[1]) }
  }
}
