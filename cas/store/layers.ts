/**
 * Layers: their ways in, and roots made of them. A writable root's upper is a lower for the next step the moment it is committed; it is ingested
 * behind the caller's back, on the main thread in slices of 20 ms (most uppers take 1 or 2; large ones are hashed by a thread), and dropped when that is done
 * and no root stands on it. Where no overlay can be mounted the upper is all of a root, and serves roots of just these layers.
 */
import { close, closeSync, rmSync } from 'node:fs'
import { promisify } from 'node:util'
import { TbuildError } from '../../errors.ts'
import type { ContentWriter } from '../contents/types.ts'
import type { Driver, Lower, Use } from '../drivers/types.ts'
import type { Descriptor, DiffId } from '../oci.ts'
import { TarDigest } from '../hashing/tar-digest.ts'
import { createRecipe } from '../recipe/write.ts'
import { packUpper } from '../tar/index.ts'
import { wrongDigest } from './blobs.ts'
import { clampTimes } from './clamp.ts'
import { readMidstates } from './midstates.ts'
import { createCommitter } from './commit.ts'
import type { StoreContext } from './context.ts'
import { discard } from './discard.ts'
import { enterEpoch } from './epoch.ts'
import {
  startEntryIngest,
  startTarIngest,
  type EntryIngest,
  type IncomingLayer,
  type IngestParts,
} from './ingest.ts'
import { createIntake, IntakeState } from './intake.ts'
import { streamLayer } from './layer-tar.ts'
import {
  copyWhole,
  mountStack,
  mountUpper,
  openWhole,
  stackOf,
  type LayerDirectory,
  type Stack,
  type Upper,
} from './roots.ts'
import { planRevision, writeRevision } from './revise.ts'
import { createTurns } from './turns.ts'
import type { Layer, LayerStore, LayerWriter, Root, StoredLayer, WritableRoot } from './types.ts'

/** An upper that serves as a lower. */
interface Pending {
  readonly directory: LayerDirectory
  readonly base: string
  /** The layers that it stands on. */
  readonly below: readonly LayerState[]
  /** Roots that stand on it, and its ingest. */
  users: number
}

/** What a handle stands for. */
class LayerState implements Layer {
  readonly stored: Promise<StoredLayer>
  pending: Pending | undefined

  constructor(stored: Promise<StoredLayer>, pending?: Pending) {
    this.stored = stored
    this.pending = pending
    // Told to whoever awaits it; a build that fails elsewhere may never do so.
    stored.catch(() => {})
  }
}

export interface DriverChoice {
  readonly driver: Driver
  readonly reason: string
}

/** overlayfs takes 500, our own directory for the root's attributes among them. */
const MOST_UNMERGED = 480
const MERGED_AT_ONCE = 128
const closeLater = promisify(close)

