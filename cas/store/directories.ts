/**
 * Layers as directories, in overlayfs form. They are what is mounted; the layer's tar is what is durable. A directory is made when something
 * first mounts the layer (an upper has one from the start) and serves until the next boot, for nothing syncs it.
 */
import { closeSync, readFileSync, renameSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { createUnpacker, TarReader, type TarHandler, type UnpackResult } from '../tar/index.ts'
import type { DiffId } from '../oci.ts'
import { streamVerified } from './blobs.ts'
import type { StoreContext } from './context.ts'
import { blobPath } from './paths.ts'

/** A layer's directory, open. */
export interface LayerDirectory {
  /** Names the directory: two layers of a stack may be the same. */
  readonly id: string
  readonly fd: number
  /** All below is hidden: what overlayfs cannot say of a layer's root. */
  readonly opaqueRoot: boolean
  /** Its root has the attributes that the whole tree's root should have. */
  readonly hasRoot: boolean
}

/** Where a directory is, before the store knows of it. */
export interface DirectoryDetails {
  readonly path: string
  readonly opaqueRoot: boolean
  readonly hasRoot: boolean
}

let boot: string | undefined
function bootId(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim())
}

/** `chain`: see the index's schema. */
export function findDirectory(
  context: StoreContext,
  diffId: DiffId,
  chain: string,
): LayerDirectory | undefined {
  const row = context.db.get(
    `SELECT name, opaque_root, has_root FROM directories
     WHERE diff_id = ? AND chain IN (?, '') AND boot = ? ORDER BY chain DESC LIMIT 1`,
    diffId,
    chain,
    bootId(),
  )
  if (row === undefined) return undefined
  const id = String(row['name'])
  return {
    id,
    fd: context.openDirectory(join(context.paths.layers, id)),
    opaqueRoot: row['opaque_root'] !== 0,
    hasRoot: row['has_root'] !== 0,
  }
}

/** Inside a transaction: give a directory its place, unless another process was faster. */
export function recordDirectory(
  context: StoreContext,
  diffId: DiffId,
  chain: string,
  details: DirectoryDetails,
): void {
  const { db, paths } = context
  const args = [diffId, chain, bootId()] as const
  if (db.get('SELECT 1 AS one FROM directories WHERE diff_id = ? AND chain = ? AND boot = ?', ...args)) return
  const name = `${diffId.slice('sha256:'.length, 'sha256:'.length + 16)}-${randomBytes(4).toString('hex')}`
  renameSync(details.path, join(paths.layers, name))
  const flags = [Number(details.opaqueRoot), Number(details.hasRoot)] as const
  db.run(
    'INSERT OR REPLACE INTO directories VALUES (?, ?, ?, ?, ?, ?)',
    diffId,
    chain,
    name,
    bootId(),
    ...flags,
  )
}

/** Unpacks while bytes are fed; to be closed however it ends. */
export interface Unpacking extends Disposable {
  feed(chunk: Uint8Array): void
  finish(): DirectoryDetails
}

export function startUnpacking(context: StoreContext): Unpacking {
  const path = context.workDirectory('unpack')
  const fd = context.openDirectory(path)
  const unpacker = createUnpacker(fd)
  let hasRoot = false
  const handler: TarHandler = {
    ...unpacker.handler,
    entry: (entry) => {
      hasRoot ||= entry.path.length === 0
      unpacker.handler.entry(entry)
    },
  }
  const reader = new TarReader(handler)
  return {
    feed: (chunk) =>
      reader.feed(
        chunk instanceof Buffer ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length),
      ),
    finish: () => {
      reader.finish()
      const result: UnpackResult = unpacker.finish()
      return { path, opaqueRoot: result.opaqueRoot, hasRoot }
    },
    [Symbol.dispose]: () => {
      unpacker.close()
      closeSync(fd)
    },
  }
}

/** From the stored tar, which is verified on the way. */
export async function unpackStored(context: StoreContext, diffId: DiffId): Promise<LayerDirectory> {
  using unpacking = startUnpacking(context)
  for await (const chunk of streamVerified(blobPath(context.paths, diffId), diffId)) unpacking.feed(chunk)
  const details = unpacking.finish()
  context.db.transaction(() => recordDirectory(context, diffId, '', details))
  const found = findDirectory(context, diffId, '')
  if (found === undefined) throw new Error(`the directory of ${diffId} was not recorded`)
  return found
}
