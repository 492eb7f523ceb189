import { DockerfileError } from './errors.ts'
import { typeInstruction } from './instructions.ts'
import { parseSyntax, type SyntaxInstruction, type SyntaxTree } from './syntax.ts'
import { encode } from './text.ts'
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
  const { nodes } = typeNodes(tree, (error) => {
    throw error
  })
  return dockerfileOf(tree, nodes)
}

/** An instruction with what the first pass knows about it. */
export interface ParsedInstruction {
  readonly syntax: SyntaxInstruction
  readonly instruction: Instruction
}

/** As `parse`, but goes on after an instruction that is wrong; it is not in the tree. Throws for wrong syntax all the same. */
export function parseAll(
  text: string | Uint8Array,
  file: string | undefined,
): {
  readonly tree: Dockerfile
  readonly instructions: readonly ParsedInstruction[]
  readonly errors: readonly DockerfileError[]
} {
  const tree = parseSyntax(text, file)
  const errors: DockerfileError[] = []
  const { nodes, instructions } = typeNodes(tree, (error) => errors.push(error))
  return { tree: dockerfileOf(tree, nodes), instructions, errors }
}

function typeNodes(
  tree: SyntaxTree,
  onError: (error: DockerfileError) => void,
): { readonly nodes: readonly Node[]; readonly instructions: readonly ParsedInstruction[] } {
  const nodes: Node[] = []
  const instructions: ParsedInstruction[] = []
  for (const node of tree.nodes) {
    const range = tree.lines.range(node.start, node.next)
    if (node.kind !== 'instruction') {
      const tokens = tokensOf(tree, node)
      if (node.kind === 'directive')
        nodes.push({ kind: 'directive', range, tokens, directive: node.directive })
      else nodes.push({ kind: node.kind, range, tokens })
      continue
    }
    let instruction: Instruction
    try {
      instruction = typeInstruction(tree, node)
    } catch (error) {
      if (!(error instanceof DockerfileError)) throw error
      onError(error)
      continue
    }
    instructions.push({ syntax: node, instruction })
    nodes.push({ kind: 'instruction', range, tokens: tokensOf(tree, node), instruction })
  }
  return { nodes, instructions }
}

function dockerfileOf(tree: SyntaxTree, nodes: readonly Node[]): Dockerfile {
  const { file, source, escape, directives } = tree
  const instructions = nodes.flatMap((node) => (node.kind === 'instruction' ? [node.instruction] : []))
  return { file, source, escape, directives, nodes, instructions }
}

/**
 * The source, character for character, put together from the tree's tokens. A file with bytes that are not UTF-8 is printed
 * by `printBytes`; in a string each such byte is a lone surrogate.
 */
export function print(tree: Dockerfile): string {
  return tree.nodes.map((node) => node.tokens.map((token) => token.text).join('')).join('')
}

/** The source, byte for byte, whatever its bytes were. */
export function printBytes(tree: Dockerfile): Uint8Array {
  return encode(print(tree))
}