/** @param choose the store's driver, when something first needs it */
export function createLayerStore(
  context: StoreContext,
  choose: () => DriverChoice,
): LayerStore & AsyncDisposable {
  const { db, paths } = context
  const handles = new Map<DiffId, LayerState>()
  const background = new Set<Promise<unknown>>()
  const driver = (): Driver => choose().driver
  const commit = createCommitter(context, driver)

  const find = (diffId: DiffId): StoredLayer | undefined => {
    const row = db.get('SELECT size FROM layers WHERE diff_id = ?', diffId)
    return row && { diffId, size: Number(row['size']) }
  }
  const known = (diffId: DiffId): StoredLayer => {
    const stored = find(diffId)
    if (stored !== undefined) return stored
    throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
  }
  const hold = (diffId: DiffId): void =>
    db.transaction(() => {
      known(diffId)
      context.hold([diffId])
    })
  const state = (layer: Layer): LayerState => {
    if (layer instanceof LayerState) return layer
    throw new TypeError('a layer of another store')
  }
  const inBackground = <T>(work: Promise<T>): Promise<T> => {
    background.add(work)
    const settle = (): boolean => background.delete(work)
    work.then(settle, settle)
    return work
  }

  /** Ends a use of an upper; after the last one it goes. */
  const leave = (layer: LayerState): void => {
    const { pending } = layer
    if (pending === undefined || --pending.users > 0) return
    layer.pending = undefined
    closeSync(pending.directory.fd)
    void inBackground(discard(pending.base))
  }

  /** What an overlay of these layers stands on, bottom layer first. All are leased, and in use until `own` is disposed. */
  const stackFor = async (layers: readonly LayerState[], use: Use, own: DisposableStack): Promise<Stack> => {
    const directoryOf = async (layer: LayerState): Promise<LayerDirectory> => {
      const { pending } = layer
      if (pending === undefined) return storedDirectory((await layer.stored).diffId, use, own)
      pending.users++
      own.defer(() => leave(layer))
      return pending.directory
    }
    // Uppers are taken before anything is awaited. All are awaited: what came is released also when another did not.
    const directories = await allOf(layers.map(directoryOf))
    return stackOf(await lowered(directories, use, own), driver().dataLower?.())
  }
  /** The same stack, low enough for overlayfs. Uppers, which nobody can merge yet, stay as they are. */
  const lowered = async (
    directories: readonly LayerDirectory[],
    use: Use,
    own: DisposableStack,
  ): Promise<readonly LayerDirectory[]> => {
    if (countLowers(directories) <= MOST_UNMERGED) return directories
    const merging = driver()
    if (merging.merged === undefined) return directories
    const out: LayerDirectory[] = []
    // In blocks that stay the same when layers are added on top, so that a build merges each once.
    for (let from = 0; from < directories.length; from += MERGED_AT_ONCE) {
      const block = directories.slice(from, from + MERGED_AT_ONCE)
      const diffIds = block.map(({ id }) => id).filter(isDiffId)
      if (diffIds.length < MERGED_AT_ONCE) {
        out.push(...block)
        continue
      }
      out.push({
        // Equal blocks are one directory.
        id: `merged ${diffIds.join()}`,
        ...inUse(await merging.merged(diffIds, use), own),
        opaqueRoot: block.some(({ opaqueRoot }) => opaqueRoot),
        hasRoot: block.some(({ hasRoot }) => hasRoot),
      })
    }
    return out
  }
  const storedDirectory = async (diffId: DiffId, use: Use, own: DisposableStack): Promise<LayerDirectory> => {
    hold(diffId)
    const lower = inUse(await driver().lower(diffId, use), own)
    const row = db.get('SELECT opaque_root, has_root FROM layers WHERE diff_id = ?', diffId)
    return { id: diffId, ...lower, opaqueRoot: row?.['opaque_root'] === 1, hasRoot: row?.['has_root'] === 1 }
  }

  /** The same where overlays cannot be mounted: all of them as one directory. */
  const wholeOf = async (
    layers: readonly LayerState[],
    whole: NonNullable<Driver['whole']>,
    own: DisposableStack,
  ): Promise<number> => {
    const top = layers.at(-1)
    const { pending } = top ?? {}
    if (
      top !== undefined &&
      pending?.below.length === layers.length - 1 &&
      pending.below.every((one, i) => one === layers[i])
    ) {
      pending.users++
      own.defer(() => leave(top))
      return pending.directory.fd
    }
    const stored = await allOf(layers.map((layer) => layer.stored))
    for (const { diffId } of stored) hold(diffId)
    return inUse(await whole(stored.map(({ diffId }) => diffId)), own).fd
  }

  const mount = async (layers: readonly Layer[]): Promise<Root> => {
    using preparing = new DisposableStack()
    const { whole } = driver()
    const states = layers.map(state)
    const fd =
      whole === undefined
        ? mountStack(context, await stackFor(states, 'build', preparing))
        : openWhole(await wholeOf(states, whole, preparing))
    const own = preparing.move()
    // Unmounting takes a millisecond or more: not on the main thread.
    return { fd, [Symbol.asyncDispose]: once(() => closeLater(fd).finally(() => own.dispose())) }
  }

  /** @param below what the upper stands on: let go as soon as the ingest has the same, which is then the very directory that a copy was made of */
  const ingestUpper = async (
    layers: readonly Layer[],
    upper: Upper,
    below: DisposableStack,
    signal: AbortSignal | undefined,
  ) => {
    const mountAgain = async (): Promise<Root> => {
      using _ = below
      signal?.throwIfAborted()
      return await mount(layers)
    }
    await using lower = await mountAgain()
    return await ingest(undefined, async (parts, own) => {
      const entries = startEntryIngest(parts, own.use(digestOf(parts.contents)))
      const compared = { rootFd: lower.fd, copy: upper.copy }
      await packUpper(upper.fd, { lower: compared, sink: entries, ...(signal && { signal }) })
      return entries.end()
    })
  }

  /** Of a layer that will be made of these contents; the caller disposes it. */
  const digestOf = (contents: ContentWriter): TarDigest =>
    new TarDigest({
      contents,
      reader: () => contents.reader ?? context.reader(),
      thread: contents.reader === undefined ? context.hashThread : undefined,
      known: () => readMidstates(db),
    })

  /** Runs `take` with writers that leave nothing behind when it fails; what else it needs until the end is disposed with them. */
  type Take = (parts: IngestParts, own: DisposableStack) => Promise<IncomingLayer>
  const ingest = async (intake: IntakeState | undefined, take: Take): Promise<StoredLayer> =>
    (await begin(intake, take)).stored()

  /** Resolves when the layer is whole; `stored` makes it durable. */
  const begin = async (
    intake: IntakeState | undefined,
    take: Take,
  ): Promise<{ stored: () => Promise<StoredLayer> }> => {
    const own = new DisposableStack()
    try {
      own.use(intake?.use() ?? enterEpoch(paths, db))
      const contents = own.use(intake?.contents ?? driver().contentWriter())
      const path = context.workPath('recipe')
      own.defer(() => rmSync(path, { force: true }))
      const recipe = own.use(createRecipe(path))
      const layer = await take({ contents, recipe }, own)
      return {
        stored: async () => {
          using _ = own
          return await commit(layer)
        },
      }
    } catch (error) {
      own.dispose()
      throw error
    }
  }

  const mountWritable = async (below: readonly Layer[], use: Use = 'build'): Promise<WritableRoot> => {
    // A copy: the ingest reads it after the caller may have put this very layer on top.
    const layers = [...below]
    const states = layers.map(state)
    using preparing = new DisposableStack()
    const { whole } = driver()
    const upper =
      whole === undefined
        ? mountUpper(context, await stackFor(states, use, preparing))
        : await copyWhole(context, await wholeOf(states, whole, preparing))
    const own = preparing.move()
    let committed = false
    const unmount = once(() => closeLater(upper.mount))
    return {
      fd: upper.mount,
      commit: async ({ clampMtimeNs, signal } = {}) => {
        committed = true
        // The next step has this upper as a lower, which overlayfs warns of while it is somebody's upper.
        await unmount()
        if (clampMtimeNs !== undefined) clampTimes(upper.fd, clampMtimeNs, upper.copy)
        const directory = { id: upper.base, fd: upper.fd, opaqueRoot: false, hasRoot: true }
        const stored = inBackground(ingestUpper(layers, upper, own.move(), signal))
        const layer = new LayerState(stored, { directory, base: upper.base, below: states, users: 1 })
        const settle = (): void => leave(layer)
        stored.then(settle, settle)
        return layer
      },
      [Symbol.asyncDispose]: async () => {
        await unmount()
        own.dispose()
        if (committed) return
        committed = true
        closeSync(upper.fd)
        void inBackground(discard(upper.base))
      },
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
    get driver() {
      return choose().driver.name
    },
    get driverReason() {
      return choose().reason
    },
    find,
    open: (diffId) => openLayer(diffId, known(diffId)),
    ingestTar: (source, { expected, signal } = {}) =>
      ingest(undefined, async (parts) => {
        const tar = startTarIngest(parts)
        for await (const chunk of source) {
          signal?.throwIfAborted()
          tar.feed(
            chunk instanceof Buffer ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length),
          )
        }
        const layer = tar.finish()
        if (expected !== undefined && layer.diffId !== expected) throw wrongDigest(expected, layer.diffId)
        return layer
      }),
    intake: () =>
      createIntake(
        paths,
        db,
        () => {
          const contents = driver().contentWriter()
          return { contents, digest: digestOf(contents) }
        },
        context.hashThread,
      ),
    write: async (fill, { signal, intake } = {}) => {
      const taken = intake instanceof IntakeState ? intake : undefined
      const whole = await begin(taken, async (parts, own) => {
        const entries = startEntryIngest(parts, own.use(taken?.digest ?? digestOf(parts.contents)))
        await fill(layerWriter(entries, signal))
        return entries.end()
      })
      return new LayerState(inBackground(whole.stored()))
    },
    revise: async (former, revisions, { intake, signal }) => {
      const isPossible =
        intake instanceof IntakeState &&
        driver().revisedIndex !== undefined &&
        revisions.every(({ contents }) => contents === undefined || intake.has(contents.digest))
      if (!isPossible) return undefined
      const plan = ifSound(() => {
        hold(former.diffId)
        return planRevision(context, former, revisions, intake.contents)
      })
      if (plan === undefined) return undefined
      const { stored } = await begin(intake, (parts, own) => {
        own.use(intake.digest)
        return writeRevision(context, plan, parts, own, createTurns(signal))
      })
      return { layer: new LayerState(inBackground(stored())), shifts: plan.shifts }
    },
    mount,
    mountWritable,
    tar: (diffId) => {
      hold(diffId)
      return streamLayer(context, diffId)
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
      while (background.size > 0) await Promise.allSettled(background)
    },
  }
}

