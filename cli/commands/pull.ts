import { pullImage } from '../../builder/index.ts'
import { openRegistry, parseReference } from '../../registry/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { collectIfDue } from '../collect.ts'
import { familiarName } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { parsePlatform } from '../platform.ts'
import { transferProgress } from '../progress/transfer.ts'
import { registryOptions } from '../registry.ts'
import { openChosenStore } from '../store.ts'

export const pull = defineCommand({
  usage: '[OPTIONS] NAME[:TAG|@DIGEST]',
  description: "Prints the image's name when it is stored, whole and verified.",
  options: {
    platform: {
      kind: 'value',
      value: 'OS/ARCH',
      help: "Of an image made for several (default: this machine's)",
    },
    quiet: { kind: 'flag', short: 'q', help: 'No progress' },
    insecure: { kind: 'flag', help: 'Allow plain http and unknown certificates' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild pull debian:12', 'from docker.io'],
    ['tbuild pull registry.example/team/app@sha256:...', 'exactly this one'],
    ['tbuild pull --platform linux/arm64 debian:12', 'for another machine'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [name = ''] }) {
    const reference = parseReference(name)
    const platform = options.platform === undefined ? undefined : parsePlatform(options.platform)
    const progress = transferProgress('pulling', process.stderr, options)
    const image = await interruptible(async (signal) => {
      try {
        await using store = await openChosenStore(options)
        await using registry = await openRegistry(reference, registryOptions(options, signal))
        const { observe } = progress
        const how = { platform, signal, observe, refetchBlobs: true }
        const pulled = await pullImage(store, registry, reference, how)
        progress.finish()
        await collectIfDue(store)
        return pulled
      } finally {
        progress.finish()
      }
    })
    out(`${image.names.includes(name) ? name : familiarName(name)}\n`)
  },
})
