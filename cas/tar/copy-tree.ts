/**
 * A copy of a directory tree with all that a layer can say of it, and what tells later what was changed in the copy: see `packUpper`. Whiteouts and
 * sockets, of which a layer says nothing, are left out.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  openSync,
} from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import {
  birthTime,
  copyRange,
  makedev,
  mkdirat,
  mknodat,
  nextData,
  nextHole,
  readlinkat,
  setTimes,
  setXattr,
  statOf,
  symlinkat,
  type Stat,
} from '../../linux/index.ts'
import { readAttributes } from './attributes.ts'
import { openLower } from './lower.ts'
import { inDirectory, pathOf } from './names.ts'
import { isWhiteoutDevice, listDirectory, lstatAt, openDirectory, openFile } from './tree.ts'

export interface TreeCopy {
  /** For each inode of the copy the one it was made from. */
  readonly inodes: ReadonlyMap<number, number>
  /** When each inode of the copy was last changed while that was made, of a directory when it was born: see `momentOf`. */
  readonly moments: ReadonlyMap<number, number>
  /** The names that an inode of the copy had, where it had several: real paths. */
  readonly links: ReadonlyMap<number, readonly string[]>
  /** A time that is later than all times of the copy when it was whole, and not later than any of a change. */
  readonly since: Since
  /** The device of its files. */
  readonly dev: number | undefined
}

interface Since {
  readonly seconds: number
  readonly nanoseconds: number
}

const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, S_IFCHR, S_IFBLK, S_IFIFO } = constants
const TURN_MS = 20
const TICK_MS = 1

/** `to` is open on an empty directory. Nobody may write below either meanwhile. The event loop has a turn every 20 ms. */
export async function copyTree(from: number, to: number): Promise<TreeCopy> {
  const inodes = new Map<number, number>()
  const moments = new Map<number, number>()
  const directories: [path: string, stats: Stat][] = []
  const pending: [path: string, stats: Stat][] = [['', statOf(from)]]
  /** By the original's inode: what its copy's names are. */
  const linked = new Map<number, string[]>()
  const links = new Map<number, readonly string[]>()
  let dev: number | undefined
  let last = performance.now()
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [path] = next
    directories.push(next)
    const source = openDirectory(from, path)
    const target = openDirectory(to, path)
    try {
      for (const name of listDirectory(source)) {
        const stats = lstatAt(source, name)
        if (stats === undefined || stats.type === 'socket' || isWhiteoutDevice(stats)) continue
        const whole = path === '' ? name : `${path}/${name}`
        const number = inodeOf(stats)
        const others = linked.get(number)
        if (stats.isDirectory()) {
          mkdirat(target, pathOf(name), 0o700)
          pending.push([whole, stats])
        } else if (others === undefined) copyNode(source, target, name, stats)
        else link(to, others[0] ?? '', target, name)
        const made = lstatAt(target, name)
        if (made === undefined) continue
        inodes.set(inodeOf(made), number)
        // A further name counts as a change.
        const moment = made.isDirectory() ? birthTime(target, pathOf(name)) : changeTime(made)
        if (moment !== undefined) moments.set(inodeOf(made), momentOf(moment))
        if (made.isFile()) ({ dev } = made)
        if (others !== undefined) others.push(whole)
        else if (stats.nlink > 1 && !stats.isDirectory()) {
          const names = [whole]
          linked.set(number, names)
          links.set(inodeOf(made), names)
        }
        if (performance.now() - last < TURN_MS) continue
        await new Promise(setImmediate)
        last = performance.now()
      }
    } finally {
      closeSync(source)
      closeSync(target)
    }
  }
  // What is made in a directory takes its default ACL, and changes its time.
  for (const [path, stats] of directories.toReversed()) copyDirectory(from, to, path, stats)
  return { inodes, moments, links, dev, since: await timeAfter(to) }
}

/** Nothing was done to this file of the copy; `original` has its name in what it is a copy of. */
export function isUntouched(copy: TreeCopy, stats: Stat, original: Stat): boolean {
  return isAsCopied(copy, stats) && copy.inodes.get(inodeOf(stats)) === inodeOf(original)
}

/**
 * It was last changed when the copy was made: a file at just that time, for the clock may be set back meanwhile. A directory got its time last of all, and what a
 * clock that is set back hides of it is found by comparing.
 */
export function isAsCopied({ since, moments }: TreeCopy, stats: Stat): boolean {
  const changed = changeTime(stats)
  if (stats.isDirectory()) return isEarlier(changed, since)
  return moments.get(inodeOf(stats)) === momentOf(changed)
}

/** A file of several names has only such as it had in the beginning. `root` is the copy's. */
export function hasNoNewName(copy: TreeCopy, root: number, stats: Stat): boolean {
  const names = copy.links.get(inodeOf(stats)) ?? []
  const left = names.filter((path) => {
    const slash = path.lastIndexOf('/')
    const directory = openLower(root, path.slice(0, Math.max(0, slash)))
    if (directory === undefined) return false
    try {
      const now = lstatAt(directory, path.slice(slash + 1))
      return now !== undefined && now.dev === stats.dev && inodeOf(now) === inodeOf(stats)
    } finally {
      closeSync(directory)
    }
  })
  return left.length === stats.nlink
}

