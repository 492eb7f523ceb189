/** Limits from the command line to the kernel, whichever cgroup version it has: by what they do to a build. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { openWorkshop, type Workshop } from '../support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
  await shop.store[Symbol.asyncDispose]()
})
afterAll(async () => shop[Symbol.asyncDispose]())

function build(
  run: string,
  ...options: string[]
): { readonly status: number | null; readonly stderr: string } {
  const context = shop.context({ Dockerfile: `FROM base\nRUN ${run}\n` })
  const cli = join(import.meta.dirname, '../../cli/index.ts')
  const args = [cli, 'build', '--progress', 'plain', ...options, '--store', shop.store.path, context]
  return spawnSync(process.execPath, args, { encoding: 'utf8' })
}

test('memory', () => {
  const { status, stderr } = build('tail /dev/zero', '--memory', '64m')
  expect(stderr).toContain('exceeded its memory limit of 64 MiB')
  expect(status).toBe(1)
})

test('processes', () => {
  const { status, stderr } = build('for i in 1 2 3 4 5 6 7 8 9; do sleep 9 & done; wait', '--pids-limit', '5')
  expect(stderr).toContain("can't fork")
  expect(status).toBe(1)
})

test('a CPU quota: of 2 s of spinning, a fifth is had', () => {
  const { status, stderr } = build(
    "time -f 'had %U %S' timeout 2 sh -c 'while :; do :; done' || true",
    '--cpus',
    '0.2',
  )
  expect(status).toBe(0)
  const [, user, system] = /had ([\d.]+) ([\d.]+)/.exec(stderr) ?? []
  const seconds = Number(user) + Number(system)
  expect(seconds).toBeGreaterThan(0.1)
  expect(seconds).toBeLessThan(0.8)
})
