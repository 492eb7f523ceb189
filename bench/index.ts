/**
 * Benchmarks: each file alone (`node bench/no-op.ts`), or all of them by this one. Each prints a table: what tbuild takes, what the peers take that
 * Debian has (buildah, and BuildKit in docker), the physical bound of the work, measured in the same run, and the ratios; or figures that are no times.
 * Figures of record are in docs/benchmarks.md.
 *
 * Needs root, the bundle (npm run build), busybox-static, openssl, strace, curl, time, docker-registry, apache2-utils, mmdebstrap; for the peers buildah
 * and runc, and docker.io: without them all else is measured. The last one, `releases`, needs npm and network as well, and comes when all that is timed is done.
 * 20 GB of scratch space. What is measured is the installed command: of tbuild's files only those of test/support are imported that start a registry and docker;
 * `parser`, which no command shows alone, says so.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

const NAMES = [
  'no-op',
  'run-steps',
  'copy',
  'run',
  'pull',
  'sharing',
  'page-cache',
  'memory',
  'parser',
  'releases',
]

const failed = NAMES.filter((name) => {
  console.log(`\n== ${name}`)
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, `${name}.ts`)], {
    stdio: 'inherit',
  })
  return status !== 0
})
if (failed.length > 0) {
  console.error(`\nnot measured: ${failed.join(', ')}`)
  process.exitCode = 1
}
