import type { Change, Image, Ledger } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { shortId } from '../format.ts'
import { escapedName, jsonName } from '../image-path.ts'
import { familiarName, resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out, say } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const diff = defineCommand({
  usage: '[OPTIONS] A [B]',
  description: `
What has to change in A's files to make B's: A added, D deleted (with all below it), C other contents or another type, M other
metadata only. With one image: what it adds to the image of this store that it is built on, or to its own layers less the
last when there is none.`,
  options: {
    last: { kind: 'flag', help: 'With one image: what its last layer changes' },
    times: { kind: 'flag', help: 'A new modification time is a change, too' },
    json: { kind: 'flag', help: 'Print JSON: docs/ledger.md' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild diff app', 'what app adds to its base'],
    ['tbuild diff app:1 app:2', 'what changed between two releases'],
  ],
  arguments: { least: 1, most: 2 },
  async run({ options, args: [first = '', second] }) {
    const { before, changes } = await interruptible(async () => {
      await using store = await openStoreToRead(options)
      const ledger = await store.ledger()
      const { image } = resolveImage(store, first)
      const pair =
        second === undefined
          ? withBase(ledger, image, options.last)
          : { before: first, from: layersOf(image), to: layersOf(resolveImage(store, second).image) }
      return { before: pair.before, changes: ledger.diff(pair.from, pair.to, { times: options.times }) }
    })
    const after = second ?? first
    if (options.json) {
      out(`${JSON.stringify({ before, after, changes: changes.map(jsonOf) }, undefined, 2)}\n`)
      return
    }
    if (second === undefined) say(`compared with ${before}`)
    out(changes.map(line).join(''))
  },
})

function withBase(ledger: Ledger, image: Image, last: boolean) {
  const chain = layersOf(image)
  const base = last ? { image: undefined, layers: chain.slice(0, -1) } : ledger.baseOf(image)
  const [name] = base.image?.names ?? []
  const before =
    base.image === undefined
      ? 'its layers but the last'
      : name === undefined
        ? shortId(base.image.id)
        : familiarName(name)
  return { before, from: base.layers, to: chain }
}

function layersOf({ config }: Image) {
  return config.rootfs.diff_ids
}

function jsonOf({ path, ...change }: Change) {
  return { ...jsonName('path', path), ...change }
}

function line({ kind, path, what }: Change): string {
  const details = what.length === 0 ? '' : ` (${what.join(', ')})`
  return `${kind} ${escapedName(path)}${details}\n`
}
