/**
 * The `copy` driver: contents in segments, and a plain directory for each layer, unpacked from it when something first mounts it. For kernels and file
 * systems that mount no EROFS image from a file. Nothing syncs a directory, so it serves until the next boot.
 */
import { closeSync, readFileSync, renameSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createSegmentWriter } from '../contents/segments.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { createUnpacker, TarReader } from '../tar/index.ts'
import type { Driver } from './types.ts'

/** @param tar streams a layer's tar, and verifies it */
export function createCopyDriver(
  context: StoreContext,
  tar: (diffId: DiffId) => AsyncIterable<Buffer>,
): Driver {
  const { db, paths } = context
  const open = new Map<DiffId, Promise<number>>()

  const find = (diffId: DiffId): number | undefined => {
    const row = db.get('SELECT name FROM trees WHERE diff_id = ? AND boot = ?', diffId, bootId())
    return row && context.openDirectory(join(paths.trees, String(row['name'])))
  }
  const record = (diffId: DiffId, path: string): void => {
    if (db.get('SELECT 1 AS one FROM trees WHERE diff_id = ? AND boot = ?', diffId, bootId())) return
    const name = `${diffId.slice('sha256:'.length, 'sha256:'.length + 16)}-${randomBytes(4).toString('hex')}`
    renameSync(path, join(paths.trees, name))
    db.run('INSERT OR REPLACE INTO trees VALUES (?, ?, ?)', diffId, name, bootId())
  }
  const unpack = async (diffId: DiffId): Promise<number> => {
    const path = context.workDirectory('unpack')
    const fd = context.openDirectory(path)
    const unpacker = createUnpacker(fd)
    try {
      const reader = new TarReader(unpacker.handler)
      for await (const chunk of tar(diffId)) reader.feed(chunk)
      reader.finish()
      unpacker.finish()
    } finally {
      unpacker.close()
      closeSync(fd)
    }
    db.transaction(() => record(diffId, path))
    const found = find(diffId)
    if (found === undefined) throw new Error(`the directory of ${diffId} was not recorded`)
    return found
  }

  return {
    name: 'copy',
    contentWriter: () => createSegmentWriter(paths, db),
    index: () => Promise.resolve(undefined),
    lower: (diffId) => {
      let fd = open.get(diffId)
      if (fd === undefined) {
        const found = find(diffId)
        fd = found === undefined ? unpack(diffId) : Promise.resolve(found)
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

let boot: string | undefined
export function bootId(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim())
}
