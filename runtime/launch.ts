/** The launcher's program, and the spec in the form it reads (launcher/spec.c). */
import { closeSync, existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { TbuildError } from '../errors.ts'
import {
  AT_FDCWD,
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_RDONLY,
  openTree,
  setMountAttributes,
} from '../linux/index.ts'
import type { EtcFile } from './etc-files.ts'
import type { ContainerSpec } from './spec.ts'
import { encodeUlimit, isUlimit } from './ulimits.ts'
import type { ResolvedUser } from './user.ts'

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NUL = Buffer.alloc(1)
const DEFAULT_SHM_BYTES = 64 * 1024 * 1024

/**
 * The launcher beside the package: found by walking up, so that it works from the sources and from a bundle.
 * @throws TbuildError `LAUNCHER_MISSING`
 */
export function launcherPath(): string {
  const start = dirname(fileURLToPath(import.meta.url))
  for (let folder = start; ; folder = dirname(folder)) {
    const path = join(folder, 'runtime/launcher/launcher')
    if (existsSync(path)) return path
    if (folder === dirname(folder)) break
  }
  throw new TbuildError(
    'LAUNCHER_MISSING',
    'The launcher (runtime/launcher/launcher) has not been compiled.',
    {
      hint: 'apt-get install gcc make libc6-dev, then: make -C runtime/launcher',
    },
  )
}

let program: number | undefined

/**
 * A name to execute the launcher by: a read-only clone of its mount. A hostile image can name `/proc/self/exe` as its
 * command's interpreter and so come by a descriptor of the launcher; through this mount it can never be written
 * (CVE-2019-5736 was that).
 */
export function launcherProgram(): string {
  if (program === undefined) {
    const clone = openTree(AT_FDCWD, launcherPath(), { clone: true })
    try {
      setMountAttributes(clone, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV)
    } catch (error) {
      closeSync(clone)
      throw error
    }
    program = clone
  }
  // Not /proc/self: in the child the number may mean another file by the time of exec.
  return `/proc/${process.pid}/fd/${program}`
}

export interface LaunchDetails {
  /** Descriptors as numbered in the launcher. */
  readonly root: number
  /** v2, or -1. */
  readonly cgroup: number
  /** v1. */
  readonly tasks: readonly number[]
  readonly etc: readonly EtcFile[]
  readonly mounts: readonly {
    readonly fd: number
    /** Byte strings: what of it is mounted, and where. */
    readonly path: string
    readonly target: string
    /** `MOUNT_ATTR_*`. */
    readonly attributes: number
  }[]
  readonly filter: Uint8Array
}

export function encodeSpec(spec: ContainerSpec, user: ResolvedUser, details: LaunchDetails): Buffer {
  const path = spec.env.findLast((entry) => entry.startsWith('PATH='))?.slice(5) ?? DEFAULT_PATH
  const fields: (string | number | Buffer)[] = [
    process.pid,
    details.root,
    details.cgroup,
    ...list(details.tasks),
    Number(spec.network === 'none'),
    Number(spec.tty),
    Number(spec.readonlyEtcFiles),
    `mode=1777,size=${spec.shmBytes ?? DEFAULT_SHM_BYTES}`,
    user.uid,
    user.gid,
    ...list(user.groups),
    spec.ulimits?.length ?? 0,
    ...(spec.ulimits ?? []).flatMap(encodeUlimit),
    spec.hostname,
    spec.cwd,
    path,
    ...details.etc.flatMap(({ target, name, content }) => [target, name, content]),
    details.mounts.length,
    ...details.mounts.flatMap(({ fd, path: source, target, attributes }) => [
      fd,
      Buffer.from(source, 'latin1'),
      Buffer.from(target, 'latin1'),
      attributes,
    ]),
    ...list(spec.args),
    ...list(spec.env),
    details.filter.length / 8,
  ]
  const text = Buffer.concat(
    fields.flatMap((field) => [Buffer.isBuffer(field) ? field : Buffer.from(String(field)), NUL]),
  )
  const length = Buffer.alloc(4)
  length.writeUInt32LE(text.length + details.filter.length)
  return Buffer.concat([length, text, details.filter])
}

function list(values: readonly (string | number)[]): (string | number)[] {
  return [values.length, ...values]
}

/** What no system call could take. @throws TbuildError `SPEC_INVALID` */
export function checkSpec(spec: ContainerSpec): void {
  if (spec.args.length === 0) invalid('There is no command to run.')
  const extra = (spec.extraHosts ?? []).flat()
  const targets = (spec.mounts ?? []).map(({ target }) => target)
  const texts = [...spec.args, ...spec.env, spec.cwd, spec.hostname, ...extra, ...targets]
  const bad = texts.find((text) => text.includes('\0'))
  if (bad !== undefined) invalid(`A NUL byte in ${JSON.stringify(bad.slice(0, 80))}`)
  if (Buffer.byteLength(spec.hostname) > 64)
    invalid(`The host name ${spec.hostname} is longer than 64 bytes.`)
  if (/[\r\n]/.test([spec.hostname, ...extra].join(' ')))
    invalid('A line break in a host name or host entry.')
  const ulimit = spec.ulimits?.find((one) => !isUlimit(one))
  if (ulimit !== undefined) invalid(`The limit ${JSON.stringify(ulimit)} cannot be set.`)
  if (!spec.cwd.startsWith('/')) invalid(`The working directory ${JSON.stringify(spec.cwd)} is not absolute.`)
}

function invalid(what: string): never {
  throw new TbuildError('SPEC_INVALID', what)
}
