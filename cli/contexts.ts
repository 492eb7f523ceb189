/** The build context of a command line, and which Dockerfile goes with it. */
import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { contextAddress, type BuildRequest } from '../builder/index.ts'
import { TbuildError } from '../errors.ts'
import { UsageError } from './arguments/usage-error.ts'
import { parsePair } from './arguments/values.ts'

export type ContextSource = Pick<
  BuildRequest,
  'context' | 'contextStream' | 'dockerfile' | 'dockerfileStream'
>

/**
 * A directory, `-` (a tar or a Dockerfile on standard input), or an address. `file`: -f; `-` is a Dockerfile on standard input, and what is not absolute
 * is relative to here if the context is a directory, else to the context.
 * @throws TbuildError `CONTEXT_NOT_FOUND`, `CONTEXT_UNSUPPORTED`; UsageError `TERMINAL_REFUSED`, `OPTION_VALUE`
 */
export function contextSource(context: string, file: string | undefined): ContextSource {
  if (context === '-' && file === '-')
    throw new UsageError(
      'OPTION_VALUE',
      'Standard input cannot be both the build context and the Dockerfile.',
      { hint: 'a Dockerfile alone is a context too: tbuild - < Dockerfile' },
    )
  if ((context === '-' || file === '-') && process.stdin.isTTY) {
    const what = context === '-' ? 'A build context' : 'A Dockerfile'
    throw new UsageError('TERMINAL_REFUSED', `${what} is not read from a terminal.`, {
      hint: `pipe it in: ${context === '-' ? '... - < Dockerfile' : `... -f - ${context} < Dockerfile`}`,
    })
  }
  if (context === '-') return { context, contextStream: process.stdin, dockerfile: file ?? 'Dockerfile' }
  const where = placeOf(context)
  if (file === '-') return { context: where.text, dockerfile: 'Dockerfile', dockerfileStream: process.stdin }
  if (where.isAddress) return { context: where.text, dockerfile: file ?? 'Dockerfile' }
  return {
    context: where.text,
    dockerfile: file === undefined ? join(where.text, 'Dockerfile') : resolve(file),
  }
}

/** A directory goes before an address that looks the same. */
function placeOf(context: string): { readonly text: string; readonly isAddress: boolean } {
  const info = statSync(context, { throwIfNoEntry: false })
  if (info?.isDirectory() === true) return { text: resolve(context), isAddress: false }
  const address = contextAddress(context)
  if (address !== undefined) return { text: address, isAddress: true }
  const name = JSON.stringify(context)
  const hint = 'give a directory or an address, e.g. tbuild -t app .'
  if (info === undefined)
    throw new TbuildError('CONTEXT_NOT_FOUND', `There is no directory ${name}.`, { hint })
  throw new TbuildError('CONTEXT_UNSUPPORTED', `The build context ${name} is not a directory.`, { hint })
}

/**
 * `--build-context NAME=WHERE`; directories are absolute in what is returned.
 * @throws UsageError `OPTION_VALUE`; TbuildError `CONTEXT_NOT_FOUND`, `CONTEXT_UNSUPPORTED`
 */
export function namedContexts(given: readonly string[]): ReadonlyMap<string, string> {
  return new Map(
    given.map((text) => {
      const [name, where] = parsePair(text, '--build-context')
      if (where === undefined || where === '')
        throw new UsageError('OPTION_VALUE', `--build-context: ${JSON.stringify(text)} names no context.`, {
          hint: 'e.g. --build-context lib=../lib, or base=docker-image://debian:12',
        })
      if (where.startsWith('target:'))
        throw new UsageError('OPTION_VALUE', `--build-context: ${JSON.stringify(where)} is for bake files.`, {
          hint: 'build the target first, with a name, and give docker-image://NAME',
        })
      return [name, /^(?:docker-image|oci-layout):\/\//.test(where) ? where : placeOf(where).text]
    }),
  )
}
