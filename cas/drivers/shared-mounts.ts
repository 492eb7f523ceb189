/**
 * Mounts that processes share. Who holds one says so in the index: process, its start time, descriptor; others take the descriptor by pidfd_getfd(2) and
 * check by the file system's UUID that it is what they want. It lives until the last of them has closed it.
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { fileSystemUuid, flockWait, isErrno, pidfdGetfd, pidfdOpen } from '../../linux/index.ts'
import type { StoreContext } from '../store/context.ts'
import { createLowers } from './lowers.ts'
import type { Lower, Use } from './types.ts'

export interface MountRegister extends Disposable {
  /** A mount of the image at `path`: another process's, or what `mount` makes of the opened file. */
  share(path: string, uuid: Buffer, use: Use, mount: (image: number) => number): Promise<Lower>
}

export function createMountRegister({ db }: StoreContext): MountRegister {
  const lowers = createLowers((mounts) => {
    try {
      db.transaction(() => {
        for (const [key, fd] of mounts)
          db.run('DELETE FROM mounts WHERE image = ? AND pid = ? AND fd = ?', key, process.pid, fd)
      })
    } catch (error) {
      // A full disk, or a damaged index. Whoever reads such a row finds that it is stale.
      if (!(error instanceof TbuildError) && !isErrno(error, 'ERR_SQLITE_ERROR')) throw error
    }
  })

  const adopt = (key: string, uuid: Buffer): number | undefined => {
    for (const row of db.all('SELECT pid, started, fd FROM mounts WHERE image = ?', key)) {
      const holder = { pid: Number(row['pid']), started: Number(row['started']), fd: Number(row['fd']) }
      const fd = takeFrom(holder, uuid)
      if (fd !== undefined) return fd
      const sql = 'DELETE FROM mounts WHERE image = ? AND pid = ? AND fd = ? AND started = ?'
      db.run(sql, key, holder.pid, holder.fd, holder.started)
    }
    return undefined
  }
  const obtain = async (key: string, path: string, uuid: Buffer, mount: (image: number) => number) => {
    const image = openSync(path, 'r')
    try {
      let fd = adopt(key, uuid)
      if (fd === undefined) {
        // Two that come at once would make two mounts.
        await flockWait(image, 'exclusive')
        fd = adopt(key, uuid) ?? mount(image)
      }
      const sql = 'INSERT OR REPLACE INTO mounts VALUES (?, ?, ?, ?)'
      db.run(sql, key, process.pid, startOf(process.pid) ?? 0, fd)
      return fd
    } finally {
      closeSync(image)
    }
  }

  return {
    share: (path, uuid, use, mount) => {
      const key = `${uuid.toString('hex')} ${use}`
      return lowers.use(key, () => obtain(key, path, uuid, mount))
    },
    [Symbol.dispose]: () => lowers[Symbol.dispose](),
  }
}

/** `undefined` when that process or its mount is gone. */
function takeFrom(holder: { pid: number; started: number; fd: number }, uuid: Buffer): number | undefined {
  let pidfd
  try {
    pidfd = pidfdOpen(holder.pid)
    if (startOf(holder.pid) !== holder.started) return undefined
    const fd = pidfdGetfd(pidfd, holder.fd)
    if (fileSystemUuid(fd)?.equals(uuid) === true) return fd
    closeSync(fd)
    return undefined
  } catch (error) {
    // ESRCH, EBADF: gone. EPERM, EINVAL, ENOENT: in a place that we cannot look into.
    if (isErrno(error, 'ESRCH', 'EBADF', 'EPERM', 'EINVAL', 'ENOENT')) return undefined
    throw error
  } finally {
    if (pidfd !== undefined) closeSync(pidfd)
  }
}

/** In clock ticks since the machine's start: proc_pid_stat(5). */
function startOf(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19])
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH')) return undefined
    throw error
  }
}
