/**
 * The first pass: text to lines, directives, instructions with flags and raw arguments, heredocs. It knows how each
 * instruction's arguments are split, but not what they mean, and accepts instructions and flags that do not exist; so
 * does BuildKit's `parser` package, which it follows. `instructions.ts` makes typed instructions of the result.
 */
import { splitInstruction } from './arguments.ts'
import type { RawInstruction } from './arguments.ts'
import { readDirective } from './directives.ts'
import { heredocsOfLine, stripTabs } from './heredoc.ts'
import { DockerfileError } from './errors.ts'
import { errorAt, indexLines } from './source.ts'
import type { LineIndex } from './source.ts'
import { bomLength, decode, findEscapedByte, isSpace, lineTooLong, skipSpace } from './text.ts'
import type { Directive, EscapeToken, Heredoc, Range } from './types.ts'

/** What the later passes need to name a place. */
export interface SourceContext {
  readonly file: string
  readonly source: string
  readonly lines: LineIndex
}

/** One physical line: [start, end) without its ending, next line at `next`. */
export interface Line {
  readonly start: number
  readonly end: number
  readonly next: number
}

/** The physical lines of an instruction put together, and the way back to the source. */
export interface JoinedText {
  readonly text: string
  /** Source offset of the character at `index`. */
  at(index: number): number
  /** Source range of [start, end). */
  range(start: number, end: number): Range
}

export interface SyntaxInstruction {
  readonly kind: 'instruction'
  /** From the keyword's first character to the end of the last line that belongs to it, heredocs included. */
  readonly start: number
  readonly end: number
  readonly next: number
  readonly joined: JoinedText
  readonly raw: RawInstruction
  readonly heredocs: readonly Heredoc[]
  readonly lines: readonly { readonly line: Line; readonly kind: LineKind }[]
  /** Source offset past the command itself: where the heredocs begin. */
  readonly commandEnd: number
}

/** What a physical line is within its instruction. `continued`: text that ends in a continuation character. */
export type LineKind = 'text' | 'continued' | 'comment' | 'blank' | 'heredoc' | 'heredoc-end'

export type SyntaxNode =
  | { readonly kind: 'bom' | 'blank' | 'comment'; readonly start: number; readonly next: number }
  | {
      readonly kind: 'directive'
      readonly start: number
      readonly next: number
      readonly directive: Directive
    }
  | SyntaxInstruction

export interface SyntaxTree extends SourceContext {
  readonly escape: EscapeToken
  readonly directives: { syntax?: Directive; escape?: Directive; check?: Directive }
  readonly nodes: readonly SyntaxNode[]
}

/**
 * Throws DockerfileError: EMPTY_DOCKERFILE, LINE_TOO_LONG, INVALID_UTF8, DUPLICATE_DIRECTIVE, INVALID_ESCAPE,
 * UNTERMINATED_HEREDOC, HEREDOC_SYNTAX, and those of `splitInstruction`.
 */
export function parseSyntax(input: string | Uint8Array, file = 'Dockerfile'): SyntaxTree {
  const { text: source, valid } = decode(input)
  const lines = indexLines(source)
  const context: SourceContext = { file, source, lines }
  const reader = new LineReader(context)
  const nodes: SyntaxNode[] = []
  const directives: { syntax?: Directive; escape?: Directive; check?: Directive } = {}
  let escape: EscapeToken = '\\'
  // 'all' until the first line that is no directive; 'shebang' after a first line `#!`, where BuildKit still finds
  // `syntax` and `check` but no longer `escape`.
  let wanted: 'all' | 'shebang' | 'none' = 'all'
  const seen = new Set<string>()
  let indented = false
  let instructions = 0

  const bom = bomLength(source)
  if (bom > 0) nodes.push({ kind: 'bom', start: 0, next: bom })
  reader.skipTo(bom)

  for (let line = reader.next(); line !== undefined; line = reader.next()) {
    const ink = skipSpace(source, line.start, line.end)
    const isComment = ink < line.end && source[ink] === '#'
    if (wanted !== 'none') {
      const directive: Directive | undefined = isComment ? readDirective(context, ink, line.end) : undefined
      if (
        directive === undefined ||
        (wanted === 'shebang' && (directive.name === 'escape' || ink > line.start))
      ) {
        wanted = line.start === bom && source.startsWith('#!', line.start) ? 'shebang' : 'none'
      } else {
        if (seen.has(directive.name) && wanted === 'all')
          throw errorAt(
            context,
            lines.range(ink, line.end),
            'DUPLICATE_DIRECTIVE',
            `only one ${directive.name} directive can be used`,
            'remove one of them, or make it an ordinary comment',
          )
        seen.add(directive.name)
        // BuildKit looks for the syntax and the checks with a second reader, which takes no blanks before the `#`.
        if (ink > line.start) indented = true
        if (directive.name === 'escape' || !indented) directives[directive.name] ??= directive
        if (directive.name === 'escape') escape = escapeToken(context, directive)
        nodes.push({ kind: 'directive', start: line.start, next: line.next, directive })
        continue
      }
    }
    if (isComment) {
      nodes.push({ kind: 'comment', start: line.start, next: line.next })
      continue
    }
    if (ink === line.end) {
      nodes.push({ kind: 'blank', start: line.start, next: line.next })
      continue
    }
    const node = readInstruction(context, reader, line, ink, escape)
    if (!valid) refuseInvalidBytes(context, node)
    nodes.push(node)
    instructions++
  }
  if (instructions === 0)
    throw errorAt(
      context,
      lines.range(bom, Math.max(bom, firstLineEnd(source))),
      'EMPTY_DOCKERFILE',
      'the file has no instructions',
      'begin with FROM, for example: FROM debian:12',
    )
  return { ...context, escape, directives, nodes }
}

