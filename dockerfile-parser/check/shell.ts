/**
 * Enough of the shell's grammar to tell the commands of a RUN apart: words, quotes, comments, operators, subshells, here-documents. It
 * expands nothing, and what it does not understand it takes for an ordinary word.
 */

export interface ShellWord {
  /** Quotes and backslashes removed. */
  readonly text: string
  /** Place in the text that was given. */
  readonly start: number
  readonly end: number
}

export interface ShellCommand {
  /** Without assignments, keywords (`if`, `then`, `!`) and wrappers (`sudo`, `env`, `exec`) before the program's name. */
  readonly words: readonly ShellWord[]
  /** Parentheses about it. */
  readonly depth: number
}

const SKIPPED = new Set([
  'then',
  'do',
  'else',
  'elif',
  'if',
  'while',
  'until',
  '!',
  '{',
  'time',
  'exec',
  'command',
  'nohup',
  'eatmydata',
])

/** Each here-document that is not ended is looked for to the end of the text; a script of nothing else must not take long. */
const MAX_MISSING = 100

export function shellCommands(text: string): readonly ShellCommand[] {
  const commands: ShellCommand[] = []
  let words: ShellWord[] = []
  let depth = 0
  /** Delimiters of here-documents that begin on the next line. */
  let documents: string[] = []
  let missing = 0
  const finish = (): void => {
    const bare = withoutWrappers(words)
    if (bare.length > 0) commands.push({ words: bare, depth })
    words = []
  }
  let at = 0
  while (at < text.length) {
    const char = text[at]!
    if (char === '\n') {
      finish()
      at++
      for (const name of documents) {
        if (missing > MAX_MISSING) break
        const end = skipDocument(text, at, name)
        if (end === at) missing++
        at = end
      }
      documents = []
    } else if (char === ' ' || char === '\t' || char === '\r') at++
    else if (char === '\\' && text[at + 1] === '\n') at += 2
    else if (char === '#') {
      const newline = text.indexOf('\n', at)
      at = newline < 0 ? text.length : newline
    } else if (char === '(' || char === ')') {
      finish()
      depth = Math.max(0, depth + (char === '(' ? 1 : -1))
      at++
    } else if (';&|'.includes(char)) {
      // `2>&1`, `&>file` and `>&2` are redirections.
      finish()
      at++
    } else {
      const word = readWord(text, at)
      const document = /^\d*<<-?(?!<)(.*)$/s.exec(word.raw)
      if (document !== null) {
        const name = document[1] === '' ? readWord(text, skipBlanks(text, word.end)) : undefined
        documents.push(name?.text ?? unquote(document[1]!))
        at = name?.end ?? word.end
      } else {
        words.push({ text: word.text, start: at, end: word.end })
        at = word.end
      }
    }
  }
  finish()
  return commands
}

function readWord(
  text: string,
  start: number,
): { readonly text: string; readonly raw: string; readonly end: number } {
  let out = ''
  let at = start
  while (at < text.length) {
    const char = text[at]!
    if (' \t\r\n;|()'.includes(char)) break
    // A redirection keeps its ampersand.
    if (char === '&' && !/[<>]/.test(text[at - 1] ?? '') && text[at + 1] !== '>') break
    if (char === '\\') {
      if (text[at + 1] !== '\n') out += text[at + 1] ?? ''
      at += 2
    } else if (char === "'") {
      const close = text.indexOf("'", at + 1)
      const end = close < 0 ? text.length : close
      out += text.slice(at + 1, end)
      at = end + 1
    } else if (char === '"') {
      at++
      while (at < text.length && text[at] !== '"') {
        if (text[at] === '\\') at++
        out += text[at] ?? ''
        at++
      }
      at++
    } else if (char === '$' && (text[at + 1] === '(' || text[at + 1] === '{')) {
      const end = skipNested(text, at + 1)
      out += text.slice(at, end)
      at = end
    } else if (char === '`') {
      const close = text.indexOf('`', at + 1)
      const end = close < 0 ? text.length : close + 1
      out += text.slice(at, end)
      at = end
    } else {
      out += char
      at++
    }
  }
  const end = Math.max(start + 1, Math.min(at, text.length))
  return { text: out, raw: text.slice(start, end), end }
}

/** Past the bracket that closes the one at `at`. */
function skipNested(text: string, at: number): number {
  let depth = 0
  for (let i = at; i < text.length; i++) {
    const char = text[i]!
    if (char === '(' || char === '{') depth++
    else if ((char === ')' || char === '}') && --depth === 0) return i + 1
  }
  return text.length
}

function skipBlanks(text: string, at: number): number {
  let i = at
  while (text[i] === ' ' || text[i] === '\t') i++
  return i
}

function skipDocument(text: string, at: number, name: string): number {
  let line = at
  while (line < text.length) {
    const newline = text.indexOf('\n', line)
    const end = newline < 0 ? text.length : newline
    const next = newline < 0 ? text.length : newline + 1
    if (text.slice(line, end).trim() === name) return next
    line = next
  }
  return at
}

function unquote(text: string): string {
  return text.replaceAll(/["'\\]/g, '')
}

function withoutWrappers(words: readonly ShellWord[]): readonly ShellWord[] {
  let from = 0
  for (;;) {
    const word = words[from]?.text
    if (word === undefined) return []
    if (SKIPPED.has(word) || /^[A-Za-z_][A-Za-z0-9_]*=/.test(word)) from++
    else if (word === 'sudo' || word === 'env' || word === 'nice') {
      from++
      while (words[from]?.text.startsWith('-') === true) from++
    } else return words.slice(from)
  }
}
