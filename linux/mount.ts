/**
 * Mounts as descriptors (fsopen(2), fsmount(2)): made detached, they never stand in the host's mount table, and the
 * kernel unmounts them when the last descriptor closes.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { AT_FDCWD, check, cstring, declare, declareSyscall, errno, type Path } from './libc.ts'
import { SysError } from './errors.ts'
import { symlinkat } from './files.ts'
import { inInitialUserNamespace } from './user-namespace.ts'

const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const FSCONFIG_SET_FLAG = 0
const FSCONFIG_SET_STRING = 1
const FSCONFIG_SET_FD = 5
const FSCONFIG_CMD_CREATE = 6
// mount_setattr(2)
export const MOUNT_ATTR_RDONLY = 0x1
export const MOUNT_ATTR_NOSUID = 0x2
export const MOUNT_ATTR_NODEV = 0x4
export const MOUNT_ATTR_NOEXEC = 0x8
const MS_PRIVATE = 0x40000
const OPEN_TREE_CLONE = 1
const OPEN_TREE_CLOEXEC = 0o2000000
const AT_EMPTY_PATH = 0x1000
const E2BIG = 7
const EINVAL = 22
const ENOTTY = 25
const EOPNOTSUPP = 95
const CAP_SYS_ADMIN = 21n
const MOST_OPTION_BYTES = 255
// Bytes that mean nothing in a list of lower directories, in a list of options or in a path.
const LINK_NAMES = Array.from({ length: 222 }, (_, i) => i + 33).filter(
  (byte) => !',./:\\'.includes(String.fromCharCode(byte)),
)

const callFsopen = declareSyscall(430, ['const void *', 'unsigned int'])
const callFsconfig = declareSyscall(431, ['int', 'unsigned int', 'const void *', 'const void *', 'int'])
const callFsmount = declareSyscall(432, ['int', 'unsigned int', 'unsigned int'])
const callMoveMount = declareSyscall(429, ['int', 'const void *', 'int', 'const void *', 'unsigned int'])
const callOpenTree = declareSyscall(428, ['int', 'const void *', 'unsigned int'])

export interface OverlaySpec {
  /** Directories, topmost first; at least one, and two when there is no upper. */
  readonly lowers: readonly number[]
  /**
   * A directory that is not shown: the lowers' files may have their data in it, when they are empty and have the attributes `overlay.metacopy` and
   * `overlay.redirect` (with `overlayPrefix`), a path in it. Kernel 6.15 and later, else EINVAL. For an ordinary user only files of the bottommost lower may,
   * and there can be no upper; 6.16 and later.
   */
  readonly data?: number | undefined
  /** Both on one file system, on which the work directory is empty. */
  readonly upper?: { readonly upper: number; readonly work: number }
}

/**
 * A detached overlay mount. Options are explicit because distributions differ in their defaults; `volatile` because
 * without it every unmount syncs the whole disk (398 ms with 1 GB of other people's dirty data, 4 ms with).
 * @returns a descriptor of the mount, close-on-exec
 */
export function mountOverlay(spec: OverlaySpec): number {
  const { data, lowers, upper } = spec
  if (data === undefined) return mountPlain(spec)
  const shown = mountWithData(lowers, data)
  if (upper === undefined) return shown
  try {
    return mountPlain({ lowers: [shown], upper })
  } finally {
    closeSync(shown)
  }
}

/**
 * Read-only, with an upper in a mount of its own above it: that data is elsewhere goes with metacopy=on only (6.18 with `off`: EPERM for whatever is
 * not in the bottommost layer), which would leave uppers whose files have their data elsewhere, too.
 */
function mountWithData(lowers: readonly number[], data: number): number {
  const fs = fsopen('overlay')
  try {
    setString(fs, 'source', 'tbuild')
    if (!setLayersByDescriptor(fs, { lowers, data }))
      throw new SysError('fsconfig', EINVAL, 'overlay datadir+')
    if (inInitialUserNamespace())
      setStrings(fs, { redirect_dir: 'on', metacopy: 'on', index: 'off', xino: 'off' })
    else setOverlayOptions(fs, { lowers })
    return finish(fs, 'overlay')
  } finally {
    closeSync(fs)
  }
}

function mountPlain(spec: OverlaySpec): number {
  const fs = fsopen('overlay')
  try {
    setString(fs, 'source', 'tbuild')
    const byDescriptor = setLayersByDescriptor(fs, spec)
    if (!byDescriptor) return mountOverlayByName(spec)
    setOverlayOptions(fs, spec)
    return finish(fs, 'overlay')
  } finally {
    closeSync(fs)
  }
}

function setOverlayOptions(fs: number, spec: OverlaySpec): void {
  setStrings(fs, { redirect_dir: 'nofollow', metacopy: 'off', index: 'off', xino: 'off' })
  if (spec.upper !== undefined) config(fs, FSCONFIG_SET_FLAG, 'volatile', null, 0)
  if (!inInitialUserNamespace()) config(fs, FSCONFIG_SET_FLAG, 'userxattr', null, 0)
}

