/**
 * Leases: a file for each process that uses the store, locked with flock(2). The lock is the open file description's, so a kill -9
 * frees it, and what inherits the descriptor (a container's launcher) keeps it.
 *
 * What a dead process left is found by its lease: work directory, index rows and, by the scope's name, cgroups.
 */
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
} from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { flock, isErrno, listXattrs, removeXattr } from '../../linux/index.ts'
import { touchLeased } from '../gc/usage.ts'
import type { Database } from './database.ts'
import type { StorePaths } from './paths.ts'

export interface Lease {
  /** Unique name; also that of the work directory. */
  readonly scope: string
  readonly fd: number
  readonly workDirectory: string
  release(): void
}

export function takeLease(paths: StorePaths, db: Database): Lease {
  const scope = randomBytes(8).toString('hex')
  const path = join(paths.leases, scope)
  // Locked before it has its name, so that no sweep can take it for a dead one.
  const fresh = join(paths.leases, `.${scope}`)
  const fd = openSync(fresh, 'wx', 0o600)
  flock(fd, 'exclusive')
  renameSync(fresh, path)
  const workDirectory = join(paths.work, scope)
  mkdirSync(workDirectory, { mode: 0o700 })
  // Of the store's own directory; all that is made here would have it, a root's files too.
  if (listXattrs(workDirectory).includes(DEFAULT_ACL)) removeXattr(workDirectory, DEFAULT_ACL)
  return {
    scope,
    fd,
    workDirectory,
    release: () => {
      forget(paths, db, scope)
      closeSync(fd)
    },
  }
}

const DEFAULT_ACL = 'system.posix_acl_default'

/** A process that ends while `takeLease` is at work leaves one of these, which holds nothing; a younger one may be about to be locked. */
const UNNAMED = /^\./
const UNNAMED_MS = 60_000

/**
 * Clean up after processes that are dead.
 * @param beforeRemoval is told their scopes, all still locked by us, before anything of theirs goes: processes first
 */
export async function sweepDeadLeases(
  paths: StorePaths,
  db: Database,
  own: string | undefined,
  beforeRemoval: (scopes: ReadonlySet<string>) => Promise<void>,
): Promise<void> {
  // What a process has, it has only while it has a lease: seen before the leases, it is of one of them, or of nobody.
  const scopes = scopesInUse(paths, db)
  const names = readdirSync(paths.leases)
  const lost = scopes.filter((scope) => !names.includes(scope))
  const dead = new Map<string, number>()
  try {
    for (const name of names) {
      if (name === own || isYoung(paths, name)) continue
      const fd = lockIfDead(join(paths.leases, name))
      if (fd !== undefined) dead.set(name, fd)
    }
    const gone = new Set([...dead.keys(), ...lost])
    if (gone.size === 0) return
    await beforeRemoval(gone)
    for (const scope of gone) {
      if (UNNAMED.test(scope)) rmSync(join(paths.leases, scope), { force: true })
      else forget(paths, db, scope)
    }
  } finally {
    for (const fd of dead.values()) closeSync(fd)
  }
}

const SCOPE = /^[0-9a-f]{16}$/

/** By work directories and the index. A power cut may keep them and lose the lease. What is no scope is for fsck to say. */
function scopesInUse(paths: StorePaths, db: Database): string[] {
  const leased = db.all('SELECT DISTINCT scope FROM leased').map((row) => String(row['scope']))
  return [...new Set([...leased, ...readdirSync(paths.work)])].filter((scope) => SCOPE.test(scope))
}

/** In a copy of the index, beside a store that nothing can be taken away from: what is held by nobody is not held. */
export function forgetDeadRows(paths: StorePaths, db: Database): void {
  for (const row of db.all('SELECT DISTINCT scope FROM leased')) {
    const scope = String(row['scope'])
    if (SCOPE.test(scope) && !isLocked(join(paths.leases, scope)))
      db.run('DELETE FROM leased WHERE scope = ?', scope)
  }
}

function isLocked(path: string): boolean {
  let fd: number
  try {
    fd = openSync(path, 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false
    throw error
  }
  try {
    return !flock(fd, 'shared')
  } finally {
    closeSync(fd)
  }
}

function isYoung(paths: StorePaths, name: string): boolean {
  if (!UNNAMED.test(name)) return false
  const made = statSync(join(paths.leases, name), { throwIfNoEntry: false })?.mtimeMs
  return made === undefined || Date.now() - made < UNNAMED_MS
}

function lockIfDead(path: string): number | undefined {
  let fd: number
  try {
    fd = openSync(path, 'r+')
  } catch (error) {
    // Gone, or no lease at all: a directory, or a fifo or socket that nobody has open.
    if (isErrno(error, 'ENOENT', 'EISDIR', 'ENXIO', 'ELOOP')) return undefined
    throw error
  }
  if (flock(fd, 'exclusive')) return fd
  closeSync(fd)
  return undefined
}

function forget(paths: StorePaths, db: Database, scope: string): void {
  try {
    rmSync(join(paths.work, scope), { recursive: true, force: true })
  } catch (error) {
    // Of a user namespace's other ids, of which this process is outside: one inside removes it.
    if (isErrno(error, 'EACCES', 'EPERM')) return
    throw error
  }
  if (db.get('SELECT 1 AS one FROM leased WHERE scope = ? LIMIT 1', scope) !== undefined) {
    db.transaction(() => {
      touchLeased(db, scope)
      db.run('DELETE FROM leased WHERE scope = ?', scope)
    })
  }
  try {
    unlinkSync(join(paths.leases, scope))
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
  }
}
