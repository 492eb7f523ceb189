/** What the container of each RUN is like: `--add-host`, `--shm-size`, `--ulimit`, `--cgroup-parent`, all as docker writes them. */
import { isIP } from 'node:net'
import type { ContainerOptions } from '../../builder/index.ts'
import type { Ulimit, UlimitName } from '../../runtime/index.ts'
import { didYouMean } from './suggest.ts'
import { UsageError } from './usage-error.ts'
import { parseSize } from './values.ts'

/** Their units. */
const ULIMITS: Readonly<Record<UlimitName, string>> = {
  core: 'bytes',
  cpu: 'seconds',
  data: 'bytes',
  fsize: 'bytes',
  locks: 'locks',
  memlock: 'bytes',
  msgqueue: 'bytes',
  nice: '20 minus the priority',
  nofile: 'files',
  nproc: 'processes',
  rss: 'bytes',
  rtprio: 'priority',
  rttime: 'microseconds',
  sigpending: 'signals',
  stack: 'bytes',
}

/** @throws UsageError `OPTION_VALUE` */
export function parseContainerOptions(options: {
  readonly 'add-host': readonly string[]
  readonly 'shm-size': string | undefined
  readonly ulimit: readonly string[]
  readonly 'cgroup-parent': string | undefined
}): ContainerOptions {
  const hosts = options['add-host'].flatMap(parseHost)
  // Of a limit that is given twice the last one counts.
  const ulimits = new Map(options.ulimit.map(parseUlimit).map((limit) => [limit.name, limit]))
  return {
    ...(hosts.length > 0 && { extraHosts: hosts }),
    ...(options['shm-size'] !== undefined && { shmBytes: parseSize(options['shm-size'], '--shm-size') }),
    ...(ulimits.size > 0 && { ulimits: [...ulimits.values()] }),
    ...(options['cgroup-parent'] && { cgroupParent: options['cgroup-parent'] }),
  }
}

/** `NAME=ADDRESS` or `NAME:ADDRESS`; several addresses with commas, in brackets or not. */
function parseHost(text: string): (readonly [address: string, name: string])[] {
  const at = text.includes('=') ? text.indexOf('=') : text.indexOf(':')
  const name = text.slice(0, Math.max(at, 0))
  const addresses = text
    .slice(at + 1)
    .split(',')
    .map((address) => address.replace(/^\[(.*)\]$/, '$1'))
    // RUN has the network of this machine: that is where it is.
    .map((address) => (address === 'host-gateway' ? '127.0.0.1' : address))
  if (name === '' || /[\s#\p{Cc}]/u.test(name) || addresses.some((address) => isIP(address) === 0))
    throw new UsageError(
      'OPTION_VALUE',
      `--add-host: ${JSON.stringify(text)} is not a name and an address.`,
      {
        hint: 'e.g. --add-host db.example=10.0.0.5, or --add-host host.docker.internal=host-gateway',
      },
    )
  return addresses.map((address) => [address, name] as const)
}

function parseUlimit(text: string): Ulimit {
  const [, given = '', softText = '', hardText] = /^([^=]*)=([^:]*)(?::(.*))?$/.exec(text) ?? []
  const name = Object.keys(ULIMITS).find((one): one is UlimitName => one === given)
  if (name === undefined)
    throw new UsageError('OPTION_VALUE', `--ulimit: ${JSON.stringify(text)} names no limit.`, {
      hint:
        didYouMean(given, Object.keys(ULIMITS)) ??
        `NAME=SOFT[:HARD], NAME one of ${Object.keys(ULIMITS).join(', ')}`,
    })
  const soft = parseLimit(softText)
  const hard = hardText === undefined ? soft : parseLimit(hardText)
  if (soft === undefined || hard === undefined)
    throw new UsageError('OPTION_VALUE', `--ulimit: ${JSON.stringify(text)} has no whole number.`, {
      hint: `e.g. --ulimit ${name}=1024:4096 (${ULIMITS[name]}); -1 is no limit`,
    })
  if (soft > hard)
    throw new UsageError(
      'OPTION_VALUE',
      `--ulimit: the soft limit of ${JSON.stringify(text)} is above the hard one.`,
    )
  return { name, soft, hard }
}

function parseLimit(text: string): number | undefined {
  if (text === '-1') return Infinity
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN
  return Number.isSafeInteger(value) ? value : undefined
}
