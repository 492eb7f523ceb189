/** Copies contents from one segment to others, and verifies each while it passes. Nothing counts before `record`. */
import { createHash, hash } from 'node:crypto'
import { fstatSync, readSync, writeSync } from 'node:fs'
import { ContentList, type Location } from '../contents/list.ts'
import { BLOCK } from '../contents/reader.ts'
import {
  acquireSegment,
  FULL,
  recordSegment,
  releaseSegment,
  syncSegments,
  type OpenSegment,
} from '../contents/segments.ts'
import type { Database } from '../store/database.ts'
import type { StorePaths } from '../store/paths.ts'

const BUFFER = 4 * 1024 * 1024

export class ContentCopier implements Disposable {
  /** What was copied, and where it is now. */
  readonly list = new ContentList()
  readonly #paths: StorePaths
  readonly #db: Database
  readonly #segments: OpenSegment[] = []
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER)
  #current: OpenSegment | undefined
  #filled = 0
  #isRecorded = false
  /** Blocks that the segments' files had. */
  #before = 0

  constructor(paths: StorePaths, db: Database) {
    this.#paths = paths
    this.#db = db
  }

  /** @param fd of the segment that it is in. False when it is not what its digest says: then it is not copied. */
  copy(fd: number, digest: Uint8Array, size: number, from: Location): boolean {
    const at = from.block * BLOCK
    const segment = (this.#current ??= this.#open())
    const block = (segment.end + this.#filled) / BLOCK
    const isCopied =
      size > BUFFER
        ? this.#copyLarge(segment, fd, digest, size, at)
        : this.#copySmall(segment, fd, digest, size, at)
    if (!isCopied) return false
    segment.written.push(this.list.add(digest, size, { segment: segment.id, block }))
    if (segment.end + this.#filled >= FULL) this.#close(segment)
    return true
  }

  /** Durable when it resolves. */
  async sync(): Promise<void> {
    if (this.#current !== undefined) this.#flush(this.#current)
    await syncSegments(this.#paths, this.#segments, this.list)
  }

  /** In a transaction, after `sync`. */
  record(): void {
    for (const segment of this.#segments) recordSegment(this.#db, segment)
  }

  /** The transaction has been committed. */
  confirm(): void {
    this.#isRecorded = true
  }

  [Symbol.dispose](): void {
    for (const segment of this.#segments) releaseSegment(segment, this.#isRecorded)
    this.#segments.length = 0
  }

  #open(): OpenSegment {
    const segment = acquireSegment(this.#paths, this.#db)
    this.#segments.push(segment)
    this.#before += this.#blocksOf(segment)
    return segment
  }

  /** What the copies take on the disk, in bytes; after `sync`. */
  get writtenBytes(): number {
    return this.#segments.reduce((bytes, segment) => bytes + this.#blocksOf(segment), 0) - this.#before
  }

  #blocksOf({ fd, sidecar }: OpenSegment): number {
    return (fstatSync(fd).blocks + fstatSync(sidecar).blocks) * 512
  }

  #close(segment: OpenSegment): void {
    this.#flush(segment)
    this.#current = undefined
  }

  #copySmall(segment: OpenSegment, fd: number, digest: Uint8Array, size: number, at: number): boolean {
    const padded = Math.ceil(size / BLOCK) * BLOCK
    if (this.#filled + padded > BUFFER) {
      this.#flush(segment)
    }
    const bytes = this.#buffer.subarray(this.#filled, this.#filled + size)
    if (!fill(fd, bytes, at) || !hash('sha256', bytes, 'buffer').equals(digest)) return false
    this.#buffer.fill(0, this.#filled + size, this.#filled + padded)
    this.#filled += padded
    return true
  }

  #copyLarge(segment: OpenSegment, fd: number, digest: Uint8Array, size: number, at: number): boolean {
    this.#flush(segment)
    const hashed = createHash('sha256')
    for (let done = 0; done < size; done += BUFFER) {
      const bytes = this.#buffer.subarray(0, Math.min(BUFFER, size - done))
      if (!fill(fd, bytes, at + done)) return false
      hashed.update(bytes)
      write(segment.fd, bytes, segment.end + done)
    }
    if (!hashed.digest().equals(digest)) return false
    // What is left of its last block reads as zeros, whatever was written there before.
    const padding = (BLOCK - (size % BLOCK)) % BLOCK
    write(segment.fd, Buffer.alloc(padding), segment.end + size)
    segment.end += size + padding
    return true
  }

  #flush(segment: OpenSegment): void {
    write(segment.fd, this.#buffer.subarray(0, this.#filled), segment.end)
    segment.end += this.#filled
    this.#filled = 0
  }
}

/** False when the file ends before. */
function fill(fd: number, bytes: Buffer, position: number): boolean {
  for (let at = 0; at < bytes.length;) {
    const count = readSync(fd, bytes, at, bytes.length - at, position + at)
    if (count === 0) return false
    at += count
  }
  return true
}

function write(fd: number, bytes: Buffer, position: number): void {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at, position + at)
}
