/**
 * Which extended attributes a file ends up with when Linux is given those of an archive: there is no kernel between a layer and its tree that would
 * refuse or correct them, but there is one that mounts it, and which takes a malformed ACL or capability for an error of the disk.
 */
import { tarError, type TarEntryType } from '../tar/entry.ts'
import { ACCESS_ACL, DEFAULT_ACL, malformedCapabilitiesError, refuseXattr } from '../tar/rules.ts'

export interface TakenXattrs {
  readonly xattrs: ReadonlyMap<string, Buffer>
  /** Attributes that it does not take: user.* of a symlink, malformed ACLs, name spaces that do not exist. */
  readonly skipped: number
}

interface Attributed {
  readonly type: TarEntryType
  readonly mode: number
  readonly xattrs: ReadonlyMap<string, Buffer>
}

/** xattr(7). */
const MOST_NAME_BYTES = 255
const MOST_VALUE_BYTES = 65_536

/**
 * `earlier` are those of the directory that the entry meets; `path` is for messages. Errors: `TAR_XATTR`, and as setxattr(2) says it `ERANGE` (a name
 * too long), `E2BIG` (a value too long).
 */
export function takenXattrs(
  entry: Attributed,
  earlier: ReadonlyMap<string, Buffer>,
  path: string,
): TakenXattrs {
  const xattrs = new Map(earlier)
  // Directories get the last entry's, when all that would inherit it is made.
  xattrs.delete(DEFAULT_ACL)
  let skipped = 0
  for (const [name, value] of entry.xattrs) {
    refuseXattr(name, path)
    if (name === DEFAULT_ACL && entry.type !== 'directory') {
      skipped++
      continue
    }
    if (Buffer.byteLength(name) > MOST_NAME_BYTES)
      throw tarError('ERANGE', 'an attribute of a long name', { name: path })
    if (value.length > MOST_VALUE_BYTES) {
      throw tarError('E2BIG', `attribute ${JSON.stringify(name)} is too long`, { name: path })
    }
    if (name === 'security.capability' && !isCapability(value)) throw malformedCapabilitiesError(path)
    const acl = isAcl(name) ? parseAcl(name, value, entry.type) : undefined
    if (acl === 'none') xattrs.delete(name)
    else if (acl === 'malformed' || (acl === undefined && !isKept(name, entry.type))) skipped++
    else xattrs.set(name, acl ?? value)
  }
  const access = xattrs.get(ACCESS_ACL)
  if (access !== undefined) xattrs.set(ACCESS_ACL, withMode(access, entry.mode))
  return { xattrs, skipped }
}

function isKept(name: string, type: TarEntryType): boolean {
  if (name.startsWith('user.')) return name.length > 5 && (type === 'file' || type === 'directory')
  return name.startsWith('security.') && name.length > 9
}

/** Versions 2 and 3 of capabilities(7): what the kernel lets root set. */
function isCapability(value: Buffer): boolean {
  if (value.length !== 20 && value.length !== 24) return false
  return value[3] === (value.length === 20 ? 2 : 3)
}

// POSIX ACLs, as linux/posix_acl_xattr.h has them: u32 version; for each entry u16 tag, u16 permissions, u32 id.

const ACL_VERSION = 2
const USER_OBJ = 1
const USER = 2
const GROUP_OBJ = 4
const GROUP = 8
const MASK = 16
const OTHER = 32
const NO_ID = 0xffff_ffff
/** The order in which tags must come; those that may come more than once. */
const ORDER = [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER]
const REPEATED = USER | GROUP

function isAcl(name: string): boolean {
  return name === ACCESS_ACL || name === DEFAULT_ACL
}

/** The ACL as the kernel gives it back. `'none'`: it says no more than the mode, or nothing, and an earlier one goes. */
function parseAcl(name: string, value: Buffer, type: TarEntryType): Buffer | 'none' | 'malformed' {
  if (type === 'symlink') return 'malformed'
  if (value.length === 0) return 'none'
  if (value.length % 8 !== 4 || value.readUInt32LE(0) !== ACL_VERSION) return 'malformed'
  if (value.length === 4) return 'none'
  const acl = Buffer.from(value)
  let tags = 0
  let last = -1
  for (let at = 4; at < acl.length; at += 8) {
    const tag = acl.readUInt16LE(at)
    const place = ORDER.indexOf(tag)
    if (place < last || place < 0 || acl.readUInt16LE(at + 2) > 7) return 'malformed'
    if (place === last && (tag & REPEATED) === 0) return 'malformed'
    if ((tag & REPEATED) === 0) acl.writeUInt32LE(NO_ID, at + 4)
    else if (acl.readUInt32LE(at + 4) === NO_ID) return 'malformed'
    last = place
    tags |= tag
  }
  const needed = USER_OBJ | GROUP_OBJ | OTHER | ((tags & REPEATED) === 0 ? 0 : MASK)
  if ((tags & needed) !== needed) return 'malformed'
  return name === ACCESS_ACL && (tags & (REPEATED | MASK)) === 0 ? 'none' : acl
}

/** The mode is set after the ACL, which then follows it: acl(5), "correspondence between ACL entries and file permission bits". */
function withMode(value: Buffer, mode: number): Buffer {
  const acl = Buffer.from(value)
  // An ACL without a mask is no more than a mode, and not kept.
  const shift = new Map([
    [USER_OBJ, 6],
    [MASK, 3],
    [OTHER, 0],
  ])
  for (let at = 4; at < acl.length; at += 8) {
    const bits = shift.get(acl.readUInt16LE(at))
    if (bits !== undefined) acl.writeUInt16LE((mode >> bits) & 7, at + 2)
  }
  return acl
}
