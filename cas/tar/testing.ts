/** For tests only: trees on disk and what is in them, archives by hand, GNU tar, and a real overlay. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
  chmodSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  AT_FDCWD,
  getXattr,
  inInitialUserNamespace,
  listXattrs,
  makedev,
  mknodat,
  mountOverlay,
  overlayPrefix,
  setTimes,
  setXattr,
} from '../../linux/index.ts'
import {
  createUnpacker,
  encodeHeader,
  END,
  packDirectory,
  padding,
  readTar,
  TarReader,
  type PackDirectoryOptions,
  type TarEntry,
  type TarOutputEntry,
  type UnpackOptions,
  type UnpackResult,
} from './index.ts'

export interface Scratch extends Disposable {
  /** A new directory of this name in it. */
  directory(name: string): string
  readonly path: string
}

export function scratch(): Scratch {
  const path = mkdtempSync(join(tmpdir(), 'tbuild-tar-'))
  return {
    path,
    directory(name) {
      const directory = join(path, name)
      mkdirSync(directory, { recursive: true })
      return directory
    },
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

/** Run with a descriptor of the directory. */
export async function withDirectory<T>(path: string, work: (fd: number) => T | Promise<T>): Promise<T> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    return await work(fd)
  } finally {
    closeSync(fd)
  }
}

// Trees

/** How one name is to be made. Times are nanoseconds; names and targets may be any bytes. */
export interface Node {
  readonly type: 'file' | 'directory' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'
  /** Relative to the tree. A hard link's target too. */
  readonly path: Buffer | string
  readonly link?: Buffer | string
  readonly contents?: string | Buffer
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtimeNs?: bigint
  readonly device?: readonly [major: number, minor: number]
  readonly xattrs?: Readonly<Record<string, Buffer>>
}

/** Make them in this order; directories get their times at the end. */
export function makeTree(root: string, nodes: readonly Node[]): void {
  for (const node of nodes) makeNode(root, node)
  for (const { path, mtimeNs = 0n } of nodes.toReversed()) {
    setTimes(AT_FDCWD, below(root, path), { mtime: mtimeNs })
  }
}

function makeNode(root: string, node: Node): void {
  const { S_IFCHR, S_IFBLK, S_IFIFO } = constants
  const path = below(root, node.path)
  switch (node.type) {
    case 'file':
      writeFileSync(path, node.contents ?? '')
      break
    case 'directory':
      mkdirSync(path)
      break
    case 'symlink':
      symlinkSync(node.link ?? '', path)
      break
    case 'hardlink':
      linkSync(below(root, node.link ?? ''), path)
      return
    case 'char':
    case 'block':
      mknodat(
        AT_FDCWD,
        path,
        (node.type === 'char' ? S_IFCHR : S_IFBLK) | 0o600,
        makedev(...(node.device ?? [1, 3])),
      )
      break
    case 'fifo':
      mknodat(AT_FDCWD, path, S_IFIFO | 0o600)
      break
  }
  lchownSync(path, node.uid ?? 0, node.gid ?? 0)
  if (node.type !== 'symlink') chmodSync(path, node.mode ?? (node.type === 'directory' ? 0o755 : 0o644))
  for (const [name, value] of Object.entries(node.xattrs ?? {})) setXattr(path, name, value)
}

/** cap_net_raw+ep, in version 2 of its form (capabilities(7)). */
export const capability: Buffer = Buffer.from('0100000200200000000000000000000000000000', 'hex')

/** u::rwx,u:1000:rwx,g::r-x,m::rwx,o::r-x, in the form that the kernel keeps it in (acl(5)). */
export const defaultAcl: Buffer = Buffer.from(
  '02000000' +
    '01000700ffffffff' +
    '02000700e8030000' +
    '04000500ffffffff' +
    '10000700ffffffff' +
    '20000500ffffffff',
  'hex',
)

