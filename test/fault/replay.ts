/**
 * Goes through what a kill -9 or a power cut may leave of a recorded run, and has each state checked. All of it follows from the recording and the seed:
 * a failure is named by its state (`kill 17`, `power 1234`), which `only` makes again.
 */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { failureOf } from './failure.ts'
import { factsOf, tellInto, type Mark } from './facts.ts'
import type { Operation } from './log.ts'
import { Model } from './model.ts'
import { fingerprint, powerCut } from './power-cut.ts'
import { randomFrom, spread } from './random.ts'
import type { Recording } from './record.ts'
import type { Checker, Problem, Scenario, State } from './scenario.ts'
import { Disk, type Tree } from './tree.ts'

export interface Failure {
  /** State or fault. */
  readonly at: string
  readonly problems: readonly Problem[]
}

export interface Tally {
  /** Checked, each different from all others. */
  readonly states: number
  readonly failures: readonly Failure[]
}

export interface ReplayOptions {
  readonly scenario: Scenario
  /** Where the states are made; must be there. */
  readonly directory: string
  readonly seed: number
  /** How many states; for kills all, unless it is given. */
  readonly limit?: number | undefined
  /** Part `[i, n]`: the i-th of n, from 0. */
  readonly part?: readonly [number, number]
  /** After every so-manieth state the scenario is run again on it, and must get through. */
  readonly retryEvery?: number
  readonly only?: string
}

interface Point {
  readonly name: string
  /** Operations before it. */
  readonly at: number
  /** `draw`: choices may have been made before; from 0. */
  readonly make: (model: Model, draw: number) => Made
}

interface Made {
  readonly tree: Tree
  /** For people: what kind of state it is. */
  readonly how?: string
}

export async function replayKills(recording: Recording, options: ReplayOptions): Promise<Tally> {
  const { operations } = recording.log
  const points: Point[] = [{ name: 'kill 0', at: 0, make: (model) => ({ tree: model.tree() }) }]
  for (const [index, operation] of operations.entries()) {
    // A long write may be cut short between two pages.
    if (operation.name === 'write' && operation.data.length > PAGE) {
      const pages = Math.ceil(operation.data.length / PAGE) - 1
      const part = (randomFrom(options.seed, index).next(pages) + 1) * PAGE
      points.push({
        name: `kill ${index}+${part}`,
        at: index,
        make: (model) => ({ tree: partly(model, index, operation, part) }),
      })
    }
    if (CHANGES_NOTHING.has(operation.name)) continue
    points.push({ name: `kill ${index + 1}`, at: index + 1, make: (model) => ({ tree: model.tree() }) })
  }
  const random = randomFrom(options.seed, 'kill')
  const chosen = spread(points.length, options.limit, random).flatMap((number) => points[number - 1] ?? [])
  return replay(recording, chosen, options, false)
}

export async function replayPowerCuts(recording: Recording, options: ReplayOptions): Promise<Tally> {
  const { operations } = recording.log
  // Where the store has just said something, and around the syncs, is where it is told from others.
  const telling = operations.flatMap(({ name }, index) => (TELLING.has(name) ? [index, index + 1] : []))
  const points = Array.from({ length: options.limit ?? 1000 }, (_, number): Point => {
    const random = randomFrom(options.seed, 'power', number)
    const at =
      telling.length > 0 && random.next(2) === 0 ? random.pick(telling) : random.next(operations.length + 1)
    return {
      name: `power ${number}`,
      at,
      make: (model, draw) => powerCut(model, at, randomFrom(options.seed, 'power', number, draw)),
    }
  })
  points.sort((a, b) => a.at - b.at)
  return replay(recording, points, options, true)
}

const PAGE = 4096
const CHANGES_NOTHING = new Set<Operation['name']>(['fsync', 'fdatasync', 'sync', 'fault'])
const TELLING = new Set<Operation['name']>(['marks', 'fsync', 'fdatasync', 'sync'])
/** A chosen state may have been seen before; then other choices are made, this often. */
const DRAWS = 6

