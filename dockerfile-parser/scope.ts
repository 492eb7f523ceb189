/** Variables that a build has before its first stage: platform arguments and ARGs before the first FROM. */
import { expandText, type Expansion } from './expand.ts'
import { formatPlatform, type Platform } from './platform.ts'
import { locate } from './source.ts'
import type { Arg, Dockerfile } from './types.ts'

const PROXIES = ['http_proxy', 'https_proxy', 'ftp_proxy', 'no_proxy', 'all_proxy']

/** Proxy variables, in any case: they need no ARG, and stay out of cache keys and history unless there is one. */
export function isProxyArg(name: string): boolean {
  return PROXIES.includes(name.toLowerCase())
}

/**
 * BUILDKIT_SYNTAX (another frontend), BUILDKIT_DOCKERFILE_CHECK (`check`'s options), BUILDKIT_SANDBOX_HOSTNAME and so on: read by the
 * builder from `--build-arg`, and no ARG is needed for it to see them.
 */
export function isBuildkitArg(name: string): boolean {
  return name.startsWith('BUILDKIT_')
}

/**
 * The arguments that every Dockerfile has in FROM and in the ARGs before it; a stage sees them where it declares them. A build
 * argument of the same name goes before each.
 */
export function platformArgs(
  build: Platform,
  target: Platform,
  /** Name of the stage that is built, if it has one. */
  targetStage: string | undefined,
): ReadonlyMap<string, string> {
  const args = new Map<string, string>()
  for (const [side, platform] of [
    ['BUILD', build],
    ['TARGET', target],
  ] as const) {
    args.set(`${side}PLATFORM`, formatPlatform(platform))
    args.set(`${side}OS`, platform.os)
    args.set(`${side}OSVERSION`, platform.osVersion ?? '')
    args.set(`${side}ARCH`, platform.architecture)
    args.set(`${side}VARIANT`, platform.variant)
  }
  args.set('TARGETSTAGE', targetStage === undefined || targetStage === '' ? 'default' : targetStage)
  return args
}

export interface GlobalScope {
  /** What FROM sees: platform arguments, and the ARGs before it that have a value. */
  readonly values: ReadonlyMap<string, string>
  /** All names that are declared, with or without a value. */
  readonly declared: ReadonlySet<string>
}

/**
 * Goes through the ARGs before the first FROM in order. A default is expanded with what came before it, and only where no
 * build argument is given. Names are never expanded.
 *
 * Throws DockerfileError: those of `expand`.
 */
export function globalScope(
  tree: Dockerfile,
  globalArgs: readonly Arg[],
  platform: ReadonlyMap<string, string>,
  buildArgs: ReadonlyMap<string, string>,
): GlobalScope {
  const values = new Map<string, string>()
  for (const [name, value] of platform) values.set(name, buildArgs.get(name) ?? value)
  const declared = new Set<string>(values.keys())
  for (const { args } of globalArgs) {
    for (const { name, value: given } of args) {
      const value =
        buildArgs.get(name) ?? (given && expandIn(tree, given, (variable) => values.get(variable)).text)
      if (value !== undefined) values.set(name, value)
      declared.add(name)
    }
  }
  return { values, declared }
}

/** Expansion whose errors show where. */
export function expandIn(
  tree: Dockerfile,
  word: { readonly raw: string; readonly range: Arg['range'] },
  lookup: (name: string) => string | undefined,
): Omit<Expansion, 'words'> {
  return locate(tree, word.range, () => expandText(word.raw, { lookup, escape: tree.escape }))
}
