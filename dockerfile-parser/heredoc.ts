import { DockerfileError } from './errors.ts'
import { expandWords } from './expand.ts'
import { isRegexpSpace } from './text.ts'

/** `3<<-'EOF'`, without its content. */
export interface HeredocWord {
  readonly name: string
  readonly expand: boolean
  readonly chomp: boolean
  readonly fd: number | undefined
}

const nothing = (): undefined => undefined

/** A word that opens a heredoc, or undefined. Throws EXPANSION_SYNTAX if its delimiter has an unclosed quote. */
export function parseHeredocWord(word: string): HeredocWord | undefined {
  let i = 0
  while (i < word.length && word.charCodeAt(i) >= 48 && word.charCodeAt(i) <= 57) i++
  if (!word.startsWith('<<', i)) return undefined
  const digits = word.slice(0, i)
  i += 2
  const chomp = word[i] === '-'
  if (chomp) i++
  while (i < word.length && isRegexpSpace(word.charCodeAt(i))) i++
  const rest = word.slice(i)
  if (rest === '' || rest.includes('<')) return undefined
  // Lexed with and without its quotes: if quotes are missing in one, some part of the delimiter was quoted.
  const words = expandWords(rest, { lookup: nothing, skipUnset: true })
  if (words.length !== 1) return undefined
  const quoted = expandWords(rest, { lookup: nothing, skipUnset: true, rawQuotes: true })
  const name = words[0]!
  return {
    name,
    expand: countQuotes(name) === countQuotes(quoted[0] ?? ''),
    chomp,
    fd: digits === '' ? undefined : Math.min(Number(digits), 0xffff_ffff),
  }
}

/** The heredocs that a line opens, in order. A line that cannot be lexed opens none, as in BuildKit. */
export function heredocsOfLine(line: string): readonly HeredocWord[] {
  if (!line.includes('<<')) return []
  let words: readonly string[]
  try {
    words = expandWords(line, { lookup: nothing, skipUnset: true, rawQuotes: true, rawEscapes: true })
  } catch (error) {
    if (error instanceof DockerfileError) return []
    throw error
  }
  const found: HeredocWord[] = []
  for (const word of words) {
    const heredoc = parseHeredocWord(word)
    if (heredoc !== undefined) found.push(heredoc)
  }
  return found
}

/** As `parseHeredocWord`, with words that cannot be lexed taken for ordinary ones. */
export function heredocWordOrNone(word: string): HeredocWord | undefined {
  if (!word.includes('<<')) return undefined
  try {
    return parseHeredocWord(word)
  } catch (error) {
    if (error instanceof DockerfileError) return undefined
    throw error
  }
}

/** Content of a `<<-` heredoc: tabs at the start of each line removed. */
export function stripTabs(content: string): string {
  return content.replaceAll(/(^|\n)\t+/g, '$1')
}

function countQuotes(text: string): number {
  let count = 0
  for (const char of text) if (char === "'" || char === '"') count++
  return count
}
