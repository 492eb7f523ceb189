/** Small files, many at a time: opened, compared with what was seen of them, read, digested, closed. On any thread. */
import { hash } from 'node:crypto'
import { closeSync, readSync } from 'node:fs'
import { statOf, type Stat } from '../../linux/index.ts'
import { DIGEST_BYTES } from '../contents/list.ts'
import { readAttributes } from '../tar/attributes.ts'
import { openFileBelow } from '../tar/tree.ts'

/** Files of one tree. Numbers and one text, which pass from one thread to another more quickly than objects. */
export interface FileBatch {
  /** The tree's descriptor. */
  readonly root: number
  /** In the tree: byte strings, each with a NUL behind it. */
  readonly paths: string
  /** What was seen of each: see `encodeSeen`. */
  readonly seen: Float64Array
}

/** What was read stands in the buffer one file after the other, each at the place that its size gives it. */
export interface DigestedFiles {
  /** Of each `READ`, also with `HAS_HOLES`; 0: it could not be read, or is not the file that was seen. */
  readonly outcomes: Uint8Array
  /** 1: it has no attributes that a layer keeps. */
  readonly plain: Uint8Array
  readonly digests: Uint8Array
}

/** All of it was read. */
export const READ = 1
/** It has an aligned span of `HOLE` zeros. */
export const HAS_HOLES = 2

const SEEN = 7
const SIZE = 0

/** For `FileBatch`: what tells whether a file is still the one that was seen. */
export function encodeSeen(all: readonly Stat[]): Float64Array {
  const seen = new Float64Array(all.length * SEEN)
  for (const [i, stats] of all.entries()) {
    seen[i * SEEN + SIZE] = stats.size
    seen[i * SEEN + 1] = stats.inoLow
    seen[i * SEEN + 2] = stats.inoHigh
    seen[i * SEEN + 3] = stats.mtimeSeconds
    seen[i * SEEN + 4] = stats.mtimeNanoseconds
    seen[i * SEEN + 5] = stats.ctimeSeconds
    seen[i * SEEN + 6] = stats.ctimeNanoseconds
  }
  return seen
}

function isSame(seen: Float64Array, at: number, stats: Stat): boolean {
  return (
    stats.type === 'file' &&
    seen[at + SIZE] === stats.size &&
    seen[at + 1] === stats.inoLow &&
    seen[at + 2] === stats.inoHigh &&
    seen[at + 3] === stats.mtimeSeconds &&
    seen[at + 4] === stats.mtimeNanoseconds &&
    seen[at + 5] === stats.ctimeSeconds &&
    seen[at + 6] === stats.ctimeNanoseconds
  )
}

/** Aligned spans of so many zeros are holes, however they come: so that one file is always the same runs. */
export const HOLE: number = 64 * 1024
const zeros = Buffer.alloc(HOLE)

export function isZero(bytes: Uint8Array): boolean {
  return bytes[0] === 0 && zeros.subarray(0, bytes.length).equals(bytes)
}

/** Throws nothing: what goes wrong with one file is its own outcome, and why is found out by whoever tries again. */
export function digestFiles({ root, paths, seen }: FileBatch, buffer: Uint8Array): DigestedFiles {
  const count = seen.length / SEEN
  const outcomes = new Uint8Array(count)
  const plain = new Uint8Array(count)
  const digests = Buffer.alloc(count * DIGEST_BYTES)
  let at = 0
  let pathAt = 0
  for (let i = 0; i < count; i++) {
    const pathEnd = paths.indexOf('\0', pathAt)
    const size = seen[i * SEEN + SIZE] ?? 0
    try {
      const fd = openFileBelow(root, paths.slice(pathAt, pathEnd))
      try {
        if (isSame(seen, i * SEEN, statOf(fd)) && readAll(fd, buffer, at, size)) {
          const bytes = buffer.subarray(at, at + size)
          outcomes[i] = hasHoles(bytes) ? READ | HAS_HOLES : READ
          plain[i] = readAttributes(fd).layer.size === 0 ? 1 : 0
          // As text: to make a buffer takes longer than to hash 1 KB.
          digests.write(hash('sha256', bytes, 'binary'), i * DIGEST_BYTES, 'binary')
        }
      } finally {
        closeSync(fd)
      }
    } catch {
      outcomes[i] = 0
    }
    at += size
    pathAt = pathEnd + 1
  }
  return { outcomes, plain, digests }
}

function readAll(fd: number, buffer: Uint8Array, at: number, size: number): boolean {
  for (let read = 0; read < size;) {
    const count = readSync(fd, buffer, at + read, size - read, read)
    if (count === 0) return false
    read += count
  }
  return true
}

function hasHoles(bytes: Uint8Array): boolean {
  for (let block = 0; block + HOLE <= bytes.length; block += HOLE)
    if (isZero(bytes.subarray(block, block + HOLE))) return true
  return false
}
