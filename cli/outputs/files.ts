/** An image's final root file system: as a directory, or as a tar. */
import {
  closeSync,
  fchmodSync,
  futimesSync,
  chmodSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import {
  openTree,
  show,
  type DiffId,
  type Image,
  type LayerWriter,
  type Store,
  type Tree,
} from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import type { Stat } from '../../linux/index.ts'

/** What could not be written: devices, pipes and sockets. */
export interface Written {
  readonly skipped: readonly string[]
}

const PART = Buffer.alloc(1024 * 1024)

/**
 * Copies the tree into a directory, which is made if need be; what is there stays, unless the image has something of that name.
 * Files belong to whoever runs this, and so setuid and setgid bits are left out. Symlinks that are there are replaced, never followed.
 * @throws TbuildError `OUTPUT_EXISTS`, and what the file system says
 */
export async function writeDirectory(
  store: Store,
  image: Image,
  directory: string,
  signal: AbortSignal,
): Promise<Written> {
  await using root = await mount(store, image)
  using tree = openTree(root.fd)
  const skipped: string[] = []
  mkdirSync(directory, { recursive: true })
  const copy = async (path: string, to: Buffer): Promise<void> => {
    for (const name of tree.list(path)) {
      signal.throwIfAborted()
      await setImmediate()
      const from = path === '' ? name : `${path}/${name}`
      const stats = tree.lstat(from)
      if (stats === undefined) continue
      const target = Buffer.concat([to, Buffer.from(`/${name}`, 'latin1')])
      if (stats.isDirectory()) {
        if (!clear(target, true)) mkdirSync(target, 0o700)
        await copy(from, target)
        chmodSync(target, modeOf(stats))
        utimesSync(target, ...timesOf(stats))
      } else if (stats.isSymbolicLink()) {
        clear(target, false)
        symlinkSync(Buffer.from(tree.readlink(from), 'latin1'), target)
        lutimesSync(target, ...timesOf(stats))
      } else if (stats.isFile()) {
        clear(target, false)
        copyFile(tree, from, stats, target)
      } else {
        skipped.push(show(from))
      }
    }
  }
  await copy('', Buffer.from(directory))
  return { skipped }
}

/**
 * The tree as a layer of its own, whose tar is what is asked for: names, owners, attributes and hard links are written as everywhere else, and the
 * contents are in the store already. Nothing refers to the layer: the next collection takes it.
 */
export async function packTree(store: Store, image: Image, signal: AbortSignal): Promise<DiffId> {
  await using root = await mount(store, image)
  using tree = openTree(root.fd)
  const layer = await store.layers.write(async (writer) => writeEntries(tree, writer), { signal })
  return (await layer.stored).diffId
}

function mount(store: Store, { config }: Image) {
  return store.layers.mount(config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId)))
}

/** Makes way. True when there is a directory, which is what is wanted. */
function clear(path: Buffer, isDirectory: boolean): boolean {
  const there = lstatSync(path, { throwIfNoEntry: false })
  if (there === undefined) return false
  if (!there.isDirectory()) {
    unlinkSync(path)
    return false
  }
  if (isDirectory) return true
  throw new TbuildError(
    'OUTPUT_EXISTS',
    `${JSON.stringify(path.toString())} is a directory, but not in the image.`,
    {
      hint: 'remove it, or name an empty directory',
    },
  )
}

function copyFile(tree: Tree, from: string, stats: Stat, target: Buffer): void {
  const source = tree.open(from)
  try {
    const fd = openSync(target, 'wx', 0o600)
    try {
      for (;;) {
        const length = readSync(source, PART, 0, PART.length, null)
        if (length === 0) break
        for (let done = 0; done < length;) done += writeSync(fd, PART, done, length - done)
      }
      fchmodSync(fd, modeOf(stats))
      futimesSync(fd, ...timesOf(stats))
    } finally {
      closeSync(fd)
    }
  } finally {
    closeSync(source)
  }
}

function modeOf({ mode }: Stat): number {
  return mode & 0o1777
}

/** Access and modification, in seconds. */
function timesOf({ mtimeNs }: Stat): [number, number] {
  const seconds = Number(mtimeNs) / 1e9
  return [seconds, seconds]
}

async function writeEntries(tree: Tree, writer: LayerWriter): Promise<void> {
  /** Files of several names: where the first was. */
  const links = new Map<string, string>()
  const walk = async (directory: string): Promise<void> => {
    for (const name of tree.list(directory)) {
      const path = directory === '' ? name : `${directory}/${name}`
      const stats = tree.lstat(path)
      // Sockets have no form in a tar.
      if (stats === undefined || stats.type === 'socket') continue
      const { type } = stats
      const inode = `${stats.dev}:${stats.ino}`
      const first = type === 'file' && stats.nlink > 1 ? links.get(inode) : undefined
      if (type === 'file' && stats.nlink > 1) links.set(inode, first ?? path)
      const size = type === 'file' && first === undefined ? stats.size : 0
      writer.entry({
        type: first === undefined ? type : 'hardlink',
        path: Buffer.from(path, 'latin1'),
        ...(first !== undefined && { link: Buffer.from(first, 'latin1') }),
        ...(type === 'symlink' && { link: Buffer.from(tree.readlink(path), 'latin1') }),
        mode: stats.mode,
        uid: stats.uid,
        gid: stats.gid,
        size,
        mtimeNs: stats.mtimeNs,
        major: stats.major,
        minor: stats.minor,
        xattrs: first === undefined ? tree.xattrs(path) : new Map(),
      })
      if (size > 0) {
        const fd = tree.open(path)
        try {
          writer.dataFrom(fd, 0, size)
        } finally {
          closeSync(fd)
        }
      }
      await writer.breathe()
      if (type === 'directory') await walk(path)
    }
  }
  await walk('')
}
