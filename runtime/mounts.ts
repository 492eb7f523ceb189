/** Mounts that a caller asks for, as descriptors of detached mounts: the launcher attaches them, for only it is in the container. */
import { closeSync, constants, fchmodSync, fchownSync, fstatSync, writeSync } from 'node:fs'
import {
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  mountTmpfs,
  O_PATH,
  openat2,
  openTree,
  RESOLVE_BENEATH,
  RESOLVE_NO_SYMLINKS,
} from '../linux/index.ts'
import type { ContainerMount } from './spec.ts'

/** A mount that is ready to be attached. */
export interface OpenMount {
  readonly fd: number
  /** What of `fd` is mounted, a byte string; '' is all. */
  readonly path: string
  readonly isDirectory: boolean
  /** As it was asked for. */
  readonly target: string
  /** `MOUNT_ATTR_*`. */
  readonly attributes: number
}

export interface OpenMounts extends Disposable {
  readonly list: readonly OpenMount[]
}

/** Closes what it opened, never what it was given. */
export function openMounts(mounts: readonly ContainerMount[]): OpenMounts {
  const own = new DisposableStack()
  try {
    return { list: mounts.map((mount) => open(mount, own)), [Symbol.dispose]: () => own.dispose() }
  } catch (error) {
    own.dispose()
    throw error
  }
}

function open(mount: ContainerMount, own: DisposableStack): OpenMount {
  const { target } = mount
  // Nothing that a container can write to opens devices: see launcher/mounts.c.
  const attributes = MOUNT_ATTR_NODEV | (mount.readOnly ? MOUNT_ATTR_RDONLY : 0)
  if (mount.kind === 'mount') {
    const { fd, path } = mount
    return { fd, path, isDirectory: path === '' || isDirectory(fd, path), target, attributes }
  }
  if (mount.kind === 'host') {
    const fd = own.adopt(openTree(mount.fd, '', { clone: true }), closeSync)
    return { fd, path: '', isDirectory: fstatSync(fd).isDirectory(), target, attributes }
  }
  if (mount.kind === 'tmpfs') {
    const size = mount.sizeBytes === undefined ? {} : { size: String(mount.sizeBytes) }
    const fd = own.adopt(mountTmpfs({ mode: '1777', ...size }), closeSync)
    return { fd, path: '', isDirectory: true, target, attributes: attributes | MOUNT_ATTR_NOSUID }
  }
  const fd = own.adopt(mountTmpfs({ mode: '700' }), closeSync)
  writeFile(fd, mount)
  const all = attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
  return { fd, path: FILE, isDirectory: false, target, attributes: all }
}

const FILE = 'file'

function writeFile(tmpfs: number, { content, mode, uid, gid }: Extract<ContainerMount, { kind: 'file' }>) {
  const { O_CREAT, O_EXCL, O_WRONLY } = constants
  const fd = openat2(tmpfs, FILE, { flags: O_CREAT | O_EXCL | O_WRONLY, mode: 0o600 })
  try {
    for (let done = 0; done < content.length;) done += writeSync(fd, content, done)
    fchownSync(fd, uid, gid)
    fchmodSync(fd, mode & 0o7777)
  } finally {
    closeSync(fd)
  }
}

function isDirectory(mount: number, path: string): boolean {
  const fd = openat2(mount, Buffer.from(path, 'latin1'), {
    flags: O_PATH | constants.O_NOFOLLOW,
    resolve: RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
  })
  try {
    return fstatSync(fd).isDirectory()
  } finally {
    closeSync(fd)
  }
}
