/** COPY, ADD and WORKDIR: what they take, its digest, and the layer it makes. */
import { closeSync, constants, openSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import { resolveUser } from '../../runtime/index.ts'
import { bytesOf, openTree, type Layer, type Tree } from '../../cas/index.ts'
import { createIgnoreMatcher } from '../../dockerfile-parser/index.ts'
import { createLayout, type CopyOptions, type Layout, type Owner } from '../copy/layout.ts'
import { parseMode } from '../copy/mode.ts'
import { selectSources, type Selected } from '../copy/select.ts'
import { digestSources } from '../copy/source.ts'
import { unpackArchive } from '../copy/unpack.ts'
import type { CopyStep, WorkdirStep } from '../plan/types.ts'
import type { SolveContext } from './context.ts'

/** The sources of a step, in a tree that somebody keeps open. */
export interface Sources extends AsyncDisposable {
  readonly selected: readonly Selected[]
}

/** Of the build context. Cheap: nothing is mounted. */
export function contextSources(context: SolveContext, step: CopyStep): Sources {
  // `COPY <<EOF` alone needs no context.
  if (step.patterns.length === 0) return { selected: [], [Symbol.asyncDispose]: async () => {} }
  const opened = context.context()
  return {
    selected: select(step, opened.tree, (path) => opened.whyIgnored(path)),
    [Symbol.asyncDispose]: async () => {},
  }
}

/** Of other layers, which are mounted until it is disposed. */
export async function layerSources(
  { store }: SolveContext,
  step: CopyStep,
  layers: readonly Layer[],
): Promise<Sources> {
  const root = await store.layers.mount(layers)
  const tree = openTree(root.fd)
  const dispose = async (): Promise<void> => {
    tree[Symbol.dispose]()
    await root[Symbol.asyncDispose]()
  }
  try {
    return { selected: select(step, tree, () => undefined), [Symbol.asyncDispose]: dispose }
  } catch (error) {
    await dispose()
    throw error
  }
}

function select(step: CopyStep, tree: Tree, whyIgnored: (path: string) => string | undefined): Selected[] {
  const selected = step.patterns.flatMap((pattern) =>
    selectSources(tree, pattern, { parents: step.parents, whyIgnored }),
  )
  if (step.patterns.length + step.inline.length > 1 && !step.destination.endsWith('/')) {
    throw new TbuildError('COPY_DESTINATION', `with several sources the destination must be a directory`, {
      hint: `write ${step.destination}/`,
    })
  }
  return selected
}

export function digestOf(context: SolveContext, step: CopyStep, sources: Sources): Promise<string> {
  return digestSources(sources.selected, {
    owners: step.source.kind !== 'context' && step.chown === undefined,
    excludes: excludesOf(step),
    signal: context.signal,
  })
}

function excludesOf(step: CopyStep): CopyOptions['excludes'] {
  if (step.excludes.length === 0) return undefined
  const matcher = createIgnoreMatcher(step.excludes)
  return (path, isDirectory) => matcher.ignores(path) && !(isDirectory && matcher.mayReinclude(path))
}

/** On top of `layers`. */
export async function runCopy(
  context: SolveContext,
  step: CopyStep,
  layers: readonly Layer[],
  sources: Sources,
): Promise<Layer> {
  return writeLayer(context, layers, async (layout, root, own) => {
    const owner = step.chown === undefined ? undefined : ownerOf(root, step.chown)
    const options: CopyOptions = {
      // What comes from a context is root's, whoever owns it here.
      owner: owner ?? (step.source.kind === 'context' ? { uid: 0, gid: 0 } : undefined),
      mode: step.chmod === undefined ? undefined : parseMode(step.chmod),
      excludes: excludesOf(step),
      parents: step.parents,
    }
    const destination = bytesOf(step.destination)
    for (const selected of sources.selected) {
      const archive = step.unpack ? await unpackArchive(context.store, selected) : undefined
      if (archive === undefined) {
        layout.copy(selected, destination, options)
        continue
      }
      const fd = openSync(archive, constants.O_RDONLY | constants.O_DIRECTORY)
      own.defer(() => closeSync(fd))
      const tree = own.use(openTree(fd))
      const unpacked = { owner, mode: options.mode, replace: true }
      layout.copy({ tree, path: '', name: '' }, destination, unpacked)
    }
    for (const { name, content } of step.inline) {
      layout.copyBytes(Buffer.from(content), bytesOf(name), destination, options)
    }
  })
}

export async function runWorkdir(
  context: SolveContext,
  step: WorkdirStep,
  layers: readonly Layer[],
): Promise<Layer> {
  return writeLayer(context, layers, async (layout, root) => {
    const owner = step.user === '' ? undefined : resolveUser(root, step.user)
    layout.makeDirectory(bytesOf(step.path), owner)
  })
}

async function writeLayer(
  { store, signal, nowNs, request }: SolveContext,
  layers: readonly Layer[],
  plan: (layout: Layout, root: number, own: DisposableStack) => Promise<void>,
): Promise<Layer> {
  await using root = await store.layers.mount(layers)
  using tree = openTree(root.fd)
  using own = new DisposableStack()
  const layout = createLayout(tree, { nowNs, clamp: request.sourceDateEpoch !== undefined })
  await plan(layout, root.fd, own)
  return await store.layers.write((writer) => layout.write(writer), { signal })
}

/** A number without a group is both, a name without a group has the group that /etc/passwd says. */
function ownerOf(root: number, text: string): Owner {
  const [user = '', group] = text.split(':')
  const isNumber = /^\d+$/.test(user)
  const { uid, gid } = resolveUser(root, group === undefined && isNumber ? `${user}:${user}` : text)
  return { uid, gid }
}
