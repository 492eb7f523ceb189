import { execFileSync } from 'node:child_process'
import { globSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')
const SOURCES = '{cli,builder,registry,runtime,cas,dockerfile-parser,linux}/**/*.ts'

/** The path of `bin/tbuild`, over a bundle that is as new as the sources. */
export function freshCommand(): string {
  const built = statSync(join(root, 'dist/tbuild.js'), { throwIfNoEntry: false })?.mtimeMs ?? 0
  const sources = globSync([SOURCES, '*.ts'], { cwd: root }).filter((path) => !path.endsWith('.test.ts'))
  const isStale = sources.some((path) => statSync(join(root, path)).mtimeMs > built)
  if (isStale)
    execFileSync(process.execPath, [join(root, 'build.ts')], { stdio: ['ignore', 'ignore', 'pipe'] })
  return join(root, 'bin/tbuild')
}
