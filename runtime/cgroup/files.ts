/** What both versions do with a cgroup's directory. */
import { mkdirSync, readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { TbuildError } from '../../errors.ts'
import { isErrno } from '../../linux/index.ts'

export const PREFIX = 'tbuild-'

export function write(directory: string, file: string, value: string | number): void {
  writeFileSync(`${directory}/${file}`, String(value), { flag: 'w' })
}

export function read(directory: string, file: string): string | undefined {
  try {
    return readFileSync(`${directory}/${file}`, 'utf8').trim()
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EOPNOTSUPP')) return undefined
    throw error
  }
}

export function readNumber(directory: string, file: string): number | undefined {
  const text = read(directory, file)
  return text === undefined || !/^\d+$/.test(text) ? undefined : Number(text)
}

/** A value of a "key value" file such as memory.events. */
export function readKey(directory: string, file: string, key: string): number | undefined {
  const line = read(directory, file)
    ?.split('\n')
    .find((entry) => entry.startsWith(`${key} `))
  return line === undefined ? undefined : Number(line.slice(key.length + 1))
}

/**
 * Ours, wherever they are in a hierarchy: by name those in the usual place (a path below the root; '' is the root itself), by their path with a `/` before it
 * those below another parent. What lies in them is not looked at.
 */
export function listOurs(root: string, usual: string): string[] {
  const found: string[] = []
  const pending = ['']
  for (let at = pending.pop(); at !== undefined; at = pending.pop()) {
    for (const entry of directoriesOf(`${root}${at}`)) {
      if (!/^tbuild-.*-\d+-\d+$/.test(entry)) pending.push(`${at}/${entry}`)
      else found.push(at === usual ? entry : `${at}/${entry}`)
    }
  }
  return found
}

function directoriesOf(path: string): string[] {
  try {
    const entries = readdirSync(path, { withFileTypes: true })
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return []
    throw error
  }
}

/** As below the root of a hierarchy: `a/b`; '' is the root itself. @throws TbuildError `CGROUP_PARENT` */
export function parentPath(given: string): string {
  const parts = given.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..') || given.includes('\0')) throw noParent(given, 'it is not a path in a hierarchy')
  return parts.join('/')
}

/** Makes it, as other runtimes do. */
export function makeParent(root: string, parent: string): void {
  try {
    mkdirSync(`${root}/${parent}`, { recursive: true })
  } catch (error) {
    throw noParent(parent, error instanceof Error ? error.message : String(error))
  }
}

export function noParent(parent: string, why: string): TbuildError {
  return new TbuildError(
    'CGROUP_PARENT',
    `The cgroup ${JSON.stringify(parent)} cannot be a parent: ${why}.`,
    {
      hint: 'give a path in the cgroup hierarchies, e.g. /jobs/nightly, that this user may make cgroups in',
    },
  )
}

/**
 * Remove a cgroup; kill what is in it first. EBUSY lasts until the last process has been taken out of its css_set, a
 * moment after it was waited for.
 */
export async function removeDirectory(directory: string): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      rmdirSync(directory)
      return
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return
      if (!isErrno(error, 'EBUSY') || tries > 500) throw error
    }
    killAll(directory)
    await setTimeout(tries < 10 ? 1 : 10)
  }
}

function killAll(directory: string): void {
  for (const pid of read(directory, 'cgroup.procs')?.split('\n') ?? []) {
    try {
      if (Number(pid) > 0) process.kill(Number(pid), 'SIGKILL')
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error
    }
  }
}

export function unavailable(limit: string, why: string): TbuildError {
  return new TbuildError('LIMITS_UNAVAILABLE', `The ${limit} limit cannot be set: ${why}.`, {
    hint: 'Run without it, or as root on a machine where the controller is enabled.',
  })
}
