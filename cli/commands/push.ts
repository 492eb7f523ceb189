import { pushImage } from '../../builder/index.ts'
import { TbuildError } from '../../errors.ts'
import { openRegistry, parseReference } from '../../registry/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { familiarName, parseName, resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { transferProgress } from '../progress/transfer.ts'
import { registryOptions } from '../registry.ts'
import { openChosenStore } from '../store.ts'

export const push = defineCommand({
  usage: '[OPTIONS] NAME[:TAG]',
  description: `
NAME is an image in the store, and where it goes: registry.example/team/app. Sends only what the registry lacks. Prints
NAME@DIGEST.`,
  options: {
    quiet: { kind: 'flag', short: 'q', help: 'No progress' },
    insecure: { kind: 'flag', help: 'Allow plain http and unknown certificates' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild tag app registry.example/team/app:1.2', 'name it for its registry'],
    ['tbuild push registry.example/team/app:1.2', 'send it'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [name = ''] }) {
    const reference = parseReference(parseName(name))
    const progress = transferProgress('pushing', process.stderr, options)
    const pushed = await interruptible(async (signal) => {
      try {
        await using store = await openChosenStore(options)
        const { image, name: found } = resolveImage(store, name)
        if (found === undefined)
          throw new TbuildError('IMAGE_NOT_FOUND', `There is no image named ${JSON.stringify(name)}.`, {
            hint: 'give it the name of where it goes: tbuild tag IMAGE NAME',
          })
        const how = registryOptions(options, signal)
        await using registry = await openRegistry(reference, how)
        return await pushImage(store, registry, reference, image, {
          signal,
          observe: progress.observe,
          openOrigin: async (repository) => openRegistry(parseReference(repository), how),
        })
      } finally {
        progress.finish()
      }
    })
    const repository = familiarName(`${reference.registry}/${reference.repository}@${pushed.digest}`)
    out(`${repository}\n`)
  },
})
