/** One challenge of a WWW-Authenticate header. */
export interface Challenge {
  /** Lower-case: `basic`, `bearer`. */
  readonly scheme: string
  /** Names in lower case. */
  readonly parameters: Readonly<Record<string, string>>
}

// One token at a time, each pattern anchored (sticky): linear in the header's length.
const SCHEME = /[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?=[\s,]|$)/y
const PARAMETER = /[\s,]*([A-Za-z0-9!#$%&'*+.^_`|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))/y
const MAX_LENGTH = 16 * 1024

/**
 * Reads WWW-Authenticate (RFC 9110, 11.6.1): several headers, several challenges in one, quoted strings with escapes. What
 * cannot be read ends the list; it is never an error.
 */
export function parseChallenges(value: string | readonly string[] | undefined): Challenge[] {
  const found: Challenge[] = []
  for (const text of typeof value === 'string' ? [value] : (value ?? [])) {
    if (text.length <= MAX_LENGTH) found.push(...parseOne(text))
  }
  return found
}

function parseOne(text: string): Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = []
  let at = 0
  while (at < text.length) {
    PARAMETER.lastIndex = at
    const parameter = PARAMETER.exec(text)
    const current = found.at(-1)
    if (parameter !== null && current !== undefined) {
      const name = (parameter[1] ?? '').toLowerCase()
      current.parameters[name] ??= parameter[2]?.replaceAll(/\\(.)/g, '$1') ?? parameter[3] ?? ''
      at = PARAMETER.lastIndex
      continue
    }
    SCHEME.lastIndex = at
    const scheme = SCHEME.exec(text)
    if (scheme === null) break
    found.push({
      scheme: (scheme[1] ?? '').toLowerCase(),
      parameters: Object.create(null) as Record<string, string>,
    })
    at = SCHEME.lastIndex
  }
  return found
}
