import { describe, expect, test } from '@jest/globals'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { resolveUser } from './index.ts'
import { busyboxRoot, run, type TestRoot } from './testing.ts'

const PASSWD = `# comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
broken
1234:x:77:78::/named:/bin/sh
big:x:99999999999:1::/:
`
const GROUP = `root:x:0:
disk:x:6:root,app
app:x:1001:
extra:x:2000:other,app
`
const boxWithUsers = (): TestRoot =>
  busyboxRoot((lower) => {
    mkdirSync(`${lower}/etc`)
    mkdirSync(`${lower}/real`)
    writeFileSync(`${lower}/real/passwd`, PASSWD)
    symlinkSync('/real/passwd', `${lower}/etc/passwd`)
    writeFileSync(`${lower}/etc/group`, GROUP)
  })

describe('resolveUser', () => {
  test.each([
    ['', { uid: 0, gid: 0, groups: [0, 6], home: '/root', name: 'root' }],
    ['app', { uid: 1000, gid: 1001, groups: [1001, 6, 2000], home: '/home/app', name: 'app' }],
    ['1000', { uid: 1000, gid: 1001, groups: [1001, 6, 2000], home: '/home/app', name: 'app' }],
    ['app:disk', { uid: 1000, gid: 6, groups: [6], home: '/home/app', name: 'app' }],
    ['app:4242', { uid: 1000, gid: 4242, groups: [4242], home: '/home/app', name: 'app' }],
    ['5000', { uid: 5000, gid: 0, groups: [0], home: '/' }],
    ['5000:extra', { uid: 5000, gid: 2000, groups: [2000], home: '/' }],
    ['1234', { uid: 77, gid: 78, groups: [78], home: '/named', name: '1234' }],
  ])('%j', (user, expected) => {
    using box = boxWithUsers()
    expect(resolveUser(box.root, user)).toEqual(expected)
  })

  test.each(['nobody', 'app:nosuch', '4294967295', '99999999999', '-1', 'big', '0x0', ' app'])(
    '%j is unknown',
    (user) => {
      using box = boxWithUsers()
      expect(() => resolveUser(box.root, user)).toThrow(expect.objectContaining({ code: 'USER_UNKNOWN' }))
    },
  )

  test('a root without /etc has root and numbers', () => {
    using box = busyboxRoot()
    expect(resolveUser(box.root, '')).toEqual({ uid: 0, gid: 0, groups: [0], home: '/' })
    expect(() => resolveUser(box.root, 'root')).toThrow(/no user "root"/)
  })

  test('the container has them', async () => {
    using box = boxWithUsers()
    const { stdout } = await run(box.root, 'id -u; id -g; id -G', { user: 'app' })
    expect(stdout).toBe('1000\n1001\n1001 6 2000\n')
  })
})
