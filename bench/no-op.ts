/** A build in which nothing has changed: 12 steps in three stages, all cached. Bound: `node -e 0`, tbuild's own Node. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { run, table, time, withBench, type Row } from './measure.ts'
import { peers } from './peers.ts'

await withBench(async (bench) => {
  const context = join(bench.directory, 'context')
  mkdirSync(join(context, 'src'), { recursive: true })
  for (let file = 0; file < 20; file++)
    writeFileSync(join(context, 'src', `${file}.c`), `int f${file};\n`.repeat(200))
  writeFileSync(
    join(context, 'Dockerfile'),
    `FROM localhost/base AS build
WORKDIR /src
COPY src ./
RUN cat *.c > all && wc all
FROM localhost/base AS docs
COPY src /docs
RUN ls /docs > /index
FROM localhost/base
COPY --from=build /src/all /app/
COPY --from=docs /index /app/
RUN sha256sum /app/* > /sums
ENV A=1
CMD ["cat", "/sums"]
`,
  )
  const build = (): void => bench.tbuild('build', '-t', 'noop', context)
  build()
  const rows: Row[] = [{ what: 'tbuild', time: time(20, build) }]
  for await (const peer of peers(bench)) {
    const theirs = (): void => peer.build('-t', 'noop', context)
    theirs()
    rows.push({ what: peer.name, time: time(3, theirs) })
  }
  rows.push({ what: 'bound: node -e 0', time: time(20, () => run(process.execPath, '-e', '0')) })
  table('No-op rebuild, 12 steps', rows)
})
