/**
 * Taking out of the index what is to go. First, in one short transaction, images, layers, blobs and cache records; from then on nothing new can come to
 * rely on them. Then the contents that no layer needs any more, in transactions of some thousand rows, so that nobody waits long for the index; the last of
 * them begins a new epoch: ingests that may have found one of these rows are all of an older one.
 *
 * What dies in between leaves `meta.unmarked`: there may be contents that no layer needs, and dead places of the present epoch.
 */
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import { beginEpoch } from '../store/epoch.ts'
import { generationOf } from '../contents/segments.ts'
import type { Marks } from './marks.ts'
import { isFull } from './room.ts'
import { decide, readState, type Gone, type Plan } from './state.ts'

export interface Unrecorded extends Gone {
  readonly steps: number
}

/** Durable when it returns. */
export function unrecord({ db }: StoreContext, plan: Plan): Unrecorded {
  const aliases = unusedAliases(db)
  return db.durably(() => {
    const gone = decide(readState(db), plan)
    for (const manifest of gone.images) {
      db.run('DELETE FROM images WHERE manifest = ?', manifest)
      db.run('DELETE FROM image_layers WHERE manifest = ?', manifest)
    }
    for (const diffId of gone.layers) {
      db.run('DELETE FROM layers WHERE diff_id = ?', diffId)
      db.run('DELETE FROM layer_segments WHERE diff_id = ?', diffId)
      db.run('DELETE FROM trees WHERE diff_id = ?', diffId)
    }
    db.run('DELETE FROM midstates WHERE diff_id NOT IN (SELECT diff_id FROM layers)')
    for (const digest of gone.blobs) db.run('DELETE FROM blobs WHERE digest = ?', digest)
    const steps = db.run('DELETE FROM steps WHERE diff_id NOT IN (SELECT diff_id FROM layers)')
    for (const cheap of aliases) db.run('DELETE FROM aliases WHERE cheap = ?', cheap)
    db.run('DELETE FROM builds WHERE manifest NOT IN (SELECT manifest FROM images)')
    if (gone.layers.length > 0) setUnmarked(db)
    return { ...gone, steps }
  })
}

/** As `unrecord` would do, without doing it. */
export function wouldUnrecord(db: Database, plan: Plan): Unrecorded {
  const gone = decide(readState(db), plan)
  const layers = new Set(gone.layers)
  const steps = db
    .all('SELECT diff_id, layers.diff_id IS NULL AS gone FROM steps LEFT JOIN layers USING (diff_id)')
    .filter((row) => row['gone'] === 1 || layers.has(String(row['diff_id']) as never)).length
  return { ...gone, steps }
}

/** What a key stands for is a component of some step; else the key is of no use. */
function unusedAliases(db: Database): string[] {
  const components = new Set<string>()
  for (const row of db.all('SELECT components FROM steps JOIN layers USING (diff_id)'))
    for (const [, value] of JSON.parse(String(row['components'])) as [string, string][]) components.add(value)
  return db
    .all('SELECT cheap, value FROM aliases')
    .filter((row) => !components.has(String(row['value'])))
    .map((row) => String(row['cheap']))
}

export function isUnmarked(db: Database): boolean {
  return db.get("SELECT 1 AS one FROM meta WHERE key = 'unmarked'") !== undefined
}

function setUnmarked(db: Database): void {
  db.run("INSERT OR REPLACE INTO meta VALUES ('unmarked', 1)")
}

/** A transaction of so many takes 0.1 s, and that is how long others wait. */
const ROWS_AT_ONCE = 5000
const FEWEST_ROWS = 50

/**
 * For what is `unmarked`: takes the contents' rows away that no layer needs, their places are dead, and begins a new epoch: older ingests must have ended.
 * Durable when it returns. Nothing happens while a layer's recipe is damaged: `marks.damaged` names it.
 */
export async function unrecordContents({ db }: StoreContext, marks: Marks): Promise<void> {
  const { contents } = marks
  const take = db.columns('DELETE FROM contents WHERE digest = ? RETURNING segment, block, size')
  const all = marks.unneeded()
  let rows = ROWS_AT_ONCE
  for (let from = 0, isDone = false; !isDone;) {
    const batch = all.slice(from, from + rows)
    const isLast = from + rows >= all.length
    const work = (): void => {
      marks.catchUp()
      if (marks.damaged.length > 0) return
      for (const content of batch) {
        if (marks.isLive(content)) continue
        const row = take(contents.digest(content))
        if (row === undefined) continue
        const [segment, block, size] = row.map(Number) as [number, number, number]
        if (segment === 0) db.run('INSERT OR IGNORE INTO dead_objects VALUES (?)', contents.digest(content))
        else db.run('INSERT OR REPLACE INTO dead VALUES (?, ?, ?)', segment, block, size)
      }
      if (batch.length > 0) bumpGeneration(db)
      if (!isLast) return
      beginEpoch(db)
      db.run("DELETE FROM meta WHERE key = 'unmarked'")
    }
    try {
      if (isLast) db.durably(work)
      else db.transaction(work)
    } catch (error) {
      // The log has no room for so many.
      if (!isFull(error) || rows <= FEWEST_ROWS) throw error
      rows = Math.ceil(rows / 10)
      continue
    }
    isDone = isLast || marks.damaged.length > 0
    from += batch.length
    await new Promise(setImmediate)
  }
}

/** Inside a transaction: contents were taken away, or moved. */
export function bumpGeneration(db: Database): void {
  db.run("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", generationOf(db) + 1)
}
