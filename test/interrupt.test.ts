/** The command, stopped in the middle of a RUN: what is left at once, and what the next command leaves. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { cgroupsOf, openWorkshop, type Workshop } from './support/build.ts'

const TBUILD = [join(import.meta.dirname, '../cli/index.ts')]

let shop: Workshop
let store: string
beforeAll(async () => {
  shop = await openWorkshop()
  store = shop.store.path
  await shop.store[Symbol.asyncDispose]()
})
afterAll(async () => shop[Symbol.asyncDispose]())

/** A build that stands in a RUN whose processes are found by a number of seconds that nobody else sleeps. */
async function buildThatSleeps(seconds: number, ...options: string[]): Promise<ChildProcess> {
  const context = shop.context({
    Dockerfile: `FROM base\nRUN echo ${seconds} > /kept\nRUN echo half > /half; sleep ${nap(seconds)} & sleep ${nap(seconds)}\n`,
  })
  const child = spawn(process.execPath, [...TBUILD, 'build', ...options, '--store', store, context], {
    stdio: 'ignore',
  })
  for (let tries = 0; sleeping(seconds).length < 2; tries++) {
    if (tries === 600 || child.exitCode !== null) throw new Error('the RUN did not begin')
    await setTimeout(20)
  }
  return child
}

/** Its arguments add up; with the second, what an earlier run may have left is not taken for ours. */
function nap(seconds: number): string {
  return `${seconds} ${process.pid}`
}

function sleeping(seconds: number): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'latin1') === `sleep ${nap(seconds)} `.replaceAll(' ', '\0')
    } catch {
      return false
    }
  })
}

const ended = (child: ChildProcess): Promise<number | null> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve(child.exitCode)
    else child.once('exit', (code) => resolve(code))
  })

const mounts = (): string[] =>
  readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .filter((line) => line.includes(shop.directory))
const scopes = (): string[] => readdirSync(join(store, 'leases'))
const workDirectories = (): string[] => readdirSync(join(store, 'work'))
const tbuild = (...args: string[]) =>
  spawnSync(process.execPath, [...TBUILD, ...args, '--store', store], { encoding: 'utf8' })

test.each([
  ['Ctrl-C', 'SIGINT', 130, 7001],
  ['a termination', 'SIGTERM', 143, 7002],
] as const)('%s: no process, mount, cgroup or work directory is left', async (_, signal, status, seconds) => {
  const child = await buildThatSleeps(seconds)
  const [scope = ''] = scopes()
  expect(cgroupsOf(scope).length).toBeGreaterThan(0)
  child.kill(signal)
  expect(await ended(child)).toBe(status)
  expect(sleeping(seconds)).toEqual([])
  expect(mounts()).toEqual([])
  expect(cgroupsOf(scope)).toEqual([])
  expect(workDirectories()).toEqual([])
  expect(scopes()).toEqual([])
})

test('kill -9: no process and no mount is left at once; the next command cleans the rest', async () => {
  const child = await buildThatSleeps(7003)
  const [scope = ''] = scopes()
  child.kill('SIGKILL')
  await ended(child)
  for (let tries = 0; sleeping(7003).length > 0 && tries < 50; tries++) await setTimeout(10)
  expect(sleeping(7003)).toEqual([])
  expect(mounts()).toEqual([])
  expect(workDirectories()).toEqual([scope])

  expect(tbuild('images', '-q').status).toBe(0)
  expect(workDirectories()).toEqual([])
  expect(scopes()).toEqual([])
  expect(cgroupsOf(scope)).toEqual([])
})

function isRecorded(title: string): boolean {
  const db = new DatabaseSync(join(store, 'index.db'), { readOnly: true, timeout: 10_000 })
  try {
    return db.prepare('SELECT 1 FROM steps WHERE title = ?').get(title) !== undefined
  } finally {
    db.close()
  }
}

test('kill -9: the steps that were done are kept', async () => {
  const child = await buildThatSleeps(7004)
  // It is recorded behind the build, a moment after the next step has begun.
  while (!isRecorded('RUN echo 7004 > /kept')) await setTimeout(10)
  child.kill('SIGKILL')
  await ended(child)
  const context = shop.context({ Dockerfile: 'FROM base\nRUN echo 7004 > /kept\n' })
  const { stderr, status } = tbuild('build', '--progress', 'plain', context)
  expect(status).toBe(0)
  expect(stderr).toMatch(/RUN echo 7004 > \/kept\n#2 CACHED/)
})

test('a sweep leaves living processes alone', async () => {
  const child = await buildThatSleeps(7005)
  expect(tbuild('images').status).toBe(0)
  expect(tbuild('prune').status).toBe(0)
  expect(sleeping(7005)).toHaveLength(2)
  child.kill('SIGINT')
  await ended(child)
})

test('over its memory limit: said as that, exit status 1, nothing left', () => {
  const context = shop.context({ Dockerfile: 'FROM base\nRUN tail /dev/zero\n' })
  const { stderr, status } = tbuild('build', '--memory', '64m', context)
  expect(status).toBe(1)
  expect(stderr).toContain('exceeded its memory limit of 64 MiB')
  expect([...mounts(), ...workDirectories(), ...scopes()]).toEqual([])
})

test('two builds at once on one store both succeed', async () => {
  const context = shop.context({
    Dockerfile: 'FROM base\nRUN echo same > /same; sleep 0.3\nCOPY f /f\nRUN cat /f\n',
    f: 'x',
  })
  const builds = [1, 2, 3].map((n) =>
    spawn(process.execPath, [...TBUILD, 'build', '-t', `same:${n}`, '--store', store, context], {
      stdio: 'ignore',
    }),
  )
  expect(await Promise.all(builds.map(ended))).toEqual([0, 0, 0])
  const prune = spawn(process.execPath, [...TBUILD, 'prune', '--store', store], { stdio: 'ignore' })
  expect(await ended(prune)).toBe(0)
  expect(
    spawnSync(process.execPath, [...TBUILD, 'run', '--store', store, 'same:2', 'cat', '/same'], {
      encoding: 'utf8',
    }).stdout,
  ).toBe('same\n')
})
