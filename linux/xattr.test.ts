import { symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from '@jest/globals'
import { getXattr, listXattrs, removeXattr, setXattr } from './index.ts'
import { scratch } from './testing.ts'

const withCode = (code: string): unknown => expect.objectContaining({ code })

test('values of any bytes, empty ones, and replaced ones', () => {
  using base = scratch()
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i))
  setXattr(base.path, 'user.bytes', bytes)
  setXattr(base.path, 'user.empty', Buffer.alloc(0))
  setXattr(base.path, 'user.twice', Buffer.from('longer'))
  setXattr(base.path, 'user.twice', Buffer.from('short'))
  expect(getXattr(base.path, 'user.bytes')).toEqual(bytes)
  expect(getXattr(base.path, 'user.empty')).toEqual(Buffer.alloc(0))
  expect(getXattr(base.path, 'user.twice')?.toString()).toBe('short')
})

test('names are sorted, and may be any text', () => {
  using base = scratch()
  for (const name of ['user.b', 'user.a', 'trusted.z', 'user.gr\u00fc\u00df=%'])
    setXattr(base.path, name, Buffer.from('1'))
  expect(listXattrs(base.path)).toEqual(['trusted.z', 'user.a', 'user.b', 'user.gr\u00fc\u00df=%'])
  removeXattr(base.path, 'user.a')
  expect(listXattrs(base.path)).toEqual(['trusted.z', 'user.b', 'user.gr\u00fc\u00df=%'])
})

test('the value does not change with the next call', () => {
  using base = scratch()
  setXattr(base.path, 'user.a', Buffer.from('first'))
  setXattr(base.path, 'user.b', Buffer.from('other'))
  const first = getXattr(base.path, 'user.a')
  getXattr(base.path, 'user.b')
  expect(first?.toString()).toBe('first')
})

test('of a symlink itself, not of its target', () => {
  using base = scratch()
  const [file, link] = [join(base.path, 'f'), join(base.path, 'l')]
  writeFileSync(file, '')
  symlinkSync('f', link)
  setXattr(link, 'trusted.own', Buffer.from('1'))
  expect([listXattrs(file), listXattrs(link)]).toEqual([[], ['trusted.own']])
  expect(() => setXattr(link, 'user.refused', Buffer.from('1'))).toThrow(withCode('EPERM'))
})

test('none where there is none, or where the file system knows none', () => {
  using base = scratch()
  expect([listXattrs(base.path), getXattr(base.path, 'user.none')]).toEqual([[], undefined])
  expect([listXattrs('/proc/self/status'), getXattr('/proc/self/status', 'user.x')]).toEqual([[], undefined])
})

test('errors name the call, the attribute and the file', () => {
  using base = scratch()
  const gone = join(base.path, 'gone')
  expect(() => listXattrs(gone)).toThrow(withCode('ENOENT'))
  expect(() => getXattr(gone, 'user.a')).toThrow(`lgetxattr ${gone}: ENOENT`)
  expect(() => removeXattr(base.path, 'user.a')).toThrow(`lremovexattr user.a of ${base.path}: ENODATA`)
  expect(() => setXattr(base.path, 'nonsense', Buffer.alloc(0))).toThrow(withCode('EOPNOTSUPP'))
  expect(() => setXattr(base.path, `user.${'n'.repeat(256)}`, Buffer.alloc(0))).toThrow(withCode('ERANGE'))
})

test('files by descriptor and name, in bytes', () => {
  using base = scratch()
  const name = Buffer.from('f\xff', 'latin1')
  const path = Buffer.concat([Buffer.from(`${base.path}/`), name])
  writeFileSync(path, '')
  setXattr(path, 'user.a', Buffer.from('1'))
  expect(listXattrs(path)).toEqual(['user.a'])
})
