/** USER and `-u`: names and numbers, looked up in the root's own /etc/passwd and /etc/group. */
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { TbuildError } from '../errors.ts'
import { isErrno, O_PATH, openat2, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS } from '../linux/index.ts'

export interface ResolvedUser {
  readonly uid: number
  readonly gid: number
  /** Supplementary groups, the primary one first. */
  readonly groups: readonly number[]
  /** `/` when the user is not in /etc/passwd. */
  readonly home: string
  readonly name?: string
}

interface Entry {
  readonly name: string
  readonly fields: readonly string[]
}

// A site with 100,000 users has a file of about 8 MB.
const MOST_BYTES = 16 * 1024 * 1024
const MOST_GROUPS = 65536
const MOST_ID = 0xfffffffe

/**
 * `''` is root. A number need not be listed; a name must be. With a group given there are no supplementary groups
 * beyond it. (Docker's rules.)
 * @throws TbuildError `USER_UNKNOWN`, `USER_DATABASE_INVALID` (not a regular file, or over 16 MiB)
 */
export function resolveUser(root: number, user: string): ResolvedUser {
  const colon = user.indexOf(':')
  const wanted = (colon < 0 ? user : user.slice(0, colon)) || '0'
  const wantedGroup = colon < 0 ? '' : user.slice(colon + 1)
  const uid = idOf(wanted)
  const found = entries(root, 'etc/passwd').find(
    ({ name, fields }) => name === wanted || (uid !== undefined && idOf(fields[2]) === uid),
  )
  const resolvedUid = idOf(found?.fields[2]) ?? uid
  if (resolvedUid === undefined) {
    throw new TbuildError(
      'USER_UNKNOWN',
      `There is no user ${JSON.stringify(wanted)} in the image's /etc/passwd.`,
    )
  }
  const home = found?.fields[5] || '/'
  const common = { uid: resolvedUid, home, ...(found === undefined ? {} : { name: found.name }) }
  if (wantedGroup !== '') {
    const gid = resolveGroup(root, wantedGroup)
    return { ...common, gid, groups: [gid] }
  }
  const gid = idOf(found?.fields[3]) ?? 0
  const groups = new Set([gid])
  if (found !== undefined) {
    for (const { fields } of entries(root, 'etc/group')) {
      const id = idOf(fields[2])
      if (id === undefined || fields[3] === undefined) continue
      if (fields[3].split(',').includes(found.name) && groups.size < MOST_GROUPS) groups.add(id)
    }
  }
  return { ...common, gid, groups: [...groups] }
}

function resolveGroup(root: number, wanted: string): number {
  const gid = idOf(wanted)
  const found = entries(root, 'etc/group').find(
    ({ name, fields }) => name === wanted || (gid !== undefined && idOf(fields[2]) === gid),
  )
  const resolved = idOf(found?.fields[2]) ?? gid
  if (resolved !== undefined) return resolved
  throw new TbuildError(
    'USER_UNKNOWN',
    `There is no group ${JSON.stringify(wanted)} in the image's /etc/group.`,
  )
}

function idOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d{1,10}$/.test(text)) return undefined
  const id = Number(text)
  return id <= MOST_ID ? id : undefined
}

/** Lines that are neither empty nor comments, split at colons; none when the file is missing. */
function entries(root: number, path: string): Entry[] {
  const text = readBounded(root, path)
  const list: Entry[] = []
  for (const line of text.split('\n')) {
    const fields = line.trim().split(':')
    if (fields[0] !== undefined && fields[0] !== '' && !fields[0].startsWith('#')) {
      list.push({ name: fields[0], fields })
    }
  }
  return list
}

/** Looked at with O_PATH first: opening a fifo would wait for a writer, opening a device may do anything. */
function readBounded(root: number, path: string): string {
  let handle: number
  try {
    handle = openat2(root, path, { flags: O_PATH, resolve: RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS })
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return ''
    if (isErrno(error, 'ELOOP')) throw invalid(path, 'a loop of symbolic links')
    throw error
  }
  try {
    const info = fstatSync(handle)
    if (!info.isFile()) throw invalid(path, 'not a regular file')
    if (info.size > MOST_BYTES) throw invalid(path, `larger than ${MOST_BYTES / 1024 / 1024} MiB`)
    const fd = openSync(`/proc/self/fd/${handle}`, constants.O_RDONLY)
    try {
      const bytes = Buffer.alloc(info.size)
      let length = 0
      for (let n = -1; n !== 0 && length < bytes.length; length += n)
        n = readSync(fd, bytes, length, bytes.length - length, null)
      return bytes.toString('utf8', 0, length)
    } finally {
      closeSync(fd)
    }
  } finally {
    closeSync(handle)
  }
}

function invalid(path: string, what: string): TbuildError {
  return new TbuildError('USER_DATABASE_INVALID', `/${path} in the image is ${what}.`)
}
