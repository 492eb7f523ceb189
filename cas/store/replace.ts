/** Replaces entries in the operations of a tar: its headers are read, and what they stand for gives way to what a revision says. */
import type { ContentWriter } from '../contents/types.ts'
import type { RevisedName } from '../drivers/types.ts'
import type { Operation } from '../recipe/read.ts'
import { BLOCK, type TarEntry } from '../tar/entry.ts'
import { encodeHeader, padding, TarReader } from '../tar/index.ts'
import type { Revision } from './types.ts'

export class Replacer {
  readonly #revisions: readonly Revision[]
  /** Revisions that are done. */
  #count = 0
  /** In the former tar. */
  position = 0
  /** Of former contents, that are left out. */
  #skipped = 0
  /** The header of the entry that is revised, while it comes. */
  #header: Buffer[] | undefined
  #parser: TarReader | undefined
  #entry: TarEntry | undefined
  operations: Operation[] = []
  readonly names: RevisedName[] = []
  readonly shifts: number[] = []
  readonly #contents: ContentWriter

  constructor(revisions: readonly Revision[], contents: ContentWriter) {
    this.#revisions = revisions
    this.#contents = contents
  }

  get isDone(): boolean {
    return this.#count === this.#revisions.length && this.#skipped === 0 && this.#header === undefined
  }

  /** Nothing differs before this place. */
  leavesUntil(end: number): boolean {
    if (this.#skipped > 0 || this.#header !== undefined) return false
    return (this.#revisions[this.#count]?.start ?? Infinity) >= end
  }

  /** False: what it says cannot be revised so. */
  take(operation: Operation): boolean {
    for (let rest: Operation | undefined = operation; rest !== undefined;) {
      const length = lengthOf(rest)
      if (this.#skipped > 0) {
        const parts = split(rest, Math.min(this.#skipped, length))
        if (parts === undefined || rest.kind === 'keep') return false
        this.#skipped -= lengthOf(parts[0])
        this.position += lengthOf(parts[0])
        rest = parts[1]
        continue
      }
      const before = this.#header === undefined ? this.#next - this.position : 0
      if (before < 0) return false
      if (before >= length && (before > 0 || length === 0)) {
        this.operations.push(rest)
        this.position += length
        return true
      }
      const [left, header] = before === 0 ? [undefined, rest] : (split(rest, before) ?? [])
      if (left !== undefined) this.operations.push(left)
      this.position += before
      if (header?.kind !== 'literal') return false
      const taken = this.#takeHeader(header.bytes)
      if (taken === undefined) return false
      this.position += taken
      rest = split(header, taken)?.[1]
    }
    return true
  }

  get #next(): number {
    return this.#revisions[this.#count]?.start ?? Infinity
  }

  /** How many bytes of it belong to the header. */
  #takeHeader(bytes: Buffer): number | undefined {
    this.#header ??= []
    this.#parser ??= new TarReader({
      entry: (entry) => {
        this.#entry = entry
      },
      data: () => {},
      end: () => {},
    })
    for (let at = 0; at < bytes.length; at += BLOCK) {
      const block = bytes.subarray(at, at + BLOCK)
      this.#header.push(block)
      this.#parser.feed(block)
      if (this.#entry === undefined) continue
      return this.#revise(this.#entry, Buffer.concat(this.#header)) ? at + block.length : undefined
    }
    return bytes.length
  }

  #revise(former: TarEntry, header: Buffer): boolean {
    const { mtimeNs, contents } = this.#revisions[this.#count++] ?? { mtimeNs: 0n }
    this.#header = this.#parser = this.#entry = undefined
    const content = contents && this.#contents.find(contents.digest)
    const isOne = contents === undefined ? former.type === 'directory' : former.type === 'file'
    // One of our own making, and contents on both sides: then the index image can say it, too.
    if (!isOne || !encodeHeader(former).equals(header)) return false
    const size = contents?.size ?? 0
    const after = padding(size).length
    const bytes = Buffer.from(encodeHeader({ ...former, mtimeNs, size }))
    this.operations.push({ kind: 'literal', bytes })
    if (contents !== undefined) {
      if (content === undefined || size === 0 || former.size === 0) return false
      this.operations.push({ kind: 'run', digest: Buffer.from(contents.digest), length: size })
      if (after > 0) this.operations.push({ kind: 'zeros', length: after })
    }
    this.#skipped = former.size + padding(former.size).length
    this.shifts.push(bytes.length + size + after - header.length - this.#skipped)
    const path = former.path.toString('latin1')
    this.names.push({ path, mtimeNs, ...(content !== undefined && { contents: { content, size } }) })
    return true
  }
}

/** Of the tar. */
export function lengthOf(operation: Operation): number {
  if (operation.kind === 'keep') return 0
  return operation.kind === 'literal' ? operation.bytes.length : operation.length
}

/** Its first bytes, and what is left, if anything. `undefined`: contents are not split. */
function split(operation: Operation, at: number): readonly [Operation, Operation | undefined] | undefined {
  const length = lengthOf(operation)
  if (at === length) return [operation, undefined]
  if (operation.kind === 'zeros')
    return [
      { kind: 'zeros', length: at },
      { kind: 'zeros', length: length - at },
    ]
  if (operation.kind !== 'literal') return undefined
  const { bytes } = operation
  return [
    { kind: 'literal', bytes: bytes.subarray(0, at) },
    { kind: 'literal', bytes: bytes.subarray(at) },
  ]
}
