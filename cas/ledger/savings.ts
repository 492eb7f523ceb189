/**
 * Where the bytes of all images went: what layers had in common, what files had, and which directories and packages repeat most. The sums come from the
 * index and the recipes' lists of digests; for directories and packages the layers' trees are read, one after another.
 */
import { TbuildError } from '../../errors.ts'
import { readLayer, type ReadLayer } from '../layer/read.ts'
import { LayerTree } from '../layer/tree.ts'
import type { StoreContext } from '../store/context.ts'
import { recipePath } from '../store/paths.ts'
import { createDirectories } from './directories.ts'
import type { Holdings } from './holdings.ts'
import type { Indexed } from './indexed.ts'
import { smallestForm } from './owners.ts'
import { createPackages } from './packages.ts'
import type { DiskUsage, Savings } from './types.ts'
import type { PendingUsage } from './usage.ts'

export interface PendingSavings {
  /** To be called when the store is closed. */
  measure(): Savings
}

export function readSavings(context: StoreContext, pending: PendingUsage): PendingSavings {
  const { indexed } = pending
  const { images, layers, holdings } = indexed
  const numbers = new Map(layers.map(({ diffId }, number) => [diffId, number]))
  const used = new Set(images.flatMap((image) => image.layers.flatMap((diffId) => numbers.get(diffId) ?? [])))
  const tar = (layer: number): number => layers[layer]?.tarBytes ?? 0
  const imageBytes = images.reduce(
    (total, image) =>
      total + image.layers.reduce((bytes, diffId) => bytes + tar(numbers.get(diffId) ?? -1), 0),
    0,
  )
  const afterLayerSharingBytes = sum(used, tar)
  const distinctBytes = holdings.groups
    .filter((group) => group.layers.some((layer) => used.has(layer)))
    .reduce((bytes, group) => bytes + group.bytes, 0)
  const occurrences = sum(used, (layer) => holdings.layers[layer]?.contentBytes ?? 0)
  const afterFileSharingBytes = afterLayerSharingBytes - occurrences + distinctBytes
  const repeated = readRepeated(context, indexed, used)
  const smallest = [...used].map((layer) => smallestForm(layers[layer])).filter((size) => size !== undefined)
  return {
    measure: () => {
      const usage = pending.measure()
      return {
        images: images.length,
        layers: used.size,
        imageBytes,
        afterLayerSharingBytes,
        afterFileSharingBytes,
        storedBytes: distinctBytes + metadataBytes(usage, used, indexed),
        layerSharingSavedBytes: imageBytes - afterLayerSharingBytes,
        fileSharingSavedBytes: afterLayerSharingBytes - afterFileSharingBytes,
        compressedBytes: smallest.reduce((bytes, size) => bytes + size, 0),
        compressedLayers: smallest.length,
        allocatedBytes: usage.allocatedBytes,
        ...repeated,
      }
    },
  }
}

/** Recipes and index images of these layers. */
function metadataBytes(usage: DiskUsage, used: ReadonlySet<number>, { layers }: Indexed): number {
  const ids = new Set([...used].map((layer) => layers[layer]?.diffId))
  return usage.layers
    .filter(({ diffId }) => ids.has(diffId))
    .reduce((bytes, { recipeBytes, indexImageBytes }) => bytes + recipeBytes + indexImageBytes, 0)
}

function sum(numbers: Iterable<number>, of: (number: number) => number): number {
  let total = 0
  for (const number of numbers) total += of(number)
  return total
}

/** Oldest layer first: an occurrence is a repetition when the content has been there before. */
function readRepeated(
  context: StoreContext,
  { layers, holdings }: Indexed,
  used: ReadonlySet<number>,
): Pick<Savings, 'directories' | 'packages'> {
  const directories = createDirectories()
  const packages = createPackages(context)
  const seen = new Uint8Array(holdings.contents.count)
  for (const [number, { diffId }] of layers.entries()) {
    if (!used.has(number) || holdings.layers[number]?.isDamaged !== false) continue
    const layer = tryRead(recipePath(context.paths, diffId), holdings)
    if (layer === undefined) continue
    const { tree, contents } = layer
    const toStore = Array.from({ length: contents.count }, (_, i) =>
      holdings.contents.find(contents.digest(i)),
    )
    const owner = packages.begin(layer, number)
    const counted = new Uint8Array(tree.inodes)
    const walk = (directory: number, path: string): void => {
      const ownerHere = owner.enter(directory, path)
      for (const [name, inode] of tree.children(directory)) {
        const at = path === '' ? name : `${path}/${name}`
        if (tree.isDirectory(inode)) walk(inode, at)
        // Of a file with several names, the first.
        if (tree.type(inode) !== 'file' || counted[inode] === 1) continue
        counted[inode] = 1
        let repeatedBytes = 0
        for (const { content, length } of tree.pieces(inode)) {
          const stored = toStore[content]
          if (stored === undefined) continue
          if (seen[stored] === 1) repeatedBytes += length
          seen[stored] = 1
        }
        owner.file(at, ownerHere, tree.size(inode), repeatedBytes)
        if (repeatedBytes > 0) directories.add(path, repeatedBytes, number)
      }
    }
    walk(LayerTree.ROOT, '')
  }
  return { directories: directories.most(), packages: packages.most() }
}

/** `undefined`: it is damaged, or was removed meanwhile. Its bytes are in the sums all the same. */
function tryRead(recipe: string, { contents }: Holdings): ReadLayer | undefined {
  try {
    return readLayer(recipe, (digest) => {
      const content = contents.find(digest)
      return content === undefined ? undefined : contents.location(content)
    })
  } catch (error) {
    if (error instanceof TbuildError && error.code === 'STORE_CORRUPT') return undefined
    throw error
  }
}
