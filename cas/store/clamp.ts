/** SOURCE_DATE_EPOCH on a directory tree, so that what is mounted shows the times that the layer's tar has. */
import { closeSync } from 'node:fs'
import { setTimes, statOf } from '../../linux/index.ts'
import { isAsCopied, type TreeCopy } from '../tar/copy-tree.ts'
import { pathOf } from '../tar/names.ts'
import { listDirectory, lstatAt, openDirectory } from '../tar/tree.ts'

/**
 * Later modification times become `latest` (nanoseconds since 1970).
 * @param copy of what was a copy only what overlayfs would have copied up: what was changed, and the directories above it
 */
export function clampTimes(rootFd: number, latest: bigint, copy?: TreeCopy): void {
  const directories: Directory[] = []
  const pending: Directory[] = [{ path: '', parent: undefined, isChanged: true }]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path } = next
    directories.push(next)
    const fd = openDirectory(rootFd, path)
    try {
      for (const name of listDirectory(fd)) {
        const stats = lstatAt(fd, name)
        if (stats === undefined) continue
        const isChanged = copy === undefined || !isAsCopied(copy, stats)
        if (stats.isDirectory()) {
          pending.push({ path: path === '' ? name : `${path}/${name}`, parent: next, isChanged })
          continue
        }
        next.isChanged ||= isChanged
        if (isChanged && stats.mtimeNs > latest) setTimes(fd, pathOf(name), { mtime: latest })
      }
    } finally {
      closeSync(fd)
    }
  }
  // What is inside comes after.
  for (const { path, parent, isChanged } of directories.toReversed()) {
    if (!isChanged) continue
    if (parent !== undefined) parent.isChanged = true
    const fd = openDirectory(rootFd, path)
    try {
      if (statOf(fd).mtimeNs > latest) setTimes(fd, '.', { mtime: latest })
    } finally {
      closeSync(fd)
    }
  }
}

interface Directory {
  readonly path: string
  readonly parent: Directory | undefined
  isChanged: boolean
}
