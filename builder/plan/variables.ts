/** Build arguments that come from outside a stage: `--build-arg`, global ARGs, the platform. */
import {
  errorAt,
  expandWord,
  DockerfileError,
  type Arg,
  type Dockerfile,
  type Range,
} from '../../dockerfile-parser/index.ts'

export interface Variables {
  /** `--build-arg`, with values from the environment filled in. */
  readonly buildArgs: ReadonlyMap<string, string>
  /** ARGs before the first FROM. */
  readonly globals: ReadonlyMap<string, string>
  /** What FROM lines and global ARGs see. */
  readonly lookupGlobal: (name: string) => string | undefined
}

/** `linux/amd64`, of this machine; `variant` as the OCI image-spec has it. */
export function machinePlatform(): {
  readonly os: 'linux'
  readonly architecture: string
  readonly variant?: string
} {
  if (process.arch === 'arm64') return { os: 'linux', architecture: 'arm64', variant: 'v8' }
  return { os: 'linux', architecture: process.arch === 'x64' ? 'amd64' : process.arch }
}

/** Arguments that every Dockerfile has (they must be declared in a stage to be seen there). */
export function platformArgs(targetStage: string): ReadonlyMap<string, string> {
  const { os, architecture, variant } = machinePlatform()
  // Docker leaves arm64's variant out.
  const platform = `${os}/${architecture}`
  const shownVariant = architecture === 'arm64' ? '' : (variant ?? '')
  const args = new Map<string, string>()
  for (const side of ['TARGET', 'BUILD']) {
    args.set(`${side}PLATFORM`, platform)
    args.set(`${side}OS`, os)
    args.set(`${side}ARCH`, architecture)
    args.set(`${side}VARIANT`, shownVariant)
  }
  args.set('TARGETSTAGE', targetStage)
  return args
}

const PROXIES = ['http_proxy', 'https_proxy', 'ftp_proxy', 'no_proxy', 'all_proxy']

/** They need no ARG, and stay out of keys and history unless there is one. */
export function isProxy(name: string): boolean {
  return PROXIES.includes(name.toLowerCase())
}

export function createVariables(
  tree: Dockerfile,
  globalArgs: readonly Arg[],
  given: ReadonlyMap<string, string | undefined>,
  targetStage: string,
): Variables {
  const buildArgs = new Map<string, string>()
  for (const [name, value] of given) {
    const found = value ?? process.env[name]
    if (found !== undefined) buildArgs.set(name, found)
  }
  const platform = platformArgs(targetStage)
  const globals = new Map<string, string>()
  const lookupGlobal = (name: string): string | undefined => globals.get(name) ?? platform.get(name)
  for (const { args } of globalArgs) {
    for (const { name, value, range } of args) {
      const chosen =
        buildArgs.get(name) ?? (value && expandAt(tree, range, value.raw, lookupGlobal)) ?? platform.get(name)
      if (chosen !== undefined) globals.set(name, chosen)
    }
  }
  return { buildArgs, globals, lookupGlobal }
}

/** Expansion whose errors show where. */
export function expandAt(
  tree: Dockerfile,
  range: Range,
  raw: string,
  lookup: (name: string) => string | undefined,
  more: { readonly skipQuotes?: boolean } = {},
): string {
  return locate(tree, range, () => expandWord(raw, { lookup, escape: tree.escape, ...more }))
}

/** Gives a DockerfileError that has no place the one at hand. */
export function locate<T>(tree: Dockerfile, range: Range, work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof DockerfileError && error.source === undefined) {
      throw errorAt(tree, range, error.code, error.message, error.hint)
    }
    throw error
  }
}
