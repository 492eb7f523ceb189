/**
 * The conformance cases of fixtures/conformance, of buildah's suite with the results that BuildKit gave: base images, contexts, and the
 * comparison of what a build gives with what is expected.
 */
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  cpSync,
  lchownSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readSync,
  closeSync,
  symlinkSync,
  writeFileSync,
  createReadStream,
} from 'node:fs'
import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { bytesOf, openTree, show, type Image, type Store, type Tree } from '../../cas/index.ts'
import { setXattr } from '../../linux/index.ts'
import { storeImage } from './build.ts'

const ROOT = join(import.meta.dirname, '../../fixtures/conformance')

interface Operation {
  readonly op: string
  readonly path: string
  readonly mode?: string
  readonly content?: string
  readonly target?: string
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  readonly xattrs?: Readonly<Record<string, string>>
  readonly entries?: readonly TarEntrySpec[]
}
interface TarEntrySpec {
  readonly name: string
  readonly type?: string
  readonly mode?: string
  readonly uid?: number
  readonly gid?: number
  readonly content?: string
  readonly target?: string
  readonly mtime?: number
}

export interface Case {
  readonly id: string
  readonly dockerfile: string
  readonly contextOps?: readonly Operation[]
  readonly buildArgs?: Readonly<Record<string, string>>
  readonly requires?: readonly string[]
}

export interface Entry {
  readonly type: string
  readonly mode?: string
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number | 'build'
  readonly size?: number
  readonly sha256?: string
  readonly target?: string
  readonly xattrs?: Readonly<Record<string, string>>
  readonly hardlinks?: readonly string[]
  readonly major?: number
  readonly minor?: number
}

export interface Expected {
  readonly result: 'ok' | 'error'
  readonly base: string
  readonly disputed?: string
  readonly error?: string
  readonly image: {
    readonly architecture: string
    readonly os: string
    readonly config: Record<string, unknown>
  }
  readonly entries: Readonly<Record<string, Entry>>
  readonly removed: readonly string[]
}

interface Cases {
  readonly baseSubstitutes: Readonly<Record<string, string>>
  readonly contextMtime: number
  readonly cases: readonly Case[]
}

const all = JSON.parse(readFileSync(join(ROOT, 'cases.json'), 'utf8')) as Cases
export const cases: readonly Case[] = all.cases
/** What the language does not have yet: the case, and the feature that it wants. */
export const notYet: ReadonlyMap<string, string> = new Map()

export function expectedOf(id: string): Expected {
  return JSON.parse(readFileSync(join(ROOT, 'cases', id, 'expected.json'), 'utf8')) as Expected
}

export function substitute(text: string): string {
  const names = Object.keys(all.baseSubstitutes).toSorted((a, b) => b.length - a.length)
  return names.reduce((now, name) => now.replaceAll(name, all.baseSubstitutes[name] ?? name), text)
}

/** The context in `directory`, and the Dockerfile beside it; its path. */
export function prepare(
  one: Case,
  directory: string,
): { readonly context: string; readonly dockerfile: string } {
  const context = join(directory, 'context')
  const source = join(ROOT, 'cases', one.id, 'context')
  mkdirSync(context)
  cpSync(source, context, { recursive: true, verbatimSymlinks: true })
  for (const operation of one.contextOps ?? []) apply(context, operation)
  const skip = (one.contextOps ?? [])
    .filter(({ op }) => op === 'mtime')
    .map(({ path }) => join(context, path))
  setTimes(context, all.contextMtime, new Set(skip))
  const dockerfile = join(directory, 'Dockerfile')
  writeFileSync(dockerfile, substitute(readFileSync(join(source, one.dockerfile), 'utf8')))
  return { context, dockerfile }
}

function apply(context: string, operation: Operation): void {
  const path = join(context, operation.path)
  const mode = Number.parseInt(operation.mode ?? '0644', 8)
  switch (operation.op) {
    case 'mkdir':
      mkdirSync(path, { recursive: true })
      chmodSync(path, mode)
      return
    case 'symlink':
      mkdirSync(dirname(path), { recursive: true })
      symlinkSync(operation.target ?? '', path)
      return
    case 'write':
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, operation.content ?? '')
      chmodSync(path, mode)
      return
    case 'chown':
      chownSync(path, operation.uid ?? 0, operation.gid ?? 0)
      return
    case 'chmod':
      chmodSync(path, mode)
      return
    case 'mtime':
      lutimesSync(path, operation.mtime ?? 0, operation.mtime ?? 0)
      return
    case 'setxattr':
      for (const [name, value] of Object.entries(operation.xattrs ?? {}))
        setXattr(path, name, Buffer.from(value))
      return
    case 'static-true':
      copyFileSync('/bin/busybox', path)
      chmodSync(path, 0o755)
      return
    case 'tar':
      writeTar(path, operation.entries ?? [])
      return
    default:
      throw new Error(`unknown operation ${operation.op}`)
  }
}