/** A bit of everything that a tree can hold, as far as this process may make it; without attributes what GNU's format can say. */
export function richTree(options: { readonly xattrs: boolean }): Node[] {
  const long = 'n'.repeat(150)
  const deep = `${long}/${long}/${long}`
  const fraction = options.xattrs ? 123_456_789n : 0n
  const xattrs = {
    'user.binary': Buffer.from('a\0b\n=\xff', 'latin1'),
    'user.a=b%3Dc%': Buffer.from('1'),
    'user.empty': Buffer.alloc(0),
  }
  const isRoot = inInitialUserNamespace()
  const devices: Node[] = [
    { type: 'char', path: 'char', device: [300, 255], mode: 0o666, uid: 7 },
    { type: 'block', path: 'dev', device: [259, 70_000], mode: 0o660 },
  ]
  const nodes: Node[] = [
    { type: 'file', path: 'plain', contents: 'hello', mtimeNs: 1_600_000_000_000_000_000n + fraction },
    { type: 'file', path: 'empty', mode: 0 },
    { type: 'file', path: 'block', contents: 'x'.repeat(512), mode: 0o7777 },
    {
      type: 'file',
      path: 'large',
      contents: Buffer.alloc(100_000, 'large'),
      uid: isRoot ? 3_000_000 : 60_000,
      gid: isRoot ? 4_000_000_000 : 60_001,
    },
    { type: 'file', path: 'before 1970', mtimeNs: -2_000_000_000n + fraction },
    { type: 'file', path: 'zeros', contents: Buffer.alloc(50_000) },
    { type: 'directory', path: 'd', mode: 0o2750, uid: 1, gid: 2, mtimeNs: -1_000_000_000n },
    { type: 'hardlink', path: 'd/of plain', link: 'plain' },
    { type: 'hardlink', path: 'hard', link: 'plain' },
    { type: 'symlink', path: 'link', link: 'plain', uid: 3, gid: 4, mtimeNs: 5_000_000_000n + fraction },
    { type: 'hardlink', path: 'link of link', link: 'link' },
    { type: 'symlink', path: 'link to root', link: '/..//./x' },
    { type: 'symlink', path: 'long link', link: `${deep}/${deep}` },
    ...(isRoot ? devices : []),
    { type: 'fifo', path: 'fifo', mode: 0o622, mtimeNs: 77_000_000_000n },
    { type: 'hardlink', path: 'fifo 2', link: 'fifo' },
    { type: 'directory', path: long },
    { type: 'directory', path: `${long}/${long}` },
    { type: 'file', path: deep, contents: 'deep' },
    { type: 'file', path: Buffer.from('gr\xfc\xdf', 'latin1'), contents: 'latin' },
    { type: 'symlink', path: 'to latin', link: Buffer.from('gr\xfc\xdf', 'latin1') },
    { type: 'file', path: 'gr\u00fc\u00df', contents: 'utf8' },
    { type: 'file', path: '-dash' },
    { type: 'file', path: 'new\nline\\ ' },
    { type: 'directory', path: '.wh' },
    { type: 'file', path: '.wh/x.wh.y' },
  ]
  if (!options.xattrs) return nodes
  return [
    ...nodes,
    { type: 'file', path: 'attributes', contents: 'x', uid: 5, xattrs },
    { type: 'directory', path: 'attributed', xattrs },
    { type: 'file', path: 'capable', mode: 0o755, uid: 6, xattrs: { 'security.capability': capability } },
    { type: 'hardlink', path: 'capable too', link: 'capable' },
  ]
}

function below(root: string, path: Buffer | string): Buffer {
  return Buffer.concat([Buffer.from(`${root}/`), Buffer.from(path)])
}

/**
 * One line for each name, with all that a tar can say of it. Names are shown as byte strings. Names of one inode are shown
 * by the first of them, unless `links` is false (overlayfs gives no stable inode numbers).
 */
export function describeTree(root: string, options: { readonly links?: boolean } = {}): string[] {
  const lines: string[] = []
  const inodes = new Map<string, string>()
  const visit = (path: Buffer, name: string): void => {
    const stats = lstatSync(path, { bigint: true })
    const inode = `${stats.dev}:${stats.ino}`
    const first = inodes.get(inode)
    const same = options.links !== false && stats.nlink > 1n && !stats.isDirectory()
    if (same && first === undefined) inodes.set(inode, name)
    const says = [
      JSON.stringify(name),
      stats.mode.toString(8),
      `${stats.uid}:${stats.gid}`,
      `@${stats.mtimeNs}`,
      ...(stats.isFile() ? [`${stats.size} ${digestOf(readFileSync(path))}`] : []),
      ...(stats.isSymbolicLink() ? [`-> ${JSON.stringify(readlinkSync(path, 'latin1'))}`] : []),
      ...(stats.isCharacterDevice() || stats.isBlockDevice() ? [`device ${stats.rdev}`] : []),
      ...(same && first !== undefined ? [`is ${JSON.stringify(first)}`] : []),
      ...listXattrs(path)
        .filter((attribute) => !attribute.startsWith(overlayPrefix()))
        .map((attribute) => `${attribute}=${getXattr(path, attribute)?.toString('hex')}`),
    ]
    lines.push(says.join(' '))
    if (!stats.isDirectory()) return
    for (const child of namesIn(path)) {
      visit(
        Buffer.concat([path, Buffer.from('/'), Buffer.from(child, 'latin1')]),
        name === '' ? child : `${name}/${child}`,
      )
    }
  }
  visit(Buffer.from(root), '')
  return lines
}

