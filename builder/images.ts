/** Images that a Dockerfile names. */
import { parseReference, formatReference } from '../registry/index.ts'
import type { Image, Store } from '../cas/index.ts'
import type { Progress } from './solve/observer.ts'

/** From the store. A name that is no reference may be the beginning of an id. */
export async function findImage(
  store: Store,
  text: string,
  _progress: Progress,
  _signal: AbortSignal | undefined,
): Promise<Image | undefined> {
  if (/^[0-9a-f]{12,64}$/.test(text)) {
    const [image, ...more] = store.images.byPrefix(text)
    if (image !== undefined && more.length === 0) return image
    if (text.length === 64) return undefined
  }
  const reference = parseReference(text)
  if (reference.digest !== undefined) return store.images.byPrefix(reference.digest)[0]
  return store.images.byName(formatReference(reference))
}
