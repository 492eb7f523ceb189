/**
 * Why what is in the store stays: which image, which process, which rest. Each with all that it holds, of which others may hold the same, and with what would go
 * if it alone went.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isErrno } from '../../linux/index.ts'
import { BLOCK } from '../contents/reader.ts'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { blobPath, recipePath, segmentPath, sidecarPath, type StorePaths } from '../store/paths.ts'
import type { Pin } from '../store/types.ts'
import { allocatedBytes, fileBlocks } from './allocated.ts'
import { eachDigest, readContents } from './marks.ts'
import { compressedOf, readState, type Gone, type StoreState } from './state.ts'

interface Holder {
  readonly kind: Pin['kind']
  readonly name: string
  readonly layers: readonly DiffId[]
  readonly blobs: readonly BlobDigest[]
  /** What nobody else can hold. */
  readonly ownBytes: number
}

/** What a collection is about to take away. */
export interface Leaving extends Gone {
  /** Of directories of RUN --mount=type=cache. */
  readonly cacheBytes: number
}

/**
 * Most bytes first.
 * @param leaving as if it were gone already
 */
export function pinsOf(context: StoreContext, leaving?: Leaving): Pin[] {
  const state = without(readState(context.db), leaving)
  const rest = rests(context, leaving?.cacheBytes ?? 0)
  const pins = [...measure(context, state, holders(context, state)), ...rest]
  return pins.filter(({ bytes }) => bytes > 0).toSorted((a, b) => b.bytes - a.bytes)
}

function without(state: StoreState, leaving: Gone | undefined): StoreState {
  if (leaving === undefined) return state
  const [images, layers, blobs] = [leaving.images, leaving.layers, leaving.blobs].map(
    (gone) => new Set<string>(gone),
  ) as [Set<string>, Set<string>, Set<string>]
  return {
    ...state,
    images: state.images.filter(({ manifest }) => !images.has(manifest)),
    layers: new Map([...state.layers].filter(([diffId]) => !layers.has(diffId))),
    blobs: new Set([...state.blobs].filter((digest) => !blobs.has(digest))),
  }
}

function holders(context: StoreContext, state: StoreState): Holder[] {
  const images = state.images.map(({ manifest, config, names, layers }): Holder => {
    const compressed = layers.flatMap((diffId) => compressedOf(state, diffId))
    return {
      kind: names.length > 0 ? 'image' : 'untagged',
      name: names.length > 0 ? names.join(', ') : config,
      layers: [...new Set(layers)],
      blobs: [...new Set([manifest, config, ...compressed])],
      ownBytes: 0,
    }
  })
  const held = new Set(images.flatMap(({ layers, blobs }) => [...layers, ...blobs] as string[]))
  const processes = processesOf(context, state)
  for (const { layers, blobs } of processes) for (const digest of [...layers, ...blobs]) held.add(digest)
  const cache: Holder = {
    kind: 'cache',
    name: 'layers and blobs that no image needs',
    layers: [...state.layers.keys()].filter((diffId) => !held.has(diffId)),
    blobs: [...state.blobs].filter((digest) => !held.has(digest)),
    ownBytes: 0,
  }
  return [...images, ...processes, cache]
}

function processesOf({ db, paths, scope: own }: StoreContext, state: StoreState): Holder[] {
  const leased = new Map<string, string[]>()
  for (const { scope, digest } of db.all('SELECT scope, digest FROM leased')) {
    const list = leased.get(String(scope)) ?? []
    list.push(String(digest))
    leased.set(String(scope), list)
  }
  return readdirSync(paths.leases).flatMap((scope) => {
    const digests = leased.get(scope) ?? []
    // Who asks, and holds nothing, is no reason.
    if (scope === own && digests.length === 0) return []
    return {
      kind: 'process',
      name: processName(join(paths.leases, scope)) ?? `lease ${scope}`,
      layers: digests.filter((digest) => state.layers.has(digest as DiffId)) as DiffId[],
      blobs: digests.filter((digest) => state.blobs.has(digest as BlobDigest)) as BlobDigest[],
      // Running steps' files, and what is being written.
      ownBytes: allocatedBytes(join(paths.work, scope)),
    }
  })
}

