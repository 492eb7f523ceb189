/**
 * `--build-context`: what stands in for names of the Dockerfile. A name is compared as an image's (`alpine`, `alpine:latest` and
 * `docker.io/library/alpine` are one), and stands for a stage of that name, for a FROM, and for what `--from` names. Looked at only when it is asked for.
 */
import { closeSync, constants, openSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../errors.ts'
import { bytesOf, openTree, resolveInTree, show, type Image, type Store } from '../cas/index.ts'
import { familiarReference, formatReference, parseReference } from '../registry/index.ts'
import { contextAddress } from './fetch/address.ts'
import { parseGitSource } from './fetch/git.ts'
import type { Progress } from './solve/observer.ts'

/** Where COPY takes files from, apart from the build context. */
export interface ContextDirectory {
  /** Of `--build-context`, as it was given. */
  readonly name: string
  readonly directory: string
  /** It is of this process's making, and goes with it: it has no ignore file, and what it was is not remembered. */
  readonly isFetched: boolean
}

export type NamedContext =
  | { readonly kind: 'directory'; readonly directory: ContextDirectory }
  | { readonly kind: 'image'; readonly image: Image; readonly name: string }
  | { readonly kind: 'scratch' }

export type ContextFinder = (name: string) => Promise<NamedContext | undefined>

export interface ContextOptions {
  readonly store: Store
  readonly progress: Progress
  readonly signal: AbortSignal | undefined
  readonly findImage: (name: string) => Promise<Image>
}

/**
 * Each context is brought here once. Throws `CONTEXT_NAME`; what it returns throws `CONTEXT_INVALID`, and what fetching, pulling and loading throw.
 */
export function createContextFinder(
  given: ReadonlyMap<string, string>,
  options: ContextOptions,
): ContextFinder {
  const known = new Map<string, { readonly name: string; readonly where: string }>()
  for (const [name, where] of given) known.set(canonicalName(name), { name, where })
  const found = new Map<string, Promise<NamedContext>>()
  return async (name) => {
    if (known.size === 0) return undefined
    const key = canonical(name)
    const wanted = key === undefined ? undefined : known.get(key)
    if (key === undefined || wanted === undefined) return undefined
    let context = found.get(key)
    if (context === undefined) {
      context = bring(wanted.name, wanted.where, options)
      found.set(key, context)
    }
    return context
  }
}

/** The ways in which a Dockerfile may write these names. */
export function contextSpellings(names: Iterable<string>): ReadonlySet<string> {
  const spellings = new Set<string>()
  for (const name of names) {
    const whole = canonicalName(name)
    const short = familiarReference(whole)
    for (const one of [name, whole, short]) spellings.add(one).add(one.replace(/:latest$/, ''))
  }
  return spellings
}

function canonicalName(name: string): string {
  const key = canonical(name)
  if (key !== undefined) return key
  throw new TbuildError('CONTEXT_NAME', `${JSON.stringify(name)} cannot be the name of a build context.`, {
    hint: 'it is a name as of an image or a stage: lower case letters, digits, and . _ - / between them',
  })
}

function canonical(name: string): string | undefined {
  try {
    return formatReference(parseReference(name))
  } catch {
    // No name of a context either.
    return undefined
  }
}

async function bring(name: string, where: string, options: ContextOptions): Promise<NamedContext> {
  const [, scheme, rest = ''] = /^(docker-image|oci-layout):\/\/(.*)$/s.exec(where) ?? []
  if (scheme === 'docker-image') {
    if (rest === 'scratch') return { kind: 'scratch' }
    return { kind: 'image', image: await options.findImage(rest), name: rest }
  }
  if (scheme === 'oci-layout') {
    const { loadLayout } = await import('./archive/layout.ts')
    const { store, signal } = options
    const title = `[context ${name}] load ${where}`
    const image = await shown(options, title, () => loadLayout(store, rest, { signal }))
    return { kind: 'image', image, name: where }
  }
  const address = contextAddress(where)
  if (address === undefined)
    return { kind: 'directory', directory: { name, directory: where, isFetched: false } }
  return {
    kind: 'directory',
    directory: { name, directory: await fetched(name, address, options), isFetched: true },
  }
}

/** Of a repository its files; of an http(s) address one file named `context`, unpacked or not: as in BuildKit. */
async function fetched(name: string, address: string, options: ContextOptions): Promise<string> {
  const { fetchGit } = await import('./fetch/context.ts')
  const { fetchFile, shown: withoutPassword } = await import('./fetch/http.ts')
  const signal = options.signal ?? new AbortController().signal
  const directory = options.store.workDirectory('context')
  const git = parseGitSource(address)
  await shown(options, `[context ${name}] ${withoutPassword(address)}`, async () => {
    if (git === undefined) await fetchFile(address, join(directory, 'context'), { signal })
    else await fetchGit(git, directory, signal)
  })
  return git === undefined ? directory : below(directory, git.subdirectory, name)
}

/** Who wrote the repository also wrote its symlinks: they lead nowhere else. */
function below(directory: string, subdirectory: string, name: string): string {
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    using tree = openTree(fd)
    const top = resolveInTree(tree, bytesOf(subdirectory))
    if (top.stats?.isDirectory() === true) return join(directory, show(top.path))
  } finally {
    closeSync(fd)
  }
  throw new TbuildError(
    'CONTEXT_INVALID',
    `The build context ${JSON.stringify(name)} has no directory ${JSON.stringify(subdirectory)}.`,
  )
}

async function shown<T>(
  { progress, signal }: ContextOptions,
  title: string,
  work: () => Promise<T>,
): Promise<T> {
  const { shownAs } = await import('./fetch/context.ts')
  return shownAs(progress, title, signal, work)
}
