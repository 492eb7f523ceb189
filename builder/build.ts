/** One build, from a request to an image. */
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { TbuildError } from '../errors.ts'
import { parse, type Dockerfile } from '../dockerfile-parser/index.ts'
import type { BlobDigest, Image, Store } from '../cas/index.ts'
import { checkBuild } from './checks.ts'
import { createContextFinder } from './contexts.ts'
import { openContexts } from './copy/contexts.ts'
import { contextAddress } from './fetch/address.ts'
import { imageKey, writeImage } from './image.ts'
import { findImage, type FoundImage } from './images.ts'
import { makePlan, type Plan } from './plan/plan.ts'
import type { StagePlan } from './plan/types.ts'
import { fillBuildArgs } from './plan/variables.ts'
import type { SolveContext } from './solve/context.ts'
import { createProgress, type Progress } from './solve/observer.ts'
import { createStageRun, type StageRun } from './solve/stage.ts'
import type { BuildObserver, BuildRequest, BuildResult } from './types.ts'

/**
 * Builds and names the image. When it resolves, every layer of the image is durable. On an error nothing is named; layers of steps
 * that were done serve as cache.
 *
 * Throws DockerfileError (the Dockerfile is wrong), TbuildError (`RUN_FAILED`, `RUN_OUT_OF_MEMORY`, `COPY_NOT_FOUND`, ...) with the place in the
 * Dockerfile, or the reason of `request.signal`.
 */
export async function build(
  given: BuildRequest,
  store: Store,
  observe: BuildObserver = () => {},
): Promise<BuildResult> {
  given.signal?.throwIfAborted()
  const progress = createProgress(observe)
  // Loaded only when it is wanted: a build that is all cached needs none of it.
  const request = isLocal(given)
    ? given
    : await (await import('./fetch/context.ts')).fetchContext(given, store, progress)
  // A place in the store's work directory means nothing to anybody.
  const file = request === given ? request.dockerfile : basename(request.dockerfile)
  const tree = parse(readDockerfile(request.dockerfile), { file })
  const once = (): Promise<Image> => buildOnce(request, tree, store, progress)
  const image = await once().catch((error: unknown) => {
    if (!isPruned(error)) throw error
    return once()
  })
  return {
    imageId: image.id,
    manifestDigest: image.manifestDigest,
    steps: { total: progress.total, cached: progress.cached },
  }
}

/** A cached layer is held only when it is first used: another process may have pruned it just before. Then it is built again. */
function isPruned(error: unknown): boolean {
  return error instanceof TbuildError && (error.code === 'LAYER_UNKNOWN' || error.code === 'BLOB_UNKNOWN')
}

async function buildOnce(
  request: BuildRequest,
  tree: Dockerfile,
  store: Store,
  progress: Progress,
): Promise<Image> {
  const buildArgs = fillBuildArgs(request.buildArgs)
  const images = new Map<string, Image>()
  const { signal } = request
  const localTags = new Set<Image>()
  const wanted = new Map<string, Promise<FoundImage>>()
  // Once each: with `--pull` every look is a request.
  const find = async (name: string): Promise<Image> => {
    let found = wanted.get(name)
    if (found === undefined) {
      found = findImage(store, name, { progress, signal, pull: request.pull === true })
      wanted.set(name, found)
    }
    const { image, isLocalTag } = await found
    if (isLocalTag) localTags.add(image)
    images.set(name, image)
    return image
  }
  const plan = await makePlan(tree, {
    target: request.target,
    buildArgs,
    network: request.network,
    noCache: request.noCache || request.noCacheStages,
    findImage: find,
    findContext: createContextFinder(request.namedContexts ?? new Map(), {
      store,
      progress,
      signal,
      findImage: find,
    }),
  })
  for (const name of plan.unknownStages)
    progress.warning(`there is no stage ${JSON.stringify(name)} to run without the cache`)
  const warnings = checkBuild(tree, request, store, buildArgs, images)
  const controller = new AbortController()
  const abort = (): void => controller.abort(request.signal?.reason)
  request.signal?.throwIfAborted()
  request.signal?.addEventListener('abort', abort, { once: true })
  using atEnd = new DisposableStack()
  const contexts = openContexts(request, store)
  const context: SolveContext = {
    request,
    tree,
    store,
    progress,
    signal: controller.signal,
    abort: (reason) => controller.abort(reason),
    context: (named) => contexts.open(named),
    statCache: (named) => contexts.statCache(named),
    isLocalTag: (found) => localTags.has(found),
    atEnd: (work) => atEnd.defer(work),
    nowNs:
      request.sourceDateEpoch === undefined
        ? BigInt(Date.now()) * 1_000_000n
        : BigInt(request.sourceDateEpoch) * 1_000_000_000n,
  }
  try {
    const image = await solve(context, plan, progress)
    for (const { message, frame } of warnings) progress.warning(message, frame)
    return image
  } finally {
    request.signal?.removeEventListener('abort', abort)
    contexts[Symbol.dispose]()
  }
}

async function solve(context: SolveContext, plan: Plan, progress: Progress): Promise<Image> {
  const runs = new Map<StagePlan, StageRun>()
  const records: Promise<unknown>[] = []
  const background = (work: Promise<unknown>): void => {
    work.catch((error: unknown) => context.abort(error))
    records.push(work)
  }
  const runOf = (stage: StagePlan): StageRun => {
    let run = runs.get(stage)
    if (run === undefined) {
      run = createStageRun(context, stage, runOf, background)
      runs.set(stage, run)
    }
    return run
  }
  try {
    for (const stage of plan.stages) await runOf(stage).probe()
    return await produce(context, plan.target, runOf(plan.target), records, progress)
  } catch (error) {
    context.abort(error)
    // Nothing may still be running in a container, or writing to the store, when the build has ended.
    await Promise.allSettled(plan.stages.map((stage) => runOf(stage).settled))
    await Promise.allSettled(records)
    throw context.signal.reason
  } finally {
    await Promise.all([...runs.values()].map((run) => run[Symbol.asyncDispose]()))
  }
}

async function produce(
  { store, request }: SolveContext,
  plan: StagePlan,
  run: StageRun,
  records: readonly Promise<unknown>[],
  progress: Progress,
): Promise<Image> {
  // Solved before its key is asked for: keys are told one after the other, branches run side by side.
  const isCached = run.isComplete && !plan.noCache
  const solved = isCached ? undefined : await run.solve()
  const key = imageKey(plan, await run.key(), request)
  const known = isCached ? store.steps.findImage(key) : undefined
  if (known !== undefined) return nameImage(store, known, request.tags)
  const shown = progress.start('exporting to image')
  const manifest = await writeImage(store, plan, solved ?? (await run.solve()), request)
  await Promise.all(records)
  const image = store.images.put(manifest, request.tags)
  store.steps.recordImage(key, manifest)
  shown.done()
  return image
}

/** Names an image that is there; writes nothing when the names are there too. */
function nameImage(store: Store, manifest: BlobDigest, tags: readonly string[]): Image {
  const image = store.images.byManifest(manifest)
  if (image !== undefined && tags.every((tag) => image.names.includes(tag))) return image
  return store.images.put(manifest, tags)
}

function isLocal({ context, dockerfileStream }: BuildRequest): boolean {
  return dockerfileStream === undefined && context !== '-' && contextAddress(context) === undefined
}

function readDockerfile(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    throw new TbuildError('DOCKERFILE_NOT_FOUND', `The Dockerfile ${JSON.stringify(path)} cannot be read.`, {
      hint: 'Name it with -f, or name the directory that holds it.',
      cause: error,
    })
  }
}
