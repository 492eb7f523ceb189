/** Memory of an ingest: one file of 5 GB, and a million files. */
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { facts, megabytes, withBench } from './measure.ts'

const FILES = 1_000_000

await withBench((bench) => {
  const { directory, store } = bench
  const peak = (...args: readonly string[]): number => {
    const command = [join(import.meta.dirname, '../bin/tbuild'), ...args, '--store', store]
    const { stderr, status } = spawnSync('/usr/bin/time', ['-f', 'peak %M', ...command], { encoding: 'utf8' })
    if (status !== 0) throw new Error(stderr)
    return Number(/peak (\d+)/.exec(stderr)?.[1]) * 1024
  }
  const small = join(directory, 'small.tar')
  writeTar(small, 1, 10)
  const least = peak('import', small, 'small')
  const big = join(directory, 'big.tar')
  writeTar(big, 1, 5_000_000_000)
  const five = peak('import', big, 'big')
  const context = join(directory, 'many')
  mkdirSync(context)
  const many = join(directory, 'many.tar')
  writeTar(many, FILES, 0)
  const million = peak('import', many, 'many')
  facts('peak resident memory of tbuild import', [
    ['one file of 10 bytes', megabytes(least)],
    ['one file of 5 GB', megabytes(five)],
    [`${FILES.toLocaleString('en')} files`, megabytes(million)],
    ['  bytes an entry, over the smallest', String(Math.round((million - least) / FILES))],
  ])
  bench.fresh()
  facts('syncs of the disk (fsync, fdatasync)', [
    ['one file of 5 GB', String(bench.countSyncs('import', big, 'big'))],
    [`${FILES.toLocaleString('en')} files`, String(bench.countSyncs('import', many, 'many'))],
  ])
  writeFileSync(join(directory, 'done'), '')
})

/** `count` files of `size` bytes, in directories of a thousand. Each of the many has a few bytes of its own. */
function writeTar(path: string, count: number, size: number): void {
  const fd = openSync(path, 'w')
  const part = randomBytes(1_000_000)
  try {
    const blocks: Buffer[] = []
    for (let file = 0; file < count; file++) {
      const contents = count > 1 ? Buffer.from(`contents of ${file}`) : undefined
      blocks.push(header(`d${Math.floor(file / 1000)}/file-${file}`, contents?.length ?? size))
      if (contents !== undefined) blocks.push(padded(contents))
      if (blocks.length > 1000) writeSync(fd, Buffer.concat(blocks.splice(0)))
    }
    writeSync(fd, Buffer.concat(blocks))
    if (count === 1)
      for (let at = 0; at < size; at += part.length) writeSync(fd, part, 0, Math.min(part.length, size - at))
    writeSync(fd, Buffer.alloc(1024 + ((512 - (size % 512)) % 512)))
  } finally {
    closeSync(fd)
  }
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])
}

function header(name: string, size: number): Buffer {
  const block = Buffer.alloc(512)
  block.write(name)
  block.write('0000644\0' + '0000000\0'.repeat(2), 100)
  block.write(`${size.toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0        0`, 124)
  block.write('ustar\x0000', 257)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}
