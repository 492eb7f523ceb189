/** What scenarios put into a store: small tars whose contents follow from a seed, and images of them. */
import { createHash } from 'node:crypto'
import { buffer } from 'node:stream/consumers'
import { pack } from 'tar-stream'
import {
  MEDIA,
  openStore,
  type BlobDigest,
  type Descriptor,
  type DiffId,
  type Store,
  type StoredLayer,
  type TarOutputEntry,
} from '../../../cas/index.ts'
import { checkerOf, imageKey, layerKey, STORED } from '../check.ts'
import { randomFrom } from '../random.ts'
import type { Checker, Tell } from '../scenario.ts'

/** The store as a scenario's module wants it: `ingest.ts?driver=objects`. Without, the machine's own choice. */
export function storeOf(module: string): {
  readonly open: (path: string) => Promise<Store>
  readonly check: Checker
} {
  const wanted = new URL(module).searchParams.get('driver')
  const options = { driver: DRIVERS.find((name) => name === wanted) }
  return { open: (path) => openStore(path, options), check: checkerOf(options) }
}

const DRIVERS = ['erofs', 'objects', 'copy'] as const

export interface File {
  readonly name: string
  readonly bytes: Buffer
}

/** `count` files of 0 to 6000 bytes; the last one has 40,000. Of equal seeds and names equal ones. */
export function files(count: number, ...seed: readonly (string | number)[]): File[] {
  const random = randomFrom('files', ...seed)
  return Array.from({ length: count }, (_, index) => {
    const size = index === count - 1 ? 40_000 : random.next(6000)
    const bytes = Buffer.alloc(size)
    for (let at = 0; at < size; at++) bytes[at] = random.next(256)
    return { name: `file-${index}`, bytes }
  })
}

/** A regular file's, for `layers.write`. */
export function entryOf({ name, bytes }: File): TarOutputEntry {
  const owner = { mode: 0o644, uid: 0, gid: 0, major: 0, minor: 0, xattrs: new Map<string, Buffer>() }
  return { type: 'file', path: name, size: bytes.length, mtimeNs: 1_000_000_000_000_000_000n, ...owner }
}

export function tarOf(contents: readonly File[]): Promise<Buffer> {
  const archive = pack()
  for (const { name, bytes } of contents) archive.entry({ name, mtime: new Date(1e12), mode: 0o644 }, bytes)
  archive.finalize()
  return buffer(archive)
}

/** As from a network. */
export async function* stream(bytes: Buffer): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += 16_384) {
    await new Promise(setImmediate)
    yield bytes.subarray(at, at + 16_384)
  }
}

export function digestOf(bytes: Uint8Array): BlobDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as BlobDigest
}

/** Ingests it, and tells. */
export async function ingest(store: Store, tell: Tell, contents: readonly File[]): Promise<StoredLayer> {
  const tar = await tarOf(contents)
  const layer = await store.layers.ingestTar(stream(tar), { expected: digestOf(tar) as unknown as DiffId })
  tell.done(layerKey(layer.diffId), STORED)
  return layer
}

/** An image of these layers, put under a name, and told. */
export function putImage(
  store: Store,
  tell: Tell,
  name: string,
  layers: readonly StoredLayer[],
  compressed?: readonly Descriptor[],
): BlobDigest {
  const config = Buffer.from(
    JSON.stringify({
      architecture: 'amd64',
      os: 'linux',
      config: {},
      rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => diffId) },
      history: layers.map(() => ({ created_by: 'scenario' })),
    }),
  )
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.manifest,
      config: { mediaType: MEDIA.config, digest: store.blobs.write(config), size: config.length },
      layers:
        compressed ?? layers.map(({ diffId, size }) => ({ mediaType: MEDIA.layer, digest: diffId, size })),
    }),
  )
  const digest = store.blobs.write(manifest)
  const full = `docker.io/library/${name}`
  tell.begin(imageKey(full), digest)
  store.images.put(digest, [full])
  tell.durable(imageKey(full), digest)
  // Nothing that a named image needs goes.
  for (const { diffId } of layers) tell.durable(layerKey(diffId), STORED)
  return digest
}
