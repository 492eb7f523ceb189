/** From arguments to an exit status: finds the command, runs it, reports what it throws. */
import { existsSync, statSync } from 'node:fs'
import { commandHelp } from './arguments/help.ts'
import { parseCommandLine } from './arguments/parse.ts'
import { didYouMean } from './arguments/suggest.ts'
import { UsageError } from './arguments/usage-error.ts'
import { COMMANDS, isCommandName, programHelp, type CommandName } from './commands/index.ts'
import { out } from './output.ts'

/** The exit status: 0 done, 1 failed, 2 wrong use, 128 + n stopped by signal n; of `run` the command's own, or 125 to 127. */
export async function main(argv: readonly string[]): Promise<number> {
  let name: CommandName | undefined
  try {
    const chosen = choose(argv)
    if (typeof chosen === 'string') {
      out(chosen)
      return 0
    }
    name = chosen.name
    const { summary, load } = COMMANDS[name]
    const command = await load()
    const call = parseCommandLine(name, command, chosen.rest)
    if (call === 'help') {
      out(commandHelp(name, summary, command))
      return 0
    }
    return (await command.run(call)) ?? 0
  } catch (error) {
    const { report } = await import('./report.ts')
    return report(error, name)
  }
}

/** The command and its arguments, or a text to print. */
function choose(argv: readonly string[]): { name: CommandName; rest: readonly string[] } | string {
  const [first] = argv
  switch (first) {
    case undefined:
    case '-h':
    case '--help':
      return programHelp()
    case '-v':
    case '--version':
      return choose(['version'])
    case 'help':
      return argv[1] === undefined ? programHelp() : choose([named(argv[1]), '--help'])
    default:
  }
  // `tbuild --store DIR images` is `tbuild images --store DIR`.
  const taken = first.startsWith('--store=') ? 1 : first === '--store' ? 2 : 0
  const word = argv[taken]
  if (word !== undefined && isCommandName(word))
    return { name: word, rest: [...argv.slice(0, taken), ...argv.slice(taken + 1)] }
  // Anything else is a build: `tbuild -t app .`
  if (!first.startsWith('-') && !isContext(first)) named(first)
  return { name: 'build', rest: argv }
}

function named(word: string): CommandName {
  if (isCommandName(word)) return word
  throw new UsageError(
    'UNKNOWN_COMMAND',
    `There is no command ${JSON.stringify(word)}, nor a directory of that name.`,
    {
      hint: didYouMean(word, Object.keys(COMMANDS)) ?? 'tbuild --help lists the commands',
    },
  )
}

/** A mistyped command is told from a mistyped directory: commands are one plain word. */
function isContext(word: string): boolean {
  return !/^[a-z-]+$/i.test(word) || (existsSync(word) && statSync(word).isDirectory())
}