function namesIn(path: Buffer): string[] {
  return readdirSync(path, 'latin1').toSorted((a, b) =>
    Buffer.compare(Buffer.from(a, 'latin1'), Buffer.from(b, 'latin1')),
  )
}

function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 12)
}

/** Write a file, only the blocks that are not zeros. */
export function punch(path: string, contents: Buffer): void {
  const fd = openSync(path, 'w')
  ftruncateSync(fd, contents.length)
  for (let at = 0; at < contents.length; at += 4096) {
    const block = contents.subarray(at, at + 4096)
    if (block.some((byte) => byte !== 0)) writeSync(fd, block, 0, block.length, at)
  }
  closeSync(fd)
}

// Archives

export async function pack(
  directory: string,
  options: Omit<PackDirectoryOptions, 'sink'> = {},
): Promise<Buffer> {
  const parts: Buffer[] = []
  await withDirectory(directory, (fd) =>
    packDirectory(fd, { ...options, sink: (chunk) => parts.push(Buffer.from(chunk)) }),
  )
  return Buffer.concat(parts)
}

export function unpack(
  archive: Buffer,
  directory: string,
  options: UnpackOptions = {},
): Promise<UnpackResult> {
  return withDirectory(directory, (fd) => {
    const unpacker = createUnpacker(fd, options)
    try {
      const reader = new TarReader(unpacker.handler)
      reader.feed(archive)
      reader.finish()
      return unpacker.finish()
    } finally {
      unpacker.close()
    }
  })
}

/** The entries with their contents, fed in chunks of so many bytes. */
export async function entriesOf(
  archive: Buffer,
  chunkSize: number = archive.length,
): Promise<(TarEntry & { readonly contents: string | undefined })[]> {
  const chunks: Buffer[] = []
  for (let at = 0; at < archive.length; at += chunkSize) chunks.push(archive.subarray(at, at + chunkSize))
  const entries: (TarEntry & { readonly contents: string | undefined })[] = []
  for await (const { entry, contents } of readTar(chunks, { wants: () => true })) {
    entries.push({ ...entry, contents: contents?.toString('latin1') })
  }
  return entries
}

/** Their names, as byte strings. */
export async function namesOf(archive: Buffer): Promise<string[]> {
  return (await entriesOf(archive)).map(({ path }) => path.toString('latin1'))
}

export type Described = Partial<TarOutputEntry> & { readonly contents?: string | Buffer }

/** An archive in our canonical form. An entry without a type is a file, or a directory if its name ends in a slash. */
export function archiveOf(...entries: readonly Described[]): Buffer {
  return Buffer.concat([
    ...entries.map(({ contents = '', path = '', ...more }) => {
      const type = more.type ?? (String(path).endsWith('/') ? 'directory' : 'file')
      const size = Buffer.byteLength(contents)
      const owner = { uid: 0, gid: 0, mode: type === 'directory' ? 0o755 : 0o644 }
      const rest = { mtimeNs: 0n, major: 0, minor: 0, xattrs: new Map<string, Buffer>() }
      const header = encodeHeader({ ...owner, ...rest, size, ...more, path, type })
      return Buffer.concat([header, Buffer.from(contents), padding(size)])
    }),
    END,
  ])
}

/** A header as bytes, for what the writer would never say. A field given as bytes is put as it is. */
export interface RawFields {
  readonly name?: string
  readonly link?: string
  readonly flag?: string
  readonly size?: number | Buffer
  readonly uid?: number | Buffer
  readonly mtime?: number | Buffer
  readonly major?: number
  readonly minor?: number
  readonly prefix?: string
  /** Default 'ustar'. */
  readonly magic?: 'ustar' | 'gnu' | 'v7'
  /** Put last, over everything but the checksum. */
  readonly patch?: readonly (readonly [offset: number, bytes: Buffer])[]
}

