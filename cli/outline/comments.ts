/** Descriptions are comments: `# NAME text` before the instruction that brings in NAME. */
import type { Dockerfile, Instruction, Range } from '../../dockerfile-parser/index.ts'
import type { Location } from './types.ts'

/** By instruction, the comments above it; a comment without text begins anew, empty lines do not. */
export function commentsOf(tree: Dockerfile): ReadonlyMap<Instruction, readonly string[]> {
  const found = new Map<Instruction, readonly string[]>()
  let comments: string[] = []
  for (const node of tree.nodes) {
    if (node.kind === 'instruction') {
      found.set(node.instruction, comments)
      comments = []
    } else if (node.kind === 'comment') {
      for (const line of tree.source.slice(node.range.start.offset, node.range.end.offset).split('\n')) {
        const text = /^\s*#(.*)$/s.exec(line)?.[1]?.trim()
        if (text === '') comments = []
        else if (text !== undefined) comments.push(text)
      }
    }
  }
  return found
}

export function describe(comments: readonly string[] | undefined, name: string): string | undefined {
  const line = comments?.find((text) => text.startsWith(`${name} `))
  return line?.slice(name.length + 1)
}

/** By lines, as BuildKit has it. */
export function locationOf({ start, end }: Range): Location {
  // Where a line break belongs to the instruction, its end is the next line's beginning.
  const last = end.column === 1 && end.line > start.line ? end.line - 1 : end.line
  return { ranges: [{ start: { line: start.line }, end: { line: last } }] }
}
