/** What a COPY or ADD takes: the files it names, and their digest for its key. */
import { TbuildError } from '../../errors.ts'
import { openTree, type Intake, type Layer, type Tree } from '../../cas/index.ts'
import { createIgnoreMatcher } from '../../dockerfile-parser/index.ts'
import type { ContextDirectory } from '../contexts.ts'
import type { Excludes } from '../copy/found.ts'
import type { Fetch } from '../fetch/remote.ts'
import { selectSources, type Selected } from '../copy/select.ts'
import { digestSources, type SourceDigest } from '../copy/source.ts'
import type { Taking } from '../plan/types.ts'
import type { SolveContext } from './context.ts'

/** The sources of a step, in a tree that somebody keeps open. */
export interface Sources extends AsyncDisposable {
  readonly selected: readonly Selected[]
  /** What was digested of them, and the contents that were taken in meanwhile. */
  digested?: SourceDigest
  intake?: Intake
}

/** Of the build context. Cheap: nothing is mounted. */
export function contextSources(context: SolveContext, step: Taking): Sources {
  // `COPY <<EOF` alone needs no context.
  const opened = step.patterns.length === 0 ? undefined : context.context(directoryOf(step))
  const sources: Sources = {
    selected: opened === undefined ? [] : select(step, opened.tree, (path) => opened.whyIgnored(path)),
    [Symbol.asyncDispose]: async () => sources.intake?.[Symbol.dispose](),
  }
  return sources
}

/** Of the build context and from addresses: the latter are fetched. */
export async function fetchedSources(
  context: SolveContext,
  step: Taking,
  fetches: ReadonlyMap<string, Fetch>,
): Promise<Sources> {
  const fetched = new Map<string, Selected>()
  // One after the other: the first that fails is the error.
  for (const [pattern, fetch] of fetches) fetched.set(pattern, await fetch.selected())
  const isLocal = step.patterns.some((pattern) => !fetched.has(pattern))
  const opened = isLocal ? context.context(directoryOf(step)) : undefined
  const sources: Sources = {
    selected: select(
      step,
      opened?.tree,
      (path) => opened?.whyIgnored(path),
      (pattern) => fetched.get(pattern),
    ),
    [Symbol.asyncDispose]: async () => {
      sources.intake?.[Symbol.dispose]()
      for (const fetch of fetches.values()) fetch[Symbol.dispose]()
    },
  }
  return sources
}

/** Of other layers, which are mounted until it is disposed. */
export async function layerSources(
  { store }: SolveContext,
  step: Taking,
  layers: readonly Layer[],
): Promise<Sources> {
  const root = await store.layers.mount(layers)
  const tree = openTree(root.fd)
  const dispose = async (): Promise<void> => {
    tree[Symbol.dispose]()
    await root[Symbol.asyncDispose]()
  }
  try {
    const sources: Sources = {
      selected: select(step, tree, () => undefined),
      [Symbol.asyncDispose]: async () => {
        sources.intake?.[Symbol.dispose]()
        await dispose()
      },
    }
    return sources
  } catch (error) {
    await dispose()
    throw error
  }
}

function select(
  step: Taking,
  tree: Tree | undefined,
  whyIgnored: (path: string) => string | undefined,
  fetched: (pattern: string) => Selected | undefined = () => undefined,
): Selected[] {
  const selected = step.patterns.flatMap((pattern) => {
    const remote = fetched(pattern)
    if (remote !== undefined) return [remote]
    return tree === undefined ? [] : selectSources(tree, pattern, { parents: step.parents, whyIgnored })
  })
  if (step.patterns.length + step.inline.length > 1 && !step.destination.endsWith('/')) {
    throw new TbuildError('COPY_DESTINATION', `with several sources the destination must be a directory`, {
      hint: `write ${step.destination}/`,
    })
  }
  return selected
}

export async function digestOf(context: SolveContext, step: Taking, sources: Sources): Promise<string> {
  const statCache =
    step.source.kind === 'context' && step.remotes.size === 0
      ? context.statCache(directoryOf(step))
      : undefined
  sources.digested ??= await digestSources(sources.selected, {
    owners: ownersOf(step),
    itself: step.parents,
    excludes: excludesOf(step),
    signal: context.signal,
    intake: () => (sources.intake ??= context.store.layers.intake()),
    statCache,
  })
  return sources.digested.digest
}

/** Does the copy keep the owners that the files have? */
function ownersOf(step: Taking): boolean {
  return step.source.kind !== 'context' && step.chown === undefined
}

function directoryOf({ source }: Taking): ContextDirectory | undefined {
  return source.kind === 'context' ? source.directory : undefined
}

export function excludesOf(step: Taking): Excludes | undefined {
  if (step.excludes.length === 0) return undefined
  const matcher = createIgnoreMatcher(step.excludes)
  return (path, isDirectory) => matcher.ignores(path) && !(isDirectory && matcher.mayReinclude(path))
}
