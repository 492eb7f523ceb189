import type { SourceContext, SyntaxInstruction, SyntaxNode } from './syntax.ts'
import { isSpace } from './text.ts'
import type { Token, TokenKind } from './types.ts'

/** The tokens of one node: all of its characters, in order. */
export function tokensOf(context: SourceContext, node: SyntaxNode): readonly Token[] {
  const tokens = new TokenList(context)
  if (node.kind === 'instruction') instructionTokens(context.source, node, tokens)
  else if (node.kind === 'bom') tokens.add('bom', node.start, node.next)
  else {
    const end = lineEnd(context.source, node.start, node.next)
    if (node.kind === 'blank') tokens.add('blank', node.start, end)
    else tokens.add('comment', node.start, end)
    tokens.add('newline', end, node.next)
  }
  return tokens.list
}

class TokenList {
  readonly list: Token[] = []
  readonly #context: SourceContext

  constructor(context: SourceContext) {
    this.#context = context
  }

  add(kind: TokenKind, start: number, end: number): void {
    if (end <= start) return
    const { source, lines } = this.#context
    this.list.push({ kind, text: source.slice(start, end), range: lines.range(start, end) })
  }
}

function instructionTokens(source: string, node: SyntaxInstruction, tokens: TokenList): void {
  const { raw, joined } = node
  // Source places of the keyword and the flags, in order; every other word is an argument.
  const keywordEnd = raw.keyword.end > raw.keyword.start ? joined.at(raw.keyword.end - 1) + 1 : node.start
  const flags = raw.flags.map((flag) => ({ start: joined.at(flag.start), end: joined.at(flag.end - 1) + 1 }))
  let flag = 0
  for (const { line, kind } of node.lines) {
    if (kind !== 'text' && kind !== 'continued') {
      tokens.add(kind, line.start, line.end)
      tokens.add('newline', line.end, line.next)
      continue
    }
    let textEnd = line.end
    if (kind === 'continued') {
      while (source[textEnd - 1] === ' ' || source[textEnd - 1] === '\t') textEnd--
      textEnd--
    }
    let at = line.start
    while (at < textEnd) {
      const start = at
      const blank = isSpace(source.charCodeAt(at))
      while (flag < flags.length && flags[flag]!.end <= at) flag++
      const current = flags[flag]
      if (blank) {
        // Blanks within a quoted flag belong to it.
        while (at < textEnd && isSpace(source.charCodeAt(at))) at++
        tokens.add(current !== undefined && start >= current.start ? 'flag' : 'blank', start, at)
        continue
      }
      while (at < textEnd && !isSpace(source.charCodeAt(at))) at++
      const word = start < keywordEnd ? 'keyword' : undefined
      tokens.add(word ?? (current !== undefined && start >= current.start ? 'flag' : 'argument'), start, at)
    }
    tokens.add('continuation', textEnd, kind === 'continued' ? line.end : textEnd)
    tokens.add('newline', line.end, line.next)
  }
}

function lineEnd(source: string, start: number, next: number): number {
  let end = next
  while (end > start && (source[end - 1] === '\n' || source[end - 1] === '\r')) end--
  return end
}
