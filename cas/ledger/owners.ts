/** What layers and images have alone, and with whom they have the rest. */
import type { DiffId } from '../oci.ts'
import type { Group } from './holdings.ts'
import { labelsOf, type Indexed, type IndexedImage, type IndexedLayer } from './indexed.ts'
import type { CompressedForm, ImageShare, ImageUsage, LayerUsage } from './types.ts'

/** Blocks of files, by the digest of the layer or blob that they are of. */
export interface FileBytes {
  readonly recipes: Map<string, number>
  readonly images: Map<string, number>
  readonly trees: Map<string, number>
  readonly blobs: Map<string, number>
}

export function createOwners(
  indexed: Indexed,
  bytes: FileBytes,
): { images(): ImageUsage[]; layers(): LayerUsage[] } {
  const owners = new Owners(indexed, bytes)
  return { images: () => owners.images(), layers: () => owners.layers() }
}

class Owners {
  readonly #indexed: Indexed
  readonly #bytes: FileBytes
  /** Numbers of layers, as `holdings` counts them. */
  readonly #layerNumbers: ReadonlyMap<string, number>
  /** Of each layer: the images that have it. */
  readonly #imagesOfLayer: readonly (readonly number[])[]
  /** Of each group: the images that have it, and whether a layer has it that is in no image. */
  readonly #imagesOfGroup: readonly { readonly images: readonly number[]; readonly others: boolean }[]

