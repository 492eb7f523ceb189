/** A store where no overlay can be mounted: on overlayfs itself, as in a container without a volume. The driver is `copy`, with whole directories. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { openStore } from '../cas/index.ts'
import { testDriver } from '../cas/drivers/contract.ts'

const base = mkdtempSync(join(tmpdir(), 'tbuild-whole-'))
const place = join(base, 'mount')

beforeAll(() => {
  for (const name of ['lower', 'upper', 'work', 'mount']) mkdirSync(join(base, name))
  const options = `lowerdir=${base}/lower,upperdir=${base}/upper,workdir=${base}/work`
  execFileSync('mount', ['-t', 'overlay', '-o', options, 'overlay', place])
})
afterAll(() => {
  execFileSync('umount', ['--lazy', place])
  rmSync(base, { recursive: true })
})

testDriver('copy', (path) => openStore(path), place)

describe('the choice', () => {
  test('is whole directories, and says why', async () => {
    await using store = await openStore(join(place, 'store'))
    expect(store.layers.driver).toBe('copy')
    expect(store.layers.driverReason).toMatch(
      /the kernel mounts no overlay with an upper directory on this file system \(.*\): whole directories are copied$/,
    )
  })
})
