/** The image of a solved build: config, manifest, names. */
import {
  MEDIA,
  type BlobDigest,
  type Descriptor,
  type ImageConfig,
  type Manifest,
  type Store,
  type StepKey,
} from '../cas/index.ts'
import { machinePlatform } from './plan/variables.ts'
import type { StagePlan } from './plan/types.ts'
import { keyOf } from './solve/keys.ts'
import { timestamp } from './solve/context.ts'
import type { SolvedStage } from './solve/stage.ts'
import type { BuildRequest } from './types.ts'

/** Everything that the image is made from, its dates aside: a build with the same key gives the image that is there already. */
export function imageKey(plan: StagePlan, last: StepKey, request: BuildRequest): StepKey {
  return keyOf([
    ['image of', last],
    ['config', JSON.stringify(finalConfig(plan, request))],
    ['author', plan.author ?? ''],
    ['SOURCE_DATE_EPOCH', String(request.sourceDateEpoch ?? '')],
    ...historyOf(plan).map((createdBy) => ['history', createdBy] as const),
  ])
}

function historyOf(plan: StagePlan): string[] {
  const below = plan.base.kind === 'stage' ? historyOf(plan.base.stage) : []
  const image = plan.base.kind === 'image' ? [JSON.stringify(plan.base.image.config.history ?? [])] : []
  return [...below, ...image, ...plan.history.map(({ createdBy }) => createdBy)]
}

function finalConfig(plan: StagePlan, { labels }: BuildRequest): NonNullable<ImageConfig['config']> {
  if (labels.size === 0) return plan.config
  return { ...plan.config, Labels: { ...plan.config.Labels, ...Object.fromEntries(labels) } }
}

/** Waits until every layer is durable; then writes config and manifest. */
export async function writeImage(
  store: Store,
  plan: StagePlan,
  { layers, history }: SolvedStage,
  request: BuildRequest,
): Promise<BlobDigest> {
  const stored = await Promise.all(layers.map((layer) => layer.stored))
  const platform = machinePlatform()
  const config: ImageConfig = {
    created: history.at(-1)?.created ?? timestamp(request),
    ...(plan.author === undefined ? {} : { author: plan.author }),
    ...platform,
    config: finalConfig(plan, request),
    rootfs: { type: 'layers', diff_ids: stored.map(({ diffId }) => diffId) },
    history,
  }
  const configBytes = Buffer.from(JSON.stringify(config))
  const manifest: Manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: store.blobs.write(configBytes), size: configBytes.length },
    layers: stored.map(({ diffId, size }): Descriptor => ({
      mediaType: MEDIA.layer,
      // Uncompressed: the DiffId is the digest of the bytes.
      digest: diffId as string as BlobDigest,
      size,
    })),
  }
  return store.blobs.write(Buffer.from(JSON.stringify(manifest)))
}
