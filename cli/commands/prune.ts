import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { humanSize } from '../format.ts'
import { interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { openChosenStore } from '../store.ts'

export const prune = defineCommand({
  usage: '[OPTIONS]',
  description: `
Removes images without a name, and the layers, blobs and cache records that no image needs. What a running build or
container uses stays.`,
  options: { 'dry-run': { kind: 'flag', help: 'Only say what would go' }, ...STORE_OPTION },
  examples: [
    ['tbuild prune --dry-run', 'how much it would free'],
    ['tbuild prune', 'do it'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    const dryRun = options['dry-run']
    const report = await interruptible(async () => {
      await using store = await openChosenStore(options)
      return await store.prune({ dryRun })
    })
    out(list('image', report.images) + list('layer', report.layers) + list('blob', report.blobs))
    if (report.steps > 0) out(`${report.steps} cache record${report.steps === 1 ? '' : 's'}\n`)
    out(`${dryRun ? 'Would reclaim' : 'Reclaimed'}: ${humanSize(report.freedBytes)}\n`)
  },
})

function list(kind: string, digests: readonly string[]): string {
  return digests.map((digest) => `${kind} ${digest}\n`).join('')
}
