import {
  copyFileSync,
  mkdirSync,
  openSync,
  closeSync,
  readFileSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { beforeAll, expect, test } from '@jest/globals'
import { LayerTree } from '../layer/tree.ts'
import { erofsUtils, type ErofsTool } from './erofs-utils.ts'
import {
  describeTree,
  describeMount,
  mountTree,
  scratch,
  TreeBuilder,
  UUID,
  type Image,
  type Scratch,
} from './testing.ts'

const { ROOT } = LayerTree

let run: ErofsTool
beforeAll(() => {
  run = erofsUtils()
}, 300_000)

/** Something of all that there is. */
function varied(): TreeBuilder {
  const built = new TreeBuilder()
  const xattrs = new Map([
    ['user.a', Buffer.from('shared')],
    ['security.b', Buffer.alloc(300, 1)],
  ])
  const time = { mtimeNs: 1_234_567_890_123_456_789n, uid: 5, gid: 70_000 }
  const many = built.directory(ROOT, 'many', { ...time, mode: 0o1777 })
  for (let i = 0; i < 600; i++)
    built.file(many, `name-${i}`, [[0, `contents of ${i}`]], { ...time, ...(i % 3 === 0 ? { xattrs } : {}) })
  const directory = built.directory(ROOT, 'directory', {
    ...time,
    xattrs: new Map([['trusted.c', Buffer.from('alone')]]),
  })
  built.file(
    directory,
    'sparse',
    [
      [4096, 'x'.repeat(1024)],
      [65_536, 'end'],
    ],
    time,
  )
  // No hole at a file's end: the tool takes that out as a shorter file.
  built.file(directory, 'large', [[0, Buffer.alloc(3_000_000, 'large ')]])
  built.tree.link(ROOT, 'link', built.file(directory, '\u00ff\u0001', [[0, 'linked']]))
  for (const length of [5, 300, 500, 1000, 4000])
    built.add(directory, `symlink-${length}`, { type: 'symlink', mode: 0o777, target: 't'.repeat(length) })
  built.add(ROOT, 'char', { type: 'char', major: 300, minor: 300 })
  built.add(ROOT, 'block', { type: 'block', major: 8, minor: 1 })
  built.add(ROOT, 'fifo', { type: 'fifo' })
  built.add(ROOT, 'whiteout', { type: 'whiteout' })
  built.tree.setOpaque(built.directory(ROOT, 'opaque'))
  return built
}

/** Version 1.8 reads beyond a superblock that is to be checked in a block of 512 bytes; so it gets a copy that says nothing of a checksum. */
function withoutChecksum(base: Scratch, image: Image): string {
  const path = join(base.path, 'without checksum')
  copyFileSync(image.path, path)
  const fd = openSync(path, 'r+')
  const features = Buffer.alloc(4)
  readSync(fd, features, 0, 4, 1024 + 8)
  features.writeUInt32LE(features.readUInt32LE() & ~1)
  writeSync(fd, features, 0, 4, 1024 + 8)
  closeSync(fd)
  return path
}

test('fsck.erofs finds nothing, and takes out of the image what is in the tree', () => {
  using base = scratch()
  const built = varied()
  using image = mountTree(base, built, 3)
  const path = withoutChecksum(base, image)
  const devices = image.segments.map((segment) => `--device=${segment}`)
  expect(run('fsck.erofs', [...devices, path])).toEqual({ status: 0, output: '' })
  const directory = join(base.path, 'extracted')
  mkdirSync(directory)
  // Taking out what is in the root would leave the root itself as it is.
  const options = [`--extract=${directory}`, '--overwrite', '--preserve', '--xattrs']
  expect(run('fsck.erofs', [...devices, ...options, path])).toEqual({ status: 0, output: '' })
  expect(describeMount(directory)).toEqual(describeTree(built))
})

test('fsck.erofs is no yes-man: it finds an inode of no known format', () => {
  using base = scratch()
  using image = mountTree(base, varied(), 1)
  const path = withoutChecksum(base, image)
  const metadata = readFileSync(path).readUInt32LE(1024 + 40) * 512
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.from([0xff]), 0, 1, metadata + statSync(`${image.root}/fifo`).ino * 32)
  closeSync(fd)
  expect(run('fsck.erofs', [`--device=${image.segments[0]}`, path]).status).not.toBe(0)
})

test('dump.erofs reads superblock, inodes and extents', () => {
  using base = scratch()
  const built = varied()
  using image = mountTree(base, built, 3)
  const dump = (...args: readonly string[]): string => {
    const devices = image.segments.map((segment) => `--device=${segment}`)
    return run('dump.erofs', [...devices, ...args, image.path]).output
  }
  const superblock = dump('-s')
  const hex = UUID.toString('hex')
  expect(superblock).toMatch(/magic number: +0xE0F5E1E2\n.*blocksize: +512\n/)
  expect(superblock).toMatch(new RegExp(`inode count: +${built.tree.inodes}\\n`))
  expect(superblock).toMatch(/features: +sb_csum mtime chunked_file device_table/)
  expect(superblock.replaceAll('-', '')).toContain(hex)
  const large = dump('-e', '--path=/directory/large')
  expect(large).toMatch(/Size: 3000000 .* regular file\n/)
  expect(large).toMatch(/0: +0\.\. 3000320 \| 3000320 :.*# device [123]\n/)
  expect(large).toContain('1 extents found')
  expect(dump('--path=/link')).toMatch(/Links: 2 /)
  expect(dump('--path=/many/name-3')).toMatch(/Xattr size: 20\n[^]*Timestamp: 2009-02-13 23:31:30\.123456789/)
})
