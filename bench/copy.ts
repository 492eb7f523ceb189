/** COPY of 30,000 files of 10 KB. Bound: the same files through tar and sha256. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { facts, run, table, time, withBench, type Row } from './measure.ts'
import { peers } from './peers.ts'

const FILES = 30_000
const SIZE = 10_000

await withBench(async (bench) => {
  const context = join(bench.directory, 'context')
  for (let file = 0; file < FILES; file++) {
    const directory = join(context, 'tree', String(file % 300))
    if (file < 300) mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `file-${file}`), randomBytes(SIZE))
  }
  writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nCOPY tree /tree\n')
  const build = (): void => bench.tbuild('build', '-t', 'copy', context)
  let marker = 0
  const changeAt = (path: string): void =>
    writeFileSync(join(context, path), `${marker++}${'x'.repeat(SIZE)}`)
  // Nine tenths of the tar come before it.
  const change = (): void => changeAt('tree/7/file-7')
  const bound = (hash: string) => () => run('sh', '-c', `tar -C "$0" -cf - . | ${hash}`, context)
  const fresh = (): void => bench.fresh()
  const rows: Row[] = [
    { what: 'tbuild, all new', time: time(3, build, fresh) },
    { what: 'tbuild, one file changed', time: time(3, build, change) },
    { what: 'tbuild, the first file changed', time: time(3, build, () => changeAt('tree/0/file-0')) },
    { what: 'tbuild, nothing changed', time: time(3, build) },
  ]
  const syncs = (): string => String(bench.countSyncs('build', '-t', 'copy', context))
  facts('syncs of the disk (fsync, fdatasync)', [
    ['COPY, all new', (fresh(), syncs())],
    ['COPY, one file changed', (change(), syncs())],
    ['COPY, the first file changed', (changeAt('tree/0/file-0'), syncs())],
    ['COPY, nothing changed', syncs()],
  ])
  for await (const peer of peers(bench)) {
    const theirs = (): void => peer.build('-t', 'copy', context)
    rows.push({ what: `${peer.name}, all new`, time: time(1, theirs) })
    rows.push({ what: `${peer.name}, one file changed`, time: time(1, theirs, change) })
    rows.push({ what: `${peer.name}, nothing changed`, time: time(1, theirs) })
  }
  rows.push({ what: 'tar | sha256sum', time: time(3, bound('sha256sum')) })
  rows.push({ what: 'bound: tar | openssl dgst -sha256', time: time(3, bound('openssl dgst -sha256')) })
  table(`COPY of ${FILES.toLocaleString('en')} files, ${(FILES * SIZE) / 1e6} MB`, rows)
})
