/** Superblock and device table. */
import { BLOCK, BLOCK_BITS, MOST_BLOCKS } from './format.ts'
import { crc32c } from './crc32c.ts'

const MAGIC = 0xe0f5_e1e2
const START = 1024
const SUPERBLOCK = 128
const DEVICE_SLOT = 128
const MOST_DEVICES = 0xffff
const COMPAT_CHECKSUM = 1
const COMPAT_MTIME = 2
const INCOMPAT_CHUNKED_FILE = 4
const INCOMPAT_DEVICE_TABLE = 8

export interface Superblock {
  readonly uuid: Buffer
  readonly devices: readonly { readonly blocks: number }[]
  readonly inodes: number
  /** Of the image. */
  readonly blocks: number
  /** Where the areas begin. */
  readonly metadataBlock: number
  readonly xattrBlock: number
  readonly rootNid: number
}

/** Bytes from the image's start to the end of the device table. */
export function superblockEnd(devices: number): number {
  return START + SUPERBLOCK + devices * DEVICE_SLOT
}

/** As `encodeSuperblock` has written it; `undefined` where that was not so. */
export function decodeSuperblock(image: Buffer): Superblock | undefined {
  if (image.length < superblockEnd(0) || image.readUInt32LE(START) !== MAGIC) return undefined
  const count = image.readUInt16LE(START + 86)
  if (image.length < superblockEnd(count)) return undefined
  const superblock = {
    uuid: image.subarray(START + 48, START + 64),
    devices: Array.from({ length: count }, (_, i) => ({
      blocks: image.readUInt32LE(superblockEnd(i) + 64),
    })),
    inodes: image.readUInt32LE(START + 16),
    blocks: image.readUInt32LE(START + 36),
    metadataBlock: image.readUInt32LE(START + 40),
    xattrBlock: image.readUInt32LE(START + 44),
    rootNid: image.readUInt16LE(START + 14),
  }
  const encoded = encodeSuperblock(superblock)
  return encoded.equals(image.subarray(0, encoded.length)) ? superblock : undefined
}

/** The image's first `superblockEnd` bytes, and zeros to the end of their block. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  const { uuid, devices, blocks } = superblock
  if (uuid.length !== 16) throw new Error(`a UUID has 16 bytes, not ${uuid.length}`)
  if (devices.length > MOST_DEVICES) throw new Error(`${devices.length} devices, ${MOST_DEVICES} at most`)
  const out = Buffer.alloc(Math.ceil(superblockEnd(devices.length) / BLOCK) * BLOCK)
  const base = START
  out.writeUInt32LE(MAGIC, base)
  out.writeUInt32LE(COMPAT_CHECKSUM | COMPAT_MTIME, base + 8)
  out.writeUInt8(BLOCK_BITS, base + 12)
  out.writeUInt16LE(superblock.rootNid, base + 14)
  out.writeUInt32LE(superblock.inodes, base + 16)
  out.writeUInt32LE(blocks, base + 36)
  out.writeUInt32LE(superblock.metadataBlock, base + 40)
  out.writeUInt32LE(superblock.xattrBlock, base + 44)
  uuid.copy(out, base + 48)
  const deviceTable = devices.length === 0 ? 0 : INCOMPAT_DEVICE_TABLE
  out.writeUInt32LE(INCOMPAT_CHUNKED_FILE | deviceTable, base + 80)
  out.writeUInt16LE(devices.length, base + 86)
  out.writeUInt16LE((START + SUPERBLOCK) / DEVICE_SLOT, base + 88)
  // A slot's name stays empty: the mount gives the files, in the same order.
  for (const [i, device] of devices.entries()) {
    if (device.blocks > MOST_BLOCKS) throw new Error(`device ${i + 1} has ${device.blocks} blocks`)
    out.writeUInt32LE(device.blocks, START + SUPERBLOCK + i * DEVICE_SLOT + 64)
  }
  // Over the superblock's block, whatever else is in it; its own field counts as zeros.
  out.writeUInt32LE(crc32c(out.subarray(START, START + BLOCK)), base + 4)
  return out
}
