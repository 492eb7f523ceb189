/**
 * Fault runs of the layer store: `node test/fault/index.ts [--scenario NAME[@DRIVER]]... [--kill N] [--power N] [--real N] [--errors N] [--seed S]`. N is for all
 * scenarios together; what is not given is not done; nothing given: 200 of each. Prints a table, and each failure; ends with 1 if there was one.
 *
 * Kill states and power-cut states are made from recordings (replay.ts), real kills and errors by running again (inject.ts). A scenario is recorded as often as
 * it takes to get that many states, each time with other contents.
 *
 * `--work DIRECTORY`: where stores are made (their file system matters to the drivers). `--keep RECORDING --only STATE`: one state of a kept recording
 * again; the store stays for a look.
 */
import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadRecording, record, type Recording } from './record.ts'
import type { Failure } from './replay.ts'
import { allScenarios, moduleOf } from './scenario.ts'
import { work, type Kind, type Task } from './worker.ts'

const KINDS = ['kill', 'power', 'real', 'errors'] as const satisfies readonly Kind[]
const PARTS = 2
/** States of one recording; more would mostly be states that were there before. */
const MOST_POWER = 1500
const MOST_RECORDINGS = 40

interface Row {
  readonly scenario: string
  calls: number
  recordings: number
  readonly states: Record<Kind, number>
  readonly failures: (Failure & { readonly recording: string })[]
  seconds: number
}

const { values } = parseArgs({
  options: {
    scenario: { type: 'string', multiple: true },
    kill: { type: 'string' },
    power: { type: 'string' },
    real: { type: 'string' },
    errors: { type: 'string' },
    seed: { type: 'string', default: '1' },
    work: { type: 'string' },
    keep: { type: 'string' },
    only: { type: 'string' },
  },
})
const seed = Number(values.seed)
const directory = mkdtempSync(join(realpathSync(values.work ?? tmpdir()), 'tbuild-fault-'))
if (values.keep !== undefined && values.only !== undefined) await repeat(values.keep, values.only)
else await runAll()

async function runAll(): Promise<void> {
  const names = values.scenario ?? allScenarios()
  const isSilent = KINDS.every((kind) => values[kind] === undefined)
  const share = (kind: Kind): number => Math.ceil(Number(values[kind] ?? (isSilent ? 200 : 0)) / names.length)
  const wanted = { kill: share('kill'), power: share('power'), real: share('real'), errors: share('errors') }
  const start = performance.now()
  const rows: Row[] = []
  for (const name of names) {
    const row = await runScenario(name, wanted)
    rows.push(row)
    tell(row)
  }
  print(rows, (performance.now() - start) / 1000)
  const failed = rows.some(({ failures }) => failures.length > 0)
  if (failed) console.log(`Seed ${seed}. Again: --seed ${seed} --keep RECORDING --only STATE`)
  else rmSync(directory, { recursive: true, force: true })
  process.exitCode = failed ? 1 : 0
}

/** Of equal problems the first, and how many there are. */
function tell({ scenario, failures }: Row): void {
  const groups = new Map<
    string,
    { readonly first: Row['failures'][number]; readonly text: string; count: number; ordered: number }
  >()
  for (const failure of failures) {
    for (const { kind, what } of failure.problems) {
      const text = `${kind}: ${what}`
      const key = text.replaceAll(/[0-9a-f]{8,}|\d+/g, '#')
      const group = groups.get(key)
      const ordered = failure.at.includes('ordered names') ? 1 : 0
      if (group === undefined) groups.set(key, { first: failure, text, count: 1, ordered })
      else {
        group.count++
        group.ordered += ordered
      }
    }
  }
  for (const { first, text, count, ordered } of groups.values()) {
    // Without an ordered journal is harder than what the usual file systems do.
    const where = ordered === 0 ? '' : ` (${ordered} with an ordered journal)`
    console.log(
      `${scenario}, ${count} times${where}: ${text}\n  first: ${first.at}; recording ${first.recording}`,
    )
  }
}

