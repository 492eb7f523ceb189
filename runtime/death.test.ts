/** However it ends, nothing is left. */
import { afterEach, describe, expect, test } from '@jest/globals'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync, rmSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { cgroupDriver } from './cgroup/index.ts'
import { runContainer, sweepCgroups } from './index.ts'
import { busyboxRoot, processesWith, run, specFor, until } from './testing.ts'

// Other tests, at the same time, mount other things.
const mountTable = (): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => / - overlay tbuild |tbuild-runtime-/.test(line))
const cgroupsOf = (scope: string): string[] =>
  cgroupDriver()
    .list()
    .filter((name) => name.includes(`-${scope}-`))

async function launch(args: string | readonly string[]): Promise<unknown> {
  using box = busyboxRoot()
  return await run(box.root, args)
}

describe('nothing is left', () => {
  afterEach(async () => sweepCgroups((scope) => scope !== 'kill9'))

  test('abort kills everything in the container at once', async () => {
    using box = busyboxRoot()
    const before = mountTable()
    const abort = new AbortController()
    const container = await runContainer(
      specFor(box.root, ['sh', '-c', 'setsid sh -c "trap : TERM; sleep 7601.1" & echo up; sleep 7601.2'], {
        scope: 'abort',
      }),
      { signal: abort.signal },
    )
    await once(container.stdout ?? process.stdin, 'data')
    await until(() => processesWith('7601.').length >= 2)
    abort.abort()
    expect(await container.exited).toMatchObject({ exitCode: 137, signal: 'SIGKILL' })
    expect(processesWith('7601.')).toEqual([])
    expect(cgroupsOf('abort')).toEqual([])
    expect(mountTable()).toEqual(before)
  })

  test('an abort before the start rejects with its reason', async () => {
    using box = busyboxRoot()
    const reason = new Error('enough')
    await expect(run(box.root, 'true', {}, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  })

  test('aborts at any moment of the launch leave nothing', async () => {
    using box = busyboxRoot()
    for (let delay = 0; delay < 8; delay++) {
      const abort = new AbortController()
      const outcome = run(box.root, 'sleep 7602.5', { scope: 'early' }, { signal: abort.signal })
      const settled = outcome.then(
        (exit) => exit.exitCode,
        () => 'rejected',
      )
      await setTimeout(delay)
      abort.abort()
      expect([137, 'rejected']).toContain(await settled)
      expect(processesWith('7602.5')).toEqual([])
      expect(cgroupsOf('early')).toEqual([])
    }
  })

  // A container's process can clear its parent-death signal: the monitor, PID 1 of the outer namespace, dies with us.
  test('kill -9 of the process that started it: no process and no mount at once, the cgroup at the next sweep', async () => {
    const before = mountTable()
    const testing = new URL('testing.ts', import.meta.url).href
    const script = `
      const { busyboxRoot, specFor } = await import('${testing}')
      const { runContainer } = await import('${new URL('index.ts', import.meta.url).href}')
      const { execFileSync } = await import('node:child_process')
      const code = '#include <sys/prctl.h>\\n#include <unistd.h>\\n' +
        'int main(int c, char **v) { (void)c; prctl(PR_SET_PDEATHSIG, 0); return execv(v[1], v + 1); }'
      const box = busyboxRoot((lower) =>
        execFileSync('gcc', ['-static', '-xc', '-', '-o', lower + '/bin/survive'], { input: code }))
      const args = ['sh', '-c', 'setsid survive /bin/sleep 7603.1 & echo up; exec survive /bin/sleep 7603.2']
      const container = await runContainer(specFor(box.root, args, { scope: 'kill9', user: '' }), {})
      container.stdout.on('data', () => console.log(box.lower))
      await container.exited`
    const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    await until(() => processesWith('7603.').filter((pid) => pid !== child.pid).length >= 2)
    child.kill('SIGKILL')
    await once(child, 'exit')
    await until(() => processesWith('7603.').length === 0)
    expect(mountTable()).toEqual(before)
    expect(cgroupsOf('kill9').length).toBe(1)
    await sweepCgroups((scope) => scope !== 'kill9')
    expect(cgroupsOf('kill9')).toEqual([])
    rmSync(
      line
        .toString()
        .trim()
        .replace(/\/lower$/, ''),
      { recursive: true },
    )
  })

  test('a sweep spares the living', async () => {
    using box = busyboxRoot()
    const container = await runContainer(specFor(box.root, ['sleep', '1000'], { scope: 'living' }))
    await sweepCgroups(() => true)
    expect(cgroupsOf('living').length).toBe(1)
    container.kill('SIGKILL')
    await container.exited
  })

  test('no descriptor of this process stays open', async () => {
    await launch('true')
    const before = readdirSync('/proc/self/fd').length
    for (let i = 0; i < 5; i++) await launch('true')
    await expect(launch(['nosuch'])).rejects.toThrow(/not found/)
    await setTimeout(50)
    expect(readdirSync('/proc/self/fd').length).toBe(before)
  })
})