function layerWriter(entries: EntryIngest, signal: AbortSignal | undefined): LayerWriter {
  return {
    entry: (entry) => entries.entry(entry),
    data: (chunk) => entries.data(chunk),
    dataFrom: (fd, offset, length) => entries.dataFrom(fd, offset, length),
    zeros: (length) => entries.zeros(length),
    stored: (digest) => entries.stored(digest),
    breathe: createTurns(signal),
  }
}

/** Of overlayfs's. */
function countLowers(directories: readonly LayerDirectory[]): number {
  return directories.reduce((count, { above }) => count + (above === undefined ? 1 : 2), 0)
}

/** What is damaged, or gone, is of no use. */
function ifSound<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch (error) {
    if (error instanceof TbuildError) return undefined
    throw error
  }
}

/** Its descriptors, in use until `own` is disposed. */
function inUse({ release, ...descriptors }: Lower, own: DisposableStack): Pick<Lower, 'fd' | 'above'> {
  if (release !== undefined) own.defer(release)
  return descriptors
}

/** As `Promise.all`, but it never leaves anything running. */
async function allOf<T>(work: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(work)
  return Promise.all(work)
}

function isDiffId(id: string): id is DiffId {
  return id.startsWith('sha256:')
}

function once(work: () => Promise<void>): () => Promise<void> {
  let result: Promise<void> | undefined
  return () => (result ??= work())
}