/** With GNU tar, from a directory made for it. */
function writeTar(path: string, entries: readonly TarEntrySpec[]): void {
  const directory = `${path}.tree`
  mkdirSync(directory)
  for (const entry of entries) {
    const at = join(directory, entry.name)
    mkdirSync(dirname(at), { recursive: true })
    if (entry.type === 'dir') mkdirSync(at, { recursive: true })
    else if (entry.type === 'symlink') symlinkSync(entry.target ?? '', at)
    else writeFileSync(at, entry.content ?? '')
    lchownSync(at, entry.uid ?? 0, entry.gid ?? 0)
    if (entry.type !== 'symlink') chmodSync(at, Number.parseInt(entry.mode ?? '0644', 8))
    lutimesSync(at, entry.mtime ?? all.contextMtime, entry.mtime ?? all.contextMtime)
  }
  execFileSync('tar', ['-C', directory, '--no-recursion', '-cf', path, ...entries.map((entry) => entry.name)])
  execFileSync('rm', ['-r', directory])
}

function setTimes(path: string, mtime: number, skip: ReadonlySet<string>): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const at = join(path, entry.name)
    if (entry.isDirectory()) setTimes(at, mtime, skip)
    else if (!skip.has(at)) lutimesSync(at, mtime, mtime)
  }
  if (!skip.has(path)) lutimesSync(path, mtime, mtime)
}

interface BaseSpec {
  readonly name: string
  readonly shell?: string
  readonly directories: readonly { readonly path: string; readonly mode: string }[]
  readonly files: readonly { readonly path: string; readonly mode: string; readonly content: string }[]
  readonly config: Record<string, unknown>
}

/** Puts the base images into the store, made in `directory`; by name. */
export async function makeBases(store: Store, directory: string): Promise<ReadonlyMap<string, Image>> {
  const { mtime, bases } = JSON.parse(readFileSync(join(ROOT, 'bases.json'), 'utf8')) as {
    mtime: number
    bases: readonly BaseSpec[]
  }
  const images = new Map<string, Image>()
  for (const base of bases) {
    const root = join(directory, base.name.replaceAll('/', '_'))
    mkdirSync(root)
    for (const { path, mode } of base.directories) {
      mkdirSync(join(root, path), { recursive: true })
      chmodSync(join(root, path), Number.parseInt(mode, 8))
    }
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
    chmodSync(join(root, 'bin/busybox'), 0o755)
    for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n')) {
      if (applet !== 'busybox' && !(applet === 'sh' && base.shell === 'bash'))
        symlinkSync('busybox', join(root, 'bin', applet))
    }
    if (base.shell === 'bash') {
      copyFileSync('/bin/bash-static', join(root, 'bin/bash'))
      chmodSync(join(root, 'bin/bash'), 0o755)
      symlinkSync('bash', join(root, 'bin/sh'))
    }
    for (const { path, mode, content } of base.files) {
      mkdirSync(join(root, dirname(path)), { recursive: true })
      writeFileSync(join(root, path), content)
      chmodSync(join(root, path), Number.parseInt(mode, 8))
    }
    setTimes(root, mtime, new Set())
    execFileSync('tar', ['-C', root, '--sort=name', '--numeric-owner', '-cf', `${root}.tar`, '.'])
    const layer = await store.layers.ingestTar(createReadStream(`${root}.tar`))
    images.set(base.name, storeImage(store, layer, base.config, `${base.name}:latest`))
  }
  return images
}

/** Every entry of an image's file system, `/` first. */
export async function entriesOf(store: Store, image: Image | undefined): Promise<Map<string, Entry>> {
  const layers = (image?.config.rootfs.diff_ids ?? []).map((diffId) => store.layers.open(diffId))
  await using root = await store.layers.mount(layers)
  using tree = openTree(root.fd)
  const entries = new Map<string, Entry>()
  const links = new Map<bigint, string[]>()
  const walk = (path: string): void => {
    const stats = tree.lstat(path)
    if (stats === undefined) return
    const name = `/${show(path)}`
    const entry = describe(tree, path, stats)
    entries.set(name, entry)
    if (stats.isFile() && stats.nlink > 1) links.set(stats.ino, [...(links.get(stats.ino) ?? []), name])
    if (stats.isDirectory())
      for (const child of tree.list(path)) walk(path === '' ? child : `${path}/${child}`)
  }
  walk(bytesOf(''))
  for (const names of links.values()) {
    for (const name of names) {
      const entry = entries.get(name)
      if (entry !== undefined && names.length > 1)
        entries.set(name, { ...entry, hardlinks: names.toSorted() })
    }
  }
  return entries
}

