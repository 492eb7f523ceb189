/**
 * Which packages repeat most. Whose a file is, is told by what package managers leave in a layer:
 * - npm: `node_modules/NAME/package.json` names all in its directory, which may have an alias for a name;
 * - Debian: `var/lib/dpkg/info/NAME.list` names files, `var/lib/dpkg/status` (or `status.d/`) versions;
 * - Python: `NAME-VERSION.dist-info/RECORD` names files;
 * - Alpine: `lib/apk/db/installed` names both.
 * Layers are hostile: what does not parse is not counted, and nothing larger than 64 MiB is read.
 */
import type { ReadLayer } from '../layer/read.ts'
import { LayerTree } from '../layer/tree.ts'
import type { StoreContext } from '../store/context.ts'
import { show } from '../tree/tree.ts'
import type { PackageKind, RepeatedPackage } from './types.ts'
import { readContent } from './view.ts'

export interface Packages {
  /** Files of one layer follow. */
  begin(layer: ReadLayer, number: number): LayerOwner
  /** Those with repetitions, most first. */
  most(): RepeatedPackage[]
}

export interface LayerOwner {
  /** To be called before a directory's files; what it returns goes to `file`. Parents come before what is in them. */
  enter(directory: number, path: string): PackageCount | undefined
  file(path: string, owner: PackageCount | undefined, bytes: number, repeatedBytes: number): void
}

export interface PackageCount {
  readonly kind: PackageKind
  readonly name: string
  readonly version: string
  copies: number
  /** Their numbers. */
  readonly layers: Set<number>
  bytes: number
  repeatedBytes: number
}

type Found = Pick<PackageCount, 'kind' | 'name' | 'version'>

const MOST = 50
const LARGEST = 64 * 1024 * 1024

export function createPackages(context: StoreContext): Packages {
  const counts = new Map<string, PackageCount>()
  const countOf = ({ kind, name, version }: Found, layer: number): PackageCount => {
    const key = `${kind} ${name} ${version}`
    let known = counts.get(key)
    if (known === undefined) {
      known = { kind, name, version, copies: 0, layers: new Set(), bytes: 0, repeatedBytes: 0 }
      counts.set(key, known)
    }
    known.layers.add(layer)
    return known
  }
  return {
    begin: (layer, number) => {
      const text = (inode: number | undefined): string => readText(context, layer, inode)
      const listed = new Map<string, PackageCount>()
      const list = (found: Found, paths: Iterable<string>): void => {
        const count = countOf(found, number)
        count.copies++
        for (const path of paths) if (!listed.has(path)) listed.set(path, count)
      }
      listDebian(layer.tree, text, list)
      listAlpine(layer.tree, text, list)
      const npm = new Map<string, PackageCount | undefined>()
      return {
        enter: (directory, path) => {
          // Before their files, which are this directory's and its subdirectories'.
          if (/(?:^|\/)(?:site|dist)-packages$/.test(path))
            listPython(layer.tree, directory, path, text, list)
          const above = npm.get(parentOf(path))
          const found = npmPackage(layer.tree, directory, path, text)
          const owner = found === undefined ? above : countOf(found, number)
          if (found !== undefined && owner !== undefined) owner.copies++
          if (owner !== undefined) npm.set(path, owner)
          return owner
        },
        file: (path, owner, bytes, repeatedBytes) => {
          const count = listed.get(path) ?? owner
          if (count === undefined) return
          count.bytes += bytes
          count.repeatedBytes += repeatedBytes
        },
      }
    },
    most: () =>
      [...counts.values()]
        .filter(({ repeatedBytes }) => repeatedBytes > 0)
        .toSorted((a, b) => b.repeatedBytes - a.repeatedBytes || (a.name < b.name ? -1 : 1))
        .slice(0, MOST)
        .map(({ layers, ...count }) => ({ ...count, layers: layers.size })),
  }
}

type ReadText = (inode: number | undefined) => string
type List = (found: Found, paths: Iterable<string>) => void

function npmPackage(tree: LayerTree, directory: number, path: string, text: ReadText): Found | undefined {
  const [, name] = /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/@.][^/]*)$/.exec(path) ?? []
  const manifest = name === undefined ? undefined : tree.lookup(directory, 'package.json')
  if (name === undefined || manifest === undefined) return undefined
  try {
    const parsed: unknown = JSON.parse(show(text(manifest)))
    if (typeof parsed !== 'object' || parsed === null) return undefined
    const version = 'version' in parsed ? parsed.version : undefined
    const own = 'name' in parsed && typeof parsed.name === 'string' ? short(parsed.name) : show(name)
    return typeof version === 'string' ? { kind: 'npm', name: own, version: short(version) } : undefined
  } catch {
    return undefined
  }
}

