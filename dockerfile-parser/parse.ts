import { typeInstruction } from './instructions.ts'
import { parseSyntax } from './syntax.ts'
import { tokensOf } from './tokens.ts'
import type { Dockerfile, Instruction, Node } from './types.ts'

/**
 * Parses a Dockerfile as BuildKit's built-in frontend does. `file` is for messages only.
 *
 * Throws DockerfileError, with its frame, for anything that BuildKit rejects before it begins to build; see
 * `parseSyntax`, `typeInstruction` and `stagesOf` (which a caller runs on the result) for the codes.
 */
export function parse(
  text: string | Uint8Array,
  options: { readonly file?: string | undefined } = {},
): Dockerfile {
  const tree = parseSyntax(text, options.file)
  const nodes: Node[] = []
  const instructions: Instruction[] = []
  for (const node of tree.nodes) {
    const range = tree.lines.range(node.start, node.next)
    const tokens = tokensOf(tree, node)
    if (node.kind === 'instruction') {
      const instruction = typeInstruction(tree, node)
      instructions.push(instruction)
      nodes.push({ kind: 'instruction', range, tokens, instruction })
    } else if (node.kind === 'directive') {
      nodes.push({ kind: 'directive', range, tokens, directive: node.directive })
    } else nodes.push({ kind: node.kind, range, tokens })
  }
  const { file, source, escape, directives } = tree
  return { file, source, escape, directives, nodes, instructions }
}

/** The source, byte for byte, put together from the tree's tokens. */
export function print(tree: Dockerfile): string {
  return tree.nodes.map((node) => node.tokens.map((token) => token.text).join('')).join('')
}
