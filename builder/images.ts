/** Images that a Dockerfile names. */
import { TbuildError } from '../errors.ts'
import { formatReference, openRegistry, parseReference, type Reference } from '../registry/index.ts'
import type { Image, Store } from '../cas/index.ts'
import type { Progress } from './solve/observer.ts'

// A build should say soon that a base cannot be had; `pull` is more patient.
const RETRIES = 1

/**
 * From the store, else from its registry. A name that is no reference may be the beginning of an id.
 * Throws `IMAGE_NOT_FOUND`, whose hint is the registry's answer, and what a pull throws of an image that is there but no good.
 */
export async function findImage(
  store: Store,
  text: string,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<Image> {
  if (/^[0-9a-f]{12,64}$/.test(text)) {
    const [image] = store.images.byPrefix(text)
    if (image !== undefined) return image
  }
  const reference = parseReference(text)
  const found =
    reference.digest === undefined
      ? store.images.byName(formatReference(reference))
      : store.images.byPrefix(reference.digest)[0]
  return found ?? (await pull(store, reference, text, progress, signal))
}

async function pull(
  store: Store,
  reference: Reference,
  text: string,
  progress: Progress,
  signal: AbortSignal | undefined,
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
    throw new TbuildError(
      'IMAGE_NOT_FOUND',
      `there is no image ${text} in the store, and it could not be pulled`,
      {
        hint: error.message,
        cause: error,
      },
    )
  }
}
