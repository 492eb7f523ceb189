import { text } from 'node:stream/consumers'
import { DEFAULT_REGISTRY, login as prove } from '../../registry/index.ts'
import { TbuildError } from '../../errors.ts'
import { defineCommand } from '../arguments/types.ts'
import { UsageError } from '../arguments/usage-error.ts'
import { interruptible } from '../interrupt.ts'
import { out, say } from '../output.ts'
import { ask } from '../prompt.ts'

export const login = defineCommand({
  usage: '[OPTIONS] [REGISTRY]',
  description: `
The credentials are kept where docker keeps them (~/.docker/config.json, or the helper named there), once the registry has
taken them. REGISTRY is HOST[:PORT]; without it, docker.io.`,
  options: {
    username: { kind: 'value', short: 'u', value: 'NAME', help: 'User name (asked for when left out)' },
    password: {
      kind: 'value',
      short: 'p',
      value: 'WORD',
      help: 'Seen by other users in the process list: rather',
    },
    'password-stdin': { kind: 'flag', help: 'Read the password from standard input' },
    insecure: { kind: 'flag', help: 'Allow plain http and unknown certificates' },
  },
  examples: [
    ['tbuild login registry.example', 'asks for name and password'],
    ['tbuild login -u me --password-stdin registry.example < token', 'for a script'],
  ],
  arguments: { least: 0, most: 1 },
  async run({ options, args: [registry = DEFAULT_REGISTRY] }) {
    const { username: given, password: word, 'password-stdin': fromStdin, insecure } = options
    if (fromStdin && (word !== undefined || given === undefined))
      throw new UsageError('OPTION_VALUE', '--password-stdin needs --username, and no --password.')
    if (word !== undefined) say('tbuild: warning: --password is seen by other users; use --password-stdin')
    const username = given ?? (await ask('Username: '))
    const password = fromStdin
      ? (await text(process.stdin)).replace(/\r?\n$/, '')
      : (word ?? (await ask('Password: ', { hidden: true })))
    if (username === '' || password === '')
      throw new TbuildError('CREDENTIALS_EMPTY', 'A user name and a password are needed.')
    await interruptible((signal) => prove(registry, { username, password }, { insecure, signal }))
    out(`Logged in to ${registry}\n`)
  },
})
