/** For tests only: images in a store, made of nothing. */
import { createHash } from 'node:crypto'
import { pack } from 'tar-stream'
import type { ContainerConfig, Image, ImageConfig, Store } from '../../cas/index.ts'
import { bareLayer, ociManifest } from '../transfer/manifest.ts'

export interface TestEntry {
  readonly name: string
  readonly contents?: Uint8Array | string
  readonly linkname?: string
  readonly type?: 'file' | 'directory' | 'symlink' | 'link'
}

/** A tar that tar-stream wrote. */
export async function tarBytes(entries: readonly TestEntry[]): Promise<Buffer> {
  const archive = pack()
  for (const { name, contents = '', linkname, type = 'file' } of entries) {
    const header = { name, type, mode: type === 'directory' ? 0o755 : 0o644, mtime: new Date(1e12) }
    if (type === 'file') archive.entry(header, Buffer.from(contents))
    else archive.entry(linkname === undefined ? header : { ...header, linkname })
  }
  archive.finalize()
  return collect(archive as AsyncIterable<Uint8Array>)
}

export async function collect(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

export async function* pieces(bytes: Uint8Array, size = 65_536): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

/** As a build makes one: its manifest names bare layers. */
export async function makeImage(
  store: Store,
  layers: readonly Uint8Array[],
  options: { readonly names?: readonly string[]; readonly config?: ContainerConfig } = {},
): Promise<Image> {
  const stored = []
  for (const tar of layers) stored.push(await store.layers.ingestTar(pieces(tar)))
  const config: ImageConfig = {
    created: '2026-01-01T00:00:00Z',
    architecture: process.arch === 'x64' ? 'amd64' : process.arch,
    os: 'linux',
    config: options.config ?? { Env: ['PATH=/bin'], Cmd: ['sh'] },
    rootfs: { type: 'layers', diff_ids: stored.map(({ diffId }) => diffId) },
    history: stored.map((_, i) => ({ created: '2026-01-01T00:00:00Z', created_by: `layer ${i}` })),
  }
  const bytes = Buffer.from(JSON.stringify(config))
  const digest = store.blobs.write(bytes)
  const manifest = store.blobs.write(ociManifest({ digest, size: bytes.length }, stored.map(bareLayer)))
  return store.images.put(manifest, options.names ?? [])
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}
