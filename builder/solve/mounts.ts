/** The mounts of a RUN, opened while it runs. */
import { chmodSync, chownSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import type { CacheMount, Layer } from '../../cas/index.ts'
import { withSource } from '../errors.ts'
import type { ExecStep, RunMount, Taking } from '../plan/types.ts'
import type { ContainerMount } from '../../runtime/index.ts'
import type { SolveContext } from './context.ts'
import { fillDirectory, NAME, writeMountLayer } from './mount-layer.ts'
import type { StepProgress } from './observer.ts'
import { readSecret } from './secrets.ts'
import type { Sources } from './sources.ts'

/** What a mount takes: the one name in it, and the layers that it is in, if it is in layers. */
export interface MountInput {
  readonly sources: Sources
  readonly layers: readonly Layer[] | undefined
  /** What the step's key says of it. */
  readonly contents: string
}

export interface RunMounts extends AsyncDisposable {
  readonly list: readonly ContainerMount[]
  /** Secrets that are variables. */
  readonly env: ReadonlyMap<string, string>
  /** Locks that must be held while something in the container lives. */
  readonly locks: readonly number[]
}

/** Throws `SECRET_MISSING`, `SECRET_VARIABLE`, with the place of the mount. */
export async function openRunMounts(
  context: SolveContext,
  step: ExecStep,
  inputs: ReadonlyMap<Taking, MountInput>,
  progress: StepProgress,
): Promise<RunMounts> {
  const own = new AsyncDisposableStack()
  const opened: Opened = { own, inputs, progress, env: new Map(), caches: new Map() }
  try {
    const at = async <T>(mount: RunMount, work: () => T | Promise<T>): Promise<T> => {
      try {
        return await work()
      } catch (error) {
        throw context.signal.aborted ? error : withSource(error, step.tree, mount.range)
      }
    }
    // In the same order wherever it is: of two steps that lock two caches, neither waits for the other.
    const caches = step.mounts.filter((mount) => mount.kind === 'cache')
    const order = (mount: Of<'cache'>): string => keyOfCache(mount, inputs)
    for (const mount of caches.toSorted((a, b) => (order(a) < order(b) ? -1 : 1)))
      await at(mount, () => openCache(context, mount, opened))
    const list: ContainerMount[] = []
    for (const mount of step.mounts) {
      const one = await at(mount, () => open(context, mount, opened))
      if (one !== undefined) list.push(one)
    }
    return {
      list,
      env: opened.env,
      locks: [...opened.caches.values()].map(({ lock }) => lock),
      [Symbol.asyncDispose]: () => own.disposeAsync(),
    }
  } catch (error) {
    await own.disposeAsync()
    throw error
  }
}

interface Opened {
  readonly own: AsyncDisposableStack
  readonly inputs: ReadonlyMap<Taking, MountInput>
  readonly progress: StepProgress
  readonly env: Map<string, string>
  /** One RUN may mount a cache at several places. */
  readonly caches: Map<string, CacheMount>
}

type Of<Kind extends RunMount['kind']> = Extract<RunMount, { kind: Kind }>

async function open(
  context: SolveContext,
  mount: RunMount,
  opened: Opened,
): Promise<ContainerMount | undefined> {
  if (mount.kind === 'bind') return await openBind(context, mount, opened)
  if (mount.kind === 'tmpfs') return mount
  if (mount.kind === 'secret') return openSecret(context, mount, opened)
  const { target, readOnly } = mount
  const { fd } = await openCache(context, mount, opened)
  return { kind: 'host', fd, target, readOnly }
}

/** On an upper of its own, which is thrown away: what is written there is dropped, and places for mounts in it can be made. */
async function openBind(
  context: SolveContext,
  { taking, target, readOnly }: Of<'bind'>,
  { own, inputs }: Opened,
): Promise<ContainerMount> {
  const { sources, layers } = inputOf(inputs, taking)
  const shown = layers ?? [await mountLayer(context, taking, sources)]
  const root = own.use(await context.store.layers.mountWritable(shown))
  const path = layers === undefined ? NAME : (sources.selected[0]?.path ?? '')
  return { kind: 'mount', fd: root.fd, path, target, readOnly }
}

/** Of one build: many a RUN mounts the whole context. */
const mountLayers = new WeakMap<SolveContext, Map<string, Promise<Layer>>>()

function mountLayer(context: SolveContext, taking: Taking, sources: Sources): Promise<Layer> {
  const known = mountLayers.get(context) ?? new Map<string, Promise<Layer>>()
  mountLayers.set(context, known)
  const { source, patterns } = taking
  const name = source.kind === 'context' ? (source.directory?.name ?? '') : source.kind
  const key = JSON.stringify([name, patterns])
  let layer = source.kind === 'context' ? known.get(key) : undefined
  if (layer === undefined) {
    layer = writeMountLayer(context, taking, sources)
    known.set(key, layer)
  }
  return layer
}

async function openCache(
  context: SolveContext,
  mount: Of<'cache'>,
  { own, inputs, progress, caches }: Opened,
): Promise<CacheMount> {
  const { store, signal } = context
  const { id, sharing, owner, taking } = mount
  const from = taking && inputOf(inputs, taking)
  const key = keyOfCache(mount, inputs)
  const known = caches.get(key)
  if (known !== undefined) return known
  const cache = await store.cacheMount({
    key,
    name: id,
    sharing,
    signal,
    notice: () => progress.note(`waiting for the cache ${id}, which another RUN has locked`),
    fill: async (directory) => {
      if (owner !== undefined) {
        chownSync(directory, owner.uid, owner.gid)
        chmodSync(directory, owner.mode & 0o7777)
      }
      if (taking !== undefined && from !== undefined)
        await fillDirectory(context, taking, from.sources, directory)
    },
  })
  caches.set(key, own.use(cache))
  return cache
}

/** Which cache it is: its id and what it began with. */
function keyOfCache({ id, owner, taking }: Of<'cache'>, inputs: ReadonlyMap<Taking, MountInput>): string {
  const from = taking === undefined ? null : [inputOf(inputs, taking).contents, taking.patterns]
  return JSON.stringify([id, owner ?? null, from])
}

function openSecret(
  { request }: SolveContext,
  { id, target, env, required, mode, uid, gid }: Of<'secret'>,
  opened: Opened,
): ContainerMount | undefined {
  const content = readSecret(request.secrets, id)
  if (content === undefined && required) {
    throw new TbuildError('SECRET_MISSING', `the secret ${JSON.stringify(id)} was not given`, {
      hint: `build with --secret id=${id},src=FILE or --secret id=${id},env=VARIABLE`,
    })
  }
  if (env !== undefined) opened.env.set(env, valueOf(id, content))
  if (content === undefined || target === undefined) return undefined
  return { kind: 'file', content, mode, uid, gid, target, readOnly: true }
}

/** The message says nothing of what is in it. */
function valueOf(id: string, content: Buffer | undefined): string {
  if (content?.includes(0) !== true) return content?.toString() ?? ''
  throw new TbuildError(
    'SECRET_VARIABLE',
    `the secret ${JSON.stringify(id)} holds a zero byte: no variable can have it`,
    { hint: 'mount it as a file: leave env out' },
  )
}

function inputOf(inputs: ReadonlyMap<Taking, MountInput>, taking: Taking): MountInput {
  const input = inputs.get(taking)
  if (input === undefined) throw new Error('a mount was not prepared')
  return input
}
