import { DockerfileError } from './errors.ts'
import type { Position, Range } from './types.ts'

export { DockerfileError }

/** Turns offsets into positions: a table of line starts and a binary search. */
export interface LineIndex {
  at(offset: number): Position
  range(start: number, end: number): Range
}

export function indexLines(source: string): LineIndex {
  const starts = [0]
  for (let i = source.indexOf('\n'); i >= 0; i = source.indexOf('\n', i + 1)) starts.push(i + 1)
  // Offsets are asked for mostly in rising order, so the last answer is tried first.
  let last = 0
  const at = (offset: number): Position => {
    if (!(starts[last]! <= offset && (last + 1 === starts.length || offset < starts[last + 1]!))) {
      let low = 0
      let high = starts.length - 1
      while (low < high) {
        const middle = (low + high + 1) >> 1
        if (starts[middle]! <= offset) low = middle
        else high = middle - 1
      }
      last = low
    }
    return { offset, line: last + 1, column: offset - starts[last]! + 1 }
  }
  return { at, range: (start, end) => ({ start: at(start), end: at(end) }) }
}

const FRAME_LINES = 6
const FRAME_WIDTH = 160

/**
 * The lines of a range with their numbers and `^` under its words; for every error and warning about a Dockerfile.
 * Long ranges show their first lines, long lines the part around the range. Control characters are shown as `·`, so
 * that a hostile file cannot write to the terminal.
 */
export function frame(tree: { readonly source: string }, range: Range): string {
  const { source } = tree
  const lastLine = Math.min(range.end.line, range.start.line + FRAME_LINES - 1)
  const numberWidth = String(lastLine).length
  const out: string[] = []
  let start = range.start.offset - (range.start.column - 1)
  for (let line = range.start.line; line <= lastLine; line++) {
    const newline = source.indexOf('\n', start)
    const next = newline < 0 ? source.length : newline
    const end = next > start && source[next - 1] === '\r' ? next - 1 : next
    const from = line === range.start.line ? Math.min(range.start.offset, end) : firstInk(source, start, end)
    const to = line === range.end.line ? Math.min(range.end.offset, end) : end
    // A range that ends at the very start of a line does not mean that line.
    if (line > range.start.line && line === range.end.line && range.end.column === 1) break
    const shown = windowOf(start, end, from, to)
    const text = clean(source.slice(shown.start, shown.end))
    out.push(`${String(line).padStart(numberWidth)} | ${shown.before}${text}${shown.after}`.trimEnd())
    if (to > from || line === range.start.line) {
      const before = shown.before.replaceAll(/./g, ' ') + indent(source.slice(shown.start, from))
      const carets = '^'.repeat(Math.max(1, codePoints(source.slice(from, Math.min(to, shown.end)))))
      out.push(`${' '.repeat(numberWidth)} | ${before}${carets}`)
    }
    if (newline < 0) break
    start = newline + 1
  }
  if (range.end.line > lastLine && out.length > 0) out.push(`${' '.repeat(numberWidth)} | ...`)
  return out.join('\n')
}

/** An error about a range of a Dockerfile, with its frame. */
export function errorAt(
  tree: { readonly file: string; readonly source: string },
  range: Range,
  code: string,
  message: string,
  hint?: string,
): DockerfileError {
  return new DockerfileError(code, message, {
    hint,
    source: { file: tree.file, line: range.start.line, frame: frame(tree, range), range },
  })
}

/** Gives an error of this folder that has no place the one at hand. */
export function locate<T>(
  tree: { readonly file: string; readonly source: string },
  range: Range,
  work: () => T,
): T {
  try {
    return work()
  } catch (error) {
    if (!(error instanceof DockerfileError) || error.source !== undefined) throw error
    throw errorAt(tree, range, error.code, error.message, error.hint)
  }
}

/** Range of [start, end) of a word's text, if the word stands in the source as it is; else of the whole word. */
export function subrange(
  tree: { readonly source: string },
  { raw, range }: { readonly raw: string; readonly range: Range },
  start: number,
  end: number,
): Range {
  const from = range.start
  if (
    range.end.offset - from.offset !== raw.length ||
    tree.source.slice(from.offset, range.end.offset) !== raw
  )
    return range
  const at = (index: number): Position => ({
    offset: from.offset + index,
    line: from.line,
    column: from.column + index,
  })
  return { start: at(start), end: at(end) }
}

function firstInk(source: string, start: number, end: number): number {
  let i = start
  while (i < end && (source[i] === ' ' || source[i] === '\t')) i++
  return i
}

function windowOf(
  start: number,
  end: number,
  from: number,
  to: number,
): { readonly start: number; readonly end: number; readonly before: string; readonly after: string } {
  if (end - start <= FRAME_WIDTH) return { start, end, before: '', after: '' }
  const left = from - start < FRAME_WIDTH / 2 ? start : from - FRAME_WIDTH / 4
  const right = Math.min(end, Math.max(left + FRAME_WIDTH, Math.min(to, left + FRAME_WIDTH)))
  return { start: left, end: right, before: left > start ? '...' : '', after: right < end ? '...' : '' }
}

function clean(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Cs}]/gu, (char) => (char === '\t' ? char : '·'))
}

function indent(text: string): string {
  let out = ''
  for (const char of text) out += char === '\t' ? '\t' : ' '
  return out
}

function codePoints(text: string): number {
  let count = 0
  for (const _ of text) count++
  return count
}
