/** The harness finds planted bugs and nothing else; and a short seeded run of it on the layer store. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { failForReal, killForReal } from './inject.ts'
import { record, type Recording } from './record.ts'
import { replayKills, replayPowerCuts, type ReplayOptions, type Tally } from './replay.ts'
import { allScenarios, loadScenario, moduleOf } from './scenario.ts'
import { work, type Kind } from './worker.ts'

const TOY = join(import.meta.dirname, 'toy.ts')

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(realpathSync(tmpdir()), 'tbuild-fault-'))
})
afterAll(() => rmSync(directory, { recursive: true, force: true }))

let count = 0
async function recordOf(path: string): Promise<{ recording: Recording; options: ReplayOptions }> {
  const own = join(directory, String(count++))
  mkdirSync(own)
  const recording = await record(path, 1, join(own, 'recording'))
  return { recording, options: { scenario: await loadScenario(path), directory: own, seed: 1 } }
}

const kindsOf = ({ failures }: Tally): string[] =>
  [...new Set(failures.flatMap(({ problems }) => problems.map(({ kind }) => kind)))].toSorted()

test('every way to change a disk is seen: the model of it is what is on the disk', async () => {
  const { recording } = await recordOf(join(import.meta.dirname, 'torture.ts'))
  expect(recording.log.calls).toBeGreaterThan(80)
})

describe('a store of a page', () => {
  test('that is right has no failure', async () => {
    const { recording, options } = await recordOf(TOY)
    const kills = await replayKills(recording, { ...options, retryEvery: 5 })
    expect(kills.failures).toEqual([])
    expect(kills.states).toBeGreaterThan(30)
    const cuts = await replayPowerCuts(recording, { ...options, limit: 600, retryEvery: 20 })
    expect(cuts.failures).toEqual([])
    expect(cuts.states).toBeGreaterThan(80)
  })

  test.each([
    ['no-file-sync', ['corrupt']],
    ['no-directory-sync', ['corrupt']],
    ['record-first', ['corrupt']],
    ['told-early', ['lost']],
  ])('%s: found by power cuts', async (bug, kinds) => {
    const { recording, options } = await recordOf(`${TOY}?bug=${bug}`)
    expect(kindsOf(await replayPowerCuts(recording, { ...options, limit: 400 }))).toEqual(kinds)
  })

  test('record-first: found by kills', async () => {
    const { recording, options } = await recordOf(`${TOY}?bug=record-first`)
    expect(kindsOf(await replayKills(recording, options))).toEqual(['corrupt'])
    expect(kindsOf(await killForReal(recording, { ...options, limit: 6 }))).toEqual(['corrupt'])
  })

  test('error-swallowed: found by a full disk', async () => {
    const { recording, options } = await recordOf(`${TOY}?bug=error-swallowed`)
    expect(kindsOf(await failForReal(recording, { ...options, limit: 9 }))).toEqual(['corrupt'])
  })

  test('a failure is made again by its seed and name', async () => {
    const { recording, options } = await recordOf(`${TOY}?bug=no-file-sync`)
    const [first] = (await replayPowerCuts(recording, { ...options, limit: 200 })).failures
    const again = await replayPowerCuts(recording, {
      ...options,
      limit: 200,
      only: first?.at.split(' (')[0] ?? '',
    })
    expect(again).toEqual({ states: 1, failures: [first] })
  })
})

describe('the layer store', () => {
  /** All on one recording, in workers as the full run has them. */
  const limits: readonly (readonly [Kind, number])[] = [
    ['kill', 10],
    ['power', 20],
    ['real', 1],
    ['errors', 2],
  ]
  test.each(allScenarios())('%s: nothing is lost, nothing is broken', async (scenario) => {
    const { recording, options } = await recordOf(moduleOf(scenario))
    for (const [kind, limit] of limits) {
      const task = {
        kind,
        recording: recording.directory,
        directory: options.directory,
        seed: 1,
        limit,
        retryEvery: 10,
      }
      const { states, failures } = await work(task)
      expect({ kind, failures }).toEqual({ kind, failures: [] })
      expect(states).toBeGreaterThan(0)
    }
  })
})
