/** Is a layer's index image, byte for byte, what is made of its recipe? */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { isErrno } from '../../linux/index.ts'
import { layoutOf } from '../drivers/erofs.ts'
import { uuidOf } from '../drivers/place-image.ts'
import { writeErofs } from '../erofs/image.ts'
import type { ReadLayer } from '../layer/read.ts'

/** Thrown to leave the writer. */
class Different extends Error {}

export type ImageVerdict = 'same' | 'different' | 'missing'

/**
 * @param segments what the index says are its devices
 * @param ends of the segments, in bytes, as the index has them
 */
export function compareImage(
  path: string,
  name: string,
  layer: ReadLayer,
  segments: readonly number[],
  ends: (segment: number) => number,
): ImageVerdict {
  let fd
  try {
    fd = openSync(path, 'r')
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'missing'
    throw error
  }
  try {
    const layout = layoutOf(layer.contents)
    const isExact =
      layout.segments.length === segments.length && layout.segments.every((id, i) => id === segments[i])
    const uuid = uuidOf(name)
    if (uuid.length !== 16) return 'different'
    if (isExact && isEqual(fd, layer, { ...layout, uuid })) return 'same'
    // Made while its layer came in, it may know of contents that were given for the layer, and are not in it.
    const devices = devicesOf(fd, segments.length)
    const isPossible = devices?.every(({ blocks }, i) => blocks * 512 <= ends(segments[i] ?? 0)) === true
    if (devices === undefined || !isPossible) return 'different'
    const numbers = new Map(segments.map((segment, i) => [segment, i + 1]))
    const reaches = layout.segments.every((segment, i) => {
      const device = devices[(numbers.get(segment) ?? 0) - 1]
      return device !== undefined && device.blocks >= (layout.devices[i]?.blocks ?? 0)
    })
    if (!reaches) return 'different'
    const locate = (content: number) => ({
      device: numbers.get(layer.contents.segment(content)) ?? 0,
      block: layer.contents.block(content),
    })
    return isEqual(fd, layer, { uuid, devices, locate }) ? 'same' : 'different'
  } finally {
    closeSync(fd)
  }
}

type Layout = Omit<Parameters<typeof writeErofs>[1], 'sink'>

function isEqual(fd: number, { tree }: ReadLayer, layout: Layout): boolean {
  let at = 0
  let stored = Buffer.alloc(0)
  try {
    const length = writeErofs(tree, {
      uuid: layout.uuid,
      devices: layout.devices,
      locate: layout.locate,
      sink: (chunk) => {
        if (stored.length < chunk.length) stored = Buffer.allocUnsafe(chunk.length)
        const part = stored.subarray(0, chunk.length)
        for (let filled = 0; filled < part.length;) {
          const count = readSync(fd, part, filled, part.length - filled, at + filled)
          if (count === 0) throw new Different()
          filled += count
        }
        if (!part.equals(chunk)) throw new Different()
        at += chunk.length
      },
    })
    return fstatSync(fd).size === length
  } catch (error) {
    if (error instanceof Different || isErrno(error, 'EIO')) return false
    throw error
  }
}

/** As `cas/erofs/superblock.ts` writes them. */
const DEVICE_TABLE = 1024 + 128
const DEVICE_SLOT = 128

/** The device table of an image, as it stands in the file. */
function devicesOf(fd: number, count: number): { readonly blocks: number }[] | undefined {
  const bytes = Buffer.alloc(count * DEVICE_SLOT)
  if (readSync(fd, bytes, 0, bytes.length, DEVICE_TABLE) < bytes.length) return undefined
  return Array.from({ length: count }, (_, i) => ({ blocks: bytes.readUInt32LE(i * DEVICE_SLOT + 64) }))
}
