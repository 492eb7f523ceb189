/** What the launcher reports: packets as in `struct record` of launcher.h. */
import type { Readable } from 'node:stream'
import { TbuildError } from '../errors.ts'
import { errnoName } from '../linux/index.ts'
import type { ContainerSpec } from './spec.ts'
import { ulimitError } from './ulimits.ts'

export interface Failed {
  readonly kind: 'failed'
  /** E.g. `pivot_root`. */
  readonly step: string
  readonly errno: number
}
export interface Ended {
  readonly kind: 'ended'
  /** As wait(2) gives it. */
  readonly status: number
  readonly cpuMicros: number
  readonly peakMemoryBytes: number
}
export type LauncherRecord = { readonly kind: 'started' } | Failed | Ended

const SIZE = 96

/** Calls `handle` for each record that arrives. */
export function readRecords(stream: Readable, handle: (record: LauncherRecord) => void): void {
  let pending = Buffer.alloc(0)
  stream.on('data', (bytes: Buffer) => {
    pending = Buffer.concat([pending, bytes])
    while (pending.length >= SIZE) {
      handle(decode(pending.subarray(0, SIZE)))
      pending = pending.subarray(SIZE)
    }
  })
  // EPIPE, ECONNRESET: the launcher ended first. Its records, or the lack of them, tell the rest.
  stream.on('error', () => {})
}

function decode(bytes: Buffer): LauncherRecord {
  const kind = String.fromCharCode(bytes.readInt32LE(0))
  const value = bytes.readInt32LE(4)
  if (kind === 'S') return { kind: 'started' }
  if (kind === 'E') {
    const text = bytes.toString('utf8', 32, SIZE)
    return { kind: 'failed', step: text.slice(0, text.indexOf('\0')), errno: value }
  }
  const at = (offset: number): number => Number(bytes.readBigInt64LE(offset))
  return { kind: 'ended', status: value, cpuMicros: at(8) + at(16), peakMemoryBytes: at(24) * 1024 }
}

export function launchError({ step, errno }: Failed, spec: ContainerSpec): TbuildError {
  const code = errnoName(errno)
  const command = spec.args[0] ?? ''
  const cause = new Error(`${step}: ${code}`)
  const missing = code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'ENAMETOOLONG'
  if (step === 'chdir') {
    const why = missing ? (code === 'ENOENT' ? 'no such directory' : 'not a directory') : code
    return new TbuildError('CWD_MISSING', `Working directory ${spec.cwd}: ${why}`, { cause })
  }
  if (step === 'search' && code === 'ENOENT') {
    return new TbuildError('COMMAND_NOT_FOUND', `exec: "${command}": executable file not found in $PATH`, {
      cause,
    })
  }
  if (step === 'exec' || step === 'search') {
    if (missing) {
      return new TbuildError('COMMAND_NOT_FOUND', `exec: "${command}": no such file or directory`, { cause })
    }
    const why = reasons[code] ?? code
    return new TbuildError('COMMAND_NOT_EXECUTABLE', `exec: "${command}": ${why}`, { cause })
  }
  if (code === 'EINVAL' && OF_IDS.has(step)) {
    const message = `The user or a group of the container is one that this user namespace does not have (${step}: ${code}).`
    const hint =
      'More subordinate ids for this user in /etc/subuid and /etc/subgid: see usermod(8), --add-subuids.'
    return new TbuildError('OWNER_NOT_MAPPED', message, { hint, cause })
  }
  if (step.startsWith('ulimit ')) return ulimitError(step.slice('ulimit '.length), code, spec)
  const hint = step === 'mount /proc' && code === 'EPERM' ? MASKED_PROC : undefined
  return new TbuildError('LAUNCH_FAILED', `The container could not be set up: ${step}: ${code}`, {
    cause,
    hint,
  })
}

const MASKED_PROC =
  'In a user namespace the kernel allows it only where nothing of /proc is masked, as in containers: docker run --security-opt systempaths=unmasked, podman run --security-opt unmask=ALL. COPY, ADD, WORKDIR and all else that runs nothing work without.'

const OF_IDS: ReadonlySet<string> = new Set([
  'chown stdio',
  'chown /dev/pts/0',
  'setgroups',
  'setresgid',
  'setresuid',
])

const reasons: Readonly<Record<string, string>> = {
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  ENOEXEC: 'exec format error',
  E2BIG: 'argument list too long',
}
