/**
 * The `copy` driver: a layer is its uncompressed tar, durable, and a directory to mount, made from it when it is needed.
 *
 * A writable root's upper is a lower for the next step the moment it is committed; its tar is written behind the caller's back, on the main
 * thread in slices of 20 ms (a worker costs 33 ms to start, most uppers take 1 or 2), and then it is moved to the layers' directories.
 */
import { createHash } from 'node:crypto'
import { close, closeSync } from 'node:fs'
import { promisify } from 'node:util'
import { TbuildError } from '../../errors.ts'
import { clampTimes } from './clamp.ts'
import { TarWriter, packUpper } from '../tar/index.ts'
import type { Descriptor, DiffId, Digest } from '../oci.ts'
import { streamVerified, wrongDigest } from './blobs.ts'
import { createCommitter } from './commit.ts'
import type { StoreContext } from './context.ts'
import { findDirectory, startUnpacking, unpackStored, type LayerDirectory } from './directories.ts'
import { blobPath } from './paths.ts'
import { mountStack, mountUpper, stackOf, type Upper } from './roots.ts'
import type { Layer, LayerStore, LayerWriter, Root, StoredLayer, WritableRoot } from './types.ts'

/** What a handle stands for. */
class LayerState implements Layer {
  readonly stored: Promise<StoredLayer>
  /** Of an upper. Which directory shows a stored layer depends on what is below it. */
  readonly upper: LayerDirectory | undefined

  constructor(stored: Promise<StoredLayer>, upper?: LayerDirectory) {
    this.stored = stored
    this.upper = upper
    // Told to whoever awaits it; a build that fails elsewhere may never do so.
    stored.catch(() => {})
  }
}

const TURN_MS = 20
const closeLater = promisify(close)

