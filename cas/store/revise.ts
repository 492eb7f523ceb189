/**
 * A layer made of a former one that differs from it by what a few files hold and by times. Blocks of its recipe are taken over as they stand, but for those in which
 * something differs; its digest goes on from the last place before the first difference that is known; the driver changes its index image where the inodes are.
 * Nothing is laid out, and of what stays the same only what must be hashed is read.
 *
 * First all is worked out that could show that it cannot be done, then it is done.
 */
import type { ContentWriter } from '../contents/types.ts'
import type { RevisedName } from '../drivers/types.ts'
import { continueDigest } from '../hashing/continued.ts'
import { midstatesUpTo } from '../hashing/midstates.ts'
import { canContinue } from '../hashing/sha256.ts'
import type { DiffId } from '../oci.ts'
import { DIGEST } from '../recipe/format.ts'
import { startsOf } from '../recipe/outline.ts'
import { operationsOf, recipeBlocks, type Operation, type RecipeBlock } from '../recipe/read.ts'
import type { RecipeWriter } from '../recipe/write.ts'
import { BLOCK, type TarEntry } from '../tar/entry.ts'
import { encodeHeader, padding, TarReader } from '../tar/index.ts'
import type { StoreContext } from './context.ts'
import { diffIdOf, type IncomingLayer, type IngestParts } from './ingest.ts'
import { midstatesOf } from './midstates.ts'
import { recipePath } from './paths.ts'
import type { FormerLayer, Revision } from './types.ts'

/** A part of the new tar: so many bytes that a block of the former recipe stands for, or operations in the place of some blocks. */
type Part =
  | { readonly block: RecipeBlock; readonly length: number }
  | { readonly operations: readonly Operation[] }

export interface RevisionPlan {
  readonly former: FormerLayer
  readonly parts: readonly Part[]
  /** Midstates of what both begin with. */
  readonly known: ReturnType<typeof midstatesUpTo>
  readonly names: readonly RevisedName[]
  readonly shifts: readonly number[]
  readonly root: IncomingLayer['root']
  /** Of the new tar. */
  readonly size: number
}

/** `undefined`: it cannot be done. The former layer is leased. Throws `STORE_CORRUPT` for a damaged recipe. */
export function planRevision(
  { db, paths }: StoreContext,
  former: FormerLayer,
  revisions: readonly Revision[],
  contents: ContentWriter,
): RevisionPlan | undefined {
  const { diffId } = former
  const row = db.get('SELECT size, opaque_root, has_root FROM layers WHERE diff_id = ?', diffId)
  const path = recipePath(paths, diffId)
  const blocks = recipeBlocks(path)
  const starts = startsOf(former.outline, blocks)
  if (row === undefined || starts === undefined) return undefined
  const first = revisions[0]?.start ?? Infinity
  const known = canContinue() ? midstatesUpTo(midstatesOf(db, diffId), first) : undefined
  const editor = new Editor(revisions, contents)
  const parts: Part[] = []
  for (const [i, block] of blocks.entries()) {
    const start = starts[i] ?? 0
    const end = starts[i + 1] ?? Number(row['size'])
    // What is hashed must be there.
    if (end > (known?.last.bytes ?? 0) && !contents.lookUp(block.digests)) return undefined
    if (editor.leavesUntil(end)) {
      parts.push({ block, length: end - start })
      continue
    }
    editor.position = start
    editor.operations = []
    for (const operation of operationsOf(path, block)) if (!editor.take(operation)) return undefined
    parts.push({ operations: editor.operations })
  }
  if (!editor.isDone) return undefined
  return {
    former,
    parts,
    known,
    names: editor.names,
    shifts: editor.shifts,
    size: editor.shifts.reduce((sum, shift) => sum + shift, Number(row['size'])),
    root: { opaqueRoot: row['opaque_root'] === 1, hasRoot: row['has_root'] === 1 },
  }
}

/** `breathe`: lets the event loop have a turn, when one is due. */
export async function writeRevision(
  { reader, hashThread }: StoreContext,
  { former, parts, known, names, root, size }: RevisionPlan,
  { contents, recipe }: IngestParts,
  breathe: () => Promise<void> | undefined,
): Promise<IncomingLayer> {
  for (const part of parts) {
    if ('block' in part) recipe.copy(part.block, part.length)
    else for (const operation of part.operations) write(recipe, operation)
    const turn = breathe()
    if (turn !== undefined) await turn
  }
  const rest = restOf(parts, known?.last.bytes ?? 0)
  const digested = continueDigest({
    place: known?.last,
    operations: operationsOfAll(rest),
    contents,
    unverified: unverifiedOf(rest, contents),
    reader: reader(),
    thread: hashThread,
    breathe,
  })
  // Told to whoever commits the layer, later.
  digested.catch(() => {})
  let midstates: Uint8Array = new Uint8Array(0)
  const diffId = async (): Promise<DiffId> => {
    const { sha256, midstates: others } = await digested
    midstates = Buffer.concat([known?.packed ?? midstates, others])
    return diffIdOf(sha256)
  }
  return {
    diffId: diffId(),
    midstates: () => midstates,
    size,
    root,
    index: async (driver) => await driver.revisedIndex?.(former.diffId, names, contents.list),
    contents,
    recipe,
  }
}

/** Behind a place in the tar, where an operation ends. */
function restOf(parts: readonly Part[], from: number): Part[] {
  const rest: Part[] = []
  let position = 0
  for (const part of parts) {
    const end = position + ('block' in part ? part.length : lengthOfAll(part.operations))
    if (position >= from) rest.push(part)
    else if (end > from) rest.push({ operations: behind(operationsOfAll([part]), from - position) })
    position = end
  }
  return rest
}

function behind(operations: Iterable<Operation>, length: number): Operation[] {
  let position = 0
  const rest: Operation[] = []
  for (const operation of operations) {
    if (position >= length) rest.push(operation)
    position += lengthOf(operation)
    if (rest.length === 0 && position > length) throw new Error(`no operation ends at ${length}`)
  }
  return rest
}

function lengthOfAll(operations: readonly Operation[]): number {
  return operations.reduce((sum, operation) => sum + lengthOf(operation), 0)
}

function* operationsOfAll(parts: readonly Part[]): Generator<Operation, void, undefined> {
  for (const part of parts) yield* 'block' in part ? operationsOf('a recipe', part.block) : part.operations
}

/** Each once; what was written just now is not among them. */
function unverifiedOf(parts: readonly Part[], contents: ContentWriter): number[] {
  const numbers = new Set<number>()
  const add = (digest: Buffer): void => {
    const content = contents.find(digest)
    if (content !== undefined && !contents.isOwn(content)) numbers.add(content)
  }
  for (const part of parts) {
    if ('operations' in part) {
      for (const operation of part.operations) if (operation.kind === 'run') add(operation.digest)
      continue
    }
    const { digests } = part.block
    for (let at = 0; at < digests.length; at += DIGEST) add(digests.subarray(at, at + DIGEST))
  }
  return [...numbers]
}

function write(recipe: RecipeWriter, operation: Operation): void {
  if (operation.kind === 'literal') recipe.literal(operation.bytes)
  else if (operation.kind === 'zeros') recipe.zeros(operation.length)
  else recipe[operation.kind](operation.digest, operation.length)
}

/** Makes the operations of the new tar of those of the former one. */
class Editor {
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
function lengthOf(operation: Operation): number {
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