class LineReader {
  readonly #context: SourceContext
  #at = 0

  constructor(context: SourceContext) {
    this.#context = context
  }

  skipTo(offset: number): void {
    this.#at = offset
  }

  next(): Line | undefined {
    const { source } = this.#context
    const start = this.#at
    if (start >= source.length) return undefined
    const newline = source.indexOf('\n', start)
    const next = newline < 0 ? source.length : newline + 1
    if (lineTooLong(source, start, next))
      throw errorAt(
        this.#context,
        this.#context.lines.range(start, start + 1),
        'LINE_TOO_LONG',
        'the line is longer than 65,535 bytes',
        'break it with continuations, or put the text into a file and COPY it',
      )
    let end = next
    while (end > start && (source[end - 1] === '\n' || source[end - 1] === '\r')) end--
    this.#at = next
    return { start, end, next }
  }
}

function readInstruction(
  context: SourceContext,
  reader: LineReader,
  first: Line,
  ink: number,
  escape: EscapeToken,
): SyntaxInstruction {
  const { source, lines: index } = context
  const lines: { line: Line; kind: LineKind }[] = []
  const pieces: string[] = []
  const pieceAt: number[] = []
  const pieceSource: number[] = []
  let length = 0
  const add = (start: number, end: number): void => {
    if (end === start) return
    pieces.push(source.slice(start, end))
    pieceAt.push(length)
    pieceSource.push(start)
    length += end - start
  }

  let line: Line | undefined = first
  let start = ink
  for (;;) {
    const cut = continuationStart(source, start, line.end, escape)
    add(start, cut < 0 ? line.end : cut)
    lines.push({ line, kind: cut < 0 ? 'text' : 'continued' })
    if (cut < 0) break
    // Comments and blank lines do not end the instruction, whatever stands at their end.
    for (line = reader.next(); line !== undefined; line = reader.next()) {
      const at = skipSpace(source, line.start, line.end)
      if (at < line.end && source[at] !== '#') break
      lines.push({ line, kind: at === line.end ? 'blank' : 'comment' })
    }
    if (line === undefined) break
    start = line.start
  }

  const text = pieces.join('')
  const joined = joinText(text, pieceAt, pieceSource, index, first.start)
  const raw = splitInstruction(context, joined, escape)
  let end = commandEnd(text, joined, ink)
  const ownEnd = end
  let next = lines.at(-1)!.line.next
  const heredocs: Heredoc[] = []
  if (raw.mayHaveHeredocs && text.includes('<<')) {
    for (const word of openedBy(context, joined, text)) {
      const bodyStart = next
      let terminator: Line | undefined
      for (let body = reader.next(); body !== undefined; body = reader.next()) {
        let nameStart = body.start
        if (word.chomp) while (source[nameStart] === '\t') nameStart++
        if (body.end - nameStart === word.name.length && source.startsWith(word.name, nameStart)) {
          lines.push({ line: body, kind: 'heredoc-end' })
          terminator = body
          break
        }
        lines.push({ line: body, kind: 'heredoc' })
      }
      if (terminator === undefined) throw unterminated(context, joined, text, word.name)
      const rawContent = source.slice(bodyStart, terminator.start)
      heredocs.push({
        name: word.name,
        content: word.chomp ? stripTabs(rawContent) : rawContent,
        rawContent,
        expand: word.expand,
        chomp: word.chomp,
        fd: word.fd,
        range: index.range(bodyStart, terminator.end),
      })
      next = terminator.next
      end = terminator.end
    }
  }
  return { kind: 'instruction', start: ink, end, next, joined, raw, heredocs, lines, commandEnd: ownEnd }
}

