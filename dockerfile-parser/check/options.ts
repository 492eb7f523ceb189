import { parseBool } from '../mount.ts'
import { DockerfileError, errorAt, subrange } from '../source.ts'
import { trimSpace } from '../text.ts'
import type { Dockerfile } from '../types.ts'
import type { Rule } from './rules.ts'

/** `# check=skip=A,B;error=true;experimental=C`, or the build argument BUILDKIT_DOCKERFILE_CHECK. */
export interface CheckConfig {
  readonly skip: 'all' | ReadonlySet<string>
  readonly experimental: 'all' | ReadonlySet<string>
  /** Warnings fail the build. */
  readonly error: boolean
}

const NONE: CheckConfig = { skip: new Set(), experimental: new Set(), error: false }

/**
 * The build argument, if given, is taken instead of the file's directive, which is then not even read.
 *
 * Throws DockerfileError: INVALID_CHECK_OPTION.
 */
export function readConfig(tree: Dockerfile, buildArgs: ReadonlyMap<string, string>): CheckConfig {
  const given = buildArgs.get('BUILDKIT_DOCKERFILE_CHECK')
  if (given !== undefined) {
    const config = parseConfig(given)
    if (!('wrong' in config)) return config
    throw new DockerfileError('INVALID_CHECK_OPTION', `BUILDKIT_DOCKERFILE_CHECK: ${config.wrong}`, {
      hint: HINT,
    })
  }
  const { check } = tree.directives
  if (check === undefined) return NONE
  const config = parseConfig(check.value)
  if (!('wrong' in config)) return config
  const word = { raw: check.value, range: check.range }
  throw errorAt(
    tree,
    subrange(tree, word, config.start, config.end),
    'INVALID_CHECK_OPTION',
    config.wrong,
    HINT,
  )
}

const HINT = 'for example: # check=skip=JSONArgsRecommended,StageNameCasing;error=true'

/** Options in a comment right before an instruction (`# check=skip=A why`) are for that instruction; wrong ones are a comment. */
export function configOfComments(comments: readonly string[]): CheckConfig | undefined {
  for (const comment of comments) {
    const match = /^([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+)$/.exec(comment)
    if (match?.[1]!.toLowerCase() !== 'check') continue
    const config = parseConfig(match[2]!.split(' ', 1)[0]!)
    return 'wrong' in config ? undefined : config
  }
  return undefined
}

export function isOn(rule: Rule, config: CheckConfig, local: CheckConfig | undefined): boolean {
  const has = (names: 'all' | ReadonlySet<string> | undefined): boolean =>
    names === 'all' || (names?.has(rule.name) ?? false)
  return rule.experimental
    ? has(config.experimental) || has(local?.experimental)
    : !has(config.skip) && !has(local?.skip)
}

interface Wrong {
  readonly wrong: string
  readonly start: number
  readonly end: number
}

/** Three parts at most; a fourth would belong to the third, as in BuildKit. */
function parseConfig(text: string): CheckConfig | Wrong {
  let { skip, experimental, error }: { -readonly [K in keyof CheckConfig]: CheckConfig[K] } = NONE
  if (trimSpace(text) === '') return NONE
  let start = 0
  for (let count = 1; start <= text.length; count++) {
    const semicolon = count < 3 ? text.indexOf(';', start) : -1
    const end = semicolon < 0 ? text.length : semicolon
    const part = text.slice(start, end)
    const equals = part.indexOf('=')
    const wrong = (what: string): Wrong => ({ wrong: what, start, end })
    if (equals < 0) return wrong(`'${part.slice(0, 60)}' is not option=value`)
    const key = trimSpace(part.slice(0, equals))
    const value = trimSpace(part.slice(equals + 1))
    const names = value === 'all' ? value : new Set(value.split(',').map(trimSpace))
    if (key === 'skip') skip = names
    else if (key === 'experimental') experimental = names
    else if (key === 'error') {
      const flag = parseBool(value)
      if (flag === undefined) return wrong(`error is true or false, not '${value.slice(0, 60)}'`)
      error = flag
    } else return wrong(`there is no check option '${key.slice(0, 60)}'; it is skip, error or experimental`)
    start = end + 1
  }
  return { skip, experimental, error }
}
