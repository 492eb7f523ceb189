/**
 * Bundles cli/index.ts into dist/: a small main file, one chunk for each command and for what is loaded late (undici,
 * log-update, arborist). `node build.ts`; runs as the package's `prepare` script.
 *
 * - The native part of koffi stays in node_modules: linux/libc.ts opens it by its path.
 * - Node's own modules are fetched by `process.getBuiltinModule`. An ESM import of one reads all its exports, lazy ones
 *   too, which loads promises, streams and more (docs/decisions/2026-11-24-command-line.md).
 * - A file that is started by `new Worker(new URL('./x.ts', import.meta.url))` becomes an entry of its own.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { basename, dirname, join, relative, resolve } from 'node:path'
import { build as esbuild, type Plugin } from 'esbuild'

const root = import.meta.dirname
const dist = join(root, 'dist')
const SOURCES = ['cli', 'builder', 'registry', 'runtime', 'cas', 'dockerfile-parser', 'linux']

const builtins: Plugin = {
  name: 'builtins',
  setup(build) {
    const known = new Set(builtinModules)
    build.onResolve({ filter: /^[a-z_/:]+$/ }, ({ path }) => {
      const name = path.replace(/^node:/, '')
      if (!path.startsWith('node:') && !known.has(name)) return undefined
      return { path: `node:${name}`, namespace: 'builtin', sideEffects: false }
    })
    build.onLoad({ filter: /.*/, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)})`,
      loader: 'js',
    }))
  },
}

/** `new URL('./x.ts', import.meta.url)` in our sources: the bundle has `x.js` beside its chunks. */
const WORKER = /new URL\('(\.{1,2}\/[^']+)\.ts', import\.meta\.url\)/g

const workers: Plugin = {
  name: 'workers',
  setup(build) {
    build.onLoad({ filter: new RegExp(`^${root}/(?:${SOURCES.join('|')})/.*\\.ts$`) }, ({ path }) => {
      const contents = readFileSync(path, 'utf8').replaceAll(
        WORKER,
        (_, name: string) => `new URL('./${basename(name)}.js', import.meta.url)`,
      )
      return { contents, loader: 'ts' }
    })
  },
}

/** The sources that `WORKER` names. */
function workerEntries(files: readonly string[]): string[] {
  return files.flatMap((file) => {
    const path = resolve(root, file)
    const names = [...readFileSync(path, 'utf8').matchAll(WORKER)].map((match) => match[1])
    return names.map((name) => relative(root, join(dirname(path), `${name}.ts`)))
  })
}

async function bundle(entries: readonly string[]): Promise<readonly string[]> {
  const { metafile } = await esbuild({
    absWorkingDir: root,
    entryPoints: entries.map((path) => ({
      in: path,
      out: path === 'cli/index.ts' ? 'tbuild' : basename(path, '.ts'),
    })),
    outdir: dist,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    // Identifiers are left alone, so that a stack in a report can be read.
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    chunkNames: '[name]-[hash]',
    plugins: [builtins, workers],
    logLevel: 'warning',
    metafile: true,
  })
  return Object.keys(metafile.inputs).filter((path) => path.endsWith('.ts') && !path.includes('node_modules'))
}

rmSync(dist, { recursive: true, force: true })
mkdirSync(dist)
const inputs = await bundle(['cli/index.ts'])
const found = workerEntries(inputs)
if (found.length > 0) {
  rmSync(dist, { recursive: true })
  await bundle(['cli/index.ts', ...new Set(found)])
}
// Fills dist/compile-cache, for those who may only read it. Not worth a failure.
for (const args of [['version'], ['build', '--help']])
  spawnSync(process.execPath, [join(dist, 'tbuild.js'), ...args])
