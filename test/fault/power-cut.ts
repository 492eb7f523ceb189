/**
 * What a power cut may leave of a file system at some point (model.ts), one of very many possibilities, chosen by a seed.
 *
 * Data: between two syncs of a file, each of its blocks may have been written to the disk at any moment, or never; the disk itself tears blocks of 4096
 * bytes at 512. So each block (of 512 or of 4096 bytes) is as it was after any of the writes since the last sync. The size, too, is that after any of
 * them; what a shorter file never had is zeros, also where the size grew and the data did not come. A truncation and what is written after it
 * keep their order.
 *
 * Names, in one of two ways. `ordered`: one journal for all, of which some prefix is there, at least what a sync forced; a file's size does not
 * grow before its data is there (ext4, data=ordered, with delayed allocation). `loose`: of each directory some prefix of its own changes, independently
 * of others, so that of two renames the later may stay and the earlier not; but a rename between two directories happens in both.
 */
import { createHash } from 'node:crypto'
import { applyNames, Bytes, treeOf, type DataChange, type Inode, type Model } from './model.ts'
import type { Random } from './random.ts'
import type { Tree } from './tree.ts'

type Extent = 'none' | 'all' | 'random'

interface Plan {
  readonly names: 'ordered' | 'loose'
  readonly namesKept: Extent
  /** Of each file by itself when it is not given. */
  readonly data: Extent | 'torn' | undefined
  readonly block: 512 | 4096
}

/** The extremes find most bugs, and the rest is for what nobody thinks of. */
const PLANS: readonly Omit<Plan, 'block'>[] = [
  { names: 'loose', namesKept: 'none', data: 'none' },
  { names: 'loose', namesKept: 'all', data: 'none' },
  { names: 'loose', namesKept: 'none', data: 'all' },
  { names: 'loose', namesKept: 'all', data: 'torn' },
  ...Array.from({ length: 3 }, () => ({ names: 'ordered', namesKept: 'random', data: undefined }) as const),
  ...Array.from({ length: 3 }, () => ({ names: 'loose', namesKept: 'random', data: undefined }) as const),
]

/** `now`: the number of operations that the model has seen. `how` is for people. */
export function powerCut(
  model: Model,
  now: number,
  random: Random,
): { readonly tree: Tree; readonly how: string } {
  const plan: Plan = { ...random.pick(PLANS), block: random.pick([512, 4096] as const) }
  // In the journal's order: before this, all that was done to names; after it, nothing.
  const end = plan.names === 'ordered' ? model.forced + random.next(now - model.forced + 1) : undefined
  const kept = end === undefined ? chooseNames(model, plan, random) : undefined
  const names = new Map<Inode, ReadonlyMap<string, Inode>>()
  const namesOf = (directory: Inode): ReadonlyMap<string, Inode> => {
    const known = names.get(directory)
    if (known !== undefined) return known
    const found = new Map(directory.durableNames)
    const count = kept?.get(directory) ?? directory.pendingNames.filter(({ at }) => at < (end ?? 0)).length
    applyNames(found, directory.pendingNames.slice(0, count))
    names.set(directory, found)
    return found
  }
  const contents = new Map<Inode, { readonly content: Buffer; readonly key: string }>()
  const contentOf = (file: Inode): { readonly content: Buffer; readonly key: string } => {
    if (file.pendingData.length === 0) return { content: file.bytes.view(), key: `${file.changes}` }
    const known = contents.get(file)
    if (known !== undefined) return known
    const content = chooseContent(file, plan, end, random)
    const made = { content, key: createHash('sha1').update(content).digest('base64') }
    contents.set(file, made)
    return made
  }
  const how = `${plan.names} names: ${plan.namesKept}, data: ${plan.data ?? 'by file'}, blocks of ${plan.block}`
  return { tree: treeOf(model.top.durableNames, namesOf, contentOf), how }
}

/** How many of its pending changes each directory keeps. */
function chooseNames(model: Model, { namesKept }: Plan, random: Random): Map<Inode, number> {
  const kept = new Map<Inode, number>()
  const choose = (directory: Inode): void => {
    if (kept.has(directory)) return
    kept.set(directory, amount(namesKept, directory.pendingNames.length, random))
    const children = directory.pendingNames.flatMap((change) => change.names.map(([, inode]) => inode))
    for (const inode of [...directory.durableNames.values(), ...children])
      if (inode?.kind === 'directory') choose(inode)
    for (const { partner } of directory.pendingNames) if (partner !== undefined) choose(partner)
  }
  choose(model.top)
  // What one directory has of a rename, the other has, too. Raising ends: there is only so much to keep.
  for (let raised = true; raised;) {
    raised = false
    for (const [directory, count] of kept) {
      for (const { at, partner } of directory.pendingNames.slice(0, count)) {
        const other = partner?.pendingNames.findIndex((change) => change.at === at) ?? -1
        if (partner === undefined || (kept.get(partner) ?? 0) > other) continue
        kept.set(partner, other + 1)
        raised = true
      }
    }
  }
  return kept
}

