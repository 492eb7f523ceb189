/** A buffer that contents are put into, one after another, before they are written. */
import { readSync } from 'node:fs'

export class FillBuffer {
  readonly bytes: Buffer
  /** How much of it is in use. */
  filled = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  /** `makeRoom` empties it; called when it is full. */
  append(bytes: Uint8Array, makeRoom: () => void): void {
    const { length } = this.bytes
    for (let at = 0; at < bytes.length;) {
      if (this.filled === length) makeRoom()
      const room = length - this.filled
      const part = at === 0 && bytes.length <= room ? bytes : bytes.subarray(at, at + room)
      this.bytes.set(part, this.filled)
      this.filled += part.length
      at += part.length
    }
  }

  /** `length` bytes at `position` of a file. Returns what was there: less where the file ends. */
  appendFrom(fd: number, position: number, length: number, makeRoom: () => void): number {
    let read = 0
    while (read < length) {
      if (this.filled === this.bytes.length) makeRoom()
      const room = Math.min(length - read, this.bytes.length - this.filled)
      const count = readSync(fd, this.bytes, this.filled, room, position + read)
      if (count === 0) break
      this.filled += count
      read += count
    }
    return read
  }
}
