/** What is done with an image once it is built: annotations, archives, files, pushes. */
import { MEDIA, type Image, type Store } from '../../cas/index.ts'
import { writeArchive } from '../archive-streams.ts'
import { familiarName } from '../images.ts'
import { say } from '../output.ts'
import type { Output } from './parse.ts'

/** The image under a manifest that has these annotations, and under these names. */
export function annotate(
  store: Store,
  image: Image,
  annotations: ReadonlyMap<string, string>,
  names: readonly string[],
): Image {
  const manifest = {
    ...image.manifest,
    mediaType: image.manifest.mediaType ?? MEDIA.manifest,
    annotations: { ...image.manifest.annotations, ...Object.fromEntries(annotations) },
  }
  return store.images.put(store.blobs.write(Buffer.from(JSON.stringify(manifest))), names)
}

export async function writeOutput(
  store: Store,
  image: Image,
  output: Output,
  { names, signal }: { readonly names: readonly string[]; readonly signal: AbortSignal },
): Promise<void> {
  switch (output.type) {
    case 'image':
      return
    case 'local': {
      const { writeDirectory } = await import('./files.ts')
      const { skipped } = await writeDirectory(store, image, output.dest, signal)
      if (skipped.length > 0)
        say(`note: ${skipped.length} devices, pipes or sockets were not written, e.g. /${skipped[0]}`)
      return
    }
    case 'tar': {
      const { packTree } = await import('./files.ts')
      return writeArchive(output.dest, store.layers.tar(await packTree(store, image, signal)), signal)
    }
    case 'oci':
    case 'docker': {
      const { saveImages } = await import('../../builder/index.ts')
      const images = names.length === 0 ? [{ image }] : names.map((name) => ({ image, name }))
      const archive = saveImages(store, images, {
        format: output.type,
        signal,
        observe: (event) => {
          if (event.kind === 'note') say(`note: ${event.text}`)
        },
      })
      return writeArchive(output.dest, archive, signal)
    }
    default:
      output satisfies never
  }
}

/** Pushes it under each of the names. Returns the digest of what was pushed first. */
export async function pushAll(
  store: Store,
  image: Image,
  names: readonly string[],
  how: { readonly insecure: boolean; readonly quiet: boolean; readonly signal: AbortSignal },
): Promise<string | undefined> {
  const [{ pushImage }, { openRegistry, parseReference }, { registryOptions }, { transferProgress }] =
    await Promise.all([
      import('../../builder/index.ts'),
      import('../../registry/index.ts'),
      import('../registry.ts'),
      import('../progress/transfer.ts'),
    ])
  const { signal } = how
  const options = registryOptions(how, signal)
  let first: string | undefined
  for (const name of names) {
    const reference = parseReference(name)
    const progress = transferProgress('pushing', process.stderr, how)
    try {
      await using registry = await openRegistry(reference, options)
      const pushed = await pushImage(store, registry, reference, image, {
        signal,
        observe: progress.observe,
        openOrigin: async (repository) => openRegistry(parseReference(repository), options),
      })
      first ??= pushed.digest
      progress.finish()
      if (!how.quiet) say(`pushed ${familiarName(name)} ${pushed.digest}`)
    } finally {
      progress.finish()
    }
  }
  return first
}
