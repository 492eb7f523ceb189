/** What the parser's checks say of the Dockerfile of a build. */
import { basename } from 'node:path'
import { check, type Dockerfile, type DockerfileError } from '../dockerfile-parser/index.ts'
import type { Image, Store } from '../cas/index.ts'
import { contextSpellings } from './contexts.ts'
import { readIgnoreFile } from './copy/context.ts'
import { buildPlatform } from './plan/variables.ts'
import { keyOf } from './solve/keys.ts'
import type { BuildRequest } from './types.ts'

export interface Warning {
  readonly message: string
  readonly frame: string
}

/** Bumped when the checks say other things of the same file. */
const CHECKS = '1'

/**
 * The warnings about the stages that are built, without remarks of taste. Throws the DockerfileError of `error=true`
 * (`CHECKS_FAILED`), and that of options which cannot be read. `images`: those that the plan stands on, by the names that it has for them.
 */
export function checkBuild(
  tree: Dockerfile,
  request: BuildRequest,
  store: Store,
  buildArgs: ReadonlyMap<string, string>,
  images: ReadonlyMap<string, Image>,
): readonly Warning[] {
  const ignore = readIgnoreFile(request.context, request.dockerfile)
  const namedContexts = contextSpellings(request.namedContexts?.keys() ?? [])
  // Checking takes 5 to 10 ms in a fresh process, which shows in a build that is all cached: what was found is remembered.
  const key = keyOf([
    ['checks', CHECKS],
    ['file', tree.file],
    ['source', tree.source],
    ['target', request.target ?? ''],
    ['ignore file', JSON.stringify(ignore === undefined ? '' : [ignore.path, ignore.patterns])],
    ...[...buildArgs].map(([name, value]) => ['build argument', `${name}=${value}`] as const),
    ...[...namedContexts].map((name) => ['named context', name] as const),
    ...[...images].map(([name, { id }]) => ['image', `${name} ${id}`] as const),
  ])
  const known = store.steps.resolve(key)
  if (known !== undefined) return JSON.parse(known) as readonly Warning[]
  const { findings, errors, failure } = check(tree, {
    stages: 'needed',
    target: request.target,
    buildArgs,
    buildPlatform: buildPlatform(),
    namedContexts,
    baseImage: (name) => {
      const image = images.get(name)
      return image && describe(image)
    },
    ignore: ignore && { matcher: ignore.matcher, file: basename(ignore.path) },
    own: false,
  })
  // The plan has met all others.
  const wrongOptions = errors.find(isAboutOptions)
  if (wrongOptions !== undefined) throw wrongOptions
  if (failure !== undefined) throw failure
  const warnings = findings.map(({ rule, message, line, frame }): Warning => ({
    message: `${rule}: ${message} (line ${line})`,
    frame,
  }))
  store.steps.alias(key, JSON.stringify(warnings))
  return warnings
}

function isAboutOptions({ code }: DockerfileError): boolean {
  return code === 'INVALID_CHECK_OPTION'
}

function describe({ config: { os, architecture, variant, config = {} } }: Image) {
  return {
    env: config.Env ?? [],
    shell: config.Shell,
    onBuild: config.OnBuild,
    platform: { os, architecture, variant: architecture === 'arm64' ? '' : (variant ?? '') },
  }
}
