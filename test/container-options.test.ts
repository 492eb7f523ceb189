/** What the container of a RUN is like: hosts, /dev/shm, limits of processes, where its cgroup is. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { spawnSync } from 'node:child_process'
import { readFileSync, rmdirSync } from 'node:fs'
import { build, type BuildEvent, type ContainerOptions } from '../builder/index.ts'
import { parseContainerOptions } from '../cli/arguments/container-options.ts'
import { openWorkshop, summary, type Built, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => {
  await shop[Symbol.asyncDispose]()
})

function run(command: string, container?: ContainerOptions): Promise<Built> {
  return shop.build(shop.context({ Dockerfile: `FROM base\nRUN ${command}\n` }), { container })
}

const NONE = { 'add-host': [], 'shm-size': undefined, ulimit: [], 'cgroup-parent': undefined }

describe('as it is written', () => {
  test.each([
    [
      { 'add-host': ['a=1.2.3.4', 'b:::1', 'c=[::2],5.6.7.8', 'd:host-gateway'] },
      {
        extraHosts: [
          ['1.2.3.4', 'a'],
          ['::1', 'b'],
          ['::2', 'c'],
          ['5.6.7.8', 'c'],
          ['127.0.0.1', 'd'],
        ],
      },
    ],
    [{ 'shm-size': '2g' }, { shmBytes: 2 ** 31 }],
    [
      { ulimit: ['nofile=1:2', 'core=-1', 'nofile=3'] },
      {
        ulimits: [
          { name: 'nofile', soft: 3, hard: 3 },
          { name: 'core', soft: Infinity, hard: Infinity },
        ],
      },
    ],
    [{ 'cgroup-parent': '/a/b' }, { cgroupParent: '/a/b' }],
    [{}, {}],
  ])('%j', (given, expected) => {
    expect(parseContainerOptions({ ...NONE, ...given })).toEqual(expected)
  })

  test.each([
    [{ 'add-host': ['a'] }, 'e.g. --add-host'],
    [{ 'add-host': ['=1.2.3.4'] }, 'e.g. --add-host'],
    [{ 'add-host': ['a=1.2.3'] }, 'e.g. --add-host'],
    [{ 'add-host': ['a b=1.2.3.4'] }, 'e.g. --add-host'],
    [{ 'add-host': ['a\n1.1.1.1 b=1.2.3.4'] }, 'e.g. --add-host'],
    [{ 'shm-size': 'x' }, '64m'],
    [{ ulimit: ['nofiles=1'] }, 'did you mean nofile?'],
    [{ ulimit: ['nofile'] }, 'NAME=SOFT[:HARD]'],
    [{ ulimit: ['nofile=x'] }, 'e.g. --ulimit nofile=1024:4096 (files)'],
    [{ ulimit: ['nofile=1:x'] }, '-1 is no limit'],
    [{ ulimit: ['nofile=-2'] }, '-1 is no limit'],
  ])('%j is told', (given, hint) => {
    expect(() => parseContainerOptions({ ...NONE, ...given })).toThrow(
      expect.objectContaining({ code: 'OPTION_VALUE', hint: expect.stringContaining(hint) }),
    )
  })

  test('a soft limit above the hard one is told', () => {
    for (const ulimit of ['nofile=3:2', 'nofile=-1:2'])
      expect(() => parseContainerOptions({ ...NONE, ulimit: [ulimit] })).toThrow('above the hard one')
  })
})

function hosts(...names: [string, string][]): ContainerOptions {
  return { extraHosts: names }
}

test('hosts: another address takes the cache, another name does not', async () => {
  const command = 'grep added /etc/hosts'
  expect((await run(command, hosts(['10.0.0.1', 'added']))).output).toBe('10.0.0.1\tadded\n')
  expect((await run(command, hosts(['10.0.0.2', 'added']))).ran).toEqual([])
  expect((await run(command, hosts(['10.0.0.2', 'added2']))).output).toBe('10.0.0.2\tadded2\n')
  const two = await run(command, hosts(['10.0.0.1', 'added'], ['::1', 'added']))
  expect(two.output).toBe('10.0.0.1\tadded\n::1\tadded\n')
})

test('the size of /dev/shm', async () => {
  const command = "df -k /dev/shm | awk 'NR == 2 { print $2 }'"
  expect((await run(command)).output).toBe('65536\n')
  expect((await run(command, { shmBytes: 8 << 20 })).output).toBe('8192\n')
  expect((await run(command)).ran).toEqual([])
})

test('limits of processes: set, part of the key, and one error with the line when they cannot be', async () => {
  const command = 'echo $(ulimit -Sn) $(ulimit -Hn)'
  const { output } = await run(command, { ulimits: [{ name: 'nofile', soft: 100, hard: 200 }] })
  expect(output).toBe('100 200\n')
  const lower = await run(command, { ulimits: [{ name: 'nofile', soft: 50, hard: 200 }] })
  expect(lower.output).toBe('50 200\n')
  const above = Number(readFileSync('/proc/sys/fs/nr_open', 'utf8')) + 1
  await expect(
    run(command, { ulimits: [{ name: 'nofile', soft: above, hard: above }] }),
  ).rejects.toMatchObject({
    code: 'ULIMIT_DENIED',
    source: { line: 2 },
  })
})

test('the cgroup is made below the parent that is named, with its limits, and goes', async () => {
  const parent = `tbuild-test-options-${process.pid}`
  const below = (): string[] =>
    spawnSync('find', ['/sys/fs/cgroup', '-path', `*/${parent}/jobs/*`, '-type', 'd'], { encoding: 'utf8' })
      .stdout.split('\n')
      .filter(Boolean)
  let during: string[] = []
  const events: BuildEvent[] = []
  const context = shop.context({ Dockerfile: 'FROM base\nRUN echo here; sleep 0.3\n' })
  try {
    await build(
      {
        context,
        dockerfile: `${context}/Dockerfile`,
        tags: [],
        buildArgs: new Map(),
        noCache: false,
        network: 'none',
        limits: { memoryBytes: 64 << 20 },
        labels: new Map(),
        container: { cgroupParent: `/${parent}/jobs` },
      },
      shop.store,
      (event) => {
        events.push(event)
        if (event.kind === 'output') during = below()
      },
    )
    expect(summary(events).output).toBe('here\n')
    expect(during.length).toBeGreaterThan(0)
    expect(below()).toEqual([])
    await expect(run('true', { cgroupParent: '../outside' })).rejects.toMatchObject({ code: 'CGROUP_PARENT' })
  } finally {
    // What the user names stays.
    const { stdout } = spawnSync(
      'find',
      ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${parent}*`],
      {
        encoding: 'utf8',
      },
    )
    for (const directory of stdout.split('\n').filter(Boolean)) rmdirSync(directory)
  }
})
