/**
 * Wildcards in COPY and ADD: Go's `filepath.Match` (`*`, `?`, `[a-z]`, `[^a]`, `\` escapes), a component at a time. `**` is any number of
 * components with `--parents`, and else no more than `*`: so it is in BuildKit. Names are byte strings.
 */
import type { Tree } from '../../cas/index.ts'

export function hasWildcard(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const char = text[i]
    if (char === '\\') i++
    else if (char === '*' || char === '?' || char === '[') return true
  }
  return false
}

/** Paths in `tree` that match, in the order of a walk. Below a match nothing is looked at. */
export function glob(tree: Tree, pattern: string, { doubleStar = false } = {}): string[] {
  const parts = pattern.split('/').filter((part) => part !== '' && part !== '.')
  const found: string[] = []
  const walk = (directory: string, at: number): void => {
    const part = parts[at]
    if (part === undefined) {
      if (directory !== '') found.push(directory)
      return
    }
    if (!hasWildcard(part)) {
      const path = join(directory, part.replaceAll(/\\(.)/gs, '$1'))
      if (tree.lstat(path) !== undefined) walk(path, at + 1)
      return
    }
    if (tree.lstat(directory)?.isDirectory() !== true) return
    if (doubleStar && part === '**') {
      // At the end: the whole directory.
      if (at + 1 === parts.length) {
        found.push(directory)
        return
      }
      walk(directory, at + 1)
      for (const name of tree.list(directory)) {
        const path = join(directory, name)
        if (tree.lstat(path)?.isDirectory() === true) walk(path, at)
      }
      return
    }
    const matches = compile(part)
    for (const name of tree.list(directory)) if (matches(name)) walk(join(directory, name), at + 1)
  }
  walk('', 0)
  return found
}

function join(directory: string, name: string): string {
  return directory === '' ? name : `${directory}/${name}`
}

/** One component. A malformed pattern matches nothing, as in BuildKit. */
export function compile(pattern: string): (name: string) => boolean {
  let source = ''
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i] ?? ''
    if (char === '*') source += '[^/]*'
    else if (char === '?') source += '[^/]'
    else if (char === '\\') source += quote(pattern[++i] ?? '\\')
    else if (char === '[') {
      const set = characterSet(pattern, i)
      if (set === undefined) return () => false
      source += set.source
      i = set.end
    } else source += quote(char)
  }
  const expression = new RegExp(`^${source}$`, 's')
  return (name) => expression.test(name)
}

function characterSet(pattern: string, start: number): { source: string; end: number } | undefined {
  let i = start + 1
  const negated = pattern[i] === '^'
  if (negated) i++
  let inside = ''
  const one = (): string | undefined => {
    if (pattern[i] === '\\') i++
    const char = pattern[i++]
    return char === undefined ? undefined : quote(char)
  }
  for (let first = true; first || pattern[i] !== ']'; first = false) {
    if (first && pattern[i] === ']') return undefined
    const low = one()
    if (low === undefined) return undefined
    if (pattern[i] === '-') {
      i++
      const high = pattern[i] === ']' ? undefined : one()
      if (high === undefined || high.replace('\\', '') < low.replace('\\', '')) return undefined
      inside += `${low}-${high}`
    } else inside += low
  }
  return { source: `[${negated ? '^' : ''}${inside}]`, end: i }
}

function quote(char: string): string {
  return /[\\^$.*+?()[\]{}|/-]/.test(char) ? `\\${char}` : char
}
