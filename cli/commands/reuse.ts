import type { Reuse } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { humanSize, shortId, table } from '../format.ts'
import { escapedName, jsonName } from '../image-path.ts'
import { familiarName, resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const reuse = defineCommand({
  usage: '[OPTIONS] A B',
  description: `
What two images have in common: layers, and files by their contents; what keeps the common layers in the store; and the largest
files that differ. A file with several names counts its bytes once.`,
  options: {
    json: { kind: 'flag', help: 'Print JSON, in bytes: docs/ledger.md' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild reuse app:1 app:2', 'what the second release shares with the first'],
    ['tbuild reuse --json app base | jq .layers', 'layers, and what keeps each'],
  ],
  arguments: { least: 2, most: 2 },
  async run({ options, args: [a = '', b = ''] }) {
    const found = await interruptible(async () => {
      await using store = await openStoreToRead(options)
      const [first, second] = [a, b].map((name) => ({ name, image: resolveImage(store, name).image }))
      const ledger = await store.ledger()
      return first && second && ledger.reuse(first, second)
    })
    if (found !== undefined)
      out(options.json ? `${JSON.stringify(jsonOf(found), undefined, 2)}\n` : text(found))
  },
})

function jsonOf({ differing, ...rest }: Reuse) {
  return {
    ...rest,
    differing: differing.map(({ path, ...file }) => ({ ...jsonName('path', path), ...file })),
  }
}

/** The JSON has more. */
const MOST = 10

function text(found: Reuse): string {
  const { a, b, layers, samePath, sharedLayerBytes, differing } = found
  const shared = layers.filter((layer) => layer.a !== null && layer.b !== null)
  return [
    table(
      ['LAYER', 'IN A', 'IN B', 'SIZE', 'KEPT BY'],
      layers.map((layer) => [
        shortId(layer.diffId),
        position(layer.a),
        position(layer.b),
        humanSize(layer.tarBytes),
        [
          ...layer.pinnedBy.map(familiarName),
          ...(layer.cacheRecords > 0
            ? [`${layer.cacheRecords} cache record${layer.cacheRecords === 1 ? '' : 's'}`]
            : []),
        ].join(', '),
      ]),
    ),
    `${shared.length} of ${layers.length} layers are in both: ${humanSize(sharedLayerBytes)}\n`,
    table(
      ['FILES', `A: ${a.name}`, `B: ${b.name}`],
      [
        ['same contents, same path', count(samePath), count(samePath)],
        ['same contents elsewhere', count(a.elsewhere), count(b.elsewhere)],
        ['other contents', count(a.changed), count(b.changed)],
        ['only here', count(a.only), count(b.only)],
        ['all', count(a.total), count(b.total)],
      ],
    ),
    ...(differing.length === 0
      ? []
      : [
          table(
            ['DIFFERING', 'IN A', 'IN B'],
            differing
              .slice(0, MOST)
              .map((file) => [
                escapedName(file.path),
                file.kind === 'onlyB' ? '-' : humanSize(file.bytesA),
                file.kind === 'onlyA' ? '-' : humanSize(file.bytesB),
              ]),
          ),
        ]),
  ].join('\n')
}

function count({ files, bytes }: { readonly files: number; readonly bytes: number }): string {
  return `${files} (${humanSize(bytes)})`
}

function position(at: number | null): string {
  return at === null ? '-' : String(at + 1)
}
