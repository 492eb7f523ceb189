import { DEFAULT_REGISTRY, logout as forget } from '../../registry/index.ts'
import { defineCommand } from '../arguments/types.ts'
import { out } from '../output.ts'

export const logout = defineCommand({
  usage: '[REGISTRY]',
  options: {},
  examples: [
    ['tbuild logout registry.example', 'forget that login'],
    ['tbuild logout', 'the one for docker.io'],
  ],
  arguments: { least: 0, most: 1 },
  async run({ args: [registry = DEFAULT_REGISTRY] }) {
    out((await forget(registry)) ? `Logged out of ${registry}\n` : `Not logged in to ${registry}\n`)
  },
})
