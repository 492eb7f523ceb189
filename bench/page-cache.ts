/** Fifty containers on one image: what the page cache holds of a file that all of them read. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { readFileSync, writeFileSync, mkdirSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { facts, megabytes, withBench } from './measure.ts'

const CONTAINERS = 50
const SIZE = 100_000_000

await withBench(async (bench) => {
  const context = join(bench.directory, 'context')
  mkdirSync(context)
  writeFileSync(join(context, 'big'), randomBytes(SIZE))
  writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nCOPY big /big\n')
  bench.tbuild('build', '-t', 'cached', context)
  const command = join(import.meta.dirname, '../bin/tbuild')
  const start = (): Promise<ChildProcess> =>
    new Promise((resolve, reject) => {
      const args = [
        'run',
        '--store',
        bench.store,
        'cached',
        'sh',
        '-c',
        // The first process of a container hears only those signals that it asks for.
        'cat /big > /dev/null; trap exit TERM; echo read; sleep 600 & wait',
      ]
      const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
      child.stdout.once('data', () => resolve(child))
      child.once('error', reject)
    })
  dropCaches()
  const before = cached()
  const children = [await start()]
  const one = cached() - before
  while (children.length < CONTAINERS) children.push(await start())
  const all = cached() - before
  facts(`${CONTAINERS} containers that have each read one file of ${megabytes(SIZE)}`, [
    ['Cached in /proc/meminfo grew by, with one', megabytes(one)],
    [`with all ${CONTAINERS}`, megabytes(all)],
    ['a further container', megabytes((all - one) / (CONTAINERS - 1))],
  ])
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(children.map((child) => new Promise((resolve) => void child.once('exit', resolve))))
  facts('syncs of the disk (fsync, fdatasync)', [
    ['a container', String(bench.countSyncs('run', 'cached', 'true'))],
  ])
})

function dropCaches(): void {
  execFileSync('sync')
  writeFileSync('/proc/sys/vm/drop_caches', '3')
}

/** Bytes. */
function cached(): number {
  return Number(/^Cached:\s+(\d+) kB/m.exec(readFileSync('/proc/meminfo', 'latin1'))?.[1]) * 1024
}
