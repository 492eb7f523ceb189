/**
 * A process that checks states: `node worker.ts TASK`, the task as JSON. Prints its tally as JSON. Several share a recording, each with its part of the states.
 *
 * States after a power cut are looked at as after another boot: stores remember the boot's id for what they did not sync. So such a worker has its own
 * mount namespace, in which /proc/sys/kernel/random/boot_id says something else.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { failForReal, killForReal } from './inject.ts'
import { loadRecording } from './record.ts'
import { replayKills, replayPowerCuts, type Tally } from './replay.ts'
import { loadScenario } from './scenario.ts'
import { fastStart } from './trace.ts'

export type Kind = 'kill' | 'power' | 'real' | 'errors'

export interface Task {
  readonly kind: Kind
  /** Of the recording. */
  readonly recording: string
  /** The worker's own, made when it is not there. */
  readonly directory: string
  readonly seed: number
  readonly limit?: number | undefined
  readonly part?: readonly [number, number]
  readonly retryEvery?: number
  readonly only?: string | undefined
}

const run = promisify(execFile)
const BOOT_ID = '/proc/sys/kernel/random/boot_id'

export async function work(task: Task): Promise<Tally> {
  mkdirSync(task.directory, { recursive: true })
  const node = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    import.meta.filename,
    JSON.stringify(task),
  ]
  let command = node
  if (task.kind === 'power') {
    const boot = join(task.directory, 'boot_id')
    writeFileSync(boot, '00000000-0000-4000-8000-000000000000\n')
    command = ['unshare', '--mount', 'sh', '-c', `mount --bind "$0" ${BOOT_ID} && exec "$@"`, boot, ...node]
  }
  const [program = '', ...args] = command
  const { stdout } = await run(program, args, { maxBuffer: 64 * 1024 * 1024, env: fastStart() })
  return JSON.parse(stdout) as Tally
}

if (import.meta.main) {
  const {
    kind,
    recording: from,
    directory,
    seed,
    limit,
    part,
    retryEvery,
    only,
  } = JSON.parse(process.argv[2] ?? '') as Task
  const recording = loadRecording(from)
  const scenario = await loadScenario(recording.module)
  const options = {
    scenario,
    directory,
    seed,
    limit,
    ...(part && { part }),
    ...(only !== undefined && { only }),
  }
  const replayOptions = { ...options, ...(retryEvery !== undefined && { retryEvery }) }
  const tally = {
    kill: () => replayKills(recording, replayOptions),
    power: () => replayPowerCuts(recording, replayOptions),
    real: () => killForReal(recording, options),
    errors: () => failForReal(recording, options),
  }
  process.stdout.write(JSON.stringify(await tally[kind]()))
}
