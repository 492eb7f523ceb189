/** Limits of a container's processes, setrlimit(2): their names as docker has them, and what to say when one is refused. */
import { readFileSync } from 'node:fs'
import { TbuildError } from '../errors.ts'
import type { ContainerSpec, Ulimit, UlimitName } from './spec.ts'

/** Their numbers, which are those of the lines of /proc/PID/limits too. */
const NUMBERS: Readonly<Record<UlimitName, number>> = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
}

/** As launcher/spec.c reads one: -1 is no limit. */
export function encodeUlimit({ name, soft, hard }: Ulimit): (string | number)[] {
  return [name, NUMBERS[name], encoded(soft), encoded(hard)]
}

function encoded(value: number): number {
  return value === Infinity ? -1 : value
}

export function isUlimit({ name, soft, hard }: Ulimit): boolean {
  return Object.hasOwn(NUMBERS, name) && isValue(soft) && isValue(hard) && soft <= hard
}

function isValue(value: number): boolean {
  return value === Infinity || (Number.isSafeInteger(value) && value >= 0)
}

/** The launcher could not set it. */
export function ulimitError(name: string, code: string, { ulimits = [] }: ContainerSpec): TbuildError {
  const wanted = ulimits.find((one) => one.name === name)
  const most = wanted && ownHardLimit(wanted.name)
  const value = wanted === undefined || wanted.hard === Infinity ? 'unlimited' : String(wanted.hard)
  const reach = most === undefined ? '' : `, and this process has at most ${most}`
  return new TbuildError(
    'ULIMIT_DENIED',
    code === 'EPERM'
      ? `The hard limit ${name} cannot be ${value}: raising it needs CAP_SYS_RESOURCE${reach}.`
      : `The limit ${name} cannot be ${value}: ${code}.`,
    { hint: most === undefined ? `give a lower --ulimit ${name}` : `give --ulimit ${name}=${most} or less` },
  )
}

/** proc_pid_limits(5): a head line, then one of fixed columns for each limit in the order of their numbers. */
function ownHardLimit(name: UlimitName): string | undefined {
  try {
    const line = readFileSync('/proc/self/limits', 'utf8').split('\n')[NUMBERS[name] + 1]
    const hard = line?.slice(47, 68).trim()
    return hard === 'unlimited' ? '-1' : hard
  } catch {
    // No /proc: then without the number.
    return undefined
  }
}
