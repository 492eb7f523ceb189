import { loadArchive } from '../../builder/index.ts'
import { openInput } from '../archive-streams.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { familiarName } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { transferProgress } from '../progress/transfer.ts'
import { openChosenStore } from '../store.ts'

export const load = defineCommand({
  usage: '[OPTIONS]',
  description: `
Reads what docker save, podman save or tbuild save wrote, or a tar of an OCI layout; compressed too. Prints what was loaded.`,
  options: {
    input: { kind: 'value', short: 'i', value: 'FILE', help: 'Where from (default: standard input)' },
    quiet: { kind: 'flag', short: 'q', help: 'No progress' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild load -i app.tar', 'from a file'],
    ['docker save app | tbuild load', 'from docker'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    await using input = openInput(options.input)
    const progress = transferProgress('loading', process.stderr, options)
    const images = await interruptible(async (signal) => {
      try {
        await using store = await openChosenStore(options)
        return await loadArchive(store, input.stream, { signal, observe: progress.observe })
      } finally {
        progress.finish()
      }
    })
    for (const { id, names } of images) {
      if (names.length === 0) out(`Loaded image: ${id}\n`)
      for (const name of names) out(`Loaded image: ${familiarName(name)}\n`)
    }
  },
})
