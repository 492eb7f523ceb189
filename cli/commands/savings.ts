import type { Savings } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { humanSize, table } from '../format.ts'
import { escapedName, jsonName } from '../image-path.ts'
import { out } from '../output.ts'
import { oneLine } from '../progress/text.ts'
import { openStoreToRead } from '../store.ts'

export const savings = defineCommand({
  usage: '[OPTIONS]',
  description: `
What the images would take if each had layers of its own; what is left when each layer is kept once, and when each file is; and
the directories and packages that repeat most between layers.`,
  options: {
    json: { kind: 'flag', help: 'Print JSON, in bytes: docs/ledger.md' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild savings', 'where the bytes of all images went'],
    ['tbuild savings --json | jq .packages', 'the 50 packages that repeat most'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    const read = async () => {
      await using store = await openStoreToRead(options)
      return (await store.ledger()).savings()
    }
    const found = (await read()).measure()
    out(options.json ? `${JSON.stringify(jsonOf(found), undefined, 2)}\n` : text(found))
  },
})

function jsonOf({ directories, packages, ...sums }: Savings) {
  return {
    ...sums,
    directories: directories.map(({ path, ...rest }) => ({ ...jsonName('path', path), ...rest })),
    packages,
  }
}

/** The JSON has more. */
const MOST = 15

function text(found: Savings): string {
  const { directories, packages, layers, images, compressedLayers } = found
  const parts = [
    table(
      ['', 'SIZE', 'SAVED'],
      [
        [`${images} image${plural(images)}`, humanSize(found.imageBytes), ''],
        [
          `each of ${layers} layer${plural(layers)} once`,
          humanSize(found.afterLayerSharingBytes),
          saved(found.layerSharingSavedBytes, found.imageBytes),
        ],
        [
          'each file once',
          humanSize(found.afterFileSharingBytes),
          saved(found.fileSharingSavedBytes, found.afterLayerSharingBytes),
        ],
        ['kept for them', humanSize(found.storedBytes), ''],
        [`compressed (${compressedLayers} of ${layers} layers known)`, humanSize(found.compressedBytes), ''],
        ['the store on disk', humanSize(found.allocatedBytes), ''],
      ],
    ),
    directories.length > 0 &&
      table(
        ['DIRECTORY', 'FILES', 'LAYERS', 'REPEATED'],
        directories
          .slice(0, MOST)
          .map((one) => [
            escapedName(one.path),
            String(one.files),
            String(one.layers),
            humanSize(one.repeatedBytes),
          ]),
      ),
    packages.length > 0 &&
      table(
        ['PACKAGE', 'VERSION', 'KIND', 'COPIES', 'SIZE', 'REPEATED'],
        packages
          .slice(0, MOST)
          .map((one) => [
            oneLine(one.name),
            oneLine(one.version),
            one.kind,
            String(one.copies),
            humanSize(one.bytes),
            humanSize(one.repeatedBytes),
          ]),
      ),
  ]
  return parts.filter((part) => part !== false).join('\n')
}

function saved(bytes: number, of: number): string {
  return bytes === 0 ? '' : `${humanSize(bytes)} (${Math.round((100 * bytes) / of)}%)`
}

function plural(count: number): string {
  return count === 1 ? '' : 's'
}
