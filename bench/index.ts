/**
 * Benchmarks: each file alone (`node bench/no-op.ts`), or all of them by this one. Each prints a table: what tbuild takes, what a peer takes that
 * Debian has (buildah), the physical bound of the work, measured in the same run, and the ratios. Figures of record are in
 * docs/benchmarks.md.
 *
 * Needs root, the bundle (npm run build), buildah, runc, busybox-static, openssl. Imports `measure.ts` only: what is measured is the installed command.
 */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'

for (const name of ['no-op', 'run-steps', 'copy', 'run']) {
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, `${name}.ts`)], {
    stdio: 'inherit',
  })
  if (status !== 0) process.exitCode = 1
}
