/** `tbuild check`, and what `tbuild build --check` does: a Dockerfile is judged, nothing is built. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type * as Parser from '../../dockerfile-parser/index.ts'
import type { BaseImage, CheckOptions, CheckResult } from '../../dockerfile-parser/index.ts'
import { DOCKERFILE_OPTIONS, STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { parsePair } from '../arguments/values.ts'
import { filledArgs, readDockerfile, type DockerfileRequest } from '../dockerfile.ts'
import { out, say } from '../output.ts'
import { hostArchitecture } from '../platform.ts'

export type CheckFormat = 'text' | 'json' | 'sarif'

export interface CheckRequest extends DockerfileRequest {
  /** A value, or `undefined` to take the environment's. */
  readonly buildArgs: ReadonlyMap<string, string | undefined>
  readonly target: string | undefined
  readonly namedContexts?: ReadonlySet<string> | undefined
  readonly format: CheckFormat
  /** `--call=check,ignorestatus=true`: warnings do not fail. */
  readonly ignoreStatus?: boolean
}

export const check = defineCommand({
  usage: '[OPTIONS] CONTEXT',
  description: `
Checks the Dockerfile without building anything: the build checks of docker, by the same names, some of tbuild's own, and
the mistakes that a build would stop at. CONTEXT is a directory or an address as for build, or - for a Dockerfile on standard input. Ends with 1
when there is a warning or an error, as docker build --check does; remarks do not count.`,
  options: {
    ...DOCKERFILE_OPTIONS,
    target: { kind: 'value', value: 'STAGE', help: 'Only this stage and what it needs' },
    format: {
      kind: 'value',
      value: 'FORMAT',
      choices: ['text', 'json', 'sarif'],
      help: 'Of the result (default: text)',
    },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild check .', 'all stages of ./Dockerfile'],
    ['tbuild check --format sarif . > checks.sarif', 'for a code review tool'],
    ['tbuild check - < Dockerfile', 'without a context'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [context = ''] }) {
    const { file, target, store, format } = options
    return checkDockerfile({
      context,
      file,
      target,
      store,
      buildArgs: new Map(options['build-arg'].map((text) => parsePair(text, '--build-arg'))),
      format: format === 'json' || format === 'sarif' ? format : 'text',
    })
  },
})

/**
 * Prints what is found to stdout. Returns the exit status: 1 with errors, and with warnings unless `ignoreStatus`; `error=true` in the Dockerfile
 * fails even then. (BuildKit's `frontend.lint` gives a status of 1 for any warning, and buildx ends with it.)
 * @throws TbuildError `CONTEXT_NOT_FOUND`, `CONTEXT_UNSUPPORTED`, `DOCKERFILE_NOT_FOUND`
 */
export async function checkDockerfile(request: CheckRequest): Promise<number> {
  const { target, format, namedContexts } = request
  const parser = await import('../../dockerfile-parser/index.ts')
  const { text, file, ignore } = await readDockerfile(request)
  const patterns = ignore === undefined ? [] : parser.parseIgnoreFile(ignore.text)
  const options: CheckOptions = {
    file,
    buildArgs: filledArgs(request.buildArgs),
    target,
    namedContexts,
    buildPlatform: { os: 'linux', architecture: hostArchitecture(), variant: '' },
    ...(ignore !== undefined &&
      patterns.length > 0 && {
        ignore: { matcher: parser.createIgnoreMatcher(patterns), file: ignore.name },
      }),
  }
  const result = await withStore(request.store, (baseImage) => parser.check(text, { ...options, baseImage }))
  await print(result, format, parser)
  const { findings, errors, failure } = result
  if (failure !== undefined && format === 'text') say(`tbuild: error: ${failure.message} [${failure.code}]`)
  if (errors.length > 0 || failure !== undefined) return 1
  return findings.some(({ level }) => level === 'warning') && request.ignoreStatus !== true ? 1 : 0
}

async function print(
  result: CheckResult,
  format: CheckFormat,
  { renderJson, renderSarif, renderText }: typeof Parser,
): Promise<void> {
  if (format === 'json') return out(renderJson(result))
  if (format === 'text') return out(renderText(result) || 'Check complete, no warnings found.\n')
  const { packageVersion } = await import('../version.ts')
  out(renderSarif(result, packageVersion()))
}

/** Base images are looked up where there is a store; none is made, and nothing is pulled. */
async function withStore<T>(
  option: string | undefined,
  work: (baseImage: CheckOptions['baseImage']) => T,
): Promise<T> {
  const { openStoreToRead, storePath } = await import('../store.ts')
  if (!existsSync(join(storePath(option), 'index.db'))) return work(undefined)
  const { formatReference, parseReference } = await import('../../registry/index.ts')
  await using store = await openStoreToRead({ store: option })
  return work((name): BaseImage | undefined => {
    try {
      const image = store.images.byName(formatReference(parseReference(name)))
      if (image === undefined) return undefined
      const { os, architecture, variant, config = {} } = image.config
      return {
        env: config.Env ?? [],
        shell: config.Shell,
        onBuild: config.OnBuild,
        platform: { os, architecture, variant: architecture === 'arm64' ? '' : (variant ?? '') },
      }
    } catch {
      // A name that is no reference: the check itself says so.
      return undefined
    }
  })
}
