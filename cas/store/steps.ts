/** What build steps gave, by key. */
import type { BlobDigest, DiffId } from '../oci.ts'
import type { Usage } from '../gc/usage.ts'
import type { StoreContext } from './context.ts'
import type { StepCache } from './types.ts'

export function createStepCache({ db }: StoreContext, usage: Usage): StepCache {
  return {
    find: (key) => {
      const row = db.get('SELECT diff_id, created FROM steps JOIN layers USING (diff_id) WHERE key = ?', key)
      if (row === undefined) return undefined
      usage.step(key)
      return { key, diffId: String(row['diff_id']) as DiffId, created: String(row['created']) }
    },
    record: ({ key, diffId, created }, components, title) => {
      const json = JSON.stringify(components)
      db.run(
        'INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?)',
        key,
        diffId,
        created,
        title,
        json,
        Date.now(),
      )
    },
    alias: (cheap, value) => void db.run('INSERT OR REPLACE INTO aliases VALUES (?, ?)', cheap, value),
    resolve: (cheap) => {
      const row = db.get('SELECT value FROM aliases WHERE cheap = ?', cheap)
      return row && String(row['value'])
    },
    findImage: (key) => {
      const row = db.get('SELECT manifest FROM builds JOIN images USING (manifest) WHERE key = ?', key)
      if (row === undefined) return undefined
      const manifest = String(row['manifest']) as BlobDigest
      usage.image(manifest)
      return manifest
    },
    recordImage: (key, manifest) => void db.run('INSERT OR REPLACE INTO builds VALUES (?, ?)', key, manifest),
  }
}
