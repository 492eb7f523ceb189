/** CRC-32C (Castagnoli), for the superblock. */

const POLYNOMIAL = 0x82f6_3b78
let table: Uint32Array | undefined

/** As the kernel's crc32c(~0, ...): the register, not inverted at the end. */
export function crc32c(bytes: Uint8Array): number {
  table ??= makeTable()
  let crc = 0xffff_ffff
  for (const byte of bytes) crc = (table[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8)
  return crc >>> 0
}

function makeTable(): Uint32Array {
  return Uint32Array.from({ length: 256 }, (_, byte) => {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ POLYNOMIAL : crc >>> 1
    return crc
  })
}