export function rawHeader(fields: RawFields): Buffer {
  const block = Buffer.alloc(512)
  const octal = (at: number, digits: number, value: number | Buffer): void => {
    if (typeof value === 'number') block.write(value.toString(8).padStart(digits, '0'), at, 'latin1')
    else value.copy(block, at)
  }
  block.write(fields.name ?? 'x', 0, 100, 'latin1')
  octal(100, 7, 0o644)
  octal(108, 7, fields.uid ?? 0)
  octal(116, 7, 0)
  octal(124, 11, fields.size ?? 0)
  octal(136, 11, fields.mtime ?? 0)
  block.write(fields.flag ?? '0', 156, 'latin1')
  block.write(fields.link ?? '', 157, 100, 'latin1')
  const magic = { ustar: 'ustar\x0000', gnu: 'ustar  \0', v7: '' }[fields.magic ?? 'ustar']
  block.write(magic, 257, 'latin1')
  octal(329, 7, fields.major ?? 0)
  octal(337, 7, fields.minor ?? 0)
  block.write(fields.prefix ?? '', 345, 155, 'latin1')
  for (const [offset, bytes] of fields.patch ?? []) bytes.copy(block, offset)
  block.write('        ', 148, 'latin1')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return block
}

/** Header, contents and padding. The size is that of the contents unless it is given. */
export function rawEntry(fields: RawFields, contents: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(contents)
  return Buffer.concat([rawHeader({ size: bytes.length, ...fields }), bytes, padding(bytes.length)])
}

/** The records of a PAX header, with right lengths. */
export function paxHeader(records: Readonly<Record<string, string>>, flag: 'x' | 'g' = 'x'): Buffer {
  const lines = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.byteLength(` ${key}=${value}\n`)
    let length = rest + String(rest).length
    if (rest + String(length).length !== length) length = rest + String(length).length
    return `${length} ${key}=${value}\n`
  })
  return rawEntry({ name: 'PaxHeaders', flag }, lines.join(''))
}

export function rawArchive(...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([...parts, END])
}

// GNU tar

export function gnuTar(args: readonly string[]): string {
  return execFileSync('tar', args, {
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
    encoding: 'latin1',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** The whole directory as GNU tar writes it. */
export function gnuPack(directory: string, ...options: readonly string[]): Buffer {
  const file = `${directory}.gnu.tar`
  gnuTar(['-C', directory, '--numeric-owner', ...options, '-cf', file, '.'])
  return readFileSync(file)
}

export function gnuUnpack(archive: Buffer, directory: string): void {
  const file = `${directory}.in.tar`
  writeFileSync(file, archive)
  gnuTar(['-C', directory, '--xattrs', '--xattrs-include=*', '--numeric-owner', '--same-owner', '-xpf', file])
}

// Overlay

export interface Overlay extends Disposable {
  /** To change files through. */
  readonly merged: string
  readonly upper: string
  readonly upperFd: number
  /** Of the lower layers, merged. */
  readonly lowerFd: number
}

/** A detached overlay on these directories (topmost first), with a new upper in `base`. */
export function overlay(base: Scratch, lowers: readonly string[]): Overlay {
  const upper = mkdtempSync(join(base.path, 'upper-'))
  const work = mkdtempSync(join(base.path, 'work-'))
  chmodSync(upper, 0o755)
  const [upperFd, workFd, ...lowerFds] = [upper, work, ...lowers].map((path) =>
    openSync(path, constants.O_RDONLY | constants.O_DIRECTORY),
  ) as [number, number, ...number[]]
  const root = mountOverlay({ lowers: lowerFds, upper: { upper: upperFd, work: workFd } })
  const lowerFd = lowerFds.length > 1 ? mountOverlay({ lowers: lowerFds }) : (lowerFds[0] ?? -1)
  return {
    merged: `/proc/self/fd/${root}/.`,
    upper,
    upperFd,
    lowerFd,
    [Symbol.dispose]() {
      for (const fd of new Set([root, lowerFd, upperFd, workFd, ...lowerFds])) closeSync(fd)
    },
  }
}
