/** As RUN does, twice: a writable root on a base, changed, committed, and at once the lower of the next. */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Layer } from '../../../cas/index.ts'
import { layerKey, STORED } from '../check.ts'
import type { Scenario } from '../scenario.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'base', [await ingest(store, tell, files(4, seed, 'base'))])
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    const base = store.images.byName('docker.io/library/base')
    if (base === undefined) throw new Error('no base')
    const layers: Layer[] = base.config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId))
    for (const step of [0, 1]) {
      await using root = await store.layers.mountWritable(layers)
      const tree = `/proc/self/fd/${root.fd}`
      mkdirSync(join(tree, `step-${step}`))
      for (const { name, bytes } of files(5, seed, step))
        writeFileSync(join(tree, `step-${step}`, name), bytes)
      symlinkSync('file-0', join(tree, `step-${step}`, 'link'))
      rmSync(join(tree, `file-${step}`))
      layers.push(await root.commit({ clampMtimeNs: 1_000_000_000_000_000_000n }))
    }
    const stored = await Promise.all(layers.map((layer) => layer.stored))
    for (const { diffId } of stored) tell.done(layerKey(diffId), STORED)
    putImage(store, tell, 'run', stored)
  },
  check,
}
