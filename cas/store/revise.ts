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
import { Verification } from '../hashing/verify.ts'
import { DIGEST } from '../recipe/format.ts'
import { startsOf } from '../recipe/outline.ts'
import { operationsOf, recipeBlocks, type Operation, type RecipeBlock } from '../recipe/read.ts'
import type { RecipeWriter } from '../recipe/write.ts'
import type { StoreContext } from './context.ts'
import { diffIdOf, type IncomingLayer, type IngestParts } from './ingest.ts'
import { midstatesOf } from './midstates.ts'
import { recipePath } from './paths.ts'
import { lengthOf, Replacer } from './replace.ts'
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
  /** What comes after that is worth the hash thread's help. */
  readonly isMuch: boolean
  readonly names: readonly RevisedName[]
  readonly shifts: readonly number[]
  readonly root: IncomingLayer['root']
  /** Of the new tar. */
  readonly size: number
}

/** Bytes: less is hashed and verified in the time in which the hash thread starts, which is 0.1 s. */
const MUCH = 60 * 1024 * 1024

/** `undefined`: it cannot be done. The former layer is leased. Throws `STORE_CORRUPT` for a damaged recipe. */
export function planRevision(
  { db, paths, hashThread }: StoreContext,
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
  const size = Number(row['size'])
  const isMuch = size - (known?.last.bytes ?? 0) > MUCH
  if (isMuch) hashThread().begin()
  const replacer = new Replacer(revisions, contents)
  const parts: Part[] = []
  for (const [i, block] of blocks.entries()) {
    const start = starts[i] ?? 0
    const end = starts[i + 1] ?? size
    // What is hashed must be there.
    if (end > (known?.last.bytes ?? 0) && !contents.lookUp(block.digests)) return undefined
    if (replacer.leavesUntil(end)) {
      parts.push({ block, length: end - start })
      continue
    }
    replacer.position = start
    replacer.operations = []
    for (const operation of operationsOf(path, block)) if (!replacer.take(operation)) return undefined
    parts.push({ operations: replacer.operations })
  }
  if (!replacer.isDone) return undefined
  return {
    former,
    parts,
    known,
    isMuch,
    names: replacer.names,
    shifts: replacer.shifts,
    size: replacer.shifts.reduce((sum, shift) => sum + shift, size),
    root: { opaqueRoot: row['opaque_root'] === 1, hasRoot: row['has_root'] === 1 },
  }
}

/**
 * `breathe`: lets the event loop have a turn, when one is due.
 * @param own what is disposed when the layer is recorded, or will not be
 */
export async function writeRevision(
  { reader, hashThread }: StoreContext,
  { former, parts, known, isMuch, names, root, size }: RevisionPlan,
  { contents, recipe }: IngestParts,
  own: DisposableStack,
  breathe: () => Promise<void> | undefined,
): Promise<IncomingLayer> {
  const rest = restOf(parts, known?.last.bytes ?? 0)
  const verification = isMuch
    ? own.use(new Verification(contents.list, unverifiedOf(rest, contents), hashThread()))
    : undefined
  for (const part of parts) {
    if ('block' in part) recipe.copy(part.block, part.length)
    else for (const operation of part.operations) write(recipe, operation)
    const turn = breathe()
    if (turn !== undefined) await turn
  }
  const digested = continueDigest({
    place: known?.last,
    operations: operationsOfAll(rest),
    contents,
    verification,
    reader: reader(),
    breathe,
  })
  let midstates: Uint8Array = known?.packed ?? new Uint8Array(0)
  const diffId = digested.then((tar) => {
    midstates = Buffer.concat([midstates, tar.midstates])
    return diffIdOf(tar.sha256)
  })
  // Told to whoever commits the layer, later.
  diffId.catch(() => {})
  return {
    diffId,
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
