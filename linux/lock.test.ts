import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { flock, flockWait } from './index.ts'
import { otherProcess, scratch, type OtherProcess } from './testing.ts'

/** Another process that holds the lock. */
async function holder(path: string, kind: 'shared' | 'exclusive'): Promise<OtherProcess> {
  const other = otherProcess(`
    import { openSync } from 'node:fs'
    const fd = openSync(${JSON.stringify(path)}, 'a')
    say(linux.flock(fd, '${kind}'))
    process.on('SIGUSR1', () => { linux.flock(fd, 'unlock'); say('unlocked') })
    say('ready')
  `)
  expect([await other.line(), await other.line()]).toEqual(['true', 'ready'])
  return other
}

test('what another process holds is not ours, until it lets go', async () => {
  using base = scratch()
  const path = join(base.path, 'lock')
  const fd = openSync(path, 'a')
  await using other = await holder(path, 'exclusive')
  expect([flock(fd, 'exclusive'), flock(fd, 'shared')]).toEqual([false, false])
  other.child.kill('SIGUSR1')
  expect(await other.line()).toBe('unlocked')
  expect(flock(fd, 'exclusive')).toBe(true)
  closeSync(fd)
})

test('shared locks go together and keep an exclusive one out', async () => {
  using base = scratch()
  const path = join(base.path, 'lock')
  const fd = openSync(path, 'a')
  await using _ = await holder(path, 'shared')
  expect([flock(fd, 'shared'), flock(fd, 'exclusive')]).toEqual([true, false])
  closeSync(fd)
})

test('a lock whose holder was killed comes free, and who waits gets it without blocking the event loop', async () => {
  using base = scratch()
  const path = join(base.path, 'lock')
  const fd = openSync(path, 'a')
  await using other = await holder(path, 'exclusive')
  let held = false
  const waiting = flockWait(fd, 'exclusive').then(() => (held = true))
  await new Promise(setImmediate)
  expect(held).toBe(false)
  other.child.kill('SIGKILL')
  expect(await waiting).toBe(true)
  closeSync(fd)
})

test('two descriptions in one process are two holders; closing the last descriptor lets go', () => {
  using base = scratch()
  const [a, b] = [openSync(join(base.path, 'lock'), 'a'), openSync(join(base.path, 'lock'), 'a')]
  expect([flock(a, 'exclusive'), flock(b, 'exclusive')]).toEqual([true, false])
  closeSync(a)
  expect(flock(b, 'exclusive')).toBe(true)
  closeSync(b)
})

test('a descriptor that is not open', async () => {
  expect(() => flock(99_999, 'shared')).toThrow(expect.objectContaining({ code: 'EBADF' }))
  await expect(flockWait(99_999, 'shared')).rejects.toMatchObject({ code: 'EBADF' })
})
