/**
 * An image as a third party unpacks it, so that builders can be compared: umoci applies the layers, and what it made is read with plain lstat(2)
 * and listxattr(2). Nothing here uses tbuild's own readers of layers.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { getXattr, listXattrs } from '../../linux/index.ts'
import type { Entry } from './conformance.ts'

/** An image in files: its config, and its layers in order, each a tar, compressed (gzip) or not. */
export interface ImageFiles {
  readonly config: string
  readonly layers: readonly string[]
}

export interface Unpacked {
  /** All of the config but what names layers, tells dates or tells of the building: `rootfs`, `created`, `history` and the like. */
  readonly config: Readonly<Record<string, unknown>>
  /** By absolute path, `/` first. */
  readonly entries: ReadonlyMap<string, Entry>
}

/** Unpacks into `directory`, which must not be there. Modification times from `since` (seconds) on are `'build'`: what the build gave. */
export function unpack(image: ImageFiles, directory: string, since: number): Unpacked {
  const blobs = join(directory, 'layout/blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const blob = (path: string): { readonly digest: string; readonly size: number } => {
    const hex = createHash('sha256').update(readFileSync(path)).digest('hex')
    // The same empty layer may come twice.
    if (!existsSync(join(blobs, hex))) symlinkSync(path, join(blobs, hex))
    return { digest: `sha256:${hex}`, size: statSync(path).size }
  }
  const manifest = {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...blob(image.config) },
    layers: image.layers.map((path) => ({
      mediaType: `application/vnd.oci.image.layer.v1.tar${isGzip(path) ? '+gzip' : ''}`,
      ...blob(path),
    })),
  }
  const file = join(directory, 'manifest.json')
  writeFileSync(file, JSON.stringify(manifest))
  const annotations = { 'org.opencontainers.image.ref.name': 'image' }
  const index = {
    schemaVersion: 2,
    manifests: [{ mediaType: manifest.mediaType, ...blob(file), annotations }],
  }
  writeFileSync(join(directory, 'layout/index.json'), JSON.stringify(index))
  writeFileSync(join(directory, 'layout/oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const root = join(directory, 'rootfs')
  const args = ['raw', 'unpack', '--image', `${join(directory, 'layout')}:image`, root]
  execFileSync('umoci', args, { stdio: ['ignore', 'ignore', 'pipe'] })
  return { config: comparable(readFileSync(image.config, 'utf8')), entries: entriesBelow(root, since) }
}

function isGzip(path: string): boolean {
  return readFileSync(path)
    .subarray(0, 2)
    .equals(Buffer.from([0x1f, 0x8b]))
}

const NOT_COMPARED = new Set([
  'rootfs',
  'created',
  'history',
  'container',
  'container_config',
  'docker_version',
  'id',
  'parent',
])

function comparable(text: string): Record<string, unknown> {
  const { config, ...rest } = JSON.parse(text) as { config?: Record<string, unknown> }
  const image = Object.entries(rest).filter(([name]) => !NOT_COMPARED.has(name))
  const run = Object.entries(config ?? {}).map(([name, value]) => [`config.${name}`, value])
  return Object.fromEntries([...image, ...run])
}

function entriesBelow(root: string, since: number): Map<string, Entry> {
  const entries = new Map<string, Entry>()
  const links = new Map<bigint, string[]>()
  const walk = (name: string): void => {
    const path = join(root, name)
    const stats = lstatSync(path, { bigint: true })
    const mtime = Number(stats.mtimeNs / 1_000_000_000n)
    const xattrs = Object.fromEntries(
      listXattrs(path).map((key) => [key, getXattr(path, key)?.toString('latin1') ?? '']),
    )
    const common = {
      mode: (Number(stats.mode) & 0o7777).toString(8).padStart(4, '0'),
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      mtime: mtime >= since ? ('build' as const) : mtime,
      ...(Object.keys(xattrs).length === 0 ? {} : { xattrs }),
    }
    if (stats.isDirectory()) {
      entries.set(name, { type: 'dir', ...common })
      for (const child of readdirSync(path).toSorted()) walk(join(name, child))
      return
    }
    if (stats.nlink > 1n) links.set(stats.ino, [...(links.get(stats.ino) ?? []), name])
    if (stats.isSymbolicLink()) {
      entries.set(name, { type: 'symlink', ...common, target: readlinkSync(path) })
    } else if (stats.isFile()) {
      const contents = readFileSync(path)
      const sha256 = createHash('sha256').update(contents).digest('hex')
      entries.set(name, { type: 'file', ...common, size: contents.length, sha256 })
    } else {
      const device = Number(stats.rdev)
      const type = stats.isFIFO() ? 'fifo' : stats.isBlockDevice() ? 'block' : 'char'
      entries.set(name, { type, ...common, major: device >> 8, minor: device & 0xff })
    }
  }
  walk('/')
  for (const names of links.values())
    for (const name of names) {
      const entry = entries.get(name)
      if (entry !== undefined && names.length > 1)
        entries.set(name, { ...entry, hardlinks: names.toSorted() })
    }
  return entries
}

/** What differs, a line each: `path attribute: ours | theirs`, `-` for what is not there. A field that is missing equals an empty one. */
export function differencesOf(ours: Unpacked, theirs: Unpacked): string[] {
  const lines: string[] = []
  for (const key of [...new Set([...Object.keys(ours.config), ...Object.keys(theirs.config)])].toSorted()) {
    const [a, b] = [plain(ours.config[key]), plain(theirs.config[key])]
    if (a !== b) lines.push(`${key}: ${a} | ${b}`)
  }
  for (const path of [...new Set([...ours.entries.keys(), ...theirs.entries.keys()])].toSorted()) {
    const [a, b] = [ours.entries.get(path), theirs.entries.get(path)]
    if (a === undefined || b === undefined) {
      lines.push(`${path} entry: ${a?.type ?? '-'} | ${b?.type ?? '-'}`)
      continue
    }
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)]) as Set<keyof Entry>) {
      const [x, y] = [plain(a[key]), plain(b[key])]
      if (x !== y) lines.push(`${path} ${key}: ${x} | ${y}`)
    }
  }
  return lines
}

function plain(value: unknown): string {
  if (value === undefined || value === null || value === '' || value === false) return '-'
  if (typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return value.length === 0 ? '-' : JSON.stringify(value)
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return entries.length === 0 ? '-' : JSON.stringify(Object.fromEntries(entries))
}
