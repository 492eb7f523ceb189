/** From `tbuild run` to the command's end. Bounds: `node -e 0`, and a process in fresh namespaces. */
import { run, table, time, withBench, type Row } from './measure.ts'

await withBench((bench) => {
  const rows: Row[] = [
    { what: 'tbuild run', time: time(20, () => bench.tbuild('run', '--network', 'none', 'localhost/base')) },
  ]
  if (bench.hasBuildah) {
    bench.buildah('from', '--name', 'bench', 'localhost/base')
    const options = ['--runtime', 'runc', '--network', 'none']
    const peer = (): void => bench.buildah('run', ...options, 'bench', 'true')
    rows.push({ what: 'buildah run (container made before)', time: time(5, peer) })
  }
  rows.push({ what: 'node -e 0', time: time(20, () => run(process.execPath, '-e', '0')) })
  rows.push({
    what: 'bound: unshare -mpiunf true',
    time: time(20, () => run('unshare', '-mpiunf', '/bin/busybox', 'true')),
  })
  table('tbuild run', rows)
})
