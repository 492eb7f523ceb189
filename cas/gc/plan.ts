/**
 * What is to go, in order. Units: a blob, a layer, an untagged image with the layers that it alone needs. Without a cap all of them go; with one the least
 * recently used, until enough is freed, in this order:
 *
 * 1. blobs that nothing needs, and compressed layers that can be fetched again;
 * 2. layers that no image needs, and with them the cache records that lead to them;
 * 3. only with `all`: images without a name.
 *
 * What an image with a name or a living process needs is in no unit.
 */
import { join } from 'node:path'
import type { BlobDigest, DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { blobPath, recipePath } from '../store/paths.ts'
import { fileBlocks } from './allocated.ts'
import { eachDigest, readContents } from './marks.ts'
import {
  blobTime,
  compressedOf,
  neededBlobs,
  type ImageState,
  type LayerState,
  type Plan,
  type StoreState,
} from './state.ts'

export interface Policy {
  /** Also what images with a name can do without; with a cap, also images without one. */
  readonly all: boolean
  /** Only what was last used before: milliseconds since 1970. */
  readonly before: number | undefined
  /** Go on until so much is freed; `undefined`: all. */
  readonly bytes: number | undefined
}

interface Unit {
  readonly images: readonly BlobDigest[]
  readonly layers: readonly DiffId[]
  readonly blobs: readonly BlobDigest[]
  readonly compressed: readonly BlobDigest[]
}

export function makePlan(context: StoreContext, state: StoreState, policy: Policy): Plan {
  const units = unitsOf(context, state, policy)
  const chosen = policy.bytes === undefined ? units : choose(context, state, units, policy.bytes)
  return {
    images: new Set(chosen.flatMap(({ images }) => images)),
    layers: new Set(chosen.flatMap(({ layers }) => layers)),
    blobs: new Set(chosen.flatMap(({ blobs }) => blobs)),
    compressed: new Set(chosen.flatMap(({ compressed }) => compressed)),
  }
}

function unitsOf(context: StoreContext, state: StoreState, policy: Policy): Unit[] {
  const hasCap = policy.bytes !== undefined
  const isOld = (time: number): boolean => policy.before === undefined || time < policy.before
  const mayGo = (image: ImageState): boolean =>
    image.names.length === 0 &&
    !state.leased.has(image.manifest) &&
    isOld(image.usedAt) &&
    (!hasCap || policy.all)
  return [
    ...blobUnits(context, state, hasCap || policy.all, isOld),
    ...layerUnits(state, isOld),
    ...imageUnits(state, mayGo, isOld),
  ]
}

function blobUnits(
  { paths }: StoreContext,
  state: StoreState,
  withCompressed: boolean,
  isOld: (time: number) => boolean,
): Unit[] {
  const needed = neededBlobs(state, state.images, new Set())
  const found = [...state.blobs].flatMap((digest) => {
    const isFetchable =
      state.compressed.has(digest) && state.fetchable.has(digest) && !state.leased.has(digest)
    const kind = needed.has(digest) ? withCompressed && isFetchable && 'compressed' : 'blobs'
    if (kind === false) return []
    const time = blobTime(paths, digest)
    return isOld(time) ? [{ digest, kind, time }] : []
  })
  const order = found.toSorted(
    (a, b) => Number(a.kind === 'compressed') - Number(b.kind === 'compressed') || a.time - b.time,
  )
  return order.map(({ digest, kind }) => ({
    images: [],
    layers: [],
    blobs: [],
    compressed: [],
    [kind]: [digest],
  }))
}

/** Uses are known to the hour; within one, a build's last layers go first, for they need the others. */
const HOUR_MS = 3600_000

function byUse(a: LayerState, b: LayerState): number {
  return Math.floor(a.usedAt / HOUR_MS) - Math.floor(b.usedAt / HOUR_MS) || b.storedAt - a.storedAt
}

function layerUnits(state: StoreState, isOld: (time: number) => boolean): Unit[] {
  const inImages = new Set(state.images.flatMap(({ layers }) => layers))
  return [...state.layers.values()]
    .filter(({ diffId, usedAt }) => !inImages.has(diffId) && !state.leased.has(diffId) && isOld(usedAt))
    .toSorted(byUse)
    .map(({ diffId }) => ({
      images: [],
      layers: [diffId],
      blobs: compressedOf(state, diffId),
      compressed: [],
    }))
}

function imageUnits(
  state: StoreState,
  mayGo: (image: ImageState) => boolean,
  isOld: (time: number) => boolean,
): Unit[] {
  const going = state.images.filter(mayGo).toSorted((a, b) => a.usedAt - b.usedAt)
  /** How many of the images that are still there have it. */
  const users = new Map<DiffId, number>()
  for (const { layers } of state.images)
    for (const diffId of layers) users.set(diffId, (users.get(diffId) ?? 0) + 1)
  return going.map(({ manifest, config, layers: own }) => {
    const layers = own.filter((diffId) => {
      const left = (users.get(diffId) ?? 0) - 1
      users.set(diffId, left)
      const layer = state.layers.get(diffId)
      return left === 0 && layer !== undefined && !state.leased.has(diffId) && isOld(layer.usedAt)
    })
    const blobs = [manifest, config, ...layers.flatMap((diffId) => compressedOf(state, diffId))]
    return { images: [manifest], layers, blobs, compressed: [] }
  })
}

/** The first units that together free so many bytes. */
function choose(
  context: StoreContext,
  state: StoreState,
  units: readonly Unit[],
  bytes: number,
): readonly Unit[] {
  const { paths } = context
  const contentBytes = contentBytesOf(context, state, units)
  let freed = 0
  let count = 0
  while (count < units.length && freed < bytes) {
    const { layers, blobs, compressed } = units[count] ?? { layers: [], blobs: [], compressed: [] }
    for (const digest of [...blobs, ...compressed]) freed += fileBlocks(blobPath(paths, digest))
    for (const diffId of layers) {
      const image = state.layers.get(diffId)?.image
      freed +=
        fileBlocks(recipePath(paths, diffId)) +
        (image === undefined ? 0 : fileBlocks(join(paths.layers, image)))
    }
    freed += contentBytes[count] ?? 0
    count++
  }
  return units.slice(0, count)
}

/**
 * Bytes of the contents that go when a unit goes after those before it: a content goes with the last unit that has it, so the units are gone through from the last
 * to the first.
 */
function contentBytesOf(context: StoreContext, state: StoreState, units: readonly Unit[]): Float64Array {
  const bytes = new Float64Array(units.length)
  if (units.every(({ layers }) => layers.length === 0)) return bytes
  const { paths, db } = context
  const contents = readContents(db)
  const seen = new Uint8Array(contents.count)
  const take = (diffId: DiffId): number => {
    let sum = 0
    eachDigest(recipePath(paths, diffId), (digest) => {
      const content = contents.find(digest)
      if (content === undefined || seen[content] === 1) return
      seen[content] = 1
      sum += Math.ceil(contents.size(content) / 512) * 512
    })
    return sum
  }
  const going = new Set(units.flatMap(({ layers }) => layers))
  for (const diffId of state.layers.keys()) if (!going.has(diffId)) take(diffId)
  for (let unit = units.length - 1; unit >= 0; unit--)
    for (const diffId of units[unit]?.layers ?? []) bytes[unit] = (bytes[unit] ?? 0) + take(diffId)
  return bytes
}
