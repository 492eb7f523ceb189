import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import type { ContainerConfig, Image, Store } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import {
  checkContainersAllowed,
  memoryLimitMessage,
  resolveUser,
  runContainer,
  type Container,
  type ContainerSpec,
} from '../../runtime/index.ts'
import { LIMIT_OPTIONS, STORE_OPTION, defineCommand, type Values } from '../arguments/types.ts'
import { UsageError } from '../arguments/usage-error.ts'
import { parseLimits, parsePair } from '../arguments/values.ts'
import { shortId } from '../format.ts'
import { resolveImage } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { say } from '../output.ts'
import { openChosenStore } from '../store.ts'

const OPTIONS = {
  env: {
    kind: 'list',
    short: 'e',
    value: 'KEY[=VALUE]',
    help: 'Set a variable; without a value, from the environment',
  },
  'env-file': { kind: 'list', value: 'FILE', help: 'Variables from a file, KEY=VALUE on each line' },
  workdir: { kind: 'value', short: 'w', value: 'DIR', help: 'Working directory' },
  user: { kind: 'value', short: 'u', value: 'USER[:GROUP]', help: 'Names or numbers' },
  interactive: { kind: 'flag', short: 'i', help: 'Pass standard input on' },
  tty: { kind: 'flag', short: 't', help: 'A terminal for it' },
  entrypoint: { kind: 'value', value: 'COMMAND', help: "In place of the image's; its CMD is then left out" },
  hostname: { kind: 'value', value: 'NAME', help: 'Its host name' },
  network: { kind: 'value', value: 'MODE', choices: ['host', 'none'], help: 'Its network (default: host)' },
  ...LIMIT_OPTIONS,
  rm: { kind: 'flag', help: 'Accepted: a container never outlives its command' },
  ...STORE_OPTION,
} as const

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export const run = defineCommand({
  usage: '[OPTIONS] IMAGE [COMMAND [ARGUMENT...]]',
  description: `
What the command writes to its files is gone when it ends. The exit status is the command's; 125 when tbuild failed, 126 when
the command could not be executed, 127 when it was not found.`,
  options: OPTIONS,
  examples: [
    ['tbuild run app', "the image's own command"],
    ['tbuild run -it app sh', 'a shell in it'],
    ['tbuild run -m 64m --network none -e DEBUG=1 app ./test', 'limited, offline, with a variable'],
  ],
  arguments: { least: 1, most: Number.POSITIVE_INFINITY },
  stopAtFirst: true,
  async run({ options, args: [name = '', ...command] }) {
    const limits = parseLimits(options)
    const status = await interruptible(async (signal, redirect) => {
      await using store = await openChosenStore(options)
      const { image } = resolveImage(store, name)
      const args = argsOf(options, image.config.config ?? {}, command)
      checkContainersAllowed()
      const layers = image.config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId))
      await using root = await store.layers.mountWritable(layers, 'container')
      const spec = specOf(options, image, store, { root: root.fd, args, limits })
      signal.throwIfAborted()
      const started = runContainer(spec)
      redirect(signalsFor(started))
      const container = await started
      const exit = await container.exited
      if (exit.oomKilled && limits.memoryBytes !== undefined)
        say(`tbuild: ${args[0]} ${memoryLimitMessage(limits.memoryBytes)}`)
      return exit.exitCode
    })
    return status
  },
})

/** Docker's rules: ENTRYPOINT then CMD; a command replaces CMD; `--entrypoint` replaces ENTRYPOINT and drops CMD. */
function argsOf(
  options: Values<typeof OPTIONS>,
  config: ContainerConfig,
  command: readonly string[],
): readonly string[] {
  const { entrypoint } = options
  const args =
    entrypoint === undefined
      ? [...(config.Entrypoint ?? []), ...(command.length > 0 ? command : (config.Cmd ?? []))]
      : [...(entrypoint === '' ? [] : [entrypoint]), ...command]
  if (args.length > 0) return args
  throw new TbuildError('COMMAND_MISSING', 'The image names no command to run, and none was given.', {
    hint: 'tbuild run IMAGE COMMAND',
  })
}

function specOf(
  options: Values<typeof OPTIONS>,
  image: Image,
  store: Store,
  what: Pick<ContainerSpec, 'root' | 'args' | 'limits'>,
): ContainerSpec {
  const config = image.config.config ?? {}
  const network = options.network === 'none' ? 'none' : 'host'
  const user = options.user ?? config.User ?? ''
  // Docker: with the host's network goes the host's name, else a container has its id's first digits.
  const name = options.hostname ?? (network === 'host' ? hostname() : shortId(image.id))
  const lease = store.lease()
  return {
    ...what,
    env: environment(options, config, { hostname: name, home: () => resolveUser(what.root, user).home }),
    cwd: options.workdir ?? (config.WorkingDir || '/'),
    user,
    hostname: name,
    network,
    readonlyEtcFiles: false,
    stdio: { stdin: options.interactive ? 'inherit' : 'ignore', stdout: 'inherit', stderr: 'inherit' },
    tty: options.tty,
    scope: lease.scope,
    inheritFds: [lease.fd],
  }
}

/** Later ones win: our defaults, the image's, files, `-e`. */
function environment(
  options: Values<typeof OPTIONS>,
  config: ContainerConfig,
  defaults: { readonly hostname: string; readonly home: () => string },
): string[] {
  const env = new Map([
    ['PATH', DEFAULT_PATH],
    ['HOSTNAME', defaults.hostname],
    ...(options.tty ? [['TERM', 'xterm'] as const] : []),
  ])
  const set = ([key, value]: readonly [string, string | undefined]): void => {
    const found = value ?? process.env[key]
    if (found !== undefined) env.set(key, found)
  }
  for (const entry of config.Env ?? []) {
    const [key, value] = parsePair(entry, 'Env')
    set([key, value ?? ''])
  }
  for (const file of options['env-file'])
    for (const line of linesOf(file)) set(parsePair(line, `--env-file ${file}`))
  for (const text of options.env) set(parsePair(text, '--env'))
  if (!env.has('HOME')) env.set('HOME', defaults.home())
  return [...env].map(([key, value]) => `${key}=${value}`)
}

function linesOf(file: string): string[] {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new UsageError('OPTION_VALUE', `--env-file ${file} cannot be read.`, { hint: String(error) })
  }
  return text
    .split('\n')
    .map((line) => line.trimStart().replace(/\r$/, ''))
    .filter((line) => line !== '' && !line.startsWith('#'))
}

const MOST_SIGNALS = 3

/**
 * Signals for a command that may not have begun yet: what comes before it has is kept for it. PID 1 of a container gets only
 * those that it has a handler for, so the third SIGINT or SIGTERM kills it, as in docker.
 */
function signalsFor(started: Promise<Container>): (signal: NodeJS.Signals) => void {
  let asked = 0
  return (signal) => {
    if (signal === 'SIGINT' || signal === 'SIGTERM') asked++
    const sent = asked >= MOST_SIGNALS ? 'SIGKILL' : signal
    started.then((container) => container.kill(sent)).catch(() => {}) // reported to whoever starts it
  }
}
