/** Files without a record, and leases' rows without a lease. */
import { existsSync, lstatSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import { RECORD_BYTES } from '../contents/sidecar.ts'
import { isUnlocked } from '../gc/free.ts'
import { segmentPath, sidecarPath } from '../store/paths.ts'
import { VALID } from './rows.ts'
import type { Leftover, Pass } from './types.ts'

export async function findLeftovers(pass: Pass): Promise<Leftover[]> {
  const { db, paths } = pass.context
  const has = (sql: string): ((name: string) => boolean) => {
    const row = db.prepare(sql)
    return (name) => row(name) !== undefined
  }
  const blob = has("SELECT 1 FROM blobs WHERE digest = 'sha256:' || ?")
  const recipe = has("SELECT 1 FROM layers WHERE diff_id = 'sha256:' || ?")
  const image = has("SELECT 1 FROM layers WHERE image = ?1 AND diff_id = 'sha256:' || substr(?1, 1, 64)")
  const segment = has('SELECT 1 FROM segments WHERE id = ?')
  const object = has('SELECT 1 FROM contents WHERE digest = unhex(?) AND segment = 0')
  const tree = has('SELECT 1 FROM trees WHERE name = ?')
  const isNamed: Readonly<Record<string, (name: string) => boolean>> = {
    [paths.blobs]: blob,
    [paths.layers]: (name) =>
      name.endsWith('.recipe') ? recipe(name.slice(0, -'.recipe'.length)) : image(name),
    [paths.segments]: (name) => /^[1-9]\d*(\.list)?$/.test(name) && segment(name.replace('.list', '')),
    [paths.trees]: tree,
  }
  const found: Leftover[] = []
  const add = (path: string, bytes = allocated(path)): void =>
    void found.push({ path: path.slice(paths.root.length + 1), bytes })
  for (const [directory, named] of Object.entries(isNamed)) {
    const suspects = list(directory).filter((name) => !named(name))
    await pass.breathe()
    if (suspects.length === 0) continue
    // A file gets its name and its record under one lock.
    for (const name of db.transaction(() =>
      suspects.filter((one) => !named(one) && existsSync(join(directory, one))),
    )) {
      add(join(directory, name))
    }
  }
  for (const part of list(paths.objects)) {
    for (const name of list(join(paths.objects, part)))
      if (!object(part + name)) add(join(paths.objects, part, name))
    await pass.breathe()
  }
  for (const row of db.all(
    `SELECT id, length, records FROM segments WHERE ${VALID.segments.rule} ORDER BY id`,
  )) {
    const id = Number(row['id'])
    // Else somebody is at work on it.
    if (!isUnlocked(paths, id)) continue
    const beyond = (path: string, length: number): void => {
      const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
      if (size > length) add(path, size - length)
    }
    beyond(segmentPath(paths, id), Number(row['length']))
    beyond(sidecarPath(paths, id), Number(row['records']) * RECORD_BYTES)
  }
  return found
}

/** Rows of a lease that is no more keep things from being collected for ever. */
export function checkLeases({ context: { db, paths }, findings }: Pass): void {
  const look = (): string[] =>
    db
      .all('SELECT DISTINCT CAST(scope AS TEXT) AS scope FROM leased')
      .map((row) => String(row['scope']))
      .filter((scope) => scope.includes('/') || !existsSync(join(paths.leases, scope)))
  if (look().length === 0) return
  for (const scope of db.transaction(look)) {
    findings.push({
      code: 'LEASE_DANGLING',
      what: 'The index has things in use by a process whose lease is no more.',
      where: `index.db: leased ${scope}`,
      repair: 'remove the rows',
      affects: {},
      mend: () => void db.run('DELETE FROM leased WHERE CAST(scope AS TEXT) = ?', scope),
    })
  }
}

function list(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return []
    throw error
  }
}

/** Disk blocks of a file, or of a tree, in bytes. */
function allocated(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false })
  if (stats === undefined) return 0
  let bytes = stats.blocks * 512
  if (stats.isDirectory()) for (const name of list(path)) bytes += allocated(join(path, name))
  return bytes
}
