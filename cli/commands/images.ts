import type { Image, Store } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand, type Values } from '../arguments/types.ts'
import { age, humanSize, shortId, table } from '../format.ts'
import { familiarName, imageSize } from '../images.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

const OPTIONS = {
  quiet: { kind: 'flag', short: 'q', help: 'Print ids only' },
  'no-trunc': { kind: 'flag', help: 'Print whole ids' },
  digests: { kind: 'flag', help: "Show the manifests' digests" },
  format: { kind: 'value', value: 'FORMAT', choices: ['table', 'json'], help: 'One of' },
  ...STORE_OPTION,
} as const

export const images = defineCommand({
  usage: '[OPTIONS] [NAME]',
  options: OPTIONS,
  examples: [
    ['tbuild images', 'all of them, newest first'],
    ['tbuild images app', 'those of one name'],
    ['tbuild images -q --no-trunc', 'whole ids, for a script'],
  ],
  arguments: { least: 0, most: 1 },
  async run({ options, args: [filter] }) {
    await using store = await openStoreToRead(options)
    const rows = store.images.list().flatMap((image) => rowsOf(store, image))
    const shown =
      filter === undefined ? rows : rows.filter((row) => row.repository === filter || row.name === filter)
    if (options.quiet) out([...new Set(shown.map((row) => `${idOf(row, options)}\n`))].join(''))
    else if (options.format === 'json') out(`${JSON.stringify(shown.map(jsonOf), undefined, 2)}\n`)
    else out(tableOf(shown, options))
  },
})

interface Row {
  readonly image: Image
  readonly name: string
  readonly repository: string
  readonly tag: string
  readonly size: number
}

/** One for each name; an image without a name has one too. */
function rowsOf(store: Store, image: Image): Row[] {
  const size = imageSize(store, image)
  if (image.names.length === 0) return [{ image, name: '', repository: '<none>', tag: '<none>', size }]
  return image.names.map((full) => {
    const name = familiarName(full)
    const colon = name.lastIndexOf(':')
    return { image, name, repository: name.slice(0, colon), tag: name.slice(colon + 1), size }
  })
}

function idOf({ image }: Row, options: Values<typeof OPTIONS>): string {
  return options['no-trunc'] ? image.id : shortId(image.id)
}

function tableOf(rows: readonly Row[], options: Values<typeof OPTIONS>): string {
  const digest = (text: string): string[] => (options.digests ? [text] : [])
  return table(
    ['REPOSITORY', 'TAG', ...digest('DIGEST'), 'IMAGE ID', 'CREATED', 'SIZE'],
    rows.map((row) => [
      row.repository,
      row.tag,
      ...digest(row.image.manifestDigest),
      idOf(row, options),
      age(row.image.config.created),
      humanSize(row.size),
    ]),
  )
}

function jsonOf({ image, repository, tag, size }: Row) {
  return {
    Repository: repository,
    Tag: tag,
    Digest: image.manifestDigest,
    ID: image.id,
    Created: image.config.created ?? null,
    Size: size,
  }
}
