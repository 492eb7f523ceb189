/** Errors that name the file: what is found wrong is known by inode, and only then is it worth to look for its name. */
import { TbuildError } from '../../errors.ts'
import { LayerTree } from '../layer/tree.ts'

export function layerError(code: string, tree: LayerTree, inode: number, message: string): TbuildError {
  return new TbuildError(code, `${pathOf(tree, inode)}: ${message}`)
}

/** The first path that leads to an inode, as in the layer. */
function pathOf(tree: LayerTree, wanted: number): string {
  const pending: [directory: number, path: string][] = [[LayerTree.ROOT, '']]
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [directory, path] = next
    if (directory === wanted) break
    for (const [name, inode] of tree.children(directory)) {
      if (inode === wanted) return Buffer.from(`${path}/${name}`, 'latin1').toString()
      if (tree.isDirectory(inode)) pending.push([inode, `${path}/${name}`])
    }
  }
  return '/'
}
