/**
 * Where mounts that were asked for go. The image is hostile, and what is mounted may be, too: a target is walked through the root by hand, symlinks
 * included, as far as the first mount that lies on its way; below that no symlink is followed. What comes out has no symlinks, and the launcher
 * opens it so.
 */
import { closeSync, constants, fstatSync } from 'node:fs'
import { TbuildError } from '../errors.ts'
import {
  isErrno,
  O_PATH,
  openat2,
  readlinkat,
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
} from '../linux/index.ts'
import type { OpenMount } from './mounts.ts'
import { make, type Made } from './stubs.ts'

const { O_DIRECTORY, O_NOFOLLOW, S_IFDIR, S_IFMT } = constants
const BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
// As path_resolution(7) allows.
const MOST_SYMLINKS = 40
/** What the container has of its own; /dev/shm alone can be replaced. */
const OWN = new Set(['proc', 'sys', 'dev'])
const REPLACEABLE = 'dev/shm'

/** Where a mount goes: names from the root, or from an earlier mount that it lies in. */
interface Place {
  readonly names: readonly string[]
  readonly outer: { readonly index: number; readonly names: readonly string[] } | undefined
}

/** @throws TbuildError `MOUNT_TARGET` for a place where nothing can be mounted */
export function makeTargets(root: number, mounts: readonly OpenMount[], made: Made[]): string[] {
  const done: string[] = []
  for (const mount of mounts) {
    const { names, outer } = resolve(root, mount.target, done)
    const path = `/${[...names, ...(outer?.names ?? [])].join('/')}`
    if (path === '/') throw refused(mount.target, 'it is the root itself')
    if (outer !== undefined) {
      const over = mounts[outer.index]
      if (over !== undefined) makeInMount(over, outer.names, mount)
    } else if (names.join('/') !== REPLACEABLE) {
      if (OWN.has(names[0] ?? '')) throw refused(mount.target, `/${names[0]} is the container's own`)
      makeAll(root, names, mount, made)
    }
    done.push(path)
  }
  return done
}

/** `earlier`: where the mounts before this one went. */
function resolve(root: number, target: string, earlier: readonly string[]): Place {
  const pending = Buffer.from(target).toString('latin1').split('/').toReversed()
  const names: string[] = []
  let symlinks = 0
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (name === '' || name === '.') continue
    if (name === '..') {
      names.pop()
      continue
    }
    names.push(name)
    const index = earlier.lastIndexOf(`/${names.join('/')}`)
    if (index >= 0) {
      const rest = pending.toReversed().filter((part) => part !== '' && part !== '.')
      if (rest.includes('..')) throw refused(target, 'a symbolic link leads out of another mount')
      return { names, outer: { index, names: rest } }
    }
    const link = readLink(root, names)
    if (link === undefined) continue
    if (++symlinks > MOST_SYMLINKS) throw refused(target, 'there are too many symbolic links')
    names.pop()
    if (link.startsWith('/')) names.length = 0
    pending.push(...link.split('/').toReversed())
  }
  return { names, outer: undefined }
}

/** `undefined` for what is no symlink, or not there. No name above it is a symlink. */
function readLink(root: number, names: readonly string[]): string | undefined {
  let parent: number
  try {
    parent = openat2(root, bytes(names.slice(0, -1).join('/') || '.'), {
      flags: O_PATH | O_DIRECTORY,
      resolve: BENEATH,
    })
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ENAMETOOLONG')) return undefined
    throw error
  }
  try {
    return readlinkat(parent, bytes(names.at(-1) ?? '')).toString('latin1')
  } catch (error) {
    if (isErrno(error, 'EINVAL', 'ENOENT', 'ENAMETOOLONG')) return undefined
    throw error
  } finally {
    closeSync(parent)
  }
}

/** What is made in another mount stays there: it is in a cache, or goes with the mount. */
function makeInMount(outer: OpenMount, names: readonly string[], mount: OpenMount): void {
  if (names.length === 0) {
    if (outer.isDirectory !== mount.isDirectory) throw mismatch(mount)
    return
  }
  if (!outer.isDirectory) throw refused(mount.target, 'it lies in a file that is mounted')
  const made: Made[] = []
  const top = openat2(outer.fd, bytes(outer.path === '' ? '.' : outer.path), {
    flags: O_PATH | O_DIRECTORY,
    resolve: BENEATH,
  })
  try {
    makeAll(top, names, mount, made)
  } finally {
    closeSync(top)
    for (const { self, parent } of made) {
      closeSync(self)
      closeSync(parent)
    }
  }
}

/** None of the names may be a symlink. */
function makeAll(from: number, names: readonly string[], mount: OpenMount, made: Made[]): void {
  let at = openat2(from, '.', { flags: O_PATH | O_DIRECTORY, resolve: RESOLVE_IN_ROOT })
  try {
    for (const [index, name] of names.entries()) {
      const isDirectory = mount.isDirectory || index < names.length - 1
      const next = enter(at, name, isDirectory, mount, made)
      closeSync(at)
      at = next
    }
  } finally {
    closeSync(at)
  }
}

function enter(at: number, name: string, isDirectory: boolean, mount: OpenMount, made: Made[]): number {
  const open = (): number => openat2(at, bytes(name), { flags: O_PATH | O_NOFOLLOW, resolve: BENEATH })
  let fd: number
  try {
    fd = openOrUndefined(open) ?? makeAndOpen(at, name, isDirectory, made, open)
  } catch (error) {
    if (isErrno(error, 'ELOOP'))
      throw refused(mount.target, 'it leads through a symbolic link in another mount')
    if (isErrno(error, 'EROFS')) throw refused(mount.target, 'it is not there, and cannot be made')
    if (isErrno(error, 'ENAMETOOLONG')) throw refused(mount.target, 'its name is too long')
    throw error
  }
  const type = Number(fstatSync(fd, { bigint: true }).mode) & S_IFMT
  if ((type === S_IFDIR) === isDirectory && type !== constants.S_IFLNK) return fd
  closeSync(fd)
  throw type === constants.S_IFLNK
    ? refused(mount.target, 'it leads through a symbolic link in another mount')
    : mismatch(mount)
}

function openOrUndefined(open: () => number): number | undefined {
  try {
    return open()
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
}

function makeAndOpen(
  at: number,
  name: string,
  isDirectory: boolean,
  made: Made[],
  open: () => number,
): number {
  make(openat2(at, '.', { flags: O_PATH | O_DIRECTORY }), bytes(name), isDirectory, made)
  return open()
}

function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

function refused(target: string, why: string): TbuildError {
  return new TbuildError('MOUNT_TARGET', `Nothing can be mounted at ${target}: ${why}.`, {
    hint: 'Choose another target.',
  })
}

function mismatch({ target, isDirectory }: OpenMount): TbuildError {
  return isDirectory
    ? refused(target, 'a directory cannot be mounted on a file, or below one')
    : refused(target, 'a file cannot be mounted on a directory, or below a file')
}
