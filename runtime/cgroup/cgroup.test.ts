/** One suite for each version that this machine offers (`none` is everywhere). */
import { describe, expect, test } from '@jest/globals'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmdirSync } from 'node:fs'
import { runContainer } from '../index.ts'
import { busyboxRoot, run, specFor } from '../testing.ts'
import { cgroupDriver, createCgroup, sweepCgroups, useCgroupDriver, v1Here, v2Here } from './index.ts'
import { noDriver } from './none.ts'
import type { CgroupDriver } from './types.ts'

const memory = (driver: CgroupDriver) =>
  driver.controllers.includes('memory') ? { memoryBytes: 32 << 20 } : {}

/** In every hierarchy; what is named by the user stays after a container. */
function removeParent(parent: string): void {
  const [outer = ''] = parent.split('/')
  const { stdout } = spawnSync('find', ['/sys/fs/cgroup', '-depth', '-type', 'd', '-path', `*/${outer}*`], {
    encoding: 'utf8',
  })
  for (const directory of stdout.split('\n').filter(Boolean)) rmdirSync(directory)
}

const nameFor = (what: string): string => `tbuild-contract-${process.pid}-${what}`

/** The container's PID 1 as the host knows it: the launcher's grandchild. */
function containerOf(launcher: number): string {
  return childOf(childOf(String(launcher)))
}

function childOf(pid: string): string {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
}

function cgroupContract(driver: CgroupDriver): void {
  describe(`cgroup v${driver.version}`, () => {
    test('made, listed, removed', async () => {
      const cgroup = driver.create(nameFor('1'), {})
      expect(cgroup.version).toBe(driver.version)
      expect(cgroup.descriptors.length).toBeGreaterThan(0)
      expect(driver.list()).toContain(nameFor('1'))
      await cgroup[Symbol.asyncDispose]()
      await cgroup[Symbol.asyncDispose]()
      expect(driver.list()).not.toContain(nameFor('1'))
    })

    test('takes every limit that its controllers allow', async () => {
      await using cgroup = driver.create(nameFor('2'), {
        ...(driver.controllers.includes('memory') ? { memoryBytes: 32 << 20 } : {}),
        ...(driver.controllers.includes('cpu') ? { cpus: 0.001 } : {}),
        ...(driver.controllers.includes('pids') ? { pids: 3 } : {}),
      })
      expect(cgroup.usage().oomKills).toBe(0)
    })

    test('a limit that the kernel refuses leaves nothing', async () => {
      expect(() => driver.create(nameFor('3'), { pids: -5 })).toThrow(/EINVAL|LIMITS|limit/)
      await new Promise(setImmediate)
      expect(driver.list()).not.toContain(nameFor('3'))
    })

    test('removal kills what is inside', async () => {
      const cgroup = driver.create(nameFor('4'), {})
      const [fd] = cgroup.descriptors
      const file =
        driver.version === 1 ? `/proc/${process.pid}/fd/${fd}` : `/proc/${process.pid}/fd/${fd}/cgroup.procs`
      const child = spawn('sh', ['-c', `echo $$ > ${file} && echo in && exec sleep 1000`])
      await once(child.stdout, 'data')
      const exit = once(child, 'exit')
      await driver.remove(nameFor('4'))
      expect(await exit).toEqual([null, 'SIGKILL'])
      expect(driver.list()).not.toContain(nameFor('4'))
      await cgroup[Symbol.asyncDispose]()
    })

    test('a container joins it before it executes anything', async () => {
      useCgroupDriver(driver)
      try {
        using box = busyboxRoot()
        const container = await runContainer(
          specFor(box.root, ['sleep', '1000'], { scope: `joined${driver.version}` }),
        )
        const host = containerOf(container.pid)
        expect(readFileSync(`/proc/${host}/cgroup`, 'utf8')).toContain(`tbuild-joined${driver.version}-`)
        container.kill('SIGKILL')
        await container.exited
        expect(driver.list().filter((entry) => entry.includes('joined'))).toEqual([])
        const { stdout } = await run(box.root, 'cat /proc/self/cgroup')
        expect(stdout).toMatch(/^(\d+:[^:]*:\/\n)+$/)
      } finally {
        useCgroupDriver()
      }
    })

    test('below a parent, which is made; what a dead process left there is found', async () => {
      const parent = `tbuild-test-parent-${process.pid}/inner.slice`
      const cgroup = driver.create(nameFor('5'), { ...memory(driver) }, parent)
      expect(driver.list()).toContain(`/${parent}/${nameFor('5')}`)
      cgroup.closeDescriptors()
      useCgroupDriver(driver)
      try {
        await sweepCgroups((scope) => scope !== 'contract')
        expect(driver.list().filter((name) => name.includes(parent))).toEqual([])
      } finally {
        useCgroupDriver()
        removeParent(parent)
      }
    })

    test('removing what is gone is no error', async () => {
      await expect(driver.remove(nameFor('never'))).resolves.toBeUndefined()
    })
  })
}

for (const driver of [v1Here(), v2Here()]) {
  if (driver !== undefined) cgroupContract(driver)
}

test('a hybrid machine uses v1', () => {
  expect(cgroupDriver().version).toBe(v1Here() === undefined ? (v2Here() === undefined ? 0 : 2) : 1)
})

test('a parent that is no path below the root is refused', () => {
  for (const parent of ['../x', 'a/../../b'])
    expect(() => createCgroup('x', {}, parent)).toThrow(expect.objectContaining({ code: 'CGROUP_PARENT' }))
})

describe('no cgroups', () => {
  test('runs without limits, refuses with', () => {
    const none = noDriver('of a test')
    expect(none.create('x', {}).descriptors).toEqual([])
    expect(() => none.create('x', {}, 'y')).toThrow(expect.objectContaining({ code: 'CGROUP_PARENT' }))
    for (const limits of [{ memoryBytes: 1 }, { cpus: 1 }, { pids: 1 }]) {
      expect(() => none.create('x', limits)).toThrow(expect.objectContaining({ code: 'LIMITS_UNAVAILABLE' }))
    }
  })
})

test('a sweep asks once for each scope and removes the dead', async () => {
  const driver = cgroupDriver()
  driver.create(`tbuild-dead.scope-1-0`, {}).closeDescriptors()
  driver.create(`tbuild-dead.scope-1-1`, {}).closeDescriptors()
  const asked: string[] = []
  await sweepCgroups((scope) => {
    asked.push(scope)
    return scope !== 'dead.scope'
  })
  expect(asked.filter((scope) => scope === 'dead.scope')).toEqual(['dead.scope'])
  expect(driver.list().filter((name) => name.includes('dead.scope'))).toEqual([])
})
