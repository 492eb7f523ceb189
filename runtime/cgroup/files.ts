/** What both versions do with a cgroup's directory. */
import { readFileSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs'
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

export function listOurs(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => name.startsWith(PREFIX))
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EACCES')) return []
    throw error
  }
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
