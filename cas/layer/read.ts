/** A stored layer's tree, from its recipe: its headers are read, its contents are only named. */
import { TbuildError } from '../../errors.ts'
import { ContentList, type Location } from '../contents/list.ts'
import { readRecipe } from '../recipe/read.ts'
import { hasAlignedHoles } from '../tar/entry.ts'
import { TarReader } from '../tar/index.ts'
import { createApplier, type AppliedLayer } from './apply.ts'
import { LayerTree } from './tree.ts'

export interface ReadLayer {
  readonly tree: LayerTree
  readonly applied: AppliedLayer
  readonly contents: ContentList
}

/** Stands for contents: their length is what the reader needs of them. */
const filler = Buffer.alloc(1024 * 1024)

/**
 * `locate` tells where a content is; `undefined` for one that is lost, which is `STORE_CORRUPT` here.
 * @param recipe path of the file
 */
export function readLayer(recipe: string, locate: (digest: Buffer) => Location | undefined): ReadLayer {
  const tree = new LayerTree()
  const contents = new ContentList()
  const applier = createApplier(tree)
  let file: number | undefined
  let isWhole = false
  let run: { readonly content: number; readonly length: number } | undefined
  const reader = new TarReader({
    entry: (entry) => {
      file = applier.entry(entry)
      if (file !== undefined) tree.setSize(file, entry.size)
      isWhole = !hasAlignedHoles(entry)
    },
    data: (_, offset) => {
      if (run === undefined || isWhole || file === undefined) return
      // The first part of a run tells where all of it is.
      tree.addPiece(file, offset, run.length, run.content)
      run = undefined
    },
    end: () => {},
  })
  const feed = (length: number): void => {
    for (let rest = length; rest > 0; rest -= filler.length) {
      reader.feed(rest < filler.length ? filler.subarray(0, rest) : filler)
    }
  }
  const contentOf = (digest: Buffer, length: number): number => {
    const known = contents.find(digest)
    if (known !== undefined) return known
    const location = locate(digest)
    if (location !== undefined) return contents.add(digest, length, location)
    throw new TbuildError(
      'STORE_CORRUPT',
      `The content sha256:${digest.toString('hex')} of ${recipe} is missing.`,
      {
        hint: 'tbuild fsck tells which images need it; build or pull them again.',
      },
    )
  }
  for (const operation of readRecipe(recipe)) {
    switch (operation.kind) {
      case 'literal':
        reader.feed(operation.bytes)
        break
      case 'zeros':
        feed(operation.length)
        break
      case 'run':
        run = { content: contentOf(operation.digest, operation.length), length: operation.length }
        feed(operation.length)
        run = undefined
        break
      case 'keep': {
        const content = contentOf(operation.digest, operation.length)
        if (file !== undefined) tree.addPiece(file, 0, operation.length, content)
        break
      }
    }
  }
  reader.finish()
  return { tree, applied: applier.finish(), contents }
}
