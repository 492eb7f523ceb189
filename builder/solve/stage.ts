/**
 * One stage: its keys, what the cache has of it, and running the rest. Keys can mostly be told without running anything; only a COPY
 * from another stage whose contents are not known yet needs that stage's files. So a stage runs only when something needs
 * its files, and then from the first step on that the cache does not have.
 */
import { isErrorWithSource, withSource } from '../errors.ts'
import type { Component, HistoryEntry, Layer, StepKey, StepResult } from '../../cas/index.ts'
import { takingsOf, takingsOfMount } from '../plan/takings.ts'
import type { ExecStep, Source, StagePlan, Step, Taking } from '../plan/types.ts'
import { timestamp, type SolveContext } from './context.ts'
import { createFetch, type Fetch } from '../fetch/remote.ts'
import { contextSources, digestOf, fetchedSources, layerSources, type Sources } from './sources.ts'
import {
  baseComponents,
  containerComponents,
  copyComponents,
  execComponents,
  keyOf,
  placeComponents,
  workdirComponents,
} from './keys.ts'
import type { MountInput } from './mounts.ts'
import type { StepProgress } from './observer.ts'

export interface SolvedStage {
  /** Bottom first. */
  readonly layers: readonly Layer[]
  readonly history: readonly HistoryEntry[]
}

/** Disposed when the build has ended. */
export interface StageRun extends AsyncDisposable {
  readonly plan: StagePlan
  /** Of the last step. Runs other stages if it must. */
  key(): Promise<StepKey>
  /** Take from the cache, from where it stands, until the first miss or until a key would need something to run. */
  probe(): Promise<void>
  /** All its layers; runs what is missing. */
  solve(): Promise<SolvedStage>
  /** Did a step of it, or of what it stands on, run in this build? */
  readonly hasRun: boolean
  /** Its key does not say what it holds now (see `checkContents`): nothing may be remembered by it. */
  readonly isStale: boolean
  /** Everything is from the cache; nothing is left to do. */
  readonly isComplete: boolean
  /** Resolves when what was begun has ended, however. */
  readonly settled: Promise<unknown>
}

interface Key {
  readonly key: StepKey
  readonly components: readonly Component[]
}

