/**
 * When layers and cache records were last used, to the hour: a process remembers what it used, and writes it down when it ends, if that was not done within the
 * last hour.
 */
import type { BlobDigest } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import type { Database } from '../store/database.ts'
import type { StepKey } from '../store/types.ts'

const HOUR_MS = 3600_000

export interface Usage {
  /** A step's result was found. */
  step(key: StepKey): void
  /** A whole build's image was found. */
  image(manifest: BlobDigest): void
  /** Writes it down. */
  flush(): void
}

export function createUsage({ db }: StoreContext): Usage {
  const steps = new Set<StepKey>()
  const images = new Set<BlobDigest>()
  return {
    step: (key) => void steps.add(key),
    image: (manifest) => void images.add(manifest),
    flush: () => {
      const now = Date.now()
      const old = now - HOUR_MS
      const usedSteps = [...steps].filter((key) => {
        const sql = `
          SELECT 1 AS one FROM steps JOIN layers USING (diff_id)
          WHERE key = ? AND (steps.used_at < ? OR layers.used_at < ?)`
        return db.get(sql, key, old, old) !== undefined
      })
      const usedImages = [...images].filter((manifest) => {
        const sql =
          'SELECT 1 AS one FROM image_layers JOIN layers USING (diff_id) WHERE manifest = ? AND used_at < ?'
        return db.get(sql, manifest, old) !== undefined
      })
      steps.clear()
      images.clear()
      if (usedSteps.length === 0 && usedImages.length === 0) return
      db.transaction(() => {
        for (const key of usedSteps) {
          db.run('UPDATE steps SET used_at = ? WHERE key = ?', now, key)
          db.run(
            'UPDATE layers SET used_at = ? WHERE diff_id = (SELECT diff_id FROM steps WHERE key = ?)',
            now,
            key,
          )
        }
        for (const manifest of usedImages) {
          const sql =
            'UPDATE layers SET used_at = ? WHERE diff_id IN (SELECT diff_id FROM image_layers WHERE manifest = ?)'
          db.run(sql, now, manifest)
        }
      })
    },
  }
}

/** A lease ends: what it held was in use until now. */
export function touchLeased(db: Database, scope: string): void {
  const now = Date.now()
  const sql = `
    UPDATE layers SET used_at = ? WHERE used_at < ? AND diff_id IN (SELECT digest FROM leased WHERE scope = ?)`
  db.run(sql, now, now - HOUR_MS, scope)
}
