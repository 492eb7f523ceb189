/**
 * A recording must be complete: what the model has at its end is what is on the disk. A call that the tracer does not know would show here. The only thing left out is
 * SQLite's shared memory.
 */
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { getXattr, listXattrs } from '../../linux/index.ts'
import { Model } from './model.ts'
import type { Recording } from './record.ts'
import { pathBytes, type Tree, type TreeNode } from './tree.ts'

/** What an overlay notes on its upper's directories, without a call of anyone's. */
const KERNELS_OWN = new Set(['trusted.overlay.impure', 'trusted.overlay.origin', 'trusted.overlay.uuid'])

/** Names what differs. */
export function differencesOf(recording: Recording): string[] {
  const model = new Model(recording)
  for (const [at, operation] of recording.log.operations.entries()) model.apply(operation, at)
  const differences: string[] = []
  compare(recording.store, '.', model.tree(), differences)
  const names = new Set(model.tree().keys())
  for (const path of names) {
    if (lstatSync(pathBytes(recording.store, path), { throwIfNoEntry: false }) === undefined)
      differences.push(`${path} is not there`)
  }
  return differences
}

function compare(root: string, path: string, tree: Tree, differences: string[]): void {
  const bytes = pathBytes(root, path)
  const node = tree.get(path)
  if (node === undefined) {
    differences.push(`${path} is not known`)
    return
  }
  const wrong = differs(bytes, node)
  if (wrong !== undefined) differences.push(`${path}: ${wrong}`)
  if (node.kind !== 'directory') return
  for (const name of readdirSync(bytes, 'latin1')) {
    if (!name.endsWith('-shm')) compare(root, path === '.' ? name : `${path}/${name}`, tree, differences)
  }
}

function differs(path: Buffer, node: TreeNode): string | undefined {
  const stats = lstatSync(path)
  const kind = stats.isDirectory()
    ? 'directory'
    : stats.isFile()
      ? 'file'
      : stats.isSymbolicLink()
        ? 'symlink'
        : 'special'
  if (kind !== node.kind) return `a ${kind}, not a ${node.kind}`
  if (((stats.mode ^ node.mode) & 0o7777) !== 0)
    return `mode ${stats.mode.toString(8)}, not ${node.mode.toString(8)}`
  if (stats.uid !== node.uid || stats.gid !== node.gid) return 'the owner'
  if (kind === 'special') return stats.rdev === node.rdev ? undefined : 'the device number'
  if (kind === 'symlink') return readlinkSync(path, 'latin1') === node.target ? undefined : 'the target'
  if (kind === 'file' && !readFileSync(path).equals(node.content ?? Buffer.alloc(0))) return 'the contents'
  const names = listXattrs(path).filter((name) => !KERNELS_OWN.has(name))
  if (names.length !== [...node.xattrs.keys()].filter((name) => !KERNELS_OWN.has(name)).length)
    return 'the attributes'
  for (const name of names)
    if (node.xattrs.get(name)?.equals(getXattr(path, name) ?? Buffer.alloc(0)) !== true)
      return `attribute ${name}`
  return undefined
}
