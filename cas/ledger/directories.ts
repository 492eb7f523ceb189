/**
 * Which directories repeat most. Bytes are counted where they are; a directory that has too few of its own (2% of all) passes them on to its parent,
 * so that what is reported is as deep as it can be while it still matters, and no byte is in two of the rows.
 */
import type { RepeatedDirectory } from './types.ts'
import { absolute } from './view.ts'

export interface Directories {
  /** @param layer number of the layer where it was seen */
  add(path: string, repeatedBytes: number, layer: number): void
  most(): RepeatedDirectory[]
}

interface Node {
  readonly children: Map<string, Node>
  bytes: number
  files: number
  readonly layers: Set<number>
}

const SHARE = 0.02
const MOST = 50

export function createDirectories(): Directories {
  const root = newNode()
  let total = 0
  return {
    add: (path, repeatedBytes, layer) => {
      let node = root
      for (const name of path === '' ? [] : path.split('/')) {
        let child = node.children.get(name)
        if (child === undefined) node.children.set(name, (child = newNode()))
        node = child
      }
      node.bytes += repeatedBytes
      node.files++
      node.layers.add(layer)
      total += repeatedBytes
    },
    most: () => {
      const found: RepeatedDirectory[] = []
      const report = (node: Node, path: string): void => {
        for (const [name, child] of node.children) {
          const at = path === '' ? name : `${path}/${name}`
          report(child, at)
          node.bytes += child.bytes
          node.files += child.files
          for (const layer of child.layers) node.layers.add(layer)
        }
        node.children.clear()
        if (node.bytes === 0 || (node.bytes < total * SHARE && node !== root)) return
        const { bytes, files, layers } = node
        found.push({ path: absolute(path), repeatedBytes: bytes, files, layers: layers.size })
        Object.assign(node, newNode())
      }
      report(root, '')
      return found
        .toSorted((a, b) => b.repeatedBytes - a.repeatedBytes || (a.path < b.path ? -1 : 1))
        .slice(0, MOST)
    },
  }
}

function newNode(): Node {
  return { children: new Map(), bytes: 0, files: 0, layers: new Set() }
}
