import { closeSync, lstatSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { AT_FDCWD, mknodat, statAt } from '../../linux/index.ts'
import { copyTree, isOlder } from './copy-tree.ts'
import { describeTree, makeTree, punch, richTree, scratch, withDirectory } from './testing.ts'

test('a copy has all that a layer can say, hard links and holes too', async () => {
  using own = scratch()
  const [from, to] = [own.directory('from'), own.directory('to')]
  makeTree(from, richTree({ xattrs: true }))
  const contents = Buffer.alloc(8 * 1024 * 1024)
  contents.write('in the middle', 3 * 1024 * 1024)
  punch(join(from, 'sparse'), contents)
  const copy = await withDirectory(from, (source) => withDirectory(to, (target) => copyTree(source, target)))
  expect(describeTree(to)).toEqual(describeTree(from))
  expect(readFileSync(join(to, 'sparse')).equals(contents)).toBe(true)
  expect(statSync(join(to, 'sparse')).blocks * 512).toBeLessThan(1024 * 1024)
  expect(new Set([...copy.links.values()].map((names) => names.length))).toEqual(new Set([2, 3]))
})

test('sockets and whiteouts are left out', async () => {
  using own = scratch()
  const [from, to] = [own.directory('from'), own.directory('to')]
  mknodat(AT_FDCWD, join(from, 'socket'), 0o140600)
  mknodat(AT_FDCWD, join(from, 'whiteout'), 0o020600)
  writeFileSync(join(from, 'file'), '')
  await withDirectory(from, (source) => withDirectory(to, (target) => copyTree(source, target)))
  expect(describeTree(to).slice(1)).toEqual(describeTree(from).slice(1, 2))
})

test('what is older than the copy is told from what is changed right after', async () => {
  using own = scratch()
  const [from, to] = [own.directory('from'), own.directory('to')]
  for (let i = 0; i < 50; i++) writeFileSync(join(from, `f${i}`), '')
  await withDirectory(from, (source) =>
    withDirectory(to, async (target) => {
      const copy = await copyTree(source, target)
      const fd = openSync(join(to, 'f49'), 'r+')
      writeFileSync(fd, 'x')
      closeSync(fd)
      const isOld = (name: string): boolean => {
        const stats = statAt(target, name)
        return stats !== undefined && isOlder(copy, stats)
      }
      expect(isOld('f49')).toBe(false)
      for (let i = 0; i < 49; i++) expect(isOld(`f${i}`)).toBe(true)
    }),
  )
  expect(lstatSync(join(from, 'f49')).size).toBe(0)
})