  constructor(indexed: Indexed, bytes: FileBytes) {
    this.#indexed = indexed
    this.#bytes = bytes
    this.#layerNumbers = new Map(indexed.layers.map(({ diffId }, number) => [diffId, number]))
    const imagesOfLayer: number[][] = indexed.layers.map(() => [])
    for (const [image, { layers }] of indexed.images.entries()) {
      for (const diffId of new Set(layers)) imagesOfLayer[this.#layerNumbers.get(diffId) ?? -1]?.push(image)
    }
    this.#imagesOfLayer = imagesOfLayer
    this.#imagesOfGroup = indexed.holdings.groups.map(({ layers }) => ({
      images: [...new Set(layers.flatMap((layer) => imagesOfLayer[layer] ?? []))],
      others: layers.some((layer) => imagesOfLayer[layer]?.length === 0),
    }))
  }

  layers(): LayerUsage[] {
    const { layers, holdings } = this.#indexed
    const unique = layers.map(() => ({ bytes: 0, contents: 0 }))
    const shared = layers.map(() => new Map<number, number>())
    for (const group of holdings.groups) {
      const [first = -1, second] = group.layers
      if (second === undefined) {
        const own = unique[first]
        if (own !== undefined) Object.assign(own, { bytes: group.bytes, contents: group.contents })
      } else addPairs(shared, group.layers, group.bytes)
    }
    return layers
      .map((layer, number) => this.#layer(layer, number, unique[number], shared[number]))
      .toSorted((a, b) => b.tarBytes - a.tarBytes || (a.diffId < b.diffId ? -1 : 1))
  }

  #layer(
    { diffId, tarBytes, compressed }: IndexedLayer,
    number: number,
    unique = { bytes: 0, contents: 0 },
    shared: ReadonlyMap<number, number> = new Map(),
  ): LayerUsage {
    const { layers, images, holdings } = this.#indexed
    const holding = holdings.layers[number]
    const { contentBytes = 0, distinctBytes = 0, distinctContents = 0, isDamaged = true } = holding ?? {}
    const files = this.#filesOf(diffId)
    return {
      diffId,
      tarBytes,
      contentBytes,
      repeatedBytes: contentBytes - distinctBytes,
      sharedBytes: distinctBytes - unique.bytes,
      uniqueBytes: unique.bytes,
      distinctContents,
      uniqueContents: unique.contents,
      ...files,
      allocatedBytes: unique.bytes + files.recipeBytes + files.indexImageBytes + files.treeBytes,
      compressed: compressed.map((form): CompressedForm => {
        const { digest, mediaType, size } = form
        return { digest, mediaType, size, allocatedBytes: this.#bytes.blobs.get(digest) ?? 0 }
      }),
      images: (this.#imagesOfLayer[number] ?? []).flatMap((image) => labels(images[image])).toSorted(),
      sharedWith: [...shared]
        .map(([other, bytes]) => ({ diffId: layers[other]?.diffId ?? diffId, bytes }))
        .toSorted((a, b) => b.bytes - a.bytes || (a.diffId < b.diffId ? -1 : 1)),
      isDamaged,
    }
  }

  #filesOf(diffId: DiffId): Pick<LayerUsage, 'recipeBytes' | 'indexImageBytes' | 'treeBytes'> {
    const { recipes, images, trees } = this.#bytes
    return {
      recipeBytes: recipes.get(diffId) ?? 0,
      indexImageBytes: images.get(diffId) ?? 0,
      treeBytes: trees.get(diffId) ?? 0,
    }
  }

  images(): ImageUsage[] {
    const { images, holdings } = this.#indexed
    const distinct = images.map(() => 0)
    const unique = images.map(() => 0)
    const shared = images.map(() => new Map<number, number>())
    for (const [number, { images: having, others }] of this.#imagesOfGroup.entries()) {
      const { bytes } = holdings.groups[number] as Group
      for (const image of having) distinct[image] = (distinct[image] ?? 0) + bytes
      const [first = -1, second] = having
      if (second !== undefined) addPairs(shared, having, bytes)
      else if (first >= 0 && !others) unique[first] = (unique[first] ?? 0) + bytes
    }
    const blobOwners = this.#blobOwners()
    return images.map((image, number) => {
      const layers = image.layers.map((diffId) => this.#layerNumbers.get(diffId) ?? -1)
      const contentBytes = layers.reduce((sum, layer) => sum + (holdings.layers[layer]?.contentBytes ?? 0), 0)
      const uniqueBytes = unique[number] ?? 0
      return {
        ...image,
        tarBytes: this.#tarBytes(layers),
        contentBytes,
        repeatedBytes: contentBytes - (distinct[number] ?? 0),
        sharedBytes: (distinct[number] ?? 0) - uniqueBytes,
        uniqueBytes,
        compressedBytes: this.#compressedBytes(layers),
        allocatedBytes: uniqueBytes + this.#ownFiles(number, layers, blobOwners),
        sharedWith: this.#shares(number, layers, shared[number] ?? new Map()),
      }
    })
  }

  #shares(image: number, layers: readonly number[], contents: ReadonlyMap<number, number>): ImageShare[] {
    const { images } = this.#indexed
    const common = new Map<number, number[]>()
    for (const layer of new Set(layers)) {
      for (const other of this.#imagesOfLayer[layer] ?? []) {
        if (other !== image) common.set(other, [...(common.get(other) ?? []), layer])
      }
    }
    return [...new Set([...contents.keys(), ...common.keys()])]
      .flatMap((other) => {
        const { manifestDigest, names } = images[other] as IndexedImage
        const whole = common.get(other) ?? []
        const layerBytes = this.#tarBytes(whole)
        return [
          { manifestDigest, names, layers: whole.length, layerBytes, contentBytes: contents.get(other) ?? 0 },
        ]
      })
      .toSorted((a, b) => b.contentBytes - a.contentBytes || (a.manifestDigest < b.manifestDigest ? -1 : 1))
  }

  /** Files that would go with the image. */
  #ownFiles(
    image: number,
    layers: readonly number[],
    blobOwners: ReadonlyMap<string, ReadonlySet<number>>,
  ): number {
    let sum = 0
    for (const layer of new Set(layers)) {
      const diffId = this.#indexed.layers[layer]?.diffId
      if (diffId === undefined || this.#imagesOfLayer[layer]?.length !== 1) continue
      const { recipeBytes, indexImageBytes, treeBytes } = this.#filesOf(diffId)
      sum += recipeBytes + indexImageBytes + treeBytes
    }
    for (const [digest, owners] of blobOwners) {
      if (owners.size === 1 && owners.has(image)) sum += this.#bytes.blobs.get(digest) ?? 0
    }
    return sum
  }

  /** Which images need which blobs; -1: a layer that is in none. */
  #blobOwners(): Map<string, Set<number>> {
    const found = new Map<string, Set<number>>()
    const add = (digest: string, image: number): void => {
      const known = found.get(digest)
      if (known === undefined) found.set(digest, new Set([image]))
      else known.add(image)
    }
    for (const [number, { compressed }] of this.#indexed.layers.entries()) {
      const images = this.#imagesOfLayer[number] ?? []
      for (const { digest } of compressed) {
        for (const image of images.length === 0 ? [-1] : images) add(digest, image)
      }
    }
    for (const [number, { id, manifestDigest }] of this.#indexed.images.entries()) {
      add(id, number)
      add(manifestDigest, number)
    }
    return found
  }

  #tarBytes(layers: readonly number[]): number {
    return layers.reduce((sum, layer) => sum + (this.#indexed.layers[layer]?.tarBytes ?? 0), 0)
  }

  #compressedBytes(layers: readonly number[]): number | null {
    let sum = 0
    for (const layer of layers) {
      const smallest = smallestForm(this.#indexed.layers[layer])
      if (smallest === undefined) return null
      sum += smallest
    }
    return sum
  }
}

/** Bytes of the smallest compressed form that is known. */
export function smallestForm(layer: IndexedLayer | undefined): number | undefined {
  const sizes = (layer?.compressed ?? []).map(({ size }) => size)
  return sizes.length === 0 ? undefined : Math.min(...sizes)
}

function addPairs(to: readonly Map<number, number>[], members: readonly number[], bytes: number): void {
  for (const one of members) {
    const shares = to[one]
    if (shares === undefined) continue
    for (const other of members) if (other !== one) shares.set(other, (shares.get(other) ?? 0) + bytes)
  }
}

function labels(image: IndexedImage | undefined): readonly string[] {
  return image === undefined ? [] : labelsOf(image)
}