export function createStageRun(
  context: SolveContext,
  plan: StagePlan,
  runOf: (stage: StagePlan) => StageRun,
  background: (work: Promise<unknown>) => void,
): StageRun {
  const { store, request, progress, signal } = context
  const { steps, base } = plan
  const layers: Layer[] = []
  const created: string[] = []
  const keys: Promise<Key>[] = []
  const opened = new Map<Taking, Promise<Sources>>()
  const fetches = new Map<Taking, ReadonlyMap<string, Fetch>>()
  /** What a key says of contents. */
  const told = new Map<Taking, string>()
  let position = 0
  let from: StepProgress | undefined
  let started = false
  let solved: Promise<SolvedStage> | undefined
  let hasRun = false
  let keysAreCheap = false
  /** Set when a COPY took other contents than its key says: then nothing that follows is worth remembering. */
  let isKeyStale = false

  const title = (number: number, text: string): string =>
    `[${plan.label === '' ? '' : `${plan.label} `}${number}/${steps.length + 1}] ${text}`

  const baseKey = async (): Promise<StepKey> =>
    base.kind === 'stage' ? runOf(base.stage).key() : keyOf(baseComponents(base))

  const keyAt = (index: number): Promise<Key> => (keys[index] ??= makeKey(index))
  const makeKey = async (index: number): Promise<Key> => {
    const step = steps[index]
    if (step === undefined) throw new RangeError('no such step')
    const parent = index === 0 ? await baseKey() : (await keyAt(index - 1)).key
    const components = await at(step, () => componentsOf(step, parent))
    return { key: keyOf(components), components }
  }
  const componentsOf = async (step: Step, parent: StepKey): Promise<readonly Component[]> => {
    const epoch = request.sourceDateEpoch
    if (step.kind === 'exec') {
      for (const mount of step.mounts) {
        const [taking] = takingsOfMount(mount)
        if (taking !== undefined) await at({ ...step, range: mount.range }, () => mountedKey(taking))
      }
      return [
        ...execComponents(step, parent, epoch, (taking) => told.get(taking) ?? ''),
        ...containerComponents(request.container),
      ]
    }
    if (step.kind === 'workdir') return workdirComponents(step, parent, epoch)
    const contents = await contentsKey(step)
    return copyComponents(step, parent, epoch, ['contents', contents])
  }
  /** The digest of what is copied: looked up by what it comes from, if that is other layers, else computed. */
  const contentsKey = async (taking: Taking): Promise<string> => {
    const contents = await findContents(taking)
    told.set(taking, contents)
    return contents
  }
  /** Of a whole image the layers say it, which is cheaper than to read all of it. */
  const mountedKey = async (taking: Taking): Promise<void> => {
    const { source, patterns } = taking
    if (source.kind !== 'image' || patterns[0] !== '/') await contentsKey(taking)
    else told.set(taking, keyOf(baseComponents({ kind: 'image', image: source.image, name: '' })))
  }
  const findContents = async (step: Taking): Promise<string> => {
    const cheap = await cheapKey(step)
    const known = cheap && !plan.noCache && !isFromRerun(step) && store.steps.resolve(cheap)
    if (known) return known
    const digest = await digestOf(context, step, await sourcesOf(step))
    const isStale = step.source.kind === 'stage' && runOf(step.source.stage).isStale
    if (cheap !== undefined && !isStale) store.steps.alias(cheap, digest)
    return digest
  }
  const cheapKey = async (step: Taking): Promise<StepKey | undefined> => {
    if (step.source.kind === 'context') return await remoteKey(step)
    const origin =
      step.source.kind === 'stage'
        ? await runOf(step.source.stage).key()
        : keyOf(baseComponents({ kind: 'image', image: step.source.image, name: '' }))
    const owners = String(step.chown === undefined)
    return keyOf([
      ['origin', origin],
      ['owners', owners],
      ['parents', String(step.parents)],
      ...step.patterns.map((pattern) => ['source', pattern] as const),
      ...step.excludes.map((pattern) => ['exclude', pattern] as const),
    ])
  }
  /** Of addresses alone, when it can be told what is there without fetching it. */
  const remoteKey = async (step: Taking): Promise<StepKey | undefined> => {
    if (step.remotes.size === 0 || step.remotes.size !== step.patterns.length) return undefined
    const identities: string[] = []
    for (const fetch of fetchesOf(step).values()) {
      const identity = await fetch.identity()
      if (identity === undefined) return undefined
      identities.push(identity)
    }
    return keyOf([
      ...identities.map((identity) => ['fetched', identity] as const),
      ...step.excludes.map((pattern) => ['exclude', pattern] as const),
    ])
  }
  const fetchesOf = (step: Taking): ReadonlyMap<string, Fetch> => {
    const known = fetches.get(step)
    if (known !== undefined) return known
    const made = new Map(
      [...step.remotes].map(([pattern, remote]) => [pattern, createFetch(store, remote, signal)] as const),
    )
    fetches.set(step, made)
    return made
  }
  /** Open from when the key needs them until the step is done: what was read for the key is not read again. */
  const sourcesOf = (step: Taking): Promise<Sources> => {
    let sources = opened.get(step)
    if (sources === undefined) {
      sources = openSources(step)
      opened.set(step, sources)
    }
    return sources
  }
  const release = async (step: Step): Promise<void> => {
    for (const taking of takingsOf(step)) await close(taking)
  }
  const close = async (taking: Taking): Promise<void> => {
    const sources = opened.get(taking)
    if (sources === undefined) return
    opened.delete(taking)
    await sources.then(
      (one) => one[Symbol.asyncDispose](),
      () => {},
    )
  }
  const openSources = async (step: Taking): Promise<Sources> => {
    const { source } = step
    if (step.remotes.size > 0) return fetchedSources(context, step, fetchesOf(step))
    if (source.kind === 'context') return contextSources(context, step)
    return layerSources(context, step, await layersOf(source))
  }
  const layersOf = async (source: Exclude<Source, { kind: 'context' }>): Promise<readonly Layer[]> =>
    source.kind === 'stage'
      ? (await runOf(source.stage).solve()).layers
      : source.image.config.rootfs.diff_ids.map((diffId) => store.layers.open(diffId))

  /** Can the key be told without running a step? */
  const isKeyCheap = async (index: number): Promise<boolean> => {
    const step = steps[index]
    for (const taking of step === undefined ? [] : takingsOf(step))
      if (!(await isContentsKeyCheap(taking))) return false
    return true
  }
  const isContentsKeyCheap = async (taking: Taking): Promise<boolean> => {
    if (taking.source.kind !== 'stage') return true
    if (isFromRerun(taking)) return false
    if (!(await isStageKeyCheap(runOf(taking.source.stage)))) return false
    const cheap = await cheapKey(taking)
    return cheap !== undefined && store.steps.resolve(cheap) !== undefined
  }
  const isStageKeyCheap = async (run: StageRun): Promise<boolean> =>
    (await cheapStages.get(run)?.()) !== false
  const allKeysCheap = async (): Promise<boolean> => {
    if (keysAreCheap) return true
    if (base.kind === 'stage' && !(await isStageKeyCheap(runOf(base.stage)))) return false
    for (let index = 0; index < steps.length; index++) if (!(await isKeyCheap(index))) return false
    keysAreCheap = true
    return true
  }

  /** The base, once. */
  const begin = async (): Promise<void> => {
    if (started) return
    started = true
    from = base.kind === 'stage' ? undefined : progress.start(title(1, plan.from.text))
    if (base.kind === 'image') {
      for (const diffId of base.image.config.rootfs.diff_ids) layers.push(store.layers.open(diffId))
      if (context.isLocalTag(base.image))
        from?.note('the image in the store; --pull asks its registry for a newer one')
    }
    from?.cached()
  }

  const take = async (step: Step, result: StepResult): Promise<void> => {
    await release(step)
    layers.push(store.layers.open(result.diffId))
    created.push(result.created)
    position++
  }

  const run = async (step: Step, index: number): Promise<void> => {
    const shown = progress.start(title(index + 2, step.text))
    hasRun = true
    try {
      const layer = await at(step, () => execute(step, index, shown))
      const when = timestamp(request)
      layers.push(layer)
      created.push(when)
      position++
      const { key, components } = await keyAt(index)
      background(
        layer.stored.then(({ diffId }) =>
          self.isStale
            ? undefined
            : store.steps.record({ key, diffId, created: when }, components, step.text),
        ),
      )
      shown.done()
    } catch (error) {
      if (signal.aborted) shown.canceled()
      else shown.failed(error)
      context.abort(error)
      throw error
    } finally {
      await release(step)
    }
  }
  const execute = async (step: Step, index: number, shown: StepProgress): Promise<Layer> => {
    // Loaded only now: a build that is all cached needs none of it.
    if (step.kind === 'exec') return executeExec(step, index, shown)
    const { runCopy, runWorkdir } = await import('./copy.ts')
    if (step.kind === 'workdir') return await runWorkdir(context, step, layers)
    const sources = await sourcesOf(step)
    await checkContents(step, index, sources)
    // Without the cache nobody has asked for the key yet; it will be wanted.
    if (step.source.kind === 'context') await digestOf(context, step, sources)
    const place = plan.noCache ? undefined : keyOf(placeComponents(step, plan.label, index))
    return await runCopy(context, step, layers, sources, { place, background, shown })
  }
  const executeExec = async (step: ExecStep, index: number, shown: StepProgress): Promise<Layer> => {
    const inputs = new Map<Taking, MountInput>()
    for (const taking of takingsOf(step)) {
      // Without the cache nobody has asked for the key yet; it will be wanted.
      await keyAt(index)
      const sources = await sourcesOf(taking)
      await checkContents(taking, index, sources)
      const { source } = taking
      const ofLayers = source.kind === 'context' ? undefined : await layersOf(source)
      inputs.set(taking, { sources, layers: ofLayers, contents: told.get(taking) ?? '' })
    }
    return (await import('./exec.ts')).runExec(context, step, layers, shown, inputs)
  }
  /** A key that was told by where the contents come from is wrong when that has just been made anew, differently. */
  const checkContents = async (taking: Taking, index: number, sources: Sources): Promise<void> => {
    if (taking.source.kind !== 'stage' || !runOf(taking.source.stage).hasRun) return
    const digest = await digestOf(context, taking, sources)
    await keyAt(index)
    if (told.get(taking) === digest) return
    const cheap = await cheapKey(taking)
    if (cheap !== undefined) store.steps.alias(cheap, digest)
    isKeyStale = true
  }

  const at = async <T>(step: Pick<Step, 'tree' | 'range'>, work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      if (signal.aborted || isErrorWithSource(error)) throw error
      throw withSource(error, step.tree, step.range)
    }
  }

  const probe = async (): Promise<void> => {
    if (plan.noCache) return
    if (base.kind === 'stage') return probeOnStage()
    await begin()
    await advance()
  }
  const probeOnStage = async (): Promise<void> => {
    if (base.kind !== 'stage') return
    if (!(await isStageKeyCheap(runOf(base.stage)))) return
    await advance()
  }
  const advance = async (): Promise<void> => {
    while (position < steps.length) {
      const step = steps[position]
      if (step === undefined || !(await isKeyCheap(position))) return
      const { key } = await keyAt(position)
      const found = store.steps.find(key)
      if (found === undefined) return
      progress.start(title(position + 2, step.text)).cached()
      await take(step, found)
    }
  }

  const solve = async (): Promise<SolvedStage> => {
    // Independent branches side by side: what later steps copy from may as well begin now.
    for (const { source } of steps.slice(position).flatMap(takingsOf)) {
      if (source.kind === 'stage')
        runOf(source.stage)
          .solve()
          .catch(() => {})
    }
    await begin()
    const below = base.kind === 'stage' ? await runOf(base.stage).solve() : { layers: [], history: [] }
    layers.unshift(...below.layers)
    for (; position < steps.length;) {
      signal.throwIfAborted()
      const index = position
      const step = steps[index]
      if (step === undefined) break
      if (!plan.noCache) {
        const { key } = await keyAt(index)
        const found = store.steps.find(key)
        if (found !== undefined) {
          progress.start(title(index + 2, step.text)).cached()
          await take(step, found)
          continue
        }
      }
      await run(step, index)
    }
    return { layers, history: [...baseHistory(below), ...ownHistory()] }
  }

  const baseHistory = (below: { history: readonly HistoryEntry[] }): readonly HistoryEntry[] =>
    base.kind === 'image' ? (base.image.config.history ?? []) : below.history
  const ownHistory = (): HistoryEntry[] => {
    let next = 0
    let last = request.sourceDateEpoch === undefined ? undefined : timestamp(request)
    return plan.history.map(({ createdBy, step }): HistoryEntry => {
      if (step !== undefined) last = created[next++]
      return {
        created: last ?? created[0] ?? timestamp(request),
        created_by: createdBy,
        comment: 'tbuild',
        ...(step === undefined ? { empty_layer: true } : {}),
      }
    })
  }

  const self: StageRun = {
    plan,
    key: async () => (steps.length === 0 ? baseKey() : (await keyAt(steps.length - 1)).key),
    probe,
    solve: () => (solved ??= solve()),
    get hasRun() {
      return hasRun || (base.kind === 'stage' && runOf(base.stage).hasRun)
    },
    get isStale() {
      return isKeyStale || (base.kind === 'stage' && runOf(base.stage).isStale)
    },
    get isComplete() {
      return position === steps.length && (base.kind !== 'stage' || runOf(base.stage).isComplete)
    },
    get settled() {
      return Promise.allSettled([solved])
    },
    [Symbol.asyncDispose]: async () => {
      for (const taking of opened.keys()) await close(taking)
      for (const made of fetches.values()) for (const fetch of made.values()) fetch[Symbol.dispose]()
    },
  }
  cheapStages.set(self, allKeysCheap)
  return self
}

/** What such a stage held before says nothing of what it will hold. */
function isFromRerun({ source }: Taking): boolean {
  return source.kind === 'stage' && source.stage.noCache
}

/** Whether a stage's key can be told without running anything: asked of each other, not of callers. */
const cheapStages = new WeakMap<StageRun, () => Promise<boolean>>()
