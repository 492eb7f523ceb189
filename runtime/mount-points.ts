/**
 * What must exist in a root to be mounted on: /proc, /sys, /dev, three files of /etc, and the targets of mounts that were asked for (targets.ts). What the
 * root lacks is made before the launch and taken away afterwards, with the times of its parents put back, so that a
 * snapshot never shows it. On an overlay the parents are still copied up, unchanged.
 *
 * The root is hostile: every name is resolved by the kernel inside it (RESOLVE_IN_ROOT).
 */
import { closeSync, constants, fstatSync, readlinkSync } from 'node:fs'
import { TbuildError } from '../errors.ts'
import {
  isErrno,
  O_PATH,
  openat2,
  readlinkat,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
} from '../linux/index.ts'
import type { OpenMount } from './mounts.ts'
import { make, removeAll, type Made } from './stubs.ts'
import { makeTargets } from './targets.ts'

const IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
const { O_DIRECTORY, O_NOFOLLOW, S_IFDIR, S_IFLNK, S_IFMT } = constants
// As path_resolution(7) allows.
const MOST_SYMLINKS = 40

export interface MountPoints extends Disposable {
  /** The files' names with every symlink resolved; '' when one lies where the container has a mount of its own. */
  readonly etc: { readonly resolvConf: string; readonly hosts: string; readonly hostname: string }
  /** Of each mount, without symlinks, a byte string with a leading `/`. */
  readonly targets: readonly string[]
}

/** @throws TbuildError `ROOT_INVALID` when the root has something else in their place, `MOUNT_TARGET` */
export function makeMountPoints(root: number, mounts: readonly OpenMount[] = []): MountPoints {
  const made: Made[] = []
  const remove = (): void => removeAll(made)
  try {
    for (const name of ['proc', 'sys', 'dev']) makeDirectory(root, name, made)
    const etc = {
      resolvConf: makeFile(root, 'etc/resolv.conf', made),
      hosts: makeFile(root, 'etc/hosts', made),
      hostname: makeFile(root, 'etc/hostname', made),
    }
    return {
      etc,
      targets: makeTargets(root, mounts, made),
      [Symbol.dispose]: remove,
    }
  } catch (error) {
    remove()
    throw error
  }
}

/** A directory of the root itself, never reached over a symlink: mounting there must not land elsewhere. */
function makeDirectory(root: number, name: string, made: Made[]): void {
  let fd: number
  try {
    fd = openat2(root, name, { flags: O_PATH | O_NOFOLLOW, resolve: IN_ROOT })
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error
    make(openat2(root, '.', { flags: O_PATH | O_DIRECTORY, resolve: IN_ROOT }), name, true, made)
    return
  }
  const type = Number(fstatSync(fd, { bigint: true }).mode) & S_IFMT
  closeSync(fd)
  if (type === S_IFDIR) return
  throw invalid(`/${name}`, type === S_IFLNK ? 'a symbolic link' : 'not a directory')
}

/** A file, over symlinks if need be, with the directories above it. Its name without symlinks. */
function makeFile(root: number, path: string, made: Made[]): string {
  const fd = reach(root, path, false, made, { symlinks: 0 })
  try {
    if ((Number(fstatSync(fd, { bigint: true }).mode) & S_IFMT) === S_IFDIR)
      throw invalid(`/${path}`, 'a directory')
    // The name inside the detached mount, which is the name inside the container.
    const resolved = readlinkSync(`/proc/self/fd/${fd}`)
    return /^\/(proc|sys|dev)\//.test(resolved) ? '' : resolved
  } finally {
    closeSync(fd)
  }
}

/** An O_PATH descriptor of what `path` leads to, made when it is missing: a dangling symlink gets its target. */
function reach(
  root: number,
  path: string,
  directory: boolean,
  made: Made[],
  walk: { symlinks: number },
): number {
  const open = (): number =>
    openat2(root, path, { flags: O_PATH | (directory ? O_DIRECTORY : 0), resolve: IN_ROOT })
  try {
    return open()
  } catch (error) {
    if (isErrno(error, 'ENOTDIR', 'ELOOP')) throw invalid(`/${path}`, 'not to be reached')
    if (!isErrno(error, 'ENOENT')) throw error
  }
  const clean = path.replace(/\/+$/, '')
  const slash = clean.lastIndexOf('/')
  const name = clean.slice(slash + 1)
  const above = slash < 0 ? '.' : clean.slice(0, slash) || '.'
  if (name === '' || name === '.' || name === '..') throw invalid(`/${path}`, 'a symbolic link to nowhere')
  const parent = reach(root, above, true, made, walk)
  let link: string
  try {
    link = readlinkat(parent, name).toString()
  } catch (error) {
    // ENOENT: nothing there. (EINVAL, no symlink, cannot be: `open` would have succeeded.)
    if (!isErrno(error, 'ENOENT')) {
      closeSync(parent)
      throw error
    }
    make(parent, name, directory, made)
    return open()
  }
  closeSync(parent)
  if (++walk.symlinks > MOST_SYMLINKS) throw invalid(`/${path}`, 'a loop of symbolic links')
  return reach(root, link.startsWith('/') ? `.${link}` : `${above}/${link}`, directory, made, walk)
}

function invalid(path: string, what: string): TbuildError {
  return new TbuildError('ROOT_INVALID', `${path} in the image is ${what}: nothing can be mounted there.`)
}
