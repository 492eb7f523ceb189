/**
 * The `erofs` driver: a layer is an EROFS image of its metadata whose files' data lies in the store's segments. Nothing is unpacked; a mount takes
 * 0.3 ms. Each image is mounted once on the machine, as far as processes live at the same time: they share the descriptor, and with it the page cache.
 */
import { randomBytes } from 'node:crypto'
import { closeSync, fsync, openSync, readFileSync, rmSync, writeFile, writeSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { TbuildError } from '../../errors.ts'
import { isErrno, mountErofs } from '../../linux/index.ts'
import { BLOCK } from '../contents/reader.ts'
import type { ContentList } from '../contents/list.ts'
import { createSegmentWriter } from '../contents/segments.ts'
import { editErofs } from '../erofs/edit.ts'
import { writeErofs } from '../erofs/image.ts'
import type { LayerTree } from '../layer/tree.ts'
import type { DiffId } from '../oci.ts'
import { corrupt } from '../store/blobs.ts'
import type { StoreContext } from '../store/context.ts'
import { enterEpoch } from '../store/epoch.ts'
import { segmentPath } from '../store/paths.ts'
import { splitTime } from '../tar/number.ts'
import { createLowers } from './lowers.ts'
import { mergeLayers } from './merge-layers.ts'
import { uuidOf } from './place-image.ts'
import { createMountRegister } from './shared-mounts.ts'
import type { Driver, IndexImage, RevisedName, Use } from './types.ts'

const fsyncLater = promisify(fsync)
const writeLater = promisify(writeFile)

/** A layer's index image, and the segments that it reads. */
interface Stored {
  readonly name: string
  readonly segments: readonly number[]
}

/** @param rebuild makes the image of a layer that has none, e.g. because another driver stored it */
export function createErofsDriver(context: StoreContext, rebuild: (diffId: DiffId) => Promise<void>): Driver {
  const { db, paths } = context
  const mounts = createMountRegister(context)

  /** In one query: compaction may switch both at any time. */
  const find = (diffId: DiffId): Stored | undefined => {
    const sql = `
      SELECT image, segment FROM layers LEFT JOIN layer_segments USING (diff_id) WHERE diff_id = ? ORDER BY device`
    const rows = db.all(sql, diffId)
    const name = rows[0]?.['image']
    if (typeof name !== 'string') return undefined
    return { name, segments: rows.flatMap(({ segment }) => (segment === null ? [] : [Number(segment)])) }
  }
  const imageOf = async (diffId: DiffId): Promise<Stored> => {
    let image = find(diffId)
    if (image === undefined) {
      await rebuild(diffId)
      image = find(diffId)
    }
    if (image !== undefined) return image
    throw new TbuildError('LAYER_UNKNOWN', `The store has no layer ${diffId}.`)
  }

  const mount = (image: number, segments: readonly number[], use: Use): number => {
    const devices: number[] = []
    try {
      for (const segment of segments) devices.push(openSync(segmentPath(paths, segment), 'r'))
      return mountErofs(image, devices, { direct: use === 'container' })
    } finally {
      for (const fd of devices) closeSync(fd)
    }
  }
  const merged = createLowers()
  const merge = async (diffIds: readonly DiffId[], use: Use): Promise<number> => {
    // Its segments stay until it is mounted, also when compaction empties them.
    using _ = enterEpoch(paths, db)
    const { tree, contents } = mergeLayers(context, diffIds)
    const { path, segments } = await writeImage(context, tree, contents)
    const image = openSync(path, 'r')
    rmSync(path)
    try {
      return mount(image, segments, use)
    } finally {
      closeSync(image)
    }
  }

  return {
    name: 'erofs',
    contentWriter: () => createSegmentWriter(paths, db),
    index: (tree, contents) => writeImage(context, tree, contents),
    revisedIndex: async (former, names, contents) => {
      const stored = find(former)
      return stored && (await reviseImage(context, stored, names, contents))
    },
    lower: async (diffId, use) => {
      for (;;) {
        const { name, segments } = await imageOf(diffId)
        try {
          return await mounts.share(join(paths.layers, name), uuidOf(name), use, (image) =>
            mount(image, segments, use),
          )
        } catch (error) {
          if (!isErrno(error, 'ENOENT', 'EBADMSG', 'EUCLEAN')) throw error
          // Compaction has taken it away after it had put another in its place.
          if (find(diffId)?.name === name) throw corrupt(diffId, error)
        }
      }
    },
    merged: (diffIds, use) => merged.use([use, ...diffIds].join(), () => merge(diffIds, use)),
    [Symbol.dispose]: () => {
      mounts[Symbol.dispose]()
      merged[Symbol.dispose]()
    },
  }
}

async function writeImage(
  context: StoreContext,
  tree: LayerTree,
  contents: ContentList,
): Promise<IndexImage> {
  const uuid = randomBytes(16)
  const { segments, ...layout } = layoutOf(contents)
  const path = context.workPath('image')
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
  return { path, uuid, segments }
}

async function reviseImage(
  context: StoreContext,
  stored: Stored,
  names: readonly RevisedName[],
  contents: ContentList,
): Promise<IndexImage | undefined> {
  let image: Buffer
  try {
    image = readFileSync(join(context.paths.layers, stored.name))
  } catch (error) {
    // Compaction has taken it away after it had put another in its place.
    if (isErrno(error, 'ENOENT')) return undefined
    throw error
  }
  const segments = [...stored.segments]
  const deviceOf = (segment: number): number => segments.indexOf(segment) + 1 || segments.push(segment)
  const edits = names.map(({ path, mtimeNs, contents: its }) => ({
    path,
    mtime: splitTime(mtimeNs),
    ...(its && {
      contents: {
        size: its.size,
        device: deviceOf(contents.segment(its.content)),
        block: contents.block(its.content),
      },
    }),
  }))
  const uuid = randomBytes(16)
  if (!editErofs(image, { uuid, devices: segments.length, edits })) return undefined
  const path = context.workPath('image')
  // By another thread: the file system takes 10 ms for its pages.
  await writeLater(path, image, { flag: 'wx', mode: 0o600, flush: true })
  return { path, uuid, segments }
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
