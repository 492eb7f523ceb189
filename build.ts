/**
 * Bundles cli/index.ts into dist/: a small main file, core.js with what a build needs, one chunk for each command and for what is
 * loaded late (undici, log-update), and the hash thread. `node build.ts`; runs as the package's `prepare` script.
 *
 * - The native part of koffi stays in node_modules: linux/libc.ts opens it by its path.
 * - Node's own modules are fetched by `process.getBuiltinModule`. An ESM import of one reads all its exports, lazy ones
 *   too, which loads promises, streams and more (docs/decisions/2026-11-24-command-line.md).
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { basename, dirname, join, resolve } from 'node:path'
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

/**
 * An import from a folder's face becomes one from the file that the face names: esbuild gives all that a face names to
 * whoever imports it, so that a build would load what only `save` needs.
 */
const faces: Plugin = {
  name: 'faces',
  setup(build) {
    build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const contents = readFileSync(path, 'utf8').replaceAll(
        /^import \{([^}]*)\} from '(\.[^']*\/index\.ts)'$/gm,
        (_, names: string, face: string) => {
          const imports = bindings(names).map(({ name, as }) => {
            const [file, original] = behind(resolve(dirname(path), face), name)
            return `import { ${original} as ${as} } from '${file}'`
          })
          return imports.join(';')
        },
      )
      return { contents, loader: 'ts' }
    })
  },
}

/** The file that a face takes a name from, and the name there; the face itself when the name is its own. */
function behind(face: string, name: string): readonly [file: string, name: string] {
  const exports = readFileSync(face, 'utf8').matchAll(/^export \{([^}]*)\} from '(\.[^']*)'$/gm)
  for (const [, names = '', file = ''] of exports) {
    const found = bindings(names).find(({ as }) => as === name)
    if (found === undefined) continue
    const path = resolve(dirname(face), file)
    return path.endsWith('/index.ts') ? behind(path, found.name) : [path, found.name]
  }
  return [face, name]
}

/** `a, type B, c as d`, without the types. */
function bindings(list: string): { readonly name: string; readonly as: string }[] {
  return list
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '' && !item.startsWith('type '))
    .map((item) => {
      const [name = '', as = name] = item.split(' as ')
      return { name, as }
    })
}

/** esbuild writes each import on a line of its own; bindings of builtins never change, so constants do. */
function fetchBuiltins(code: string): string {
  return code
    .replaceAll(
      /^import (?:\{([^}]*)\}|\* as (\S+)|(\S+)) from "(node:[^"]+)";$/gm,
      (_, named: string | undefined, all: string | undefined, whole: string | undefined, name: string) => {
        const target = named === undefined ? (all ?? whole) : `{${named.replaceAll(' as ', ': ')}}`
        return `const ${target} = ${getBuiltin(name)};`
      },
    )
    .replaceAll(/\bimport\("(node:[^"]+)"\)/g, (_, name: string) => `Promise.resolve(${getBuiltin(name)})`)
}

function getBuiltin(name: string): string {
  return `process.getBuiltinModule(${JSON.stringify(name)})`
}

const { outputFiles, metafile } = await esbuild({
  absWorkingDir: root,
  entryPoints: { tbuild: 'cli/index.ts', 'hash-thread': 'cas/hashing/worker.ts' },
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
  plugins: [builtins, faces],
  logLevel: 'warning',
  metafile: true,
})

/** Of each file its parts and what it exports, by its name in dist/. */
const outputs = new Map(Object.entries(metafile.outputs).map(([path, output]) => [basename(path), output]))

/** A file and all that it imports, but for what is imported late. */
function closure(entry: string, seen = new Set<string>()): Set<string> {
  const name = [...outputs].find(([, { entryPoint }]) => entryPoint === entry)?.[0] ?? entry
  if (seen.has(name)) return seen
  seen.add(name)
  for (const { path, kind } of outputs.get(name)?.imports ?? [])
    if (kind === 'import-statement' && outputs.has(basename(path))) closure(basename(path), seen)
  return seen
}

/**
 * Makes one file, core.js, of the sixty that `tbuild build` imports: each costs 0.2 ms to find and to link. What a command that does nothing
 * needs, or the hash thread, stays apart, and so does what is imported late. What the others take from them they take from core.js.
 */
async function joinCore(files: ReadonlyMap<string, string>): Promise<Map<string, string>> {
  const small = ['cli/main.ts', 'cli/commands/version.ts', 'cas/hashing/worker.ts']
  const common = new Set(small.flatMap((entry) => [...closure(entry)]))
  const parts = [...closure('cli/commands/build.ts')].filter((name) => !common.has(name))
  const everything = parts.map((name, part) => {
    const names = outputs.get(name)?.exports.map((exported) => `${exported} as ${inCore(part, exported)}`)
    return `export { ${names?.join(', ')} } from './${name}'`
  })
  const memory: Plugin = {
    name: 'memory',
    setup(build) {
      build.onResolve({ filter: /.*/, namespace: 'part' }, resolvePart)
      build.onResolve({ filter: /^\.\// }, resolvePart)
      build.onLoad({ filter: /.*/, namespace: 'part' }, ({ path }) => ({ contents: files.get(path) ?? '' }))
    },
  }
  const resolvePart = ({ path, kind }: { path: string; kind: string }) =>
    kind !== 'dynamic-import' && parts.includes(basename(path))
      ? { path: basename(path), namespace: 'part' }
      : { path, external: true }
  const {
    outputFiles: [core],
  } = await esbuild({
    stdin: { contents: everything.join('\n'), resolveDir: dist },
    write: false,
    bundle: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    legalComments: 'none',
    plugins: [memory],
    logLevel: 'warning',
  })
  const joined = new Map([['core.js', core?.text ?? '']])
  for (const [name, text] of files) {
    const part = parts.indexOf(name)
    if (part < 0) joined.set(name, takeFromCore(text, parts))
    else if (outputs.get(name)?.entryPoint !== undefined) {
      // Also imported late, by its name.
      const names = outputs.get(name)?.exports.map((exported) => `${inCore(part, exported)} as ${exported}`)
      joined.set(name, `export { ${names?.join(', ')} } from './core.js'\n`)
    }
  }
  return joined
}

/** Names of two parts may be the same. */
function inCore(part: number, name: string): string {
  return `${name}_${part}`
}

function takeFromCore(text: string, parts: readonly string[]): string {
  return text.replaceAll(
    /^import (?:\{([^}]*)\} from )?"\.\/([^"]+)";$/gm,
    (statement: string, names: string | undefined, file: string) => {
      const part = parts.indexOf(file)
      if (part < 0) return statement
      const taken = bindings(names ?? '').map(({ name, as }) => `${inCore(part, name)} as ${as}`)
      return `import { ${taken.join(', ')} } from "./core.js";`
    },
  )
}

const files = await joinCore(
  new Map(outputFiles.map(({ path, text }) => [basename(path), fetchBuiltins(text)])),
)
// Written elsewhere and moved: a tbuild that starts meanwhile finds the old bundle or the new one.
const partial = `${dist}.partial-${process.pid}`
const old = `${dist}.old-${process.pid}`
mkdirSync(partial)
for (const [name, text] of files) writeFileSync(join(partial, name), text)
if (existsSync(dist)) renameSync(dist, old)
renameSync(partial, dist)
rmSync(old, { recursive: true, force: true })
// Fills dist/compile-cache, for those who may only read it. Not worth a failure.
for (const args of [['version'], ['build', '--help']])
  spawnSync(process.execPath, [join(dist, 'tbuild.js'), ...args])
