/** Images as a person names them. */
import type { Image, Store } from '../cas/index.ts'
import { TbuildError } from '../errors.ts'
import { familiarReference, formatReference, parseReference, type Reference } from '../registry/index.ts'
import { didYouMean } from './arguments/suggest.ts'
import { shortId } from './format.ts'

export interface ResolvedImage {
  readonly image: Image
  /** The full reference, when it was found by one. */
  readonly name?: string
}

/**
 * By name (`app`, `app:1`, `app@sha256:...`), else by a prefix of the id or of the manifest digest.
 * @throws TbuildError `IMAGE_NOT_FOUND`, `IMAGE_AMBIGUOUS`, `REFERENCE_INVALID`
 */
export function resolveImage(store: Store, text: string): ResolvedImage {
  const isPrefix = /^(?:sha256:)?[0-9a-f]{2,64}$/.test(text)
  const reference = isPrefix ? tryReference(text) : parseReference(text)
  const named = reference === undefined ? undefined : byReference(store, reference)
  if (named !== undefined) return named
  const found = isPrefix ? store.images.byPrefix(text) : []
  if (found.length > 1) {
    throw new TbuildError(
      'IMAGE_AMBIGUOUS',
      `${JSON.stringify(text)} begins the id of ${found.length} images.`,
      {
        hint: `give more digits: ${found.map(({ id }) => shortId(id)).join(', ')}`,
      },
    )
  }
  const [image] = found
  if (image === undefined) throw notFound(store, text)
  return { image }
}

/** A name for an image: `formatReference`'s form. @throws TbuildError `REFERENCE_INVALID` */
export function parseName(text: string): string {
  const reference = parseReference(text)
  if (reference.digest !== undefined)
    throw new TbuildError(
      'REFERENCE_INVALID',
      `${JSON.stringify(text)} names a digest; a tag is what can be given.`,
    )
  return formatReference(reference)
}

/** The short form; names are stored as they came, so one that does not parse is shown as it is. */
export function familiarName(name: string): string {
  try {
    return familiarReference(name)
  } catch {
    return name
  }
}

function byReference(store: Store, reference: Reference): ResolvedImage | undefined {
  if (reference.digest !== undefined) {
    const image = store.images.byPrefix(reference.digest)[0]
    return image === undefined ? undefined : { image }
  }
  const name = formatReference(reference)
  const image = store.images.byName(name)
  return image === undefined ? undefined : { image, name }
}

function tryReference(text: string): Reference | undefined {
  try {
    return parseReference(text)
  } catch {
    return undefined
  }
}

function notFound(store: Store, text: string): TbuildError {
  const names = store.images.list().flatMap((image) => image.names.map(familiarName))
  const words = [...names, ...names.map((name) => name.replace(/:latest$/, ''))]
  return new TbuildError('IMAGE_NOT_FOUND', `There is no image ${JSON.stringify(text)} in this store.`, {
    hint: didYouMean(text, words) ?? 'tbuild images lists what there is; tbuild pull fetches from a registry',
  })
}

/** Of its layers' tars, in bytes; a layer that several images share is in the sum of each. */
export function imageSize(store: Store, image: Image): number {
  return image.config.rootfs.diff_ids.reduce((sum, diffId) => sum + (store.layers.find(diffId)?.size ?? 0), 0)
}
