/**
 * What a hostile archive may not say, and what its reserved names mean: the same for whatever applies it, a directory (unpack.ts) or a tree in memory
 * (cas/layer/apply.ts). Paths are byte strings, clean.
 */
import {
  quoteName,
  tarError,
  TAR_LIMITS,
  WHITEOUT_META_PREFIX,
  WHITEOUT_OPAQUE,
  WHITEOUT_PREFIX,
} from './entry.ts'

/** Symlinks followed on the way to one directory, however often the same: path_resolution(7). */
export const MAX_SYMLINKS = 40

export const ACCESS_ACL = 'system.posix_acl_access'
/** Inherited by whatever is made in its directory. */
export const DEFAULT_ACL = 'system.posix_acl_default'

/** `name` is the entry's, for the message. Errors: `TAR_PATH`. */
export function refuseDotDot(path: string, name: string): void {
  if (path.includes('..') && path.split('/').includes('..')) {
    throw tarError('TAR_PATH', `${quoteName(path)} leads upwards`, { name })
  }
}

/** Errors: `TAR_DEVICE`. */
export function refuseWhiteoutDevice(
  entry: { readonly type: string; readonly major: number; readonly minor: number },
  name: string,
): void {
  if (entry.type === 'char' && entry.major === 0 && entry.minor === 0) {
    throw tarError('TAR_DEVICE', 'a 0/0 character device, which overlayfs takes for a deleted name', { name })
  }
}

/** Errors: `TAR_XATTR`. */
export function refuseXattr(xattr: string, name: string): void {
  if (xattr.startsWith('trusted.') || xattr.startsWith('user.overlay.')) {
    throw tarError('TAR_XATTR', `attribute ${JSON.stringify(xattr)} is not accepted from outside`, { name })
  }
  if (xattr.includes('\0') || xattr === '')
    throw tarError('TAR_XATTR', 'an attribute without a name', { name })
}

/**
 * What an entry's name means in a layer; `skipped` are those that AUFS kept at a layer's root. Errors: `TAR_RESERVED_NAME`.
 */
export function meaningOf(path: string): 'entry' | 'skipped' | 'opaque' | 'whiteout' {
  if (!path.includes(WHITEOUT_PREFIX)) return 'entry'
  if (path.startsWith(WHITEOUT_META_PREFIX) && path !== WHITEOUT_OPAQUE) return 'skipped'
  const slash = path.lastIndexOf('/')
  const parent = path.slice(0, Math.max(0, slash))
  if (parent.startsWith(WHITEOUT_PREFIX) || parent.includes(`/${WHITEOUT_PREFIX}`)) {
    throw tarError('TAR_RESERVED_NAME', 'it lies below a name that is reserved for deleted files', {
      name: path,
    })
  }
  const name = path.slice(slash + 1)
  if (!name.startsWith(WHITEOUT_PREFIX)) return 'entry'
  return name === WHITEOUT_OPAQUE ? 'opaque' : 'whiteout'
}

/** The name that a whiteout deletes. Errors: `TAR_RESERVED_NAME`, `TAR_WHITEOUT`. */
export function deletedName(path: string): string {
  const entryName = path.slice(path.lastIndexOf('/') + 1)
  if (entryName.startsWith(WHITEOUT_META_PREFIX)) {
    throw tarError('TAR_RESERVED_NAME', 'a reserved name of unknown meaning', { name: path })
  }
  const name = entryName.slice(WHITEOUT_PREFIX.length)
  if (name === '' || name === '.' || name === '..') {
    throw tarError('TAR_WHITEOUT', 'it deletes no name', { name: path })
  }
  return name
}

/** For a directory that has no entry: only a symlink leads to such a name. `path` is the entry's. Errors: `TAR_RESERVED_NAME`. */
export function refuseReservedDirectory(directoryName: string, path: string): void {
  if (!directoryName.startsWith(WHITEOUT_PREFIX)) return
  const message = 'a symlink leads it below a name that is reserved for deleted files'
  throw tarError('TAR_RESERVED_NAME', message, { name: path })
}

/** On the way to an entry's directory: of a real path and its last component. Errors: `TAR_NAME_TOO_LONG`. */
export function refuseTooLong(length: number, name: string, path: () => string): void {
  // Through a symlink a path may grow beyond what one system call takes, and its target's names are of any length.
  if (length > TAR_LIMITS.path) {
    throw tarError('TAR_NAME_TOO_LONG', 'its real path is longer than Linux allows', { name: path() })
  }
  if (name.length > TAR_LIMITS.name) {
    throw tarError('TAR_NAME_TOO_LONG', "its real path's component is longer than Linux allows", {
      name: path(),
    })
  }
}

export function notDirectoryError(path: string) {
  return tarError('TAR_PATH', 'an entry lies below it, but it is not a directory', { name: path })
}

export function tooManySymlinksError(path: string) {
  return tarError('TAR_PATH', 'too many levels of symbolic links', { name: path })
}

/** `why` reads on from "the hard link's target NAME ". */
export function linkTargetError(target: string, why: string, path: string) {
  return tarError('TAR_LINK', `the hard link's target ${quoteName(target)} ${why}`, { name: path })
}

export function malformedCapabilitiesError(path: string) {
  return tarError('TAR_XATTR', 'malformed file capabilities', { name: path })
}
