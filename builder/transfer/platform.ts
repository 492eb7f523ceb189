import { MEDIA, type Descriptor, type ImageIndex, type Platform } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'

const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' }

/** What this machine runs. */
export function hostPlatform(): Platform {
  return { os: 'linux', architecture: ARCHITECTURES[process.arch] ?? process.arch }
}

/** `linux/arm64/v8`. */
export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = platform
  return `${os}/${architecture}${variant === undefined || variant === '' ? '' : `/${variant}`}`
}

/** Can what was made for `made` run where `wanted` is asked for? Variants aside. */
export function isPlatform(made: Platform, wanted: Platform): boolean {
  return made.os === wanted.os && made.architecture === wanted.architecture
}

/**
 * The entry of an index for a platform: the wanted variant if one is named, else the plainest. An index of one entry that does not say
 * for which platform is taken as it is. Throws `PLATFORM_MISSING`, which lists what there is.
 */
export function choosePlatform(index: ImageIndex, wanted: Platform, what: string): Descriptor {
  const images = index.manifests.filter((one) => isManifestType(one.mediaType))
  const fitting = images
    .filter((one) => one.platform !== undefined && isPlatform(one.platform, wanted))
    .map((one) => ({ one, rank: rank(one.platform, wanted) }))
    .toSorted((a, b) => a.rank - b.rank)
  const unnamed = images.filter((one) => one.platform === undefined)
  const chosen = fitting[0]?.one ?? (unnamed.length === 1 ? unnamed[0] : undefined)
  if (chosen !== undefined) return chosen
  const platforms = images.flatMap(({ platform }) =>
    platform === undefined ? [] : [formatPlatform(platform)],
  )
  // Attestations say that they are for "unknown/unknown".
  const there = [...new Set(platforms)].filter((name) => !name.startsWith('unknown/')).slice(0, 20)
  throw new TbuildError('PLATFORM_MISSING', `${what} has no image for ${formatPlatform(wanted)}`, {
    hint: there.length === 0 ? 'it holds no images at all' : `it has ${there.join(', ')}`,
  })
}

export function isIndexType(mediaType: string): boolean {
  return mediaType === MEDIA.index || mediaType === MEDIA.dockerIndex
}

export function isImageType(mediaType: string): boolean {
  return mediaType === MEDIA.manifest || mediaType === MEDIA.dockerManifest
}

function isManifestType(mediaType: string): boolean {
  return isIndexType(mediaType) || isImageType(mediaType)
}

/** The variants that every processor of an architecture has. */
const BASE_VARIANTS: Readonly<Record<string, string>> = { amd64: 'v1', arm64: 'v8' }

function rank(made: Platform | undefined, wanted: Platform): number {
  const base = BASE_VARIANTS[wanted.architecture] ?? ''
  const has = made?.variant || base
  const asked = wanted.variant || base
  if (has === asked) return 0
  return has === base ? 1 : 2
}
