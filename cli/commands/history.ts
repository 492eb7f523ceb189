import type { HistoryEntry, Image, Store } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { age, humanSize, shortId, table } from '../format.ts'
import { resolveImage } from '../images.ts'
import { out } from '../output.ts'
import { clip, oneLine } from '../progress/text.ts'
import { openStoreToRead } from '../store.ts'

export const history = defineCommand({
  usage: '[OPTIONS] IMAGE',
  description: 'Newest step first, with the size of the layer that it made.',
  options: {
    'no-trunc': { kind: 'flag', help: 'Print whole commands and ids' },
    json: { kind: 'flag', help: 'Print JSON' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild history app', 'how app:latest was made'],
    ['tbuild history --no-trunc app', 'with whole commands'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [name = ''] }) {
    await using store = await openStoreToRead(options)
    const { image } = resolveImage(store, name)
    const whole = options['no-trunc']
    const steps = stepsOf(store, image)
    if (options.json) {
      out(`${JSON.stringify(steps.map(jsonOf), undefined, 2)}\n`)
      return
    }
    const rows = steps.map(({ id, entry, size }) => {
      const command = oneLine(entry.created_by ?? '')
      return [
        id === undefined ? '<missing>' : whole ? id : shortId(id),
        age(entry.created),
        whole ? command : clip(command, 60),
        humanSize(size),
        oneLine(entry.comment ?? ''),
      ]
    })
    out(table(['IMAGE', 'CREATED', 'CREATED BY', 'SIZE', 'COMMENT'], rows))
  },
})

interface Step {
  /** Of the newest step: the image's. What stood below it is no image of its own. */
  readonly id: string | undefined
  readonly entry: HistoryEntry
  /** Of its layer, in bytes. */
  readonly size: number
}

/** An image without a history still has layers: each is an entry then. */
function stepsOf(store: Store, image: Image): Step[] {
  const layers = [...image.config.rootfs.diff_ids]
  const entries = image.config.history ?? layers.map(() => ({}))
  const steps = entries.map((entry: HistoryEntry) => {
    const layer = entry.empty_layer === true ? undefined : layers.shift()
    return { entry, size: layer === undefined ? 0 : (store.layers.find(layer)?.size ?? 0) }
  })
  return steps.toReversed().map((step, index) => ({ ...step, id: index === 0 ? image.id : undefined }))
}

function jsonOf({ id, entry, size }: Step) {
  return {
    Id: id ?? '<missing>',
    Created: entry.created ?? null,
    CreatedBy: entry.created_by ?? '',
    Comment: entry.comment ?? '',
    Size: size,
  }
}
