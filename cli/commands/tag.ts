import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { parseName, resolveImage } from '../images.ts'
import { openChosenStore } from '../store.ts'

export const tag = defineCommand({
  usage: '[OPTIONS] IMAGE NAME',
  description: 'NAME is taken from another image that has it.',
  options: STORE_OPTION,
  examples: [
    ['tbuild tag app app:1.2', 'a second name'],
    ['tbuild tag 3f2a registry.example/team/app:1.2', 'a name to push it by, for an image found by its id'],
  ],
  arguments: { least: 2, most: 2 },
  async run({ options, args: [source = '', name = ''] }) {
    const target = parseName(name)
    await using store = await openChosenStore(options)
    store.images.tag(target, resolveImage(store, source).image.manifestDigest)
  },
})
