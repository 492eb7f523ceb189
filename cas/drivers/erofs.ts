/**
 * The `erofs` driver: a layer is an EROFS image of its metadata whose files' data lies in the store's segments. Nothing is unpacked; a mount takes
 * 0.3 ms. Each image is mounted once on the machine, as far as processes live at the same time: they share the descriptor, and with it the page cache.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fsync, openSync, rmSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { TbuildError } from '../../errors.ts'
import { mountErofs } from '../../linux/index.ts'
import { BLOCK } from '../contents/reader.ts'
import type { ContentList } from '../contents/list.ts'
import { createSegmentWriter } from '../contents/segments.ts'
import { writeErofs } from '../erofs/image.ts'
import type { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import type { StoreContext } from '../store/context.ts'
import { segmentPath } from '../store/paths.ts'
import { mergeLayers } from './merge-layers.ts'
import { createMountRegister } from './shared-mounts.ts'
import type { Driver, IndexImage } from './types.ts'

const fsyncLater = promisify(fsync)

/** @param rebuild makes the image of a layer that has none, e.g. because another driver stored it */
export function createErofsDriver(context: StoreContext, rebuild: (diffId: DiffId) => Promise<void>): Driver {
  const { db, paths } = context
  const mounts = createMountRegister(context)

  const imageOf = async (diffId: DiffId): Promise<string> => {
    const find = (): unknown => db.get('SELECT image FROM layers WHERE diff_id = ?', diffId)?.['image']
    let name = find()
    if (typeof name !== 'string') {
      await rebuild(diffId)
      name = find()
    }
    if (typeof name === 'string') return name
    throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
  }

  const mount = (image: number, segments: readonly number[]): number => {
    const devices: number[] = []
    try {
      for (const segment of segments) devices.push(openSync(segmentPath(paths, segment), 'r'))
      return mountErofs(image, devices)
    } finally {
      for (const fd of devices) closeSync(fd)
    }
  }
  const segmentsOf = (diffId: DiffId): number[] =>
    db
      .all('SELECT segment FROM layer_segments WHERE diff_id = ? ORDER BY device', diffId)
      .map((row) => Number(row['segment']))

  const merged = new Map<string, Promise<number>>()
  const merge = async (diffIds: readonly DiffId[]): Promise<number> => {
    const { tree, contents } = mergeLayers(context, diffIds)
    const { path, segments } = await writeImage(context, 'sha256:merged' as DiffId, tree, contents)
    const image = openSync(path, 'r')
    rmSync(path)
    try {
      return mount(image, segments)
    } finally {
      closeSync(image)
    }
  }

  return {
    name: 'erofs',
    contentWriter: () => createSegmentWriter(paths, db),
    index: (diffId, tree, contents) => writeImage(context, diffId, tree, contents),
    lower: async (diffId) => {
      const name = await imageOf(diffId)
      return await mounts.share(join(paths.layers, name), uuidOf(name), (image) =>
        mount(image, segmentsOf(diffId)),
      )
    },
    merged: (diffIds) => {
      const key = diffIds.join()
      let fd = merged.get(key)
      if (fd === undefined) {
        fd = merge(diffIds)
        merged.set(key, fd)
        fd.catch(() => merged.delete(key))
      }
      return fd
    },
    [Symbol.dispose]: () => {
      mounts[Symbol.dispose]()
      for (const fd of merged.values()) void fd.then(closeSync, () => {})
      merged.clear()
    },
  }
}

async function writeImage(
  context: StoreContext,
  diffId: DiffId,
  tree: LayerTree,
  contents: ContentList,
): Promise<IndexImage> {
  const uuid = randomBytes(16)
  const path = context.workPath('image')
  const { segments, ...layout } = layoutOf(contents)
  const fd = openSync(path, 'wx', 0o600)
  try {
    const sink = (chunk: Buffer): void => {
      for (let at = 0; at < chunk.length;) at += writeSync(fd, chunk, at, chunk.length - at)
    }
    writeErofs(tree, { uuid, ...layout, sink })
    await fsyncLater(fd)
  } finally {
    closeSync(fd)
  }
  return { path, name: imageName(diffId, uuid), segments }
}

/** An image is named for its layer and its own UUID, which a mount of it tells. */
function imageName(diffId: DiffId, uuid: Buffer): string {
  return `${diffId.slice('sha256:'.length)}.${uuid.toString('hex')}.erofs`
}

export function uuidOf(name: string): Buffer {
  return Buffer.from(name.split('.')[1] ?? '', 'hex')
}

/** The devices that an image over these contents has. */
export function layoutOf(contents: ContentList) {
  const blocks = new Map<number, number>()
  for (let content = 0; content < contents.count; content++) {
    const segment = contents.segment(content)
    const end = contents.block(content) + Math.ceil(contents.size(content) / BLOCK)
    if (end > (blocks.get(segment) ?? 0)) blocks.set(segment, end)
  }
  const segments = [...blocks.keys()].toSorted((a, b) => a - b)
  const numbers = new Map(segments.map((segment, i) => [segment, i + 1]))
  return {
    segments,
    devices: segments.map((segment) => ({ blocks: blocks.get(segment) ?? 0 })),
    locate: (content: number) => ({
      device: numbers.get(contents.segment(content)) ?? 0,
      block: contents.block(content),
    }),
  }
}
