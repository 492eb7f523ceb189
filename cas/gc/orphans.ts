/**
 * Contents that are files of their own and that the index does not have: a process was killed between putting them there and recording them. Both happen
 * under the index's write lock, so what has no record while it is held is nobody's.
 */
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'
import { fileBlocks } from './allocated.ts'

/** Returns the bytes that were freed. */
export function removeOrphans({ db, paths }: StoreContext): number {
  // Looking up each takes long (8 us), and there seldom is one.
  let files = 0
  const parts = readdirSync(paths.objects)
  for (const part of parts) files += list(join(paths.objects, part)).length
  if (files === 0) return 0
  const rows = db.get('SELECT count(*) AS rows FROM contents WHERE segment = 0')?.['rows']
  if (files === Number(rows)) return 0
  const isKnown = db.columns('SELECT 1 FROM contents WHERE digest = ? AND segment = 0')
  let freed = 0
  for (const part of parts) {
    // Durable: no power cut brings a record back that was seen to be gone.
    db.durably(() => {
      for (const name of list(join(paths.objects, part))) {
        if (isKnown(Buffer.from(part + name, 'hex')) !== undefined) continue
        const path = join(paths.objects, part, name)
        freed += fileBlocks(path)
        rmSync(path)
      }
    })
  }
  return freed
}

/** A directory goes with the ingest that made it, when that fails. */
function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
