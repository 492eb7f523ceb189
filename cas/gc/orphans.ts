/**
 * Contents that are files of their own and that the index does not have: a process was killed between putting them there and recording them. Both happen
 * under the index's write lock, so what has no record while it is held is nobody's. So is what is no file. Links are not followed.
 */
import { readdirSync, type Dirent } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'
import { removeAll } from './allocated.ts'

/** `objects/ab` holds contents; whatever else is in `objects` is not ours. */
export function isObjectDirectory(entry: Dirent): boolean {
  return entry.isDirectory() && /^[0-9a-f]{2}$/.test(entry.name)
}

/** Returns the bytes that were freed. */
export function removeOrphans({ db, paths }: StoreContext): number {
  // Looking up each takes long (8 us), and there seldom is one.
  const parts = list(paths.objects)
    .filter(isObjectDirectory)
    .map(({ name }) => name)
  const count = { files: 0, others: 0 }
  for (const part of parts)
    for (const entry of list(join(paths.objects, part))) count[entry.isFile() ? 'files' : 'others']++
  if (count.files + count.others === 0) return 0
  const rows = db.get('SELECT count(*) AS rows FROM contents WHERE segment = 0')?.['rows']
  if (count.others === 0 && count.files === Number(rows)) return 0
  const find = db.columns('SELECT 1 FROM contents WHERE digest = ? AND segment = 0')
  const isKnown = (part: string, entry: Dirent): boolean =>
    entry.isFile() && find(Buffer.from(part + entry.name, 'hex')) !== undefined
  let freed = 0
  for (const part of parts) {
    const directory = join(paths.objects, part)
    // Durable: no power cut brings a record back that was seen to be gone.
    db.durably(() => {
      const names = list(directory).filter((entry) => !isKnown(part, entry))
      freed += removeAll(
        directory,
        names.map(({ name }) => name),
      )
    })
  }
  return freed
}

/** A directory goes with the ingest that made it, when that fails. */
function list(directory: string): Dirent[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return []
    throw error
  }
}
