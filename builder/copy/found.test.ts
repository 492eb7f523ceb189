/** What is copied is what was seen when its key was computed, or the copy fails by name. */
import { afterEach, beforeEach, expect, test } from '@jest/globals'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openStore, openTree } from '../../cas/index.ts'
import { openContext } from './context.ts'
import { find } from './found.ts'
import { unpackArchive } from './unpack.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tbuild-found-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

test('what is gone, or something else by now, was changed', () => {
  const at = (name: string): string => join(directory, name)
  mkdirSync(at('d'))
  for (const name of ['gone', 'replaced', 'now-a-link']) writeFileSync(at(`d/${name}`), name)
  for (const name of ['link-gone', 'now-a-file']) symlinkSync('x', at(`d/${name}`))
  mkdirSync(at('d/sub'))
  const fd = openSync(directory, 'r')
  using tree = openTree(fd)
  const seen = (name: string) => find(tree, `d/${name}`)
  const [gone, replaced, link, linkGone, file, sub] = [
    'gone',
    'replaced',
    'now-a-link',
    'link-gone',
    'now-a-file',
    'sub',
  ].map(seen)
  for (const name of ['gone', 'now-a-link', 'link-gone', 'now-a-file']) unlinkSync(at(`d/${name}`))
  rmSync(at('d/sub'), { recursive: true })
  writeFileSync(at('new'), 'replaced')
  renameSync(at('new'), at('d/replaced'))
  symlinkSync('/etc/passwd', at('d/now-a-link'))
  writeFileSync(at('d/now-a-file'), '')
  for (const look of [
    () => gone?.open(),
    () => gone?.xattrs,
    () => replaced?.open(),
    () => link?.open(),
    () => linkGone?.link,
    () => file?.link,
    () => sub?.entries,
  ]) {
    expect(look).toThrow(expect.objectContaining({ code: 'SOURCE_CHANGED', hint: expect.any(String) }))
  }
  expect(() => gone?.open()).toThrow('d/gone was changed')
  closeSync(fd)
})

test('a symlink leads where it led when it was first looked at', () => {
  symlinkSync('one', join(directory, 'link'))
  using context = openContext(directory, () => undefined)
  const read = (): string | undefined => find(context.tree, 'link')?.link
  expect(read()).toBe('one')
  unlinkSync(join(directory, 'link'))
  symlinkSync('two', join(directory, 'link'))
  expect(read()).toBe('one')
})

test('an archive that was replaced since is not unpacked', async () => {
  await using store = await openStore(join(directory, 'store'))
  writeFileSync(join(directory, 'a.tar'), Buffer.alloc(1024))
  using context = openContext(directory, () => undefined)
  const archive = find(context.tree, 'a.tar')
  writeFileSync(join(directory, 'new'), Buffer.alloc(1024))
  renameSync(join(directory, 'new'), join(directory, 'a.tar'))
  await expect(unpackArchive(store, archive)).rejects.toMatchObject({ code: 'SOURCE_CHANGED' })
})