/** Who has locked the file, by the kernel's list of locks: proc_locks(5). `undefined` when that is a process which we cannot see. */
function processName(lease: string): string | undefined {
  const stats = statSync(lease, { throwIfNoEntry: false })
  const line = readFileSync('/proc/locks', 'latin1')
    .split('\n')
    .find((text) => text.includes('FLOCK') && text.includes(`:${stats?.ino} `))
  const pid = Number(line?.split(/\s+/)[4])
  if (!(pid > 0)) return undefined
  try {
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim()
    return `process ${pid}${command === '' ? '' : ` (${command})`}`
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ESRCH', 'EACCES')) return `process ${pid}`
    throw error
  }
}

/** No holder yet, and more than one. */
const NONE = 0
const SEVERAL = 0xffff_ffff

function measure({ db, paths }: StoreContext, state: StoreState, all: readonly Holder[]): Pin[] {
  const contents = readContents(db)
  const only = new Uint32Array(contents.count)
  const seenBy = new Uint32Array(contents.count)
  const bytes = all.map(({ ownBytes }) => ownBytes)
  const files = new Map<string, { holder: number; bytes: number }>()
  const takeFile = (holder: number, path: string): void => {
    const known = files.get(path)
    const size = known?.bytes ?? fileBlocks(path)
    files.set(path, { holder: known === undefined ? holder : SEVERAL, bytes: size })
    bytes[holder - 1] = (bytes[holder - 1] ?? 0) + size
  }
  const sizeOf = (content: number): number => Math.ceil(contents.size(content) / BLOCK) * BLOCK
  const takeContent = (holder: number, digest: Buffer): void => {
    const content = contents.find(digest)
    if (content === undefined || seenBy[content] === holder) return
    seenBy[content] = holder
    only[content] = only[content] === NONE ? holder : SEVERAL
    bytes[holder - 1] = (bytes[holder - 1] ?? 0) + sizeOf(content)
  }
  for (const [i, { layers, blobs }] of all.entries()) {
    for (const digest of blobs) takeFile(i + 1, blobPath(paths, digest))
    for (const diffId of layers) {
      const image = state.layers.get(diffId)?.image
      takeFile(i + 1, recipePath(paths, diffId))
      if (image !== undefined) takeFile(i + 1, join(paths.layers, image))
      eachDigest(recipePath(paths, diffId), (digest) => takeContent(i + 1, digest))
    }
  }
  const own = all.map(({ ownBytes }) => ownBytes)
  const give = (holder: number, size: number): void => {
    if (holder !== NONE && holder !== SEVERAL) own[holder - 1] = (own[holder - 1] ?? 0) + size
  }
  for (const { holder, bytes: size } of files.values()) give(holder, size)
  for (let content = 0; content < contents.count; content++) give(only[content] ?? NONE, sizeOf(content))
  return all.map(({ kind, name }, i) => ({ kind, name, bytes: bytes[i] ?? 0, ownBytes: own[i] ?? 0 }))
}

/** What is held by nothing that could be removed. */
function rests({ db, paths }: StoreContext, cacheBytes: number): Pin[] {
  let unfinished = 0
  let lists = 0
  for (const { id, length } of db.all('SELECT id, length FROM segments')) {
    const size = statSync(segmentPath(paths, Number(id)), { throwIfNoEntry: false })?.size ?? 0
    unfinished += Math.max(0, size - Number(length))
    lists += fileBlocks(sidecarPath(paths, Number(id)))
  }
  const dead = Number(db.get('SELECT sum(size) AS bytes FROM dead')?.['bytes'] ?? 0)
  // oxlint-disable-next-line unicorn/consistent-function-scoping -- short, and of use here only
  const pin = (kind: Pin['kind'], name: string, bytes: number): Pin => ({
    kind,
    name,
    bytes,
    ownBytes: bytes,
  })
  return [
    pin('ingest', 'contents that are being stored', unfinished),
    pin('dead', 'removed contents that wait for ingests, or share a disk block with others', dead),
    pin('index', 'the index', databaseBytes(paths) + lists),
    pin(
      'index',
      'what is remembered of build contexts, and a reserve for a full disk',
      allocatedBytes(paths.contexts) - fileBlocks(paths.contexts),
    ),
    pin(
      'cache',
      'what RUN --mount=type=cache has kept',
      allocatedBytes(paths.cacheMounts) - fileBlocks(paths.cacheMounts) - cacheBytes,
    ),
    pin('index', 'layers as directories', allocatedBytes(paths.trees) - fileBlocks(paths.trees)),
  ]
}

function databaseBytes({ index }: StorePaths): number {
  return ['', '-wal', '-shm'].reduce((bytes, suffix) => bytes + fileBlocks(`${index}${suffix}`), 0)
}
