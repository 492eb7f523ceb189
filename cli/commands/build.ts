import { realpathSync, rmSync, statSync, writeFileSync } from 'node:fs'
import {
  build as buildImage,
  contextSpellings,
  type BuildRequest,
  type BuildResult,
} from '../../builder/index.ts'
import type { Store } from '../../cas/index.ts'
import { refuseTerminal } from '../archive-streams.ts'
import { BUILD_OPTIONS } from '../arguments/build-options.ts'
import { defineCommand, type Values } from '../arguments/types.ts'
import { UsageError } from '../arguments/usage-error.ts'
import { parseAnnotation, parseCall, parseCpuQuota, type Call } from '../arguments/build-values.ts'
import { parseContainerOptions } from '../arguments/container-options.ts'
import { parseLimits, parsePair } from '../arguments/values.ts'
import { contextSource, namedContexts } from '../contexts.ts'
import { shortId } from '../format.ts'
import { familiarName, parseName } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out, say } from '../output.ts'
import { checkPlatform } from '../platform.ts'
import { PROGRESS_MODES, createProgress, type ProgressMode } from '../progress/index.ts'
import { parseOutput, takesStdout, type Output } from '../outputs/parse.ts'
import { sourceDateEpoch } from '../source-date-epoch.ts'
import { collectIfDue } from '../collect.ts'
import { parseSecrets } from '../secrets.ts'
import { openChosenStore } from '../store.ts'

export const build = defineCommand({
  usage: '[OPTIONS] CONTEXT',
  description: `
CONTEXT is the directory that COPY and ADD take files from; or the address of a git repository, an archive or a Dockerfile; or - for a tar or
a Dockerfile on standard input. The word "build" may be left out.
SOURCE_DATE_EPOCH, from the environment or as a build argument, fixes the image's dates (seconds since 1970).`,
  options: BUILD_OPTIONS,
  examples: [
    ['tbuild -t app .', 'build ./Dockerfile as app:latest'],
    [
      'tbuild build -f prod.Dockerfile -t app:prod --build-arg V=2 src',
      'another Dockerfile, with an argument',
    ],
    ['tbuild build -o type=oci,dest=app.tar -t app .', 'also as an archive; -o out writes its files there'],
    ['tbuild build --target test --network none -m 512m .', 'one stage, offline, with at most 512 MiB'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [context = ''] }) {
    const call = options.check
      ? { method: 'check' as const, format: 'text' as const, ignoreStatus: false }
      : parseCall(options.call)
    if (call !== undefined) return answer(call, options, context)
    const request = requestOf(options, context)
    const after = afterwardsOf(options, request)
    const { iidfile, quiet, 'metadata-file': metadataFile } = options
    for (const file of [iidfile, metadataFile]) if (file !== undefined) removeFormer(file)
    const progress = await createProgress(quiet ? 'quiet' : progressMode(options.progress), process.stderr)
    const begun = performance.now()
    const result = await interruptible(async (signal) => {
      try {
        await using store = await openChosenStore(options)
        const tags = after.annotations.size === 0 ? after.names : []
        const built = await buildImage({ ...request, tags, signal }, store, progress.observe)
        progress.finish()
        const finished = after.isNothing ? {} : await finish(store, built, after, signal)
        await collectIfDue(store)
        return { ...built, ...finished }
      } finally {
        progress.finish()
      }
    })
    if (iidfile !== undefined) writeFileSync(iidfile, result.imageId)
    if (metadataFile !== undefined) writeFileSync(metadataFile, metadata(result, after.names))
    if (quiet) {
      if (!after.outputs.some(takesStdout)) out(`${result.imageId}\n`)
    } else if (options.progress !== 'quiet') {
      const { total, cached } = result.steps
      const name = after.names[0] === undefined ? '' : ` ${familiarName(after.names[0])}`
      const time = ((performance.now() - begun) / 1000).toFixed(2)
      say(`built${name} ${shortId(result.imageId)}: ${total} steps, ${cached} cached, ${time}s`)
    }
    return 0
  },
})

/** Of a Dockerfile that is not built. */
async function answer(call: Call, options: Values<typeof BUILD_OPTIONS>, context: string): Promise<number> {
  const { file, target, store } = options
  const given = namedContexts(options['build-context'])
  const request = {
    context,
    file,
    target,
    store,
    buildArgs: buildArgsOf(options),
    namedContexts: contextSpellings(given.keys()),
  }
  if (call.method === 'check') {
    const { checkDockerfile } = await import('./check.ts')
    return checkDockerfile({ ...request, ...call })
  }
  const { outlineDockerfile } = await import('../outline/call.ts')
  return outlineDockerfile({ ...request, ...call })
}

