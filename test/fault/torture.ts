/** Every way to change a disk that the tracer knows, once: a scenario to test the recorder on. */
import {
  appendFileSync,
  chmodSync,
  closeSync,
  copyFileSync,
  constants,
  fchmodSync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
  writevSync,
} from 'node:fs'
import { appendFile, copyFile, open } from 'node:fs/promises'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import {
  mknodat,
  mountOverlay,
  openLayersDirectory,
  openat2,
  removeXattr,
  renameat2,
  RENAME_EXCHANGE,
  setXattr,
  setTimes,
  symlinkat,
  AT_FDCWD,
  mkdirat,
  unlinkat,
} from '../../linux/index.ts'
import type { Scenario } from './scenario.ts'

const DIRECTORY = constants.O_RDONLY | constants.O_DIRECTORY

export const scenario: Scenario = {
  prepare: async ({ path }) => {
    mkdirSync(join(path, 'old'), { recursive: true })
    writeFileSync(join(path, 'old/file'), 'before'.repeat(3000))
    linkSync(join(path, 'old/file'), join(path, 'old/link'))
    setXattr(join(path, 'old/file'), 'user.old', Buffer.from('old'))
  },
  run: async ({ path, tell }) => {
    const at = (name: string): string => join(path, name)
    data(at)
    await asynchronous(at)
    names(at, path)
    attributes(at)
    throughMounts(at, path)
    // Another process, another directory, a program that is none of ours.
    execFileSync('sh', [
      '-c',
      'cd "$0" && echo "by name" >shell && mv shell "shell ü %" && dd if=/dev/zero of=direct bs=4096 count=2 conv=fsync 2>/dev/null && fallocate -l 3000 allocated && cp --reflink=auto direct copied && truncate -s 100 copied && fallocate -p -o 10 -l 20 "shell ü %"',
      path,
    ])
    tell.durable('all', 'done')
  },
  check: async () => [],
}

type At = (name: string) => string

function data(at: At): void {
  const fd = openSync(at('data'), 'w+')
  writeSync(fd, 'one')
  writeSync(fd, 'two', 10)
  writevSync(fd, [Buffer.from('three'), Buffer.from('four')])
  writevSync(fd, [Buffer.from('five'), Buffer.from('six')], 5000)
  ftruncateSync(fd, 9000)
  fdatasyncSync(fd)
  ftruncateSync(fd, 4000)
  writeSync(fd, Buffer.alloc(3000, 'x'), 0, 3000, 6000)
  fsyncSync(fd)
  closeSync(fd)
  appendFileSync(at('data'), 'end')
  appendFileSync(at('data'), 'of it')
  copyFileSync(at('data'), at('copy'))
  truncateSync(at('copy'), 50)
  writeFileSync(at('old/file'), 'after')
}

async function asynchronous(at: At): Promise<void> {
  await Promise.all(['p', 'q', 'r', 's'].map((name) => appendFile(at(name), name.repeat(70_000))))
  await copyFile(at('p'), at('t'))
  const file = await open(at('u'), 'w')
  await Promise.all([file.write('aaaa', 0), file.write('bbbb', 10_000), file.sync()])
  await file.close()
}

function names(at: At, path: string): void {
  mkdirSync(at('d/e/f'), { recursive: true })
  renameSync(at('p'), at('d/p'))
  renameSync(at('q'), at('r'))
  linkSync(at('d/p'), at('d/e/linked'))
  symlinkSync('nowhere', at('d/symlink'))
  unlinkSync(at('d/p'))
  renameSync(at('d/e'), at('e'))
  rmdirSync(at('e/f'))
  writeFileSync(at('x'), 'x')
  const fd = openSync(path, DIRECTORY)
  renameat2(fd, 'x', fd, 'd', RENAME_EXCHANGE)
  symlinkat('target', fd, Buffer.from([0xff, 0x20, 0x41]))
  mkdirat(fd, 'made', 0o700)
  writeFileSync(`/proc/self/fd/${fd}/made/here`, 'by descriptor')
  unlinkat(fd, 's')
  fsyncSync(fd)
  closeSync(fd)
  const gone = openSync(at('gone'), 'w')
  unlinkSync(at('gone'))
  writeSync(gone, 'to a file without a name')
  writeFileSync(at('next'), 'may have its inode')
  closeSync(gone)
  if (process.getuid?.() === 0) mknodat(AT_FDCWD, at('device'), 0o020644, 0n)
}

function attributes(at: At): void {
  chmodSync(at('r'), 0o750)
  setXattr(at('r'), 'user.one', Buffer.from('1'))
  setXattr(at('r'), 'user.two', Buffer.from([0, 255]))
  removeXattr(at('old/file'), 'user.old')
  utimesSync(at('r'), 1e9, 1e9)
  lutimesSync(at('made'), 5, 5)
  setTimes(AT_FDCWD, at('r'), { mtime: 12_345_678_901n })
  const fd = openSync(at('r'), 'r')
  fchmodSync(fd, 0o600)
  closeSync(fd)
}

/** Only root can mount; then what is written to an overlay is seen in its upper. */
function throughMounts(at: At, path: string): void {
  if (process.getuid?.() !== 0) return
  const root = openLayersDirectory(path)
  const inside = (name: string): number => openat2(root, name, { flags: DIRECTORY })
  for (const name of ['lower', 'upper', 'work']) mkdirSync(at(name))
  writeFileSync(at('lower/hidden'), 'hidden')
  const layers = { lower: inside('lower'), upper: inside('upper'), work: inside('work') }
  const mount = mountOverlay({ lowers: [layers.lower], upper: { upper: layers.upper, work: layers.work } })
  const shown = `/proc/self/fd/${mount}`
  writeFileSync(join(shown, 'new'), 'new')
  mkdirSync(join(shown, 'directory'))
  writeFileSync(join(shown, 'directory/in'), 'in')
  renameSync(join(shown, 'new'), join(shown, 'directory/moved'))
  unlinkSync(join(shown, 'hidden'))
  closeSync(mount)
  for (const fd of [...Object.values(layers), root]) closeSync(fd)
  execFileSync('rm', ['-r', at('work')])
}
