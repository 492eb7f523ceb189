/** Which file systems keep change times as the caches rely on them. Of one that is not known it cannot be assumed: an image file has the times that its maker gave it. */
import { statfsSync } from 'node:fs'

/** statfs(2): ext2 to ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs. */
export const LOCAL: ReadonlySet<number> = new Set([
  0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e,
])
/** And NFS, 9p, Ceph: the server's times. */
export const LOCAL_OR_NETWORK: ReadonlySet<number> = new Set([...LOCAL, 0x6969, 0x0102_1997, 0x00c3_6400])

/** By device; each is asked for once. */
export class TrustedDevices {
  readonly #types: ReadonlySet<number>
  readonly #known = new Map<number, boolean>()
  #last = -1
  #isLastTrusted = false

  constructor(types: ReadonlySet<number>) {
    this.#types = types
  }

  /** `place`: the path of something on it, read through a descriptor. */
  has(device: number, place: () => string | Buffer): boolean {
    if (device === this.#last) return this.#isLastTrusted
    let isTrusted = this.#known.get(device)
    if (isTrusted === undefined) {
      isTrusted = this.#types.has(typeAt(place()))
      this.#known.set(device, isTrusted)
    }
    this.#last = device
    this.#isLastTrusted = isTrusted
    return isTrusted
  }
}

function typeAt(path: string | Buffer): number {
  try {
    return statfsSync(path).type >>> 0
  } catch {
    // It has just gone.
    return 0
  }
}