async function replay(
  recording: Recording,
  points: readonly Point[],
  options: ReplayOptions,
  isPowerCut: boolean,
): Promise<Tally> {
  const { directory, part: [number, parts] = [0, 1], only } = options
  const from = Math.floor((points.length * number) / parts)
  const to = Math.floor((points.length * (number + 1)) / parts)
  const path = join(directory, 'state')
  rmSync(path, { recursive: true, force: true })
  const disk = new Disk(path)
  const model = new Model(recording)
  const seen = new Set<string>()
  const failures: Failure[] = []
  const marks: Mark[] = []
  let states = 0
  let now = 0
  for (const point of points.slice(from, to)) {
    for (; now < point.at; now++) {
      const operation = recording.log.operations[now]
      if (operation === undefined) break
      model.apply(operation, now)
      if (operation.name === 'marks') marks.push(...operation.marks)
    }
    const [name, draw] = only?.split('.') ?? []
    if (name !== undefined && name !== point.name) continue
    const made =
      draw === undefined
        ? fresh(point, model, marks.length, seen)
        : { draw: Number(draw), ...point.make(model, Number(draw)) }
    if (made === undefined) continue
    disk.show(made.tree)
    states++
    const isRetried =
      options.retryEvery !== undefined && (states % options.retryEvery === 0 || only !== undefined)
    const problems = await judge({
      path,
      recording,
      marks,
      isPowerCut,
      isRetried,
      scenario: options.scenario,
    })
    if (problems.length > 0)
      failures.push({
        at: `${point.name}.${made.draw} (after ${point.at} operations${made.how === undefined ? '' : `, ${made.how}`})`,
        problems,
      })
  }
  if (only === undefined) rmSync(path, { recursive: true, force: true })
  return { states, failures }
}

function fresh(
  point: Point,
  model: Model,
  told: number,
  seen: Set<string>,
): (Made & { readonly draw: number }) | undefined {
  for (let draw = 0; draw < DRAWS; draw++) {
    const made = point.make(model, draw)
    const name = `${told} ${fingerprint(made.tree)}`
    if (seen.has(name)) continue
    seen.add(name)
    return { ...made, draw }
  }
  return undefined
}

/** A write of which only the first `length` bytes were done. */
function partly(
  model: Model,
  index: number,
  operation: Operation & { readonly name: 'write' },
  length: number,
): Tree {
  const whole = model.tree()
  const inode = model.fileOf(operation)
  if (inode === undefined) return whole
  const size = Math.max(inode.bytes.size, operation.offset + length)
  const content = Buffer.alloc(size)
  inode.bytes.view().copy(content)
  operation.data.copy(content, operation.offset, 0, length)
  return new Map(
    [...whole].map(([path, node]) =>
      node.id === inode.id
        ? [path, { ...node, content, key: `${node.key}+${index}+${length}` }]
        : [path, node],
    ),
  )
}

export interface Judged {
  readonly path: string
  readonly recording: Pick<Recording, 'before' | 'seed'>
  readonly marks: readonly Mark[]
  readonly isPowerCut: boolean
  readonly isRetried: boolean
  readonly scenario: Scenario
}

/** Checks what is at `path`; then, if wanted, runs the scenario on it, which must get through, and checks again. */
export async function judge({
  path,
  recording: { before, seed },
  marks,
  isPowerCut,
  isRetried,
  scenario,
}: Judged): Promise<readonly Problem[]> {
  const facts = factsOf(before, marks, isPowerCut)
  const problems = await check(scenario.check, { path, facts, powerCut: isPowerCut })
  if (problems.length > 0 || !isRetried) return problems
  const again: Mark[] = [...marks]
  try {
    await scenario.run({ path, seed, tell: tellInto((mark) => void again.push(mark)) })
  } catch (error) {
    return [{ kind: 'corrupt', what: `the next run fails: ${describe(error)}` }]
  }
  const after = await check(scenario.check, { path, facts: factsOf(before, again, false), powerCut: false })
  return after.map(({ kind, what }) => ({ kind, what: `after the next run: ${what}` }))
}

async function check(checker: Checker, state: State): Promise<readonly Problem[]> {
  try {
    return await checker(state)
  } catch (error) {
    return [{ kind: 'corrupt', what: describe(error) }]
  }
}

function describe(error: unknown): string {
  const { name, code, message } = failureOf(error)
  return [code === '' ? name : code, message].join(': ')
}
