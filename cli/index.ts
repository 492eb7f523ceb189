/**
 * The `tbuild` command. `commands/` holds one file for each command, loaded when it is called; `arguments/` reads the command
 * line by a command's own table and prints `--help` from it; `progress/` shows a build while it runs. Results go to
 * stdout, everything said on the way to stderr.
 *
 * May import every folder's index, those that cost time by `import()`: docs/decisions/2026-11-24-command-line.md.
 */
import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'

// The bundle keeps its compiled code beside itself (build.ts makes it; where that is read-only it is only read). Never in
// a shared temporary directory, where others could leave code for us.
if (import.meta.url.endsWith('.js'))
  enableCompileCache(fileURLToPath(new URL('compile-cache', import.meta.url)))
const { main } = await import('./main.ts')
process.exitCode = await main(process.argv.slice(2))
