import type { Store } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { familiarName, resolveImage } from '../images.ts'
import { out } from '../output.ts'
import { openChosenStore } from '../store.ts'

export const rmi = defineCommand({
  usage: '[OPTIONS] IMAGE...',
  description: `
A name is taken away; the image goes with its last name. Its layers stay, to build upon, until tbuild prune.`,
  options: {
    force: {
      kind: 'flag',
      short: 'f',
      help: 'Remove an image with all its names; what is not there is no error',
    },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild rmi app:1.2', 'one name'],
    ['tbuild rmi -f 3f2a91c07b5d', 'an image and all its names'],
  ],
  arguments: { least: 1, most: Number.POSITIVE_INFINITY },
  async run({ options, args }) {
    await using store = await openChosenStore(options)
    for (const text of args) {
      try {
        out(remove(store, text, options.force))
      } catch (error) {
        if (options.force && error instanceof TbuildError && error.code === 'IMAGE_NOT_FOUND') continue
        throw error
      }
    }
  },
})

/** What was done, in docker's words. */
function remove(store: Store, text: string, force: boolean): string {
  const { image, name } = resolveImage(store, text)
  if (name !== undefined) {
    store.images.untag(name)
    const untagged = `Untagged: ${familiarName(name)}\n`
    if (image.names.length > 1) return untagged
    store.images.remove(image.manifestDigest)
    return `${untagged}Deleted: ${image.id}\n`
  }
  if (image.names.length > 1 && !force) {
    throw new TbuildError('IMAGE_HAS_NAMES', `The image ${text} has ${image.names.length} names.`, {
      hint: `remove them one by one (${image.names.map(familiarName).join(', ')}), or all with -f`,
    })
  }
  store.images.remove(image.manifestDigest)
  return image.names.map((each) => `Untagged: ${familiarName(each)}\n`).join('') + `Deleted: ${image.id}\n`
}
