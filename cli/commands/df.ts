import type { DiskUsage, ImageUsage, LayerUsage, RowKind } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { humanSize, shortId, table } from '../format.ts'
import { familiarName } from '../images.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const df = defineCommand({
  usage: '[OPTIONS]',
  description: `
SIZE is what the layers' tars add up to, COMPRESSED what their smallest known compressed forms do. Of the files in them,
REPEATED is what occurs more than once in the image or layer itself, SHARED what others have as well, UNIQUE what nothing else
has. ON DISK is what would be free if it went alone. The total is what du(1) counts in the store's directory.`,
  options: {
    verbose: { kind: 'flag', short: 'v', help: 'Show layers, and with whom each shares' },
    json: { kind: 'flag', help: 'Print JSON, in bytes: docs/ledger.md' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild df', 'images, and everything else that occupies the store'],
    ['tbuild df -v', 'layers too'],
    ['tbuild df --json | jq .allocatedBytes', 'what du says'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    const usage = await measure(options)
    if (options.json) out(`${JSON.stringify(usage, undefined, 2)}\n`)
    else
      out(
        `${imageTable(usage)}\n${options.verbose ? layerTables(usage) : ''}${rowTable(usage, options.verbose)}`,
      )
  },
})

/** An open store has files of its own: it is counted when it is closed. */
async function measure(options: { readonly store: string | undefined }): Promise<DiskUsage> {
  const read = async () => {
    await using store = await openStoreToRead(options)
    return (await store.ledger()).usage()
  }
  return (await read()).measure()
}

function imageTable({ images }: DiskUsage): string {
  return table(
    ['IMAGE', 'LAYERS', 'SIZE', 'REPEATED', 'SHARED', 'UNIQUE', 'COMPRESSED', 'ON DISK'],
    images.map((image) => [
      labelOf(image),
      String(image.layers.length),
      humanSize(image.tarBytes),
      ...contents(image),
      image.compressedBytes === null ? '-' : humanSize(image.compressedBytes),
      humanSize(image.allocatedBytes),
    ]),
  )
}

/** The longest tables are cut here; the JSON has all. */
const MOST_SHARED = 5

function layerTables({ layers, images }: DiskUsage): string {
  const names = new Map(images.map((image) => [image.manifestDigest as string, labelOf(image)]))
  const shown = (label: string): string => names.get(label) ?? familiarName(label)
  const list = table(
    ['LAYER', 'SIZE', 'REPEATED', 'SHARED', 'UNIQUE', 'COMPRESSED', 'ON DISK', 'IMAGES'],
    layers.map((layer) => [
      shortId(layer.diffId) + (layer.isDamaged ? ' (damaged)' : ''),
      humanSize(layer.tarBytes),
      ...contents(layer),
      compressed(layer),
      humanSize(layer.allocatedBytes),
      firstOf(layer.images.map(shown)) || '-',
    ]),
  )
  const ofImages = images.flatMap((image) =>
    image.sharedWith
      .slice(0, MOST_SHARED)
      .map((other) => [
        labelOf(image),
        names.get(other.manifestDigest) ?? '',
        String(other.layers),
        humanSize(other.layerBytes),
        humanSize(other.contentBytes),
      ]),
  )
  const ofLayers = layers.flatMap(({ diffId, sharedWith }) =>
    sharedWith
      .slice(0, MOST_SHARED)
      .map((other) => [shortId(diffId), shortId(other.diffId), humanSize(other.bytes)]),
  )
  return [
    list,
    ofImages.length > 0 && table(['IMAGE', 'SHARES WITH', 'LAYERS', 'OF SIZE', 'CONTENTS'], ofImages),
    ofLayers.length > 0 && table(['LAYER', 'SHARES WITH', 'CONTENTS'], ofLayers),
  ]
    .filter((part) => part !== false)
    .map((part) => `${part}\n`)
    .join('')
}

function contents({ repeatedBytes, sharedBytes, uniqueBytes }: ImageUsage | LayerUsage): string[] {
  return [repeatedBytes, sharedBytes, uniqueBytes].map(humanSize)
}

function compressed({ compressed: forms }: LayerUsage): string {
  return forms.length === 0 ? '-' : humanSize(Math.min(...forms.map(({ size }) => size)))
}

function firstOf(names: readonly string[]): string {
  const shown = names.slice(0, MOST_SHARED).join(', ')
  return names.length > MOST_SHARED ? `${shown}, +${names.length - MOST_SHARED}` : shown
}

function labelOf({ names, id }: ImageUsage): string {
  return names.length === 0 ? shortId(id) : names.map(familiarName).join(', ')
}

const ROWS: Readonly<Record<RowKind, string>> = {
  layerContents: 'contents that one layer has',
  sharedContents: 'contents that layers share',
  unusedContents: 'contents that no layer has',
  deadContents: 'contents that are gone',
  padding: 'padding of contents',
  rounding: 'rounding to disk blocks',
  unfinishedContents: 'contents on their way in',
  segmentLists: 'lists of contents',
  recipes: 'recipes of layers',
  indexImages: 'index images of layers',
  trees: 'layers as directories',
  compressedLayers: 'compressed layers',
  manifests: 'manifests and configs',
  otherBlobs: 'blobs that nothing needs',
  cacheRecords: 'cache records of steps',
  database: 'index',
  statCaches: 'stat caches, and a reserve',
  cacheMounts: 'cache mounts',
  work: 'work directories',
  leases: 'leases and locks',
  directories: "the store's directories",
  unrecorded: 'files that the index does not name',
  other: 'anything else',
}

function rowTable({ rows, allocatedBytes }: DiskUsage, all: boolean): string {
  const shown = rows.filter((row) => all || row.allocatedBytes !== 0)
  const lines = shown.map((row) => [ROWS[row.kind], count(row.count), signedSize(row.allocatedBytes)])
  return table(['IN THE STORE', 'COUNT', 'ON DISK'], [...lines, ['total', '', humanSize(allocatedBytes)]])
}

function count(number: number): string {
  return number === 0 ? '' : String(number)
}

function signedSize(bytes: number): string {
  return bytes < 0 ? `-${humanSize(-bytes)}` : humanSize(bytes)
}
