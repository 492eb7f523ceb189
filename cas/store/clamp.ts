/** SOURCE_DATE_EPOCH on a directory tree, so that what is mounted shows the times that the layer's tar has. */
import { closeSync } from 'node:fs'
import { setTimes } from '../../linux/index.ts'
import { pathOf } from '../tar/names.ts'
import { listDirectory, lstatAt, openDirectory } from '../tar/tree.ts'

/** Later modification times become `latest` (nanoseconds since 1970). */
export function clampTimes(rootFd: number, latest: bigint): void {
  const pending = ['']
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const fd = openDirectory(rootFd, path)
    try {
      for (const name of ['.', ...listDirectory(fd)]) {
        const stats = lstatAt(fd, name)
        if (stats === undefined) continue
        if (stats.isDirectory() && name !== '.') pending.push(path === '' ? name : `${path}/${name}`)
        if (stats.mtimeNs > latest) setTimes(fd, pathOf(name), { mtime: latest })
      }
    } finally {
      closeSync(fd)
    }
  }
}
