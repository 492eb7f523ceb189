/** Files and directories that are made only to be mounted on, and taken away again as if they had never been. */
import { closeSync, constants, fstatSync, type BigIntStats } from 'node:fs'
import { isErrno, mkdirat, O_PATH, openat2, setTimes, unlinkat, type Path } from '../linux/index.ts'

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants

export interface Made {
  /** O_PATH descriptors. */
  readonly parent: number
  readonly self: number
  readonly name: Path
  readonly directory: boolean
  /** The parent's times before, and its modification time after we made the name. */
  readonly before: bigint
  readonly after: bigint
}

/** Takes over `parent`. */
export function make(parent: number, name: Path, directory: boolean, made: Made[]): void {
  const before = times(parent)
  if (directory) mkdirat(parent, name, 0o755)
  else closeSync(openat2(parent, name, { flags: O_CREAT | O_EXCL | O_WRONLY, mode: 0o644 }))
  const self = openat2(parent, name, { flags: O_PATH | O_NOFOLLOW })
  made.push({ parent, self, name, directory, before: before.mtimeNs, after: times(parent).mtimeNs })
}

function times(fd: number): BigIntStats {
  return fstatSync(fd, { bigint: true })
}

/** Last made, first removed: so each parent's times come back to what they were before the first. */
export function removeAll(made: Made[]): void {
  for (const entry of made.splice(0).toReversed()) {
    try {
      removeOne(entry)
    } finally {
      closeSync(entry.self)
      closeSync(entry.parent)
    }
  }
}

function removeOne({ parent, self, name, directory, before, after }: Made): void {
  const now = times(parent).mtimeNs
  try {
    const fd = openat2(parent, name, { flags: O_PATH | O_NOFOLLOW })
    const there = times(fd)
    closeSync(fd)
    const ours = times(self)
    if (there.ino !== ours.ino || there.dev !== ours.dev || (!directory && there.size !== 0n)) return
    unlinkat(parent, name, { directory })
  } catch (error) {
    // The container removed or filled it: then it is the container's own doing, and stays.
    if (isErrno(error, 'ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EISDIR')) return
    throw error
  }
  // Somebody else changed the parent after us: that change's time is the one to keep.
  setTimes(parent, '.', { mtime: now === after ? before : now })
}
