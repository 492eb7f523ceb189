/**
 * Walking a tree by descriptor. Names are byte strings. Nothing here follows a symlink out of the tree: directories are opened by
 * openat2(2) below the root's descriptor, and the last component of a name is never followed.
 */
import { closeSync, constants, readdirSync } from 'node:fs'
import {
  isErrno,
  openat2,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
  statAt,
  unlinkat,
  type Stat,
} from '../../linux/index.ts'
import { pathOf } from './names.ts'

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants

/** A directory of the tree, by its real path (no symlink in it); '' is the root. The caller closes it. */
export function openDirectory(rootFd: number, path: string): number {
  return openat2(rootFd, path === '' ? '.' : pathOf(path), {
    flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
    resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
  })
}

/** A regular file in a directory, for reading; the caller closes it. Half the time of Node's open by /proc/self/fd/N/name. */
export function openFile(fd: number, name: string): number {
  return openat2(fd, pathOf(name), { flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK })
}

/** The same by its real path in the tree, as `openDirectory` goes there. */
export function openFileBelow(rootFd: number, path: string): number {
  return openat2(rootFd, pathOf(path), {
    flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
    resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
  })
}

/** Names in a directory as byte strings, in the order of the bytes. */
export function listDirectory(fd: number): string[] {
  // The default order compares 16-bit units, which for byte strings is the order of bytes.
  // oxlint-disable-next-line unicorn/require-array-sort-compare
  return readdirSync(`/proc/self/fd/${fd}`, 'latin1').toSorted()
}

/** lstat(2) of a name in a directory; `undefined` when it is not there. */
export function lstatAt(fd: number, name: string): Stat | undefined {
  return statAt(fd, pathOf(name))
}

/** A 0/0 character device: how overlayfs marks a deleted name. */
export function isWhiteoutDevice({ type, major, minor }: Stat): boolean {
  return type === 'char' && major === 0 && minor === 0
}

/**
 * Remove a name and all below it. `path` is that name's real path under `rootFd`. At most two descriptors are open, however
 * deep the tree is.
 */
export function removeTree(rootFd: number, parentFd: number, path: string): void {
  const name = path.slice(path.lastIndexOf('/') + 1)
  try {
    unlinkat(parentFd, pathOf(name))
    return
  } catch (error) {
    if (!isErrno(error, 'EISDIR')) throw error
  }
  // Each directory is listed once; its subdirectories are emptied before it is removed.
  const pending = [path]
  const order: string[] = []
  for (let directory = pending.pop(); directory !== undefined; directory = pending.pop()) {
    order.push(directory)
    const fd = openDirectory(rootFd, directory)
    try {
      for (const child of listDirectory(fd)) {
        try {
          unlinkat(fd, pathOf(child))
        } catch (error) {
          if (!isErrno(error, 'EISDIR')) throw error
          pending.push(`${directory}/${child}`)
        }
      }
    } finally {
      closeSync(fd)
    }
  }
  for (const directory of order.toReversed()) unlinkat(rootFd, pathOf(directory), { directory: true })
}
