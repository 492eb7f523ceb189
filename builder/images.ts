/** Images that a Dockerfile names. */
import { TbuildError } from '../errors.ts'
import { formatReference, openRegistry, parseReference, type Reference } from '../registry/index.ts'
import type { Image, Store } from '../cas/index.ts'
import type { Progress } from './solve/observer.ts'

// A build should say soon that a base cannot be had; `pull` is more patient.
const RETRIES = 1

export interface FindOptions {
  readonly progress: Progress
  readonly signal: AbortSignal | undefined
  /** A tag is asked for at its registry, whatever the store has. */
  readonly pull: boolean
}

export interface FoundImage {
  readonly image: Image
  /** The store had a tag of that name, and nobody asked whether it has moved. */
  readonly isLocalTag: boolean
}

/**
 * From the store, else from its registry. A name that is no reference may be the beginning of an id.
 * Throws `IMAGE_NOT_FOUND`, whose hint is the registry's answer, and what a pull throws of an image that is there but no good.
 */
export async function findImage(store: Store, text: string, options: FindOptions): Promise<FoundImage> {
  if (/^[0-9a-f]{12,64}$/.test(text)) {
    const [image] = store.images.byPrefix(text)
    if (image !== undefined) return { image, isLocalTag: false }
  }
  const reference = parseReference(text)
  if (reference.digest !== undefined) {
    const [image] = store.images.byPrefix(reference.digest)
    if (image !== undefined) return { image, isLocalTag: false }
  } else if (!options.pull) {
    const image = store.images.byName(formatReference(reference))
    if (image !== undefined) return { image, isLocalTag: true }
  }
  return { image: await pull(store, reference, text, options), isLocalTag: false }
}

async function pull(
  store: Store,
  reference: Reference,
  text: string,
  { progress, signal, pull: isWanted }: FindOptions,
): Promise<Image> {
  const step = progress.start(`[internal] pull ${text}`)
  try {
    const { pullImage } = await import('./transfer/pull.ts')
    await using registry = await openRegistry(reference, { ...(signal && { signal }), retries: RETRIES })
    const image = await pullImage(store, registry, reference, { signal })
    step.done()
    return image
  } catch (error) {
    if (signal?.aborted === true) {
      step.canceled()
      throw error
    }
    step.failed(error)
    if (!(error instanceof TbuildError)) throw error
    const isThere = isWanted && store.images.byName(formatReference(reference)) !== undefined
    throw new TbuildError(
      'IMAGE_NOT_FOUND',
      isThere
        ? `the image ${text} could not be pulled`
        : `there is no image ${text} in the store, and it could not be pulled`,
      {
        hint: isThere ? `${error.message}; without --pull the one in the store is used` : error.message,
        cause: error,
      },
    )
  }
}