/** Kernel 6.13 and later; `false` where overlayfs knows no descriptors (before 6.5: nothing of fsopen's beyond strings). */
function setLayersByDescriptor(fs: number, spec: OverlaySpec): boolean {
  const layers: [string, number][] = spec.lowers.map((fd) => ['lowerdir+', fd])
  if (spec.data !== undefined) layers.push(['datadir+', spec.data])
  if (spec.upper !== undefined) layers.push(['upperdir', spec.upper.upper], ['workdir', spec.upper.work])
  for (const [key, fd] of layers) {
    const result = callFsconfig(fs, FSCONFIG_SET_FD, cstring(key), null, fd)
    if (result < 0 && fd === layers[0]?.[1] && (errno() === EINVAL || errno() === EOPNOTSUPP)) return false
    check(result, 'fsconfig', `overlay ${key}`)
  }
  return true
}

/** Older kernels take names only. The working directory is put back before anything else can run. */
function mountOverlayByName(spec: OverlaySpec): number {
  const upper = spec.upper === undefined ? [] : [spec.upper.upper, spec.upper.work]
  for (const fd of [...spec.lowers, ...upper]) {
    if (!fstatSync(fd).isDirectory()) throw new SysError('fsconfig', EINVAL, 'overlay: not a directory')
  }
  const before = process.cwd()
  using names = nameLowers(spec.lowers)
  process.chdir(names.directory)
  try {
    const fs = fsopen('overlay')
    try {
      setString(fs, 'source', 'tbuild')
      setString(fs, 'lowerdir', names.lowerdir)
      if (spec.upper !== undefined) {
        setString(fs, 'upperdir', `/proc/self/fd/${spec.upper.upper}`)
        setString(fs, 'workdir', `/proc/self/fd/${spec.upper.work}`)
      }
      setOverlayOptions(fs, spec)
      return finish(fs, 'overlay')
    } finally {
      closeSync(fs)
    }
  } finally {
    process.chdir(before)
  }
}

interface LowerNames extends Disposable {
  /** Where the names are to be resolved. */
  readonly directory: string
  readonly lowerdir: Buffer
}

/**
 * An option's value has at most 255 bytes. Names relative to /proc/self/fd ("23:24:25") are room for 60 layers or more;
 * for up to 128, links with names of one byte in a tmpfs that nobody else sees.
 */
function nameLowers(lowers: readonly number[]): LowerNames {
  const numbers = Buffer.from(lowers.join(':'))
  if (numbers.length <= MOST_OPTION_BYTES) {
    return { directory: '/proc/self/fd', lowerdir: numbers, [Symbol.dispose]: () => {} }
  }
  const lowerdir = Buffer.alloc(lowers.length * 2 - 1, ':')
  if (lowerdir.length > MOST_OPTION_BYTES) {
    throw new SysError('fsconfig', E2BIG, `overlay lowerdir: ${lowers.length} layers`)
  }
  const tmpfs = mountTmpfs({ mode: '700' })
  for (const [i, fd] of lowers.entries()) {
    lowerdir[i * 2] = LINK_NAMES[i] ?? 0
    symlinkat(`/proc/self/fd/${fd}`, tmpfs, lowerdir.subarray(i * 2, i * 2 + 1))
  }
  return { directory: `/proc/self/fd/${tmpfs}`, lowerdir, [Symbol.dispose]: () => closeSync(tmpfs) }
}

/** A detached tmpfs. `options` as in tmpfs(5), e.g. `{ mode: '755', size: '65536k' }`. */
export function mountTmpfs(options: Readonly<Record<string, string>>, attributes = 0): number {
  const fs = fsopen('tmpfs')
  try {
    for (const [key, value] of Object.entries(options)) setString(fs, key, value)
    return finish(fs, 'tmpfs', attributes)
  } finally {
    closeSync(fs)
  }
}

/**
 * A detached read-only mount of an EROFS image in a regular file, kernel 6.12 and later; `devices` hold the data, in the order of the image's device
 * table. The kernel opens the files anew: the descriptors may be closed afterwards. Fails with ENOTBLK where the files' file system cannot back a mount.
 * `direct`: data is cached once, for the mount, and not also for the files; cold reads of small files take longer.
 */
export function mountErofs(
  image: number,
  devices: readonly number[],
  options: { readonly direct?: boolean } = {},
): number {
  const fs = fsopen('erofs')
  try {
    setString(fs, 'source', `/proc/self/fd/${image}`)
    if (options.direct === true) config(fs, FSCONFIG_SET_FLAG, 'directio', null, 0)
    for (const device of devices) setString(fs, 'device', `/proc/self/fd/${device}`)
    return finish(fs, 'erofs', MOUNT_ATTR_RDONLY)
  } finally {
    closeSync(fs)
  }
}

const callIoctl = declare('int ioctl(int, unsigned long, void *)')

/**
 * The UUID of the file system that a descriptor is on (a mount's own will do), as its superblock says; `undefined` where it has none, and before
 * kernel 6.9. FS_IOC_GETFSUUID in linux/fs.h.
 */
