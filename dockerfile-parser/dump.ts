import type { RawArguments, RawInstruction, RawWord } from './arguments.ts'
import { parseSyntax } from './syntax.ts'

/**
 * BuildKit's old dump of a parse tree (`parser.Node.Dump`), one instruction a line, for comparison with its test data.
 * It needs no known instructions or flags, only syntax.
 */
export function dumpTree(text: string | Uint8Array): string {
  const lines: string[] = []
  for (const node of parseSyntax(text).nodes)
    if (node.kind === 'instruction') lines.push(`(${dumpInstruction(node.raw)})`)
  return `${lines.join('\n')}\n`
}

function dumpInstruction(raw: RawInstruction): string {
  const flags = raw.flags.length === 0 ? '' : ` [${raw.flags.map((flag) => quote(flag.text)).join(' ')}]`
  return `${raw.keyword.text.toLowerCase()}${flags}${dumpArguments(raw, raw.args)}`
}

function dumpArguments(raw: RawInstruction, args: RawArguments): string {
  switch (args.form) {
    case 'words':
      return args.words.length === 0 && !KNOWN.has(raw.keyword.text.toLowerCase())
        ? ' ""'
        : dumpWords(args.words)
    case 'json':
      return dumpWords(args.words)
    case 'pairs':
      return args.pairs
        .map((pair) => ` ${quote(pair.name.text)} ${quote(pair.value.text)} ${quote(pair.equals ? '=' : '')}`)
        .join('')
    case 'health':
      return ` ${quote(args.type.text)}${dumpArguments(raw, args.command)}`
    case 'instruction':
    default:
      return ` (${dumpInstruction(args.instruction)})`
  }
}

function dumpWords(words: readonly RawWord[]): string {
  return words.map((word) => ` ${quote(word.text)}`).join('')
}

/** An unknown instruction has one empty argument in BuildKit's tree. */
const KNOWN = new Set(
  'add arg cmd copy entrypoint env expose from healthcheck label maintainer onbuild run shell stopsignal user volume workdir'.split(
    ' ',
  ),
)

const ESCAPES: Readonly<Record<string, string>> = {
  '\u0007': '\\a',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
  '\v': '\\v',
  '\\': '\\\\',
  '"': '\\"',
}

/** Go `strconv.Quote`. */
export function quote(text: string): string {
  let out = '"'
  for (const char of text) {
    const escaped = ESCAPES[char]
    const code = char.codePointAt(0)!
    if (escaped !== undefined) out += escaped
    else if (isPrintable(char, code)) out += char
    else if (code < 0x80) out += `\\x${code.toString(16).padStart(2, '0')}`
    else if (code < 0x1_0000) out += `\\u${code.toString(16).padStart(4, '0')}`
    else out += `\\U${code.toString(16).padStart(8, '0')}`
  }
  return `${out}"`
}

/** Go `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space. */
function isPrintable(char: string, code: number): boolean {
  if (code < 0x7f) return code >= 0x20
  return /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(char)
}
