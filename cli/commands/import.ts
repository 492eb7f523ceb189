import { importTar } from '../../builder/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { openInput } from '../archive-streams.ts'
import { interruptible } from '../interrupt.ts'
import { parseName } from '../images.ts'
import { out } from '../output.ts'
import { sourceDateEpoch } from '../source-date-epoch.ts'
import { openChosenStore } from '../store.ts'

export const importCommand = defineCommand({
  usage: '[OPTIONS] FILE|- [NAME]',
  description: `
FILE is a tar of a root file system, bare or compressed (gzip, zstd, xz, bzip2); - is standard input. Prints the image's id.`,
  options: {
    change: {
      kind: 'list',
      short: 'c',
      value: 'INSTRUCTION',
      help: 'A Dockerfile instruction, e.g. USER nobody',
    },
    message: { kind: 'value', short: 'm', value: 'TEXT', help: "The comment in the image's history" },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild import rootfs.tar base', 'as base:latest'],
    ['mmdebstrap bookworm - | tbuild import -c \'CMD ["bash"]\' - debian:12', 'made on the way'],
  ],
  arguments: { least: 1, most: 2 },
  async run({ options, args: [file = '', name] }) {
    const names = name === undefined ? [] : [parseName(name)]
    await using input = openInput(file)
    const image = await interruptible(async (signal) => {
      await using store = await openChosenStore(options)
      return await importTar(store, input.stream, {
        names,
        changes: options.change,
        message: options.message,
        sourceDateEpoch: sourceDateEpoch(),
        signal,
      })
    })
    out(`${image.id}\n`)
  },
})
