/** Where COPY and ADD take files from: addresses, and files of the context that its ignore file leaves out. */
import { cleanPath, type IgnorePattern } from '../ignoreFile.ts'
import { quote } from '../dump.ts'
import type { IgnoreMatcher } from '../ignoreMatcher.ts'
import { errorAt } from '../source.ts'
import type { Add, Copy, Dockerfile, Range, Word } from '../types.ts'
import type { CheckContext } from './context.ts'

export function checkSources(
  { options }: CheckContext,
  tree: Dockerfile,
  { kind }: Copy | Add,
  sources: readonly { readonly word: Word; readonly text: string }[],
  report: (range: Range, message: string, note: string) => void,
): void {
  for (const { word, text } of sources) {
    if (isRemote(text)) {
      if (kind === 'COPY')
        throw errorAt(
          tree,
          word.range,
          'COPY_REMOTE',
          'COPY takes no addresses',
          'ADD fetches from an address',
        )
      continue
    }
    const ignore = options.ignore
    if (ignore === undefined) continue
    const source = cleanPath(text)
    const relative = source === '/' ? '.' : source.replace(/^\//, '')
    const by = ignoredBy(ignore.matcher, relative)
    if (by === undefined) continue
    const where = by.line > 0 ? `line ${by.line} of ${ignore.file}` : ignore.file
    report(
      word.range,
      `Attempting to ${kind === 'ADD' ? 'Add' : 'Copy'} file ${quote(source)} that is excluded by .dockerignore`,
      `${where}: ${by.pattern}`,
    )
  }
}

/** An address that is fetched: http, or what git takes. */
export function isRemote(text: string): boolean {
  return /^(?:https?|git|ssh):\/\//.test(text) || /^git@[^/]+:/.test(text)
}

/** The pattern that leaves the source out, if all of it is left out for sure. */
function ignoredBy(matcher: IgnoreMatcher, source: string): IgnorePattern | undefined {
  const { patterns } = matcher
  // The context itself is no path in it: it is left out only if everything in it is.
  const everything = patterns.find(
    ({ pattern, negated }) => !negated && ['*', '**', '**/*'].includes(pattern),
  )
  if (source === '.' && everything === undefined) return undefined
  if (patterns.some(({ pattern, negated }) => negated && mayReinclude(pattern, source))) return undefined
  return source === '.' ? everything : matcher.why(source)
}

/** Could an exception bring back the source, or something in it? A pattern with wildcards may match anything below its first names. */
function mayReinclude(pattern: string, source: string): boolean {
  const base = source === '.' ? '' : source
  const names = pattern.split('/')
  const wild = names.findIndex((name) => /[*?[]/.test(name))
  const prefix = wild < 0 ? pattern : names.slice(0, wild).join('/')
  return isAtOrBelow(prefix, base) || (wild >= 0 && isAtOrBelow(base, prefix))
}

function isAtOrBelow(path: string, base: string): boolean {
  return base === '' || path === base || path.startsWith(`${base}/`)
}