function amount(extent: Extent, most: number, random: Random): number {
  return extent === 'none' ? 0 : extent === 'all' ? most : random.next(most + 1)
}

/** States of a file are counted: 0 is the durable one, n the one after its n-th pending change. */
function chooseContent(file: Inode, plan: Plan, journalEnd: number | undefined, random: Random): Buffer {
  const changes = file.pendingData
  const durable = file.durableBytes.view()
  const how = plan.data ?? random.pick(['none', 'all', 'random', 'torn'] as const)
  const sizeState = chooseSizeState(changes, how, journalEnd, random)
  const sizes = sizesOf(changes, durable.length)
  const size = sizes[sizeState] ?? 0

  // Of each block the states that changed it; of them the one that is on the disk.
  const blocks = blocksOf(changes, sizes, plan.block)
  const tear = random.next(changes.length + 1)
  const chosen = new Map<number, number[]>()
  for (const [block, touched] of blocks) {
    const { first: earliest, last } = boundsOf(block * plan.block, changes, sizeState)
    let first = earliest
    // What made the file longer was there before the size was.
    if (journalEnd !== undefined && block * plan.block >= durable.length) {
      first = Math.max(first, touched.findLast((state) => state <= sizeState) ?? 0)
    }
    const possible = [first, ...touched.filter((state) => state > first && state <= last)]
    const before = possible.findLast((state) => state <= tear) ?? first
    const after = possible.find((state) => state > tear) ?? before
    const latest = possible.at(-1) ?? first
    const state = {
      none: first,
      all: latest,
      random: random.pick(possible),
      torn: random.pick([before, after]),
    }[how]
    const others = chosen.get(state)
    if (others === undefined) chosen.set(state, [block])
    else others.push(block)
  }
  const content = Buffer.alloc(size)
  durable.copy(content)
  const running = new Bytes(Buffer.from(durable))
  for (let state = 0; state <= changes.length; state++) {
    const change = changes[state - 1]
    if (change !== undefined) running.apply(change)
    const now = running.view()
    for (const block of chosen.get(state) ?? []) {
      const from = block * plan.block
      content.fill(0, Math.min(from, size), Math.min(from + plan.block, size))
      now.copy(
        content,
        Math.min(from, size),
        Math.min(from, now.length),
        Math.min(from + plan.block, now.length),
      )
    }
  }
  return content
}

function chooseSizeState(
  changes: readonly DataChange[],
  how: Extent | 'torn',
  journalEnd: number | undefined,
  random: Random,
): number {
  let first = 0
  let last = changes.length
  if (journalEnd !== undefined) {
    // Truncations are in the journal; growing waits for the data.
    for (const [index, { at, name }] of changes.entries()) {
      if (name !== 'truncate') continue
      if (at < journalEnd) first = index + 1
      else last = Math.min(last, index)
    }
  }
  const extent = how === 'torn' ? 'random' : how
  // The size may grow though nothing of the data comes.
  if (extent === 'none' && journalEnd === undefined && random.next(2) === 0) return last
  return first + amount(extent, last - first, random)
}

function sizesOf(changes: readonly DataChange[], initial: number): number[] {
  const sizes = [initial]
  let size = initial
  for (const change of changes) {
    if (change.name === 'truncate') size = change.size
    else if (change.name === 'write') size = Math.max(size, change.offset + change.data.length)
    sizes.push(size)
  }
  return sizes
}

/** Block number -> the states that changed it, rising. */
function blocksOf(
  changes: readonly DataChange[],
  sizes: readonly number[],
  block: number,
): Map<number, number[]> {
  const blocks = new Map<number, number[]>()
  const touch = (from: number, to: number, state: number): void => {
    for (let number = Math.floor(from / block); number * block < to; number++) {
      const states = blocks.get(number)
      if (states === undefined) blocks.set(number, [state])
      else states.push(state)
    }
  }
  for (const [index, change] of changes.entries()) {
    const state = index + 1
    if (change.name === 'write') touch(change.offset, change.offset + change.data.length, state)
    else if (change.name === 'punch')
      touch(change.offset, Math.min(change.offset + change.length, sizes[index] ?? 0), state)
    else if (change.size < (sizes[index] ?? 0)) touch(change.size, sizes[index] ?? 0, state)
  }
  return blocks
}

/** A truncation that took the block away comes before what was written there after it, and goes with the size. */
function boundsOf(
  offset: number,
  changes: readonly DataChange[],
  sizeState: number,
): { first: number; last: number } {
  let first = 0
  let last = changes.length
  for (const [index, change] of changes.entries()) {
    if (change.name !== 'truncate' || change.size > offset) continue
    if (index + 1 <= sizeState) first = index + 1
    else last = Math.min(last, index)
  }
  return { first, last }
}

/** A name for the state: equal ones are checked once. */
export function fingerprint(tree: Tree): string {
  const hash = createHash('sha1')
  for (const [path, { key }] of tree) hash.update(`${path}\0${key}\0`)
  return hash.digest('base64')
}
