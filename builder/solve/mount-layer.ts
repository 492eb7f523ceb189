/**
 * What a mount takes, as a layer: of a context with what the ignore file leaves out left out, everything root's, and nothing that the host may change
 * meanwhile.
 */
import { chmodSync, chownSync, closeSync, constants, openSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { createUnpacker, openTree, TarReader, type Layer } from '../../cas/index.ts'
import { createLayout, type CopyOptions, type CopySource, type Layout } from '../copy/layout.ts'
import type { Selected } from '../copy/select.ts'
import type { Taking } from '../plan/types.ts'
import type { SolveContext } from './context.ts'
import type { Sources } from './sources.ts'

/** What it is called in the layer. */
export const NAME = 'source'

/** A layer that holds it, under `NAME`. */
export async function writeMountLayer(
  context: SolveContext,
  taking: Taking,
  sources: Sources,
): Promise<Layer> {
  return await write(context, taking, sources, (layout, selected, options) => {
    // The root of a tree is nobody's directory: what it is says nothing.
    if (selected.path === '') layout.copy({ ...selected, name: NAME }, `/${NAME}`, options)
    else layout.copy({ ...selected, name: NAME }, '/', { ...options, parents: true })
  })
}

/** Makes an empty directory, which is ours, what is taken. Throws `MOUNT_SOURCE` when that is no directory. */
export async function fillDirectory(
  context: SolveContext,
  taking: Taking,
  sources: Sources,
  directory: string,
): Promise<void> {
  const [selected] = sources.selected
  const stats = selected?.tree.lstat(selected.path)
  if (stats?.isDirectory() !== true)
    throw new TbuildError('MOUNT_SOURCE', 'a cache cannot begin with what is no directory')
  const layer = await write(context, taking, sources, (layout, one, options) =>
    layout.copy(one, '/', options),
  )
  await unpack(context, layer, directory)
  if (selected?.path === '') return
  if (taking.source.kind !== 'context') chownSync(directory, stats.uid, stats.gid)
  chmodSync(directory, stats.mode)
}

async function write(
  { store, signal, nowNs }: SolveContext,
  { source }: Taking,
  { selected, digested, intake }: Sources,
  lay: (layout: Layout, selected: Selected & Pick<CopySource, 'walked'>, options: CopyOptions) => void,
): Promise<Layer> {
  await using root = await store.layers.mount([])
  using tree = openTree(root.fd)
  const layout = createLayout(tree, { nowNs, clamp: false })
  const options = { owner: source.kind === 'context' ? { uid: 0, gid: 0 } : undefined }
  for (const [index, one] of selected.entries())
    lay(layout, { ...one, walked: digested?.walked[index] }, options)
  return await store.layers.write((writer) => layout.write(writer), { signal, intake })
}

async function unpack({ store }: SolveContext, layer: Layer, directory: string): Promise<void> {
  const { diffId } = await layer.stored
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  const unpacker = createUnpacker(fd, { whiteouts: 'none' })
  try {
    const reader = new TarReader(unpacker.handler)
    for await (const chunk of store.layers.tar(diffId)) reader.feed(chunk)
    reader.finish()
    unpacker.finish()
  } finally {
    unpacker.close()
    closeSync(fd)
  }
}