function listDebian(tree: LayerTree, text: ReadText, list: List): void {
  const dpkg = lookupPath(tree, 'var/lib/dpkg')
  if (dpkg === undefined) return
  const info = tree.lookup(dpkg, 'info')
  const versions = new Map<string, string>()
  const read = (status: string): void => {
    for (const paragraph of status.split('\n\n')) {
      const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(paragraph)?.[1] ?? ''
      versions.set(field('Package'), field('Version'))
      versions.set(`${field('Package')}:${field('Architecture')}`, field('Version'))
    }
  }
  const status = tree.lookup(dpkg, 'status')
  read(text(status))
  if (info === undefined || !tree.isDirectory(info)) return
  for (const [name, inode] of tree.children(info)) {
    if (!name.endsWith('.list')) continue
    const id = name.slice(0, -'.list'.length)
    const [packageName = id] = id.split(':')
    const paths = text(inode)
      .split('\n')
      .flatMap((line) => realPaths(tree, line))
    list({ kind: 'debian', name: show(packageName), version: short(show(versions.get(id) ?? '')) }, paths)
  }
}

const MERGED = /^(?:bin|sbin|lib|lib32|lib64|libx32)\//

/** Where /lib is a symlink to usr/lib, the lists say one and the layer the other. */
function realPaths(tree: LayerTree, line: string): string[] {
  if (!line.startsWith('/') || line === '/.') return []
  const path = line.slice(1)
  if (!MERGED.test(path)) return [path]
  const top = tree.lookup(LayerTree.ROOT, path.slice(0, path.indexOf('/')))
  return top !== undefined && tree.isDirectory(top) ? [path] : [path, `usr/${path}`]
}

function listPython(tree: LayerTree, directory: number, path: string, text: ReadText, list: List): void {
  for (const [info, inode] of tree.children(directory)) {
    const [, name, version] = /^(.+)-([^-]+)\.dist-info$/.exec(info) ?? []
    const record = name === undefined ? undefined : tree.lookup(inode, 'RECORD')
    if (name === undefined || version === undefined || record === undefined) continue
    const paths = text(record)
      .split('\n')
      .map((line) => below(path, fieldOf(line)))
    list({ kind: 'python', name: show(name), version: short(show(version)) }, paths)
  }
}

/** The first, of a line of comma-separated values. */
function fieldOf(line: string): string {
  return (line.startsWith('"') ? line.slice(1).split('"', 1) : line.split(',', 1))[0] ?? ''
}

function listAlpine(tree: LayerTree, text: ReadText, list: List): void {
  const installed = lookupPath(tree, 'lib/apk/db/installed') ?? lookupPath(tree, 'usr/lib/apk/db/installed')
  for (const paragraph of text(installed).split('\n\n')) {
    let [name, version, folder] = ['', '', '']
    const paths: string[] = []
    for (const line of paragraph.split('\n')) {
      const value = line.slice(2)
      if (line.startsWith('P:')) name = value
      else if (line.startsWith('V:')) version = value
      else if (line.startsWith('F:')) folder = value
      else if (line.startsWith('R:')) paths.push(folder === '' ? value : `${folder}/${value}`)
    }
    if (name !== '') list({ kind: 'alpine', name: show(name), version: short(show(version)) }, paths)
  }
}

/** `..` goes up, as in the records of scripts. */
function below(base: string, path: string): string {
  const parts = base.split('/')
  for (const part of path.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  return parts.filter((part) => part !== '').join('/')
}

function lookupPath(tree: LayerTree, path: string): number | undefined {
  let inode: number | undefined = LayerTree.ROOT
  for (const name of path.split('/')) inode = inode === undefined ? undefined : tree.lookup(inode, name)
  return inode
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')))
}

/** A name or version: it comes from the image. npm's names have 214 characters at most. */
function short(text: string): string {
  return text.slice(0, 214)
}

/** A file as a byte string; empty when it is none, too large, or damaged. */
function readText(context: StoreContext, { tree, contents }: ReadLayer, inode: number | undefined): string {
  if (inode === undefined || tree.type(inode) !== 'file' || tree.size(inode) > LARGEST) return ''
  try {
    let text = ''
    for (const { content, length } of tree.pieces(inode)) {
      for (const part of readContent(context, contents.digest(content), length))
        text += part.toString('latin1')
    }
    return text
  } catch {
    return ''
  }
}
