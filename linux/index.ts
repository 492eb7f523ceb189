/**
 * The kernel as typed functions, for what Node lacks: descriptors of mounts, `openat2`, extended attributes, `flock`,
 * device nodes, nanosecond times. All are synchronous (a call costs 0.3 to 3 us; the asynchronous form 45 us); each
 * throws a `SysError` that names the call and the errno. Paths may be bytes: names need not be UTF-8.
 *
 * Imports nothing of ours but `errors.ts`; nothing else imports koffi: functions that this program itself has are declared here, too (`declareOwn`).
 */
export { SysError, errnoName, isErrno } from './errors.ts'
export { AT_FDCWD, declareOwn, loadKernelCalls, type Path } from './libc.ts'
export {
  RESOLVE_BENEATH,
  RESOLVE_IN_ROOT,
  RESOLVE_NO_MAGICLINKS,
  RESOLVE_NO_SYMLINKS,
  RESOLVE_NO_XDEV,
  O_PATH,
  makedev,
  mkdirat,
  mknodat,
  nextData,
  nextHole,
  openat2,
  readlinkat,
  renameat2,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  setTimes,
  symlinkat,
  syncFileSystem,
  unlinkat,
  type OpenHow,
} from './files.ts'
export { birthTime, Stat, statAt, statOf, type FileType } from './stat.ts'
export { copyRange, punchHole } from './allocate.ts'
export { getXattr, listXattrs, removeXattr, setXattr } from './xattr.ts'
export { flock, flockWait, type LockKind } from './lock.ts'
export {
  detachedMountsCanBeCloned,
  fileSystemUuid,
  mayMountNothing,
  mountDirectory,
  mountErofs,
  mountOverlay,
  mountTmpfs,
  moveMount,
  openLayersDirectory,
  openTree,
  type OverlaySpec,
} from './mount.ts'
export { pidfdGetfd, pidfdOpen, pidfdSendSignal } from './process.ts'
export { pipe } from './pipe.ts'
export { inInitialUserNamespace, overlayPrefix } from './user-namespace.ts'
export {
  MOUNT_ATTR_NODEV,
  MOUNT_ATTR_NOEXEC,
  MOUNT_ATTR_NOSUID,
  MOUNT_ATTR_RDONLY,
  setMountAttributes,
} from './mount.ts'
