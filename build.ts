/**
 * Bundles cli/index.ts into dist/: a small main file, one chunk for each command and for what is loaded late (undici,
 * log-update). `node build.ts`; runs as the package's `prepare` script.
 *
 * - The native part of koffi stays in node_modules: linux/libc.ts opens it by its path.
 * - Node's own modules are fetched by `process.getBuiltinModule`. An ESM import of one reads all its exports, lazy ones
 *   too, which loads promises, streams and more (docs/decisions/2026-11-24-command-line.md).
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { join } from 'node:path'
import { build as esbuild, type Plugin } from 'esbuild'

const root = import.meta.dirname
const dist = join(root, 'dist')

/** Imports of Node's modules stay as they are, for `fetchBuiltins`; packages that `require` them get a module that fetches. */
const builtins: Plugin = {
  name: 'builtins',
  setup(build) {
    const known = new Set(builtinModules)
    build.onResolve({ filter: /^[a-z0-9_/:]+$/ }, ({ path, kind }) => {
      const name = path.replace(/^node:/, '')
      if (!path.startsWith('node:') && !known.has(name)) return undefined
      if (kind !== 'require-call') return { path: `node:${name}`, external: true }
      return { path: `node:${name}`, namespace: 'builtin' }
    })
    build.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = ${getBuiltin(path)}`,
      loader: 'js',
    }))
  },
}

/** esbuild writes each import on a line of its own; bindings of builtins never change, so constants do. */
function fetchBuiltins(code: string): string {
  return code
    .replaceAll(
      /^import (?:\{(.*)\}|\* as (\S+)|(\S+)) from "(node:[^"]+)";$/gm,
      (line, named, all, whole, name) => {
        const bindings: unknown = named === undefined ? (all ?? whole) : `{${named.replaceAll(' as ', ': ')}}`
        return typeof bindings === 'string' ? `const ${bindings} = ${getBuiltin(name)};` : line
      },
    )
    .replaceAll(/\bimport\("(node:[^"]+)"\)/g, (_, name: string) => `Promise.resolve(${getBuiltin(name)})`)
}

function getBuiltin(name: string): string {
  return `process.getBuiltinModule(${JSON.stringify(name)})`
}

const { outputFiles } = await esbuild({
  absWorkingDir: root,
  entryPoints: { tbuild: 'cli/index.ts' },
  outdir: dist,
  write: false,
  bundle: true,
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: 'node24',
  // No more than syntax: a stack in a report can be read.
  minifySyntax: true,
  legalComments: 'none',
  chunkNames: '[name]-[hash]',
  plugins: [builtins],
  logLevel: 'warning',
})
rmSync(dist, { recursive: true, force: true })
mkdirSync(dist)
for (const { path, text } of outputFiles) writeFileSync(path, fetchBuiltins(text))
// Fills dist/compile-cache, for those who may only read it. Not worth a failure.
for (const args of [['version'], ['build', '--help']])
  spawnSync(process.execPath, [join(dist, 'tbuild.js'), ...args])
