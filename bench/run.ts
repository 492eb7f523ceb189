/**
 * From `tbuild run` to the command's end. Bounds: `node -e 0`, and a process in fresh namespaces. buildah, which has no command for both, gets its
 * container before.
 */
import { run, table, time, withBench, type Row } from './measure.ts'
import { peers } from './peers.ts'

await withBench(async (bench) => {
  const rows: Row[] = [
    { what: 'tbuild run', time: time(20, () => bench.tbuild('run', '--network', 'none', 'localhost/base')) },
  ]
  for await (const peer of peers(bench)) {
    const theirs = (): void => peer.run('localhost/base')
    theirs()
    rows.push({ what: `${peer.name} run`, time: time(5, theirs) })
  }
  rows.push({ what: 'node -e 0', time: time(20, () => run(process.execPath, '-e', '0')) })
  rows.push({
    what: 'bound: unshare -mpiunf true',
    time: time(20, () => run('unshare', '-mpiunf', '/bin/busybox', 'true')),
  })
  table('tbuild run', rows)
})