async function runScenario(scenario: string, wanted: Readonly<Record<Kind, number>>): Promise<Row> {
  const start = performance.now()
  const states = { kill: 0, power: 0, real: 0, errors: 0 }
  const row: Row = { scenario, calls: 0, recordings: 0, states, failures: [], seconds: 0 }
  while (row.recordings < MOST_RECORDINGS && KINDS.some((kind) => states[kind] < wanted[kind])) {
    const before = KINDS.map((kind) => states[kind]).join()
    const number = row.recordings++
    const at = join(directory, `${scenario}-${number}`)
    const recording = await record(moduleOf(scenario), seed + number, at)
    row.calls += recording.log.calls
    for (const kind of KINDS) await runKind(kind, recording, wanted[kind] - states[kind], row)
    if (!row.failures.some((failure) => failure.recording === at))
      rmSync(at, { recursive: true, force: true })
    // Every point there is has been had.
    if (KINDS.map((kind) => states[kind]).join() === before) break
  }
  row.seconds = (performance.now() - start) / 1000
  return row
}

async function runKind(kind: Kind, recording: Recording, missing: number, row: Row): Promise<void> {
  if (missing <= 0) return
  const limit = kind === 'power' ? Math.min(missing, MOST_POWER) : missing
  const parts = Math.min(PARTS, availableParallelism())
  const tasks = Array.from({ length: parts }, (_, part): Task => {
    const own = join(directory, `work-${part}`)
    mkdirSync(own, { recursive: true })
    return {
      kind,
      recording: recording.directory,
      directory: own,
      seed,
      limit,
      part: [part, parts],
      retryEvery: 20,
    }
  })
  for (const { states, failures } of await Promise.all(tasks.map(work))) {
    row.states[kind] += states
    row.failures.push(...failures.map((failure) => ({ ...failure, recording: recording.directory })))
  }
}

async function repeat(kept: string, only: string): Promise<void> {
  const kind = only.startsWith('kill')
    ? 'kill'
    : only.startsWith('power')
      ? 'power'
      : only.startsWith('real')
        ? 'real'
        : 'errors'
  const recording = loadRecording(kept)
  const limit = kind === 'power' ? MOST_POWER : undefined
  const tally = await work({
    kind,
    recording: recording.directory,
    directory,
    seed,
    limit,
    only,
    retryEvery: 20,
  })
  console.log(JSON.stringify(tally, undefined, 2))
  console.log(`The store: ${join(directory, kind === 'real' || kind === 'errors' ? 'store' : 'state')}`)
}

function print(rows: readonly Row[], seconds: number): void {
  const count = (row: Row, kind: string): number =>
    row.failures.filter(({ problems }) => problems.some((problem) => problem.kind === kind)).length
  const line = (row: Row): (string | number)[] => [
    row.scenario,
    row.calls,
    ...KINDS.map((kind) => row.states[kind]),
    ...['lost', 'corrupt', 'left', 'unclear'].map((kind) => count(row, kind)),
    row.seconds.toFixed(1),
  ]
  const lines = rows.map(line)
  const total = (column: number): number => lines.reduce((sum, cells) => sum + Number(cells[column]), 0)
  const head = [
    'scenario',
    'calls',
    'kill states',
    'power-cut states',
    'real kills',
    'ENOSPC/EIO points',
    'lost',
    'corrupt',
    'left',
    'unclear',
    'seconds',
  ]
  const table = [head, ...lines, ['all', ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map(total), seconds.toFixed(1)]]
  const widths = head.map((_, column) => Math.max(...table.map((cells) => String(cells[column]).length)))
  for (const cells of table) {
    console.log(
      cells
        .map((cell, column) =>
          column === 0 ? String(cell).padEnd(widths[0] ?? 0) : String(cell).padStart(widths[column] ?? 0),
        )
        .join('  '),
    )
  }
}
