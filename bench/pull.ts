/** Pull and mount of an image of 400 MB from a registry on loopback. Bound: the same bytes through curl, gunzip and sha256. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { startRegistry } from '../test/support/registry.ts'
import { facts, run, table, time, withBench, type Row } from './measure.ts'
import { peers } from './peers.ts'

const FILES = 20_000
const SIZE = 20_000

await withBench(async (bench) => {
  await using registry = await startRegistry()
  const context = join(bench.directory, 'context')
  // Half of each file can be compressed, as program files can.
  const text = Buffer.alloc(SIZE / 2, 'what a program is made of; ')
  for (let file = 0; file < FILES; file++) {
    const directory = join(context, 'tree', String(file % 200))
    if (file < 200) mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, `file-${file}`), Buffer.concat([randomBytes(SIZE / 2), text]))
  }
  writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nCOPY tree /tree\n')
  const name = `${registry.host}/pull:1`
  bench.tbuild('build', '-t', name, context)
  bench.tbuild('push', name)
  const answer = await fetch(`http://${registry.host}/v2/pull/manifests/1`, {
    headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
  })
  const blobs = (await answer.json()) as { layers: { digest: string; size: number }[] }
  const largest = blobs.layers.toSorted((a, b) => b.size - a.size)[0]?.digest ?? ''
  const url = `http://${registry.host}/v2/pull/blobs/${largest}`
  const fresh = join(bench.directory, 'fresh')
  const pullAndRun = (): void => {
    bench.tbuild('pull', '--store', fresh, name)
    bench.tbuild('run', '--store', fresh, name, 'true')
  }
  const empty = (): void => rmSync(fresh, { recursive: true, force: true })
  const bound = (hash: string) => () => run('sh', '-c', `curl -s ${url} | gunzip | ${hash}`)
  const rows: Row[] = [{ what: 'tbuild pull and run', time: time(3, pullAndRun, empty) }]
  for await (const peer of peers(bench)) {
    const theirs = (): void => {
      peer.pull(name)
      peer.run(name)
    }
    rows.push({ what: `${peer.name} pull and run`, time: time(1, theirs, () => peer.empty()) })
  }
  rows.push({ what: 'curl | gunzip | openssl dgst -sha256', time: time(3, bound('openssl dgst -sha256')) })
  rows.push({ what: 'bound: curl | gunzip | sha256sum', time: time(3, bound('sha256sum')) })
  table(`pull and mount of ${FILES.toLocaleString('en')} files, ${(FILES * SIZE) / 1e6} MB`, rows)
  empty()
  facts('syncs of the disk (fsync, fdatasync)', [
    ['pull', String(bench.countSyncs('pull', '--store', fresh, name))],
  ])
})
