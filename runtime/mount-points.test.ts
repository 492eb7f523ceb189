import { describe, expect, test } from '@jest/globals'
import { lstatSync, mkdirSync, readdirSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { busyboxRoot, run, type TestRoot } from './testing.ts'

/** Every name in the upper directory, sorted. */
const names = (box: TestRoot): string[] => readdirSync(box.upper, { recursive: true }).map(String).toSorted()
const OLD = new Date('2001-02-03T04:05:06.789Z')
const oldFolder = (path: string): void => {
  mkdirSync(path)
  utimesSync(path, OLD, OLD)
}

describe('what is made to mount on never shows in the upper', () => {
  test('from an empty root: nothing at all, and the root’s time is what it was', async () => {
    using box = busyboxRoot()
    const before = lstatSync(box.upper, { bigint: true }).mtimeNs
    const { stdout } = await run(
      box.root,
      'ls -d /proc /sys /dev /etc /etc/resolv.conf /etc/hosts /etc/hostname | wc -l',
    )
    expect(stdout).toBe('7\n')
    expect(names(box)).toEqual([])
    expect(lstatSync(box.upper, { bigint: true }).mtimeNs).toBe(before)
  })

  test('after a failed launch as well', async () => {
    using box = busyboxRoot()
    await expect(run(box.root, ['nosuch'])).rejects.toThrow(/not found/)
    expect(names(box)).toEqual([])
  })

  test('an /etc of the base is copied up at most, with its own time', async () => {
    using box = busyboxRoot((lower) => oldFolder(`${lower}/etc`))
    await run(box.root, 'true')
    expect(names(box)).toEqual(['etc'])
    expect(lstatSync(`${box.upper}/etc`).mtime).toEqual(OLD)
  })

  test('files that the base has stay as they are', async () => {
    using box = busyboxRoot((lower) => {
      for (const name of ['proc', 'sys', 'dev', 'etc']) mkdirSync(`${lower}/${name}`)
      for (const name of ['resolv.conf', 'hosts', 'hostname']) writeFileSync(`${lower}/etc/${name}`, 'base\n')
    })
    const { stdout } = await run(box.root, 'cat /etc/hostname')
    expect(stdout).toBe('box\n')
    expect(names(box)).toEqual([])
  })

  test('what the command makes beside them stays, with the time of that change', async () => {
    using box = busyboxRoot((lower) => oldFolder(`${lower}/etc`))
    await run(box.root, 'touch /etc/mine; touch -d "2011-11-11 11:11:11" /etc')
    expect(names(box)).toEqual(['etc', 'etc/mine'])
    expect(lstatSync(`${box.upper}/etc`).mtime).toEqual(new Date('2011-11-11T11:11:11Z'))
  })

  test('a change of the root directory keeps its time', async () => {
    using box = busyboxRoot()
    await run(box.root, 'touch /mine; touch -d "2011-11-11 11:11:11" /')
    expect(names(box)).toEqual(['mine'])
    expect(lstatSync(box.upper).mtime).toEqual(new Date('2011-11-11T11:11:11Z'))
  })

  test('a dangling /etc/resolv.conf gets its target for the time being', async () => {
    using box = busyboxRoot((lower) => {
      mkdirSync(`${lower}/etc`)
      symlinkSync('../run/systemd/resolve/stub-resolv.conf', `${lower}/etc/resolv.conf`)
    })
    const { stdout, exitCode } = await run(box.root, 'readlink -f /etc/resolv.conf; test -s /etc/resolv.conf')
    expect(stdout).toBe('/run/systemd/resolve/stub-resolv.conf\n')
    expect(exitCode).toBe(0)
    expect(names(box)).toEqual(['etc'])
  })

  test('a directory that the command filled stays', async () => {
    using box = busyboxRoot((lower) => {
      mkdirSync(`${lower}/etc`)
      symlinkSync('/run/resolve/resolv.conf', `${lower}/etc/resolv.conf`)
    })
    await run(box.root, 'touch /run/mine')
    expect(names(box)).toEqual(['etc', 'run', 'run/mine'])
  })
})