/** What is to be done with the image. */
interface Afterwards {
  readonly names: readonly string[]
  readonly outputs: readonly Output[]
  readonly annotations: ReadonlyMap<string, string>
  readonly push: boolean
  readonly insecure: boolean
  readonly quiet: boolean
  readonly isNothing: boolean
}

/** What an earlier build has written: it is not to be taken for this one's. A device stays, and so does a link. */
function removeFormer(file: string): void {
  if (statSync(file, { throwIfNoEntry: false })?.isFile() === true)
    rmSync(realpathSync(file), { force: true })
}

function afterwardsOf(options: Values<typeof BUILD_OPTIONS>, { tags }: BuildRequest): Afterwards {
  const outputs = options.output.map(parseOutput)
  if (outputs.filter(takesStdout).length > 1)
    throw new UsageError('OPTION_VALUE', 'Only one --output can go to standard output.', {
      hint: 'give the others a dest=FILE',
    })
  if (outputs.some(takesStdout)) refuseTerminal(undefined)
  const named = outputs.flatMap((output) => (output.type === 'image' ? output.names.map(parseName) : []))
  const names = [...new Set([...tags, ...named])]
  const push = options.push || outputs.some((output) => output.type === 'image' && output.push)
  if (push && names.length === 0)
    throw new UsageError('OPTION_VALUE', 'A name is needed to push to.', {
      hint: 'e.g. -t registry.example/team/app:1.2',
    })
  const annotations = new Map(options.annotation.map(parseAnnotation))
  const { insecure, quiet } = options
  const isNothing = !push && annotations.size === 0 && outputs.every(({ type }) => type === 'image')
  return { names, outputs, annotations, push, insecure, quiet, isNothing }
}

/** Returns the digest by which the image is known now. */
async function finish(
  store: Store,
  { manifestDigest }: BuildResult,
  { names, outputs, annotations, push, insecure, quiet }: Afterwards,
  signal: AbortSignal,
): Promise<{ readonly manifestDigest: string }> {
  const { annotate, pushAll, writeOutput } = await import('../outputs/write.ts')
  const built = store.images.byManifest(manifestDigest)
  if (built === undefined) throw new Error(`the image ${manifestDigest} was built, but is not there`)
  const image = annotations.size === 0 ? built : annotate(store, built, annotations, names)
  for (const output of outputs) await writeOutput(store, image, output, { names, signal })
  const pushed = push ? await pushAll(store, image, names, { insecure, quiet, signal }) : undefined
  return { manifestDigest: pushed ?? image.manifestDigest }
}

/** In docker's words. */
function metadata(
  { imageId, manifestDigest }: { readonly imageId: string; readonly manifestDigest: string },
  names: readonly string[],
): string {
  const values = {
    'containerimage.config.digest': imageId,
    'containerimage.digest': manifestDigest,
    ...(names.length > 0 && { 'image.name': names.join(',') }),
  }
  return `${JSON.stringify(values, undefined, 2)}\n`
}

function progressMode(text: string | undefined): ProgressMode {
  return PROGRESS_MODES.find((mode) => mode === text) ?? 'auto'
}

function requestOf(options: Values<typeof BUILD_OPTIONS>, context: string): BuildRequest {
  const source = contextSource(context, options.file)
  checkPlatform(options.platform)
  const buildArgs = buildArgsOf(options)
  return {
    ...source,
    tags: [...new Set(options.tag.map(parseName))],
    buildArgs,
    namedContexts: namedContexts(options['build-context']),
    target: options.target,
    noCache: options['no-cache'],
    noCacheStages: noCacheStages(options),
    pull: options.pull,
    noStatCache: options['no-stat-cache'],
    network: options.network === 'none' ? 'none' : 'host',
    secrets: parseSecrets(options.secret),
    limits: { ...parseCpuQuota(options), ...parseLimits(options) },
    container: parseContainerOptions(options),
    labels: new Map(
      options.label.map((text) => {
        const [key, value] = parsePair(text, '--label')
        return [key, value ?? '']
      }),
    ),
    sourceDateEpoch: sourceDateEpoch(buildArgs.get('SOURCE_DATE_EPOCH')),
  }
}

function noCacheStages(options: Values<typeof BUILD_OPTIONS>): readonly string[] {
  const stages = options['no-cache-filter'].flatMap((text) => text.split(',')).filter((name) => name !== '')
  if (options['no-cache'] && stages.length > 0)
    throw new UsageError('OPTION_VALUE', '--no-cache and --no-cache-filter are not used together.', {
      hint: '--no-cache runs every step again',
    })
  return stages
}

function buildArgsOf(options: Values<typeof BUILD_OPTIONS>): ReadonlyMap<string, string | undefined> {
  return new Map(options['build-arg'].map((text) => parsePair(text, '--build-arg')))
}
