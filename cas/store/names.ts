/**
 * The images' names, kept beside the index as well: `names.json`. They are the only thing that nothing else in the store tells, so when the index is lost,
 * `fsck --repair` has them from here.
 *
 * A change is counted in the index (`names` in `meta`). (1) In its transaction the new file is written under a temporary name and made durable: one fsync more.
 * (2) After the commit, which is durable, it gets its name, unless a later change has been committed. So the file is never ahead of an index that is what it
 * was; it may be behind, by what was changed just before a kill or a power cut.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { isErrno } from '../../linux/index.ts'
import type { StoreContext } from './context.ts'
import type { Database } from './database.ts'
import { STORE_VERSION, type StorePaths } from './paths.ts'
import { syncDirectory } from './spool.ts'

export function namesPath(paths: StorePaths): string {
  return join(paths.root, 'names.json')
}

/** What the file says: the index's count of changes when it was written, and the manifest of each name. */
export interface KeptNames {
  readonly format: number
  readonly sequence: number
  readonly names: ReadonlyMap<string, string>
}

/** `undefined`: there is none. `damaged`: it is not what was written. */
export function readNames(paths: StorePaths): KeptNames | 'damaged' | undefined {
  let text: string
  try {
    text = readFileSync(namesPath(paths), 'utf8')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  const end = text.indexOf('\n')
  const head = parseHead(text.slice(0, end))
  const body = text.slice(end + 1)
  if (head === undefined || crc32(`${head.format} ${head.sequence} ${body}`) !== head.crc32) return 'damaged'
  try {
    const names = new Map(Object.entries(JSON.parse(body) as Record<string, string>))
    return { format: head.format, sequence: head.sequence, names }
  } catch {
    return 'damaged'
  }
}

interface Head {
  readonly format: number
  readonly sequence: number
  readonly crc32: number
}

const HEAD_BYTES = 256

/** The count of changes in the file, without reading all of it; `undefined` when there is none that can be believed. */
export function keptSequence(paths: StorePaths): number | undefined {
  let fd
  try {
    fd = openSync(namesPath(paths), 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  try {
    const bytes = Buffer.alloc(HEAD_BYTES)
    const text = bytes.toString('latin1', 0, readSync(fd, bytes, 0, HEAD_BYTES, 0))
    return parseHead(text.slice(0, text.indexOf('\n')))?.sequence
  } finally {
    closeSync(fd)
  }
}

function parseHead(line: string): Head | undefined {
  try {
    const head = JSON.parse(line) as Head
    return [head.format, head.sequence, head.crc32].every(Number.isSafeInteger) ? head : undefined
  } catch {
    return undefined
  }
}

/** How many changes of names the index knows of. */
export function namesSequence(db: Database): number {
  return Number(db.get("SELECT value FROM meta WHERE key = 'names'")?.['value'] ?? 0)
}

/** Does what `work` does, durably. It returns whether it changed names. */
export function changeNames<T>(
  context: StoreContext,
  work: () => { readonly result: T; readonly changed: boolean },
): T {
  const { db } = context
  let staged: Staged | undefined
  const result = db.durably(() => {
    // Before the change: a file without it, should the change not be committed.
    makeFirst(context)
    const done = work()
    if (done.changed) staged = stage(context)
    return done.result
  })
  if (staged !== undefined) publish(context, staged)
  return result
}

/** Writes the file as the index has it. */
export function rewriteNames(context: StoreContext): void {
  changeNames(context, () => ({ result: undefined, changed: true }))
}

interface Staged {
  readonly path: string
  readonly sequence: number
}

/** Once changes are counted, an index without the file is a loss. */
function makeFirst(context: StoreContext): void {
  const { db, paths } = context
  if (existsSync(namesPath(paths))) return
  const first = write(context, namesSequence(db))
  renameSync(first.path, namesPath(paths))
  syncDirectory(paths.root)
}

function stage(context: StoreContext): Staged {
  const { db } = context
  const staged = write(context, namesSequence(db) + 1)
  db.run("INSERT OR REPLACE INTO meta VALUES ('names', ?)", staged.sequence)
  return staged
}

function write({ db, workPath }: StoreContext, sequence: number): Staged {
  const rows = db.all('SELECT name, manifest FROM names ORDER BY name')
  const body = `${JSON.stringify(Object.fromEntries(rows.map((row) => [row['name'], row['manifest']])), undefined, 1)}\n`
  const head = { format: STORE_VERSION, sequence, crc32: crc32(`${STORE_VERSION} ${sequence} ${body}`) }
  const path = workPath('names')
  const fd = openSync(path, 'wx', 0o600)
  try {
    const bytes = Buffer.from(`${JSON.stringify(head)}\n${body}`)
    for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at)
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
  return { path, sequence }
}

function publish({ db, paths }: StoreContext, { path, sequence }: Staged): void {
  db.transaction(() => {
    if (namesSequence(db) === sequence) renameSync(path, namesPath(paths))
    else rmSync(path)
  })
}
