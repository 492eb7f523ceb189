import { once } from 'node:events'
import { closeSync, fstatSync, statSync, writeFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { pidfdGetfd, pidfdOpen, pidfdSendSignal, pipe } from './index.ts'
import { otherProcess, scratch } from './testing.ts'

const withCode = (code: string): unknown => expect.objectContaining({ code })

test('a descriptor of another process becomes one of ours', async () => {
  using base = scratch()
  const path = join(base.path, 'f')
  writeFileSync(path, 'its contents')
  await using other = otherProcess(`
    import { openSync, readSync } from 'node:fs'
    const fd = openSync(${JSON.stringify(path)}, 'r')
    readSync(fd, Buffer.alloc(4))
    say(fd)
  `)
  const theirs = Number(await other.line())
  const pidfd = pidfdOpen(other.pid)
  const ours = pidfdGetfd(pidfd, theirs)
  expect(fstatSync(ours).ino).toBe(statSync(path).ino)
  // The same open file: it goes on where the other stopped.
  const buffer = Buffer.alloc(8)
  expect(readSync(ours, buffer)).toBe(8)
  expect(buffer.toString()).toBe('contents')
  expect(() => pidfdGetfd(pidfd, 99_999)).toThrow(withCode('EBADF'))
  for (const fd of [ours, pidfd]) closeSync(fd)
})

test('a signal reaches the process, and after its end nobody', async () => {
  await using other = otherProcess(`process.on('SIGUSR2', () => say('got it')); say('ready')`)
  expect(await other.line()).toBe('ready')
  const pidfd = pidfdOpen(other.pid)
  pidfdSendSignal(pidfd, 12)
  expect(await other.line()).toBe('got it')
  const exited = once(other.child, 'exit')
  pidfdSendSignal(pidfd, 9)
  expect(await exited).toEqual([null, 'SIGKILL'])
  expect(() => pidfdSendSignal(pidfd, 0)).toThrow(withCode('ESRCH'))
  expect(() => pidfdGetfd(pidfd, 0)).toThrow(withCode('ESRCH'))
  expect(() => pidfdOpen(other.pid)).toThrow(withCode('ESRCH'))
  closeSync(pidfd)
})

test('a pipe is a pipe, which can be opened again by name', () => {
  const { readEnd, writeEnd } = pipe()
  expect([fstatSync(readEnd).isFIFO(), fstatSync(writeEnd).isFIFO()]).toEqual([true, true])
  writeFileSync(`/proc/self/fd/${writeEnd}`, 'through')
  const buffer = Buffer.alloc(20)
  expect(buffer.toString('utf8', 0, readSync(readEnd, buffer))).toBe('through')
  closeSync(readEnd)
  closeSync(writeEnd)
})
