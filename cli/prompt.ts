import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { TbuildError } from '../errors.ts'
import { Interrupted } from './interrupt.ts'

/** Asks on the terminal (stderr, so that stdout stays a result). Hidden: what is typed is not shown. */
export async function ask(question: string, how: { readonly hidden?: boolean } = {}): Promise<string> {
  if (!process.stdin.isTTY)
    throw new TbuildError(
      'TERMINAL_NEEDED',
      `There is no terminal to ask for "${question.replace(/: $/, '')}".`,
      {
        hint: 'use --username and --password-stdin',
      },
    )
  const silent = new Writable({ write: (_chunk, _encoding, done) => done() })
  if (how.hidden === true) process.stderr.write(question)
  const asking = createInterface({
    input: process.stdin,
    output: how.hidden === true ? silent : process.stderr,
    terminal: true,
  })
  try {
    const { promise, reject } = Promise.withResolvers<never>()
    asking.on('SIGINT', () => reject(new Interrupted('SIGINT')))
    asking.on('close', () => reject(new TbuildError('CANCELED', 'Nothing was entered.')))
    return await Promise.race([asking.question(how.hidden === true ? '' : question), promise])
  } finally {
    asking.close()
    if (how.hidden === true) process.stderr.write('\n')
  }
}
