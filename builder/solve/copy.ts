/** COPY, ADD and WORKDIR: the layers they make. Loaded when one runs. */
import { closeSync, constants, openSync } from 'node:fs'
import { resolve } from 'node:path'
import { resolveUser } from '../../runtime/index.ts'
import { bytesOf, openTree, show, type Intake, type Layer } from '../../cas/index.ts'
import { find, type Found } from '../copy/found.ts'
import { createLayout, type CopyOptions, type Layout, type Owner } from '../copy/layout.ts'
import { parseMode } from '../copy/mode.ts'
import { unpackArchive } from '../copy/unpack.ts'
import type { CopyStep, WorkdirStep } from '../plan/types.ts'
import type { SolveContext } from './context.ts'
import { Former, LEAST_ENTRIES } from './former.ts'
import type { StepProgress } from './observer.ts'
import { excludesOf, type Sources } from './sources.ts'

export interface CopyRun {
  /** Of the instruction, from build to build; `undefined`: what was copied before does not matter. */
  readonly place: string | undefined
  /** Takes what goes on after it. */
  readonly background: (work: Promise<unknown>) => void
  readonly shown: StepProgress
}

/** On top of `layers`. */
export async function runCopy(
  context: SolveContext,
  step: CopyStep,
  layers: readonly Layer[],
  sources: Sources,
  run: CopyRun,
): Promise<Layer> {
  const former = formerOf(context, step, layers, sources, run)
  if (former !== undefined) {
    sources.intake ??= context.store.layers.intake()
    const revised = await former.revise(sources.intake, context.signal)
    if (revised !== undefined) {
      const text = changedSince(revised.changed)
      if (text !== undefined) run.shown.note(text)
      return revised.layer
    }
  }
  const layer = await writeCopy(context, step, layers, sources)
  former?.written(layer)
  return layer
}

const MOST_NAMED = 3

/** Nothing may have: what came before it was made again, and is what it was. */
function changedSince(changed: readonly Found[]): string | undefined {
  const paths = changed.filter(({ type }) => type === 'file').map(({ path }) => show(path))
  // Two sources may hold the same file.
  const files = [...new Set(paths)]
  if (files.length === 0) return undefined
  const more = files.length > MOST_NAMED ? ` and ${files.length - MOST_NAMED} more` : ''
  return `changed since it was last copied: ${files.slice(0, MOST_NAMED).join(', ')}${more}`
}

/** Where there is much, of a context that is built from again. */
function formerOf(
  context: SolveContext,
  step: CopyStep,
  parents: readonly Layer[],
  { digested }: Sources,
  { place, background }: CopyRun,
): Former | undefined {
  const { request, nowNs } = context
  const { source } = step
  if (place === undefined || digested === undefined) return undefined
  if (digested.listing.entries < LEAST_ENTRIES) return undefined
  if (source.kind !== 'context' || step.remotes.size > 0 || step.unpack) return undefined
  if (context.statCache(source.directory) === undefined) return undefined
  const directory = resolve(source.directory?.directory ?? request.context)
  const latest = request.sourceDateEpoch === undefined ? undefined : nowNs
  const copied = { ...digested, parents, latest }
  return new Former(context, `${directory}\0${place}`, copied, background)
}

async function writeCopy(
  context: SolveContext,
  step: CopyStep,
  layers: readonly Layer[],
  sources: Sources,
): Promise<Layer> {
  return writeLayer(context, layers, sources.intake, async (layout, root, own) => {
    const owner = step.chown === undefined ? undefined : ownerOf(root, step.chown)
    const options: CopyOptions = {
      // What comes from a context is root's, whoever owns it here.
      owner: owner ?? (step.source.kind === 'context' ? { uid: 0, gid: 0 } : undefined),
      mode: step.chmod === undefined ? undefined : parseMode(step.chmod),
      excludes: excludesOf(step),
      parents: step.parents,
    }
    const destination = bytesOf(step.destination)
    for (const [index, selected] of sources.selected.entries()) {
      const unpack = selected.isRemote === true ? step.unpackRemote : step.unpack
      const walked = sources.digested?.walked[index]
      const file = walked?.all[0] ?? find(selected.tree, selected.path)
      const archive = unpack ? await unpackArchive(context.store, file) : undefined
      if (archive === undefined) {
        layout.copy({ ...selected, walked }, destination, options)
        continue
      }
      const fd = openSync(archive, constants.O_RDONLY | constants.O_DIRECTORY)
      own.defer(() => closeSync(fd))
      const tree = own.use(openTree(fd))
      const unpacked = { owner, mode: options.mode, replace: true }
      layout.copy({ tree, path: '', name: '' }, destination, unpacked)
    }
    for (const { name, content } of step.inline) {
      layout.copyBytes(content, bytesOf(name), destination, options)
    }
  })
}

export async function runWorkdir(
  context: SolveContext,
  step: WorkdirStep,
  layers: readonly Layer[],
): Promise<Layer> {
  return writeLayer(context, layers, undefined, async (layout, root) => {
    const owner = step.user === '' ? undefined : resolveUser(root, step.user)
    layout.makeDirectory(bytesOf(step.path), owner)
  })
}

async function writeLayer(
  { store, signal, nowNs, request }: SolveContext,
  layers: readonly Layer[],
  intake: Intake | undefined,
  plan: (layout: Layout, root: number, own: DisposableStack) => Promise<void>,
): Promise<Layer> {
  await using root = await store.layers.mount(layers)
  using tree = openTree(root.fd)
  using own = new DisposableStack()
  const layout = createLayout(tree, { nowNs, clamp: request.sourceDateEpoch !== undefined })
  await plan(layout, root.fd, own)
  return await store.layers.write((writer) => layout.write(writer), { signal, intake })
}

/** A number without a group is both, a name without a group has the group that /etc/passwd says. */
function ownerOf(root: number, text: string): Owner {
  const [user = '', group] = text.split(':')
  const isNumber = /^\d+$/.test(user)
  const { uid, gid } = resolveUser(root, group === undefined && isNumber ? `${user}:${user}` : text)
  return { uid, gid }
}
