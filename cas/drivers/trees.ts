/**
 * Layers as directories, each made when something first mounts the layer. Nothing syncs a directory, so it serves until the next boot; processes share
 * it by the index.
 */
import { closeSync, readFileSync, renameSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import { inInitialUserNamespace, isErrno } from '../../linux/index.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { discard } from '../store/discard.ts'

export interface Trees extends Disposable {
  /** As `Driver.lower`; the descriptor stays open. Throws `LAYER_FILE_TOO_LARGE`. */
  lower(diffId: DiffId): Promise<number>
}

/** @param fill makes the layer in an empty directory, which is open; what it leaves when it fails is removed */
export function createTrees(
  context: StoreContext,
  fill: (diffId: DiffId, directory: number) => Promise<void>,
): Trees {
  const { db, paths } = context
  const open = new Map<DiffId, Promise<number>>()

  const find = (diffId: DiffId): number | undefined => {
    const row = db.get('SELECT name FROM trees WHERE diff_id = ? AND boot = ?', diffId, bootId())
    return row && context.openDirectory(join(paths.trees, String(row['name'])))
  }
  /** False when another process was faster. */
  const record = (diffId: DiffId, path: string): boolean => {
    if (db.get('SELECT 1 AS one FROM trees WHERE diff_id = ? AND boot = ?', diffId, bootId())) return false
    const name = `${diffId.slice('sha256:'.length, 'sha256:'.length + 16)}-${randomBytes(4).toString('hex')}`
    renameSync(path, join(paths.trees, name))
    db.run('INSERT OR REPLACE INTO trees VALUES (?, ?, ?)', diffId, name, bootId())
    return true
  }
  const make = async (diffId: DiffId): Promise<number> => {
    const path = context.workDirectory('tree')
    let recorded = false
    try {
      const fd = context.openDirectory(path)
      try {
        await fill(diffId, fd)
      } catch (error) {
        throw isUnmapped(error) ? notMapped(diffId, error) : error
      } finally {
        closeSync(fd)
      }
      recorded = db.transaction(() => record(diffId, path))
    } catch (error) {
      throw isErrno(error, 'EFBIG') ? tooLarge(diffId, error) : error
    } finally {
      if (!recorded) await discard(path)
    }
    const found = find(diffId)
    if (found === undefined) throw new Error(`the directory of ${diffId} was not recorded`)
    return found
  }

  return {
    lower: (diffId) => {
      let fd = open.get(diffId)
      if (fd === undefined) {
        const found = find(diffId)
        fd = found === undefined ? make(diffId) : Promise.resolve(found)
        open.set(diffId, fd)
        fd.catch(() => open.delete(diffId))
      }
      return fd
    },
    [Symbol.dispose]: () => {
      for (const fd of open.values()) void fd.then(closeSync, () => {})
      open.clear()
    },
  }
}

/** EINVAL of chown(2). */
function isUnmapped(error: unknown): boolean {
  return !inInitialUserNamespace() && isErrno(error, 'EINVAL') && /chown/.test(String(error))
}

function notMapped(diffId: DiffId, cause: unknown): TbuildError {
  const message = `The layer ${diffId} has files of users or groups that this user namespace does not have (${String(cause)}).`
  const hint =
    'More subordinate ids for this user in /etc/subuid and /etc/subgid: see usermod(8), --add-subuids.'
  return new TbuildError('OWNER_NOT_MAPPED', message, { hint, cause })
}

/** Holes cost nothing in a segment or an index image; a directory's file system has a limit (ext4: 16 TiB). */
function tooLarge(diffId: DiffId, cause: unknown): TbuildError {
  return new TbuildError(
    'LAYER_FILE_TOO_LARGE',
    `The layer ${diffId} has a file that is larger than the store's file system takes.`,
    {
      hint: 'Its files can be listed, read and saved, but mounted only by the driver erofs, or in a store on a file system that takes it.',
      cause,
    },
  )
}

let boot: string | undefined
/** This boot, and whose attributes overlayfs reads: what was made, or found out, for another is of no use. */
export function bootId(): string {
  return thisBoot() + (inInitialUserNamespace() ? '' : '-user')
}

/** What the ids of this boot begin with. */
export function thisBoot(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim())
}