export function createLayerStore(context: StoreContext): LayerStore & AsyncDisposable {
  const { db, paths } = context
  const handles = new Map<DiffId, LayerState>()
  /** Descriptors of layer directories, by DiffId and chain: each stays open for as long as the store. */
  const open = new Map<string, Promise<LayerDirectory>>()
  const uppers: number[] = []
  const pending = new Set<Promise<unknown>>()

  const find = (diffId: DiffId): StoredLayer | undefined => {
    const row = db.get('SELECT size FROM layers WHERE diff_id = ?', diffId)
    return row && { diffId, size: Number(row['size']) }
  }

  const known = (diffId: DiffId): StoredLayer => {
    const stored = find(diffId)
    if (stored !== undefined) return stored
    throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
  }

  const commit = createCommitter(context)

  const state = (layer: Layer): LayerState => {
    if (layer instanceof LayerState) return layer
    throw new TypeError('a layer of another store')
  }

  const openStored = (diffId: DiffId, chain: string): Promise<LayerDirectory> => {
    const key = `${diffId} ${chain}`
    let directory = open.get(key)
    if (directory === undefined) {
      const found = findDirectory(context, diffId, chain)
      directory = found === undefined ? unpackOnce(diffId) : Promise.resolve(found)
      open.set(key, directory)
    }
    return directory
  }

  const unpackOnce = (diffId: DiffId): Promise<LayerDirectory> => {
    const key = `${diffId} `
    let directory = open.get(key)
    if (directory === undefined) {
      directory = unpackStored(context, diffId)
      open.set(key, directory)
    }
    return directory
  }

  /** Bottom layer first; all are leased. */
  const directoriesOf = async (layers: readonly Layer[]): Promise<LayerDirectory[]> => {
    const states = layers.map(state)
    const directories: LayerDirectory[] = []
    let chain: string | undefined = ''
    for (const layer of states) {
      if (layer.upper === undefined) {
        const { diffId } = await layer.stored
        db.transaction(() => {
          known(diffId)
          context.hold([diffId])
        })
        chain ??= chainId(await Promise.all(states.slice(0, states.indexOf(layer)).map((one) => one.stored)))
        directories.push(await openStored(diffId, chain))
        chain = chainId([{ diffId }], chain)
      } else {
        // Not told without waiting for its ingest: only when something stored lies on top.
        chain = undefined
        directories.push(layer.upper)
      }
    }
    return directories
  }

  const background = <T>(work: Promise<T>): Promise<T> => {
    pending.add(work)
    const settle = (): boolean => pending.delete(work)
    work.then(settle, settle)
    return work
  }

  const mount = async (layers: readonly Layer[]): Promise<Root> => {
    const fd = mountStack(context, stackOf(await directoriesOf(layers)))
    // Unmounting takes a millisecond or more: not on the main thread.
    return { fd, [Symbol.asyncDispose]: () => closeLater(fd) }
  }

  const ingestUpper = async (
    layers: readonly Layer[],
    upper: Upper,
    signal: AbortSignal | undefined,
  ): Promise<StoredLayer> => {
    await using lower = await mount(layers)
    using spool = context.spool()
    await packUpper(upper.fd, {
      lower: { rootFd: lower.fd },
      sink: (chunk) => spool.write(chunk),
      ...(signal && { signal }),
    })
    const [diffId, below] = await Promise.all([
      spool.finish(),
      Promise.all(layers.map((layer) => layer.stored)),
    ])
    const details = { path: upper.path, opaqueRoot: false, hasRoot: true }
    return await commit({ spool, diffId: diffId as DiffId, directory: { chain: chainId(below), details } })
  }

  const mountWritable = async (below: readonly Layer[]): Promise<WritableRoot> => {
    // A copy: the ingest reads it after the caller may have put this very layer on top.
    const layers = [...below]
    const upper = mountUpper(context, stackOf(await directoriesOf(layers)))
    uppers.push(upper.fd)
    let unmounted: Promise<void> | undefined
    const unmount = (): Promise<void> => (unmounted ??= closeLater(upper.mount))
    return {
      fd: upper.mount,
      commit: async ({ clampMtimeNs, signal } = {}) => {
        // The next step has this upper as a lower, which overlayfs warns of while it is somebody's upper.
        await unmount()
        if (clampMtimeNs !== undefined) clampTimes(upper.fd, clampMtimeNs)
        const directory = { id: upper.path, fd: upper.fd, opaqueRoot: false, hasRoot: true }
        return new LayerState(background(ingestUpper(layers, upper, signal)), directory)
      },
      [Symbol.asyncDispose]: () => unmount(),
    }
  }

  const openLayer = (diffId: DiffId, stored: StoredLayer): LayerState => {
    let handle = handles.get(diffId)
    if (handle === undefined) {
      handle = new LayerState(Promise.resolve(stored))
      handles.set(diffId, handle)
    }
    return handle
  }

  return {
    driver: 'copy',
    find,
    open: (diffId) => openLayer(diffId, known(diffId)),
    ingestTar: async (source, { expected, signal } = {}) => {
      using spool = context.spool()
      using unpacking = startUnpacking(context)
      for await (const chunk of source) {
        signal?.throwIfAborted()
        spool.write(chunk)
        unpacking.feed(chunk)
      }
      const details = unpacking.finish()
      const diffId = (await spool.finish()) as DiffId
      if (expected !== undefined && diffId !== expected) throw wrongDigest(expected, diffId)
      return await commit({ spool, diffId, directory: { chain: '', details } })
    },
    write: async (fill, { signal } = {}) => {
      const spool = context.spool()
      try {
        const writer = new TarWriter((chunk) => spool.write(chunk))
        await fill(layerWriter(writer, signal))
        writer.finish()
      } catch (error) {
        spool[Symbol.dispose]()
        throw error
      }
      const finish = async (): Promise<StoredLayer> => {
        using finished = spool
        return await commit({ spool: finished, diffId: (await finished.finish()) as DiffId })
      }
      return new LayerState(background(finish()))
    },
    mount,
    mountWritable,
    tar: (diffId) => {
      known(diffId)
      return streamVerified(blobPath(paths, diffId), diffId)
    },
    compressed: (diffId) =>
      db
        .all('SELECT descriptor FROM compressed WHERE diff_id = ? ORDER BY digest', diffId)
        .map((row) => JSON.parse(String(row['descriptor'])) as Descriptor),
    rememberCompressed: (diffId, descriptor) => {
      const json = JSON.stringify(descriptor)
      db.run('INSERT OR IGNORE INTO compressed VALUES (?, ?, ?)', diffId, descriptor.digest, json)
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.allSettled(pending)
      const directories = await Promise.allSettled(open.values())
      const stored = directories.flatMap((one) => (one.status === 'fulfilled' ? [one.value.fd] : []))
      for (const fd of new Set([...uppers, ...stored])) closeSync(fd)
    },
  }
}

function layerWriter(writer: TarWriter, signal: AbortSignal | undefined): LayerWriter {
  let last = performance.now()
  return {
    entry: (entry) => writer.entry(entry),
    data: (chunk) => writer.data(chunk),
    dataFrom: (fd, offset, length) => writer.dataFrom(fd, offset, length),
    zeros: (length) => writer.zeros(length),
    breathe: async () => {
      if (performance.now() - last < TURN_MS) return
      await new Promise(setImmediate)
      signal?.throwIfAborted()
      last = performance.now()
    },
  }
}

/** ChainId (image-spec, config.md) of layers on top of `below`; '' for none. */
function chainId(layers: readonly { readonly diffId: DiffId }[], below = ''): string {
  let chain: string = below
  for (const { diffId } of layers) {
    chain =
      chain === ''
        ? diffId
        : (`sha256:${createHash('sha256').update(`${chain} ${diffId}`).digest('hex')}` as Digest)
  }
  return chain
}
