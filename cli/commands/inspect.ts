import type { Image, Store } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { familiarName, imageSize, resolveImage } from '../images.ts'
import { out } from '../output.ts'
import { openStoreToRead } from '../store.ts'

export const inspect = defineCommand({
  usage: '[OPTIONS] IMAGE...',
  description: "A JSON array, with docker's names.",
  options: STORE_OPTION,
  examples: [
    ['tbuild inspect app', 'all about app:latest'],
    ["tbuild inspect app | jq '.[0].Config.Env'", 'one thing of it'],
  ],
  arguments: { least: 1, most: Number.POSITIVE_INFINITY },
  async run({ options, args }) {
    await using store = await openStoreToRead(options)
    const found = args.map((text) => describe(store, resolveImage(store, text).image))
    out(`${JSON.stringify(found, undefined, 2)}\n`)
  },
})

function describe(store: Store, image: Image) {
  const { config } = image
  return {
    Id: image.id,
    RepoTags: image.names.map(familiarName),
    RepoDigests: digestsOf(store, image),
    Comment: config.history?.at(-1)?.comment ?? '',
    Created: config.created ?? null,
    Author: config.author ?? '',
    Config: config.config ?? {},
    Architecture: config.architecture,
    ...(config.variant === undefined ? {} : { Variant: config.variant }),
    Os: config.os,
    Size: imageSize(store, image),
    RootFS: { Type: 'layers', Layers: config.rootfs.diff_ids },
    Descriptor: {
      mediaType: image.manifest.mediaType ?? 'application/vnd.oci.image.manifest.v1+json',
      digest: image.manifestDigest,
    },
    Metadata: { LastTagTime: new Date(image.storedAt).toISOString() },
  }
}

/** Repositories that are known to hold this very manifest. */
function digestsOf(store: Store, image: Image): string[] {
  return store.blobs.origins(image.manifestDigest).map((repository) => {
    return familiarName(`${repository}@${image.manifestDigest}`)
  })
}