function describe(tree: Tree, path: string, stats: NonNullable<ReturnType<Tree['lstat']>>): Entry {
  const common = {
    mode: stats.mode.toString(8).padStart(4, '0'),
    uid: stats.uid,
    gid: stats.gid,
    mtime: Number(stats.mtimeNs / 1_000_000_000n),
  }
  const xattrs = Object.fromEntries([...tree.xattrs(path)].map(([name, value]) => [name, value.toString()]))
  const more = Object.keys(xattrs).length === 0 ? {} : { xattrs }
  if (stats.isDirectory()) return { type: 'dir', ...common, ...more }
  if (stats.isSymbolicLink())
    return { type: 'symlink', ...common, target: show(tree.readlink(path)), ...more }
  if (!stats.isFile()) return { type: stats.type, ...common }
  const fd = tree.open(path)
  try {
    const contents = Buffer.alloc(stats.size)
    readSync(fd, contents, 0, contents.length, 0)
    const sha256 = createHash('sha256').update(contents).digest('hex')
    return { type: 'file', ...common, size: contents.length, sha256, ...more }
  } finally {
    closeSync(fd)
  }
}

const VOLATILE = new Set(['/', '/dev', '/etc', '/proc', '/sys'])

/**
 * What differs from what is expected, a line each. What buildah's own suite forgives (`ignore` in cases.json) is compared too. Only `user.*`
 * attributes may be there that are not expected: BuildKit drops those of a context or an archive.
 */
export function compareTrees(
  expected: Expected,
  base: ReadonlyMap<string, Entry>,
  built: ReadonlyMap<string, Entry>,
): string[] {
  const differences: string[] = []
  for (const [path, entry] of built) {
    const wanted = expected.entries[path]
    if (wanted === undefined) {
      const before = base.get(path)
      if (before !== undefined && same(before, entry, path)) continue
      differences.push(`${path} is not expected: ${JSON.stringify(entry)} (base: ${JSON.stringify(before)})`)
      continue
    }
    for (const name of new Set([...Object.keys(wanted), ...Object.keys(entry)]) as Set<keyof Entry>) {
      const [value, found] = [wanted[name], entry[name]]
      if (name === 'mtime' && (value === 'build' || VOLATILE.has(path))) continue
      if (JSON.stringify(found) === JSON.stringify(value)) continue
      if (name === 'xattrs' && value === undefined && areUsers(entry.xattrs)) continue
      differences.push(`${path}: ${name} is ${JSON.stringify(found)}, expected ${JSON.stringify(value)}`)
    }
    if (wanted.mtime === 'build' && base.get(path)?.mtime === entry.mtime && !VOLATILE.has(path)) {
      differences.push(`${path}: mtime is the base's, expected the build's`)
    }
  }
  for (const path of Object.keys(expected.entries))
    if (!built.has(path)) differences.push(`${path} is missing`)
  for (const path of expected.removed)
    if (built.has(path)) differences.push(`${path} should have been removed`)
  for (const path of base.keys()) {
    if (!built.has(path) && !expected.removed.some((gone) => path === gone || path.startsWith(`${gone}/`))) {
      differences.push(`${path} is gone`)
    }
  }
  return differences
}

function areUsers(xattrs: Entry['xattrs'] = {}): boolean {
  return Object.keys(xattrs).every((name) => name.startsWith('user.'))
}

function same(a: Entry, b: Entry, path: string): boolean {
  const strip = ({ mtime, ...rest }: Entry): unknown => (VOLATILE.has(path) ? rest : { ...rest, mtime })
  return JSON.stringify(strip(a)) === JSON.stringify(strip(b))
}

/** Configs: lists as sets, what is missing equals what is empty. */
export function compareConfigs(expected: Record<string, unknown>, found: Record<string, unknown>): string[] {
  const differences: string[] = []
  for (const key of new Set([...Object.keys(expected), ...Object.keys(found)])) {
    const [a, b] = [normal(expected[key]), normal(found[key])]
    if (a !== b) differences.push(`config.${key} is ${b}, expected ${a}`)
  }
  return differences
}

function normal(value: unknown): string {
  if (value === undefined || value === null || value === '' || value === false) return 'nothing'
  if (Array.isArray(value))
    return value.length === 0
      ? 'nothing'
      : JSON.stringify(value.map((item) => JSON.stringify(item)).toSorted())
  if (typeof value === 'object') {
    const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
    return entries.length === 0 ? 'nothing' : JSON.stringify(Object.fromEntries(entries))
  }
  return JSON.stringify(value)
}