export function fileSystemUuid(fd: number): Buffer | undefined {
  const FS_IOC_GETFSUUID = 0x8011_1500
  const struct = Buffer.alloc(17)
  // A mount's descriptor is a path only (O_PATH), which takes no ioctl.
  const opened = openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    if (callIoctl(opened, FS_IOC_GETFSUUID, struct) < 0) {
      if (errno() === ENOTTY) return undefined
      throw new SysError('ioctl', errno(), 'FS_IOC_GETFSUUID')
    }
  } finally {
    closeSync(opened)
  }
  return struct.subarray(1, 1 + (struct[0] ?? 0))
}

/** A detached clone of what is at `path` (a directory's or a file's mount), or just a handle to it. */
export function openTree(dirfd: number, path: Path, options: { readonly clone?: boolean } = {}): number {
  const flags = OPEN_TREE_CLOEXEC | (options.clone === true ? OPEN_TREE_CLONE : 0)
  const empty = path.length === 0 ? AT_EMPTY_PATH : 0
  return check(callOpenTree(dirfd, cstring(path), flags | empty), 'open_tree', path)
}

/**
 * A descriptor to open overlay layers through: on a clone of the mount that `path` is on, so that the overlay's options
 * name no path of the host. Before 6.15 overlayfs refuses a layer whose mount is detached (its clone_private_mount looks
 * in the caller's mount namespace); there it is the directory where it stands. No path is named then either: such a
 * kernel gets its layers as numbers.
 */
export function openLayersDirectory(path: Path): number {
  const clone = openTree(AT_FDCWD, path, { clone: true })
  if (detachedMountsCanBeCloned(clone)) return clone
  closeSync(clone)
  return openTree(AT_FDCWD, path)
}

/** A detached mount of a directory and what is below it, by its descriptor. Private: what is mounted in it shows nowhere else. */
export function mountDirectory(directory: number, attributes = 0): number {
  const mount = openTree(directory, '', { clone: true })
  try {
    setMountAttributes(mount, attributes, MS_PRIVATE)
    return mount
  } catch (error) {
    closeSync(mount)
    throw error
  }
}

/** A process of root's that lacks CAP_SYS_ADMIN, as in a container. Asked without a mount: a build that is all in the cache makes none. */
export function mayMountNothing(): boolean {
  if (process.geteuid?.() !== 0) return false
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? '0'
  return ((BigInt(`0x${effective}`) >> CAP_SYS_ADMIN) & 1n) === 0n
}

let cloneable: boolean | undefined

/** Came with 6.15, as did detached layers. `mount` is a detached one to try it with. */
export function detachedMountsCanBeCloned(mount: number): boolean {
  if (cloneable !== undefined) return cloneable
  const clone = callOpenTree(mount, cstring(''), OPEN_TREE_CLOEXEC | OPEN_TREE_CLONE | AT_EMPTY_PATH)
  if (clone >= 0) closeSync(clone)
  else if (errno() !== EINVAL) check(clone, 'open_tree')
  return (cloneable = clone >= 0)
}

const callMountSetattr = declareSyscall(442, [
  'int',
  'const void *',
  'unsigned int',
  'const void *',
  'size_t',
])

/** Add `MOUNT_ATTR_*` bits to a (detached) mount, and say how it propagates: mount_setattr(2), kernel 5.12 and later. */
export function setMountAttributes(mount: number, attributes: number, propagation = 0): void {
  const struct = new BigUint64Array([BigInt(attributes), 0n, BigInt(propagation), 0n])
  check(callMountSetattr(mount, cstring(''), AT_EMPTY_PATH, struct, 32), 'mount_setattr')
}

/** Attach a detached mount at a path of this process's mount namespace. */
export function moveMount(mount: number, path: Path): void {
  const MOVE_MOUNT_F_EMPTY_PATH = 4
  const result = callMoveMount(mount, cstring(''), AT_FDCWD, cstring(path), MOVE_MOUNT_F_EMPTY_PATH)
  check(result, 'move_mount', path)
}

function fsopen(type: string): number {
  return check(callFsopen(cstring(type), FSOPEN_CLOEXEC), 'fsopen', type)
}

function setString(fs: number, key: string, value: Path): void {
  config(fs, FSCONFIG_SET_STRING, key, cstring(value), 0)
}

function setStrings(fs: number, options: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(options)) setString(fs, key, value)
}

function config(
  fs: number,
  command: number,
  key: string | null,
  value: string | Buffer | null,
  aux: number,
): void {
  const result = callFsconfig(fs, command, key === null ? null : cstring(key), value, aux)
  if (result < 0) throw new SysError('fsconfig', errno(), key ?? 'create')
}

function finish(fs: number, type: string, attributes = 0): number {
  config(fs, FSCONFIG_CMD_CREATE, null, null, 0)
  return check(callFsmount(fs, FSMOUNT_CLOEXEC, attributes), 'fsmount', type)
}
