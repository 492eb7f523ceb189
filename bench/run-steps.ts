/** 40 small RUN steps, from nothing. Bound: as many processes in fresh namespaces (unshare(1)), which write the same files. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run, table, time, withBench, type Row } from './measure.ts'
import { peers } from './peers.ts'

const STEPS = 40

await withBench(async (bench) => {
  const context = join(bench.directory, 'context')
  mkdirSync(context)
  const steps = Array.from({ length: STEPS }, (_, step) => `RUN echo ${step} > /${step}\n`).join('')
  writeFileSync(join(context, 'Dockerfile'), `FROM localhost/base\n${steps}`)
  const rows: Row[] = [
    { what: 'tbuild', time: time(5, () => bench.tbuild('build', '--no-cache', '-t', 'steps', context)) },
  ]
  for await (const peer of peers(bench)) {
    rows.push({ what: peer.name, time: time(1, () => peer.build('--no-cache', '-t', 'steps', context)) })
  }
  const files = join(bench.directory, 'files')
  mkdirSync(files)
  const bound = (): void => {
    for (let step = 0; step < STEPS; step++)
      run('unshare', '-mpiunf', '/bin/busybox', 'sh', '-c', `echo ${step} > ${files}/${step}`)
  }
  rows.push({ what: 'bound: unshare -mpiunf, 40 times', time: time(5, bound) })
  table(`${STEPS} small RUN steps, nothing cached`, rows)
  console.log(`tbuild: ${((rows[0]?.time.least ?? 0) / STEPS).toFixed(1)} ms a step`)
})
