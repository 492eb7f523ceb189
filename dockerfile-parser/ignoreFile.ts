import { DockerfileError } from './errors.ts'
import { bomLength, decode, lineTooLong, trimSpace } from './text.ts'

export interface IgnorePattern {
  /** Cleaned, without the `!`. */
  readonly pattern: string
  /** `!`: paths that match are not ignored after all. */
  readonly negated: boolean
  /** 1-based; 0 if the pattern comes from no file. */
  readonly line: number
}

/**
 * The patterns of a .dockerignore, as moby/patternmatcher `ignorefile` reads them: lines that begin with `#` are
 * comments, blanks around a pattern go, paths are cleaned and made relative. Whether patterns are well formed is
 * `createIgnoreMatcher`'s to say.
 *
 * Throws DockerfileError: LINE_TOO_LONG.
 */
export function parseIgnoreFile(text: string | Uint8Array): readonly IgnorePattern[] {
  const source = decode(text).text
  const patterns: IgnorePattern[] = []
  let line = 0
  let next = 0
  for (let start = bomLength(source); start < source.length; start = next) {
    line++
    const newline = source.indexOf('\n', start)
    next = newline < 0 ? source.length : newline + 1
    if (lineTooLong(source, start, next))
      throw new DockerfileError(
        'LINE_TOO_LONG',
        `line ${line} of the ignore file is longer than 65,535 bytes`,
      )
    if (source[start] === '#') continue
    const written = trimSpace(source.slice(start, next))
    if (written === '') continue
    const negated = written.startsWith('!')
    const path = negated ? trimSpace(written.slice(1)) : written
    patterns.push({ pattern: path === '' ? '' : relative(cleanPath(path)), negated, line })
  }
  return patterns
}

function relative(path: string): string {
  return path.length > 1 && path.startsWith('/') ? path.slice(1) : path
}

/** Go `path.Clean`: the shortest path that means the same, by its text alone. */
export function cleanPath(path: string): string {
  const rooted = path.startsWith('/')
  const out: string[] = []
  for (const name of path.split('/')) {
    if (name === '' || name === '.') continue
    if (name !== '..') out.push(name)
    else if (out.length > 0 && out.at(-1) !== '..') out.pop()
    else if (!rooted) out.push('..')
  }
  const text = (rooted ? '/' : '') + out.join('/')
  return text === '' ? '.' : text
}
