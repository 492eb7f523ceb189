import { defineCommand } from '../arguments/types.ts'
import { out } from '../output.ts'
import { packageVersion } from '../version.ts'

export const version = defineCommand({
  usage: '',
  options: {},
  examples: [['tbuild version', "tbuild's and Node's"]],
  arguments: { least: 0, most: 0 },
  async run() {
    out(`tbuild ${packageVersion()} (Node ${process.version})\n`)
  },
})
