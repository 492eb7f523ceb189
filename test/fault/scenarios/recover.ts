/** The next start after a kill -9 of a build that also collected garbage: sweeping, and going on, can be killed, too. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { prepare } from '../record.ts'
import { randomFrom } from '../random.ts'
import type { Scenario } from '../scenario.ts'
import { runTraced } from '../trace.ts'
import { files, ingest, putImage, storeOf } from './make.ts'

const { open, check } = storeOf(import.meta.url)
const GC = fileURLToPath(new URL('gc.ts', import.meta.url))

export const scenario: Scenario = {
  prepare: async ({ path, seed, tell }) => {
    const scratch = mkdtempSync(join(tmpdir(), 'tbuild-recover-'))
    try {
      const before = await prepare(GC, seed, path)
      const at = 40 + randomFrom('recover', seed).next(80)
      const { log } = await runTraced(
        GC,
        { store: path, log: join(scratch, 'log'), seed },
        { fault: 'kill', at },
      )
      const marks = log.operations.flatMap((operation) => (operation.name === 'marks' ? operation.marks : []))
      for (const { kind, key, value } of [...before, ...marks]) tell[kind](key, value)
    } finally {
      rmSync(scratch, { recursive: true, force: true })
    }
  },
  run: async ({ path, seed, tell }) => {
    await using store = await open(path)
    putImage(store, tell, 'after', [await ingest(store, tell, files(4, seed, 'after'))])
    await store.prune()
  },
  check,
}