/** The directory is the copy of `original`, and not another one in its place. A removed one's number may have been given to the next. */
export function isSameDirectory(
  copy: TreeCopy,
  parent: number,
  name: string,
  stats: Stat,
  original: Stat,
): boolean {
  const born = birthTime(parent, pathOf(name))
  // overlayfs with layers on several file systems may number its directories anew at any time; they have other devices than files then.
  if (stats.dev !== copy.dev) return born === undefined || isEarlier(born, copy.since)
  const inode = inodeOf(stats)
  if (copy.inodes.get(inode) !== inodeOf(original)) return false
  return born === undefined || copy.moments.get(inode) === momentOf(born)
}

function isEarlier(time: Since, than: Since): boolean {
  return time.seconds < than.seconds || (time.seconds === than.seconds && time.nanoseconds < than.nanoseconds)
}

/** Exact below 2^53. */
function inodeOf({ inoHigh, inoLow }: Stat): number {
  return inoHigh * 2 ** 32 + inoLow
}

function changeTime({ ctimeSeconds, ctimeNanoseconds }: Stat): Since {
  return { seconds: ctimeSeconds, nanoseconds: ctimeNanoseconds }
}

/** Exact: of the seconds, which with nanoseconds would not fit into 53 bits, what is left of 2^22 (48 days). */
function momentOf({ seconds, nanoseconds }: Since): number {
  return (seconds % 2 ** 22) * 1e9 + nanoseconds
}

function copyNode(source: number, target: number, name: string, stats: Stat): void {
  if (stats.isFile()) {
    copyFile(source, target, name, stats)
    return
  }
  const types = { char: S_IFCHR, block: S_IFBLK, fifo: S_IFIFO }
  const { type, mode, major, minor } = stats
  if (type === 'char' || type === 'block' || type === 'fifo')
    mknodat(target, pathOf(name), types[type] | 0o600, makedev(major, minor))
  else symlinkat(readlinkat(source, pathOf(name)), target, pathOf(name))
  const path = inDirectory(target, name)
  lchownSync(path, stats.uid, stats.gid)
  copyXattrs(inDirectory(source, name), path)
  if (type !== 'symlink') chmodSync(path, mode)
  setTimes(target, pathOf(name), { mtime: stats.mtimeNs })
}

function copyFile(source: number, target: number, name: string, stats: Stat): void {
  const from = openFile(source, name)
  try {
    const path = inDirectory(target, name)
    const to = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600)
    try {
      copyContents(from, to, stats)
      // Owner before attributes and mode: chown(2) clears security.capability, setuid and setgid. Root's files, too: a setgid directory gave them its group.
      fchownSync(to, stats.uid, stats.gid)
      copyXattrs(from, path)
      fchmodSync(to, stats.mode)
      setTimes(target, pathOf(name), { mtime: stats.mtimeNs })
    } finally {
      closeSync(to)
    }
  } finally {
    closeSync(from)
  }
}

function copyContents(from: number, to: number, { size, blocks }: Stat): void {
  if (blocks * 512 >= size) {
    copyRange(from, to, 0, size)
    return
  }
  for (let at = nextData(from, 0); at !== undefined && at < size;) {
    const end = nextHole(from, at) ?? size
    copyRange(from, to, at, end - at)
    at = nextData(from, end)
  }
  ftruncateSync(to, size)
}

function copyDirectory(from: number, to: number, path: string, stats: Stat): void {
  const source = openDirectory(from, path)
  const target = openDirectory(to, path)
  try {
    fchownSync(target, stats.uid, stats.gid)
    copyXattrs(source, `/proc/self/fd/${target}/.`)
    fchmodSync(target, stats.mode)
    setTimes(target, '.', { mtime: stats.mtimeNs })
  } finally {
    closeSync(source)
    closeSync(target)
  }
}

function copyXattrs(from: string | Buffer | number, to: string | Buffer): void {
  for (const [name, value] of readAttributes(from).layer) setXattr(to, name, value)
}

function link(root: number, first: string, target: number, name: string): void {
  const slash = first.lastIndexOf('/')
  const directory = openDirectory(root, first.slice(0, Math.max(0, slash)))
  try {
    linkSync(inDirectory(directory, first.slice(slash + 1)), inDirectory(target, name))
  } finally {
    closeSync(directory)
  }
}

/** File systems tell time in steps of some milliseconds: waits for the next one. The directory keeps its own time. */
async function timeAfter(directory: number): Promise<Since> {
  const first = statOf(directory)
  for (;;) {
    setTimes(directory, '.', { mtime: first.mtimeNs })
    const { ctimeSeconds: seconds, ctimeNanoseconds: nanoseconds } = statOf(directory)
    if (
      isEarlier(
        { seconds: first.ctimeSeconds, nanoseconds: first.ctimeNanoseconds },
        { seconds, nanoseconds },
      )
    )
      return { seconds, nanoseconds }
    await wait(TICK_MS)
  }
}
