/** A walk over all that a directory has on disk, counted as du(1) counts: st_blocks, and what has several names once. */
import { closeSync, constants, lstatSync, openSync, readdirSync, type Stats } from 'node:fs'
import { isErrno } from '../../linux/index.ts'

export interface DiskFile {
  /** Below the walked directory, a byte string; '' is the directory itself. */
  readonly path: string
  readonly isDirectory: boolean
  readonly allocatedBytes: number
  readonly size: number
}

/** Paths in system calls end at 4,096 bytes; a name has up to 255. */
const LONGEST = 3800

/** Symlinks are not followed. What vanishes meanwhile is not counted. */
export function walkDisk(directory: string, visit: (file: DiskFile) => void): void {
  const seen = new Set<string>()
  const isCounted = (stats: Stats): boolean => {
    if (stats.isDirectory() || stats.nlink === 1) return false
    const inode = `${stats.dev}:${stats.ino}`
    if (seen.has(inode)) return true
    seen.add(inode)
    return false
  }
  const walk = (place: Buffer, path: string): void => {
    const stats = unlessGone(() => lstatSync(place))
    if (stats === undefined || isCounted(stats)) return
    visit({ path, isDirectory: stats.isDirectory(), allocatedBytes: stats.blocks * 512, size: stats.size })
    if (!stats.isDirectory()) return
    if (place.length < LONGEST) {
      walkIn(place, path)
      return
    }
    const fd = unlessGone(() =>
      openSync(place, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW),
    )
    if (fd === undefined) return
    try {
      walkIn(Buffer.from(`/proc/self/fd/${fd}`), path)
    } finally {
      closeSync(fd)
    }
  }
  const walkIn = (place: Buffer, path: string): void => {
    for (const name of unlessGone(() => readdirSync(place, { encoding: 'buffer' })) ?? []) {
      const text = name.toString('latin1')
      walk(Buffer.concat([place, SLASH, name]), path === '' ? text : `${path}/${text}`)
    }
  }
  walk(Buffer.from(directory), '')
}

const SLASH = Buffer.from('/')

function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined
    throw error
  }
}
