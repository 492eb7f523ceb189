/**
 * A store of format 1 becomes one of this format when it is opened, and is used on.
 *
 * `store-v1.tar.gz`: two images that share a layer, another layer without an image, and a compressed form of one; made by the store's code as it was before
 * format 2, without the directories of layers, which are made anew. `facts` in it says what it holds.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { parseMarks } from '../facts.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, tell }) => {
    mkdirSync(path)
    execFileSync('tar', ['-xzf', join(import.meta.dirname, 'store-v1.tar.gz'), '-C', path])
    const facts = join(path, 'facts')
    for (const { kind, key, value } of parseMarks(readFileSync(facts, 'utf8'))) tell[kind](key, value)
    rmSync(facts)
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'new', [await ingest(store, tell, files(3, seed))])
  },
  check,
}