/** Offset of the continuation character at the end of [start, end), or -1. A doubled one does not continue. */
function continuationStart(source: string, start: number, end: number, escape: EscapeToken): number {
  let at = end - 1
  while (at >= start && (source[at] === ' ' || source[at] === '\t')) at--
  if (at < start || source[at] !== escape) return -1
  return at > start && source[at - 1] === escape ? -1 : at
}

function joinText(
  text: string,
  pieceAt: readonly number[],
  pieceSource: readonly number[],
  lines: LineIndex,
  fallback: number,
): JoinedText {
  const at = (position: number): number => {
    let low = 0
    let high = pieceAt.length - 1
    if (high < 0) return fallback
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (pieceAt[middle]! <= position) low = middle
      else high = middle - 1
    }
    return pieceSource[low]! + (position - pieceAt[low]!)
  }
  const range = (start: number, end: number): Range =>
    lines.range(at(start), end > start ? at(end - 1) + 1 : at(start))
  return { text, at, range }
}

function commandEnd(text: string, joined: JoinedText, fallback: number): number {
  let end = text.length
  while (end > 0 && isSpace(text.charCodeAt(end - 1))) end--
  return end === 0 ? fallback + 1 : joined.at(end - 1) + 1
}

function openedBy(
  context: SourceContext,
  joined: JoinedText,
  text: string,
): ReturnType<typeof heredocsOfLine> {
  try {
    return heredocsOfLine(text)
  } catch (error) {
    if (!(error instanceof DockerfileError)) throw error
    const at = text.indexOf('<<')
    throw errorAt(
      context,
      joined.range(at, text.length),
      'HEREDOC_SYNTAX',
      'the delimiter of a heredoc has a quote that is not closed',
      "write <<EOF, or <<'EOF' to leave variables in the content alone",
    )
  }
}

function unterminated(
  context: SourceContext,
  joined: JoinedText,
  text: string,
  name: string,
): DockerfileError {
  const open = text.indexOf(name, text.indexOf('<<'))
  const from = open < 0 ? text.indexOf('<<') : text.lastIndexOf('<<', open)
  const quote = /^["']/.test(text.slice(open + name.length)) ? 1 : 0
  return errorAt(
    context,
    joined.range(from, open < 0 ? from + 2 : open + name.length + quote),
    'UNTERMINATED_HEREDOC',
    `the heredoc is not ended: no line is exactly '${name}'`,
    `write ${name} on a line of its own, with nothing before or after it`,
  )
}

function escapeToken(context: SourceContext, directive: Directive): EscapeToken {
  if (directive.value === '\\' || directive.value === '`') return directive.value
  throw errorAt(
    context,
    directive.range,
    'INVALID_ESCAPE',
    `invalid escape character '${directive.value}'`,
    'the escape directive takes \\ or `',
  )
}

/**
 * Bytes that are not UTF-8 are let be in comments, and in the files that COPY and ADD write; elsewhere they would end up in the
 * image's config or on a command line, which BuildKit cannot express either.
 */
function refuseInvalidBytes(context: SourceContext, node: SyntaxInstruction): void {
  const name = node.raw.keyword.text.toLowerCase()
  const end = name === 'copy' || name === 'add' ? node.commandEnd : node.end
  for (const { line, kind } of node.lines) {
    const at = kind === 'comment' ? -1 : findEscapedByte(context.source, line.start, Math.min(line.end, end))
    if (at < 0) continue
    throw errorAt(
      context,
      context.lines.range(at, at + 1),
      'INVALID_UTF8',
      'the instruction is not valid UTF-8',
      'save the file as UTF-8',
    )
  }
}

function firstLineEnd(source: string): number {
  const newline = source.indexOf('\n')
  return newline < 0 ? source.length : newline
}
