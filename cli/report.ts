/** What went wrong, in the form a person can act on; and the exit status that says it to a script. */
import { styleText } from 'node:util'
import { TbuildError, type ErrorSource } from '../errors.ts'
import { UsageError } from './arguments/usage-error.ts'
import type { CommandName } from './commands/index.ts'
import { Interrupted } from './interrupt.ts'
import { say } from './output.ts'
import { rootlessHint, unmappedHint } from './rootless.ts'

/** Prints the error to stderr. Returns the exit status. */
export function report(error: unknown, command: CommandName | undefined): number {
  if (error instanceof Interrupted) {
    say('tbuild: interrupted')
    return error.exitCode
  }
  if (error instanceof SuppressedError) {
    // Cleaning up failed as well: the first error is the one that matters.
    report(error.error, command)
    return report(error.suppressed, command)
  }
  if (isIndexFull(error))
    say(expectedText({ code: 'ENOSPC', message: "There is no room for the store's index." }))
  else say(isExpected(error) ? expectedText(error) : bugText(error))
  return exitCode(error, command)
}

/** SQLITE_FULL, which is no system error. */
function isIndexFull(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'errcode' in error && error.errcode === 13
}

interface Expected {
  readonly code: string
  readonly message: string
  readonly hint?: string | undefined
  readonly source?: ErrorSource | undefined
}

/** Ours, the parser's (same shape, its own class), or the system's. Node's own `ERR_...` mean a bug of ours. */
function isExpected(error: unknown): error is Error & Expected {
  if (error instanceof TbuildError) return true
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string') return false
  return error.name === 'DockerfileError' || ('errno' in error && !error.code.startsWith('ERR_'))
}

function expectedText(error: Expected): string {
  const { code, message, hint, source } = error
  const red = styleText('red', 'tbuild: error:', { stream: process.stderr })
  const [summary, ...details] = printable(message).split('\n')
  const lines = [`${red} ${summary} [${code}]`, ...details]
  if (source !== undefined) lines.push(`${source.file}:${source.line}`, source.frame.replace(/\n$/, ''))
  const advice =
    (code === 'ROOT_REQUIRED' && rootlessHint()) || (hint ?? unmappedHint(error) ?? SYSTEM_HINTS[code])
  if (advice !== undefined) lines.push(`hint: ${printable(advice)}`)
  return lines.join('\n')
}

const SYSTEM_HINTS: Readonly<Record<string, string>> = {
  ENOSPC: 'tbuild prune frees what no image needs; --store or TBUILD_STORE choose another disk',
  EDQUOT: 'tbuild prune frees what no image needs; --store or TBUILD_STORE choose another disk',
  EMFILE: 'ulimit -n allows too few open files',
}

function bugText(error: unknown): string {
  const red = styleText('red', 'tbuild: bug:', { stream: process.stderr })
  const stack = error instanceof Error ? (error.stack ?? error.message) : JSON.stringify(error)
  const cause =
    error instanceof Error && error.cause instanceof Error ? `\ncaused by ${error.cause.stack}` : ''
  return `${red} this should not have happened; please report it with what follows.\n${stack}${cause}`
}

/** Messages repeat words of Dockerfiles, images and registries: none may steer the terminal. */
function printable(text: string): string {
  // eslint-disable-next-line no-control-regex -- they are what is looked for
  return text.replaceAll(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, '\u{fffd}')
}

function exitCode(error: unknown, command: CommandName | undefined): number {
  const code = isExpected(error) ? error.code : undefined
  if (command === 'run') {
    // Docker's: what is below 125 is the command's own.
    return code === 'COMMAND_NOT_FOUND' ? 127 : code === 'COMMAND_NOT_EXECUTABLE' ? 126 : 125
  }
  return error instanceof UsageError ? 2 : 1
}
