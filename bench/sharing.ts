/** Twenty images on one base, each with a layer of 5 MB, of which 80% are the same files: what they add to the store. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { allocated, facts, megabytes, withBench } from './measure.ts'
import { peers } from './peers.ts'

const IMAGES = 20
const FILES = 100
const SHARED = 80
const SIZE = 50_000

await withBench(async (bench) => {
  const common = Array.from({ length: SHARED }, () => randomBytes(SIZE))
  const contexts = Array.from({ length: IMAGES }, (_, image) => {
    const context = join(bench.directory, `context-${image}`)
    mkdirSync(join(context, 'tree'), { recursive: true })
    for (let file = 0; file < FILES; file++) {
      writeFileSync(join(context, 'tree', String(file)), common[file] ?? randomBytes(SIZE))
    }
    writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nCOPY tree /tree\n')
    return context
  })
  const unique = (SHARED + IMAGES * (FILES - SHARED)) * SIZE
  const added = (store: string, build: (context: string, image: number) => void): number => {
    const before = allocated(store)
    for (const [image, context] of contexts.entries()) build(context, image)
    return allocated(store) - before
  }
  const tbuild = added(bench.store, (context, image) => bench.tbuild('build', '-t', `s:${image}`, context))
  const rows: [string, string][] = [
    ['unique contents', megabytes(unique)],
    ['tbuild added', megabytes(tbuild)],
    ['  x unique', (tbuild / unique).toFixed(3)],
    [
      '  syncs for one of them',
      String(bench.countSyncs('build', '--no-cache', '-t', 's:0', contexts[0] ?? '')),
    ],
  ]
  for await (const peer of peers(bench)) {
    const theirs = added(peer.store, (context, image) => peer.build('-t', `s:${image}`, context))
    rows.push([`${peer.name} added`, megabytes(theirs)], ['  x unique', (theirs / unique).toFixed(3)])
  }
  facts(`${IMAGES} images with 5 MB each, ${SHARED}% of it the same files`, rows)
})
