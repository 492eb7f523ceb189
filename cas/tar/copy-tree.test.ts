import {
  closeSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { AT_FDCWD, mknodat, setTimes, statAt } from '../../linux/index.ts'
import { copyTree, isAsCopied } from './copy-tree.ts'
import { packUpper } from './pack.ts'
import { describeTree, makeTree, punch, richTree, scratch, withDirectory } from './testing.ts'
import type { TarOutputEntry } from './writer.ts'

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
        return stats !== undefined && isAsCopied(copy, stats)
      }
      expect(isOld('f49')).toBe(false)
      for (let i = 0; i < 49; i++) expect(isOld(`f${i}`)).toBe(true)
    }),
  )
  expect(lstatSync(join(from, 'f49')).size).toBe(0)
})

test('a file that is changed when the clock has been set back is no older one', async () => {
  using own = scratch()
  const [from, to] = [own.directory('from'), own.directory('to')]
  for (const name of ['changed', 'kept']) writeFileSync(join(from, name), 'a')
  linkSync(join(from, 'kept'), join(from, 'kept too'))
  const [source, target] = [from, to].map((path) => openSync(path, 'r')) as [number, number]
  // All that comes is earlier than this.
  const copy = { ...(await copyTree(source, target)), since: { seconds: 2 ** 33, nanoseconds: 0 } }
  const { mtimeNs } = lstatSync(join(to, 'changed'), { bigint: true })
  const fd = openSync(join(to, 'changed'), 'r+')
  writeFileSync(fd, 'b')
  closeSync(fd)
  setTimes(AT_FDCWD, join(to, 'changed'), { mtime: mtimeNs })
  const names: string[] = []
  const entry = ({ path }: TarOutputEntry): void => void names.push(String(path))
  const sink = { entry, dataFrom() {}, zeros() {}, bytes: 0 }
  await packUpper(target, { lower: { rootFd: source, copy }, sink })
  expect(names).toEqual(['changed'])
  for (const one of [source, target]) closeSync(one)
})

test('a clock that was set back while the copy was made, or after, takes no directory for another, and none for the same', async () => {
  using own = scratch()
  const [from, to] = [own.directory('from'), own.directory('to')]
  makeTree(from, [
    { type: 'directory', path: 'again' },
    { type: 'directory', path: 'kept' },
    { type: 'file', path: 'kept/file', contents: 'x' },
  ])
  const [source, target] = [from, to].map((path) => openSync(path, 'r')) as [number, number]
  const copied = await copyTree(source, target)
  const changes = async (seconds: number): Promise<string[]> => {
    const names: string[] = []
    const entry = ({ path }: TarOutputEntry): void => void names.push(String(path))
    const copy = { ...copied, since: { seconds, nanoseconds: 0 } }
    await packUpper(target, {
      lower: { rootFd: source, copy },
      sink: { entry, dataFrom() {}, zeros() {}, bytes: 0 },
    })
    return names
  }
  expect(await changes(0)).toEqual([])
  rmSync(join(to, 'again'), { recursive: true })
  mkdirSync(join(to, 'again'))
  setTimes(AT_FDCWD, join(to, 'again'), { mtime: 0n })
  expect(await changes(2 ** 33)).toEqual(['again', 'again/.wh..wh..opq'])
  for (const one of [source, target]) closeSync(one)
})
