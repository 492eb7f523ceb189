/** Build arguments that come from outside a stage: `--build-arg`, global ARGs, the platform. */
import {
  expandWord,
  globalScope,
  locate,
  platformArgs,
  type Arg,
  type Dockerfile,
  type Platform,
  type Range,
} from '../../dockerfile-parser/index.ts'

export interface Variables {
  /** `--build-arg`, with values from the environment filled in. */
  readonly buildArgs: ReadonlyMap<string, string>
  /** Platform arguments, and ARGs before the first FROM. A stage sees one where it declares it. */
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

/** As Dockerfiles write it: Docker leaves arm64's variant out. */
export function buildPlatform(): Platform {
  const { os, architecture } = machinePlatform()
  return { os, architecture, variant: '' }
}

export function createVariables(
  tree: Dockerfile,
  globalArgs: readonly Arg[],
  buildArgs: ReadonlyMap<string, string>,
  targetStage: string | undefined,
): Variables {
  const here = buildPlatform()
  const { values } = globalScope(tree, globalArgs, platformArgs(here, here, targetStage), buildArgs)
  return { buildArgs, globals: values, lookupGlobal: (name) => values.get(name) }
}

/** Those without a value take it from the environment, and are not there if it has none. */
export function fillBuildArgs(given: ReadonlyMap<string, string | undefined>): ReadonlyMap<string, string> {
  const filled = new Map<string, string>()
  for (const [name, value] of given) {
    const found = value ?? process.env[name]
    if (found !== undefined) filled.set(name, found)
  }
  return filled
}

/** Expansion whose errors show where. */
export function expandAt(
  tree: Dockerfile,
  range: Range,
  raw: string,
  lookup: (name: string) => string | undefined,
): string {
  return locate(tree, range, () => expandWord(raw, { lookup, escape: tree.escape }))
}
