import { saveImages, type TransferEvent } from '../../builder/index.ts'
import { refuseTerminal, writeArchive } from '../archive-streams.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { say } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const save = defineCommand({
  usage: '[OPTIONS] IMAGE...',
  description: `
A tar for docker load, podman load, skopeo and the like. An image given by its name keeps that name in it.`,
  options: {
    output: { kind: 'value', short: 'o', value: 'FILE', help: 'Where to (default: standard output)' },
    format: {
      kind: 'value',
      value: 'FORMAT',
      choices: ['docker', 'oci'],
      help: 'Of the archive (default: docker)',
    },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild save -o app.tar app', 'for docker load'],
    ['tbuild save --format oci app | ssh host tbuild load', 'to another machine'],
  ],
  arguments: { least: 1, most: Number.POSITIVE_INFINITY },
  async run({ options, args }) {
    refuseTerminal(options.output)
    await interruptible(async (signal) => {
      await using store = await openStoreToRead(options)
      const images = args.map((text) => resolveImage(store, text))
      const format = options.format === 'oci' ? 'oci' : 'docker'
      await writeArchive(options.output, saveImages(store, images, { format, signal, observe }), signal)
    })
  },
})

function observe(event: TransferEvent): void {
  if (event.kind === 'note') say(`note: ${event.text}`)
}
