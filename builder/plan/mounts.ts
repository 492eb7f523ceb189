/** `RUN --mount`, with every default filled in. */
import { posix } from 'node:path'
import {
  errorAt,
  parseMount,
  type Dockerfile,
  type Mount,
  type Range,
  type Run,
} from '../../dockerfile-parser/index.ts'
import { absolute } from './paths.ts'
import type { PlanContext } from './plan.ts'
import type { StageState } from './state.ts'
import type { RunMount, Source, Taking } from './types.ts'

/** In the order in which they are mounted: one may lie in another. Throws `MOUNT_TARGET`, `UNSUPPORTED`, and what `parseMount` and `source` throw. */
export async function planMounts(
  context: PlanContext,
  state: StageState,
  { mounts }: Run,
): Promise<readonly RunMount[]> {
  const lookup = (name: string): string | undefined => state.env.get(name)
  const planned: RunMount[] = []
  // One after the other: the first that fails is the error.
  for (const word of mounts)
    planned.push(await plan(context, state, parseMount(context.tree, word, lookup), word.range))
  return planned.toSorted((a, b) => byBytes(a.target ?? '', b.target ?? ''))
}

async function plan(context: PlanContext, state: StageState, mount: Mount, range: Range): Promise<RunMount> {
  const { tree } = context
  const { type, readOnly } = mount
  if (type === 'ssh') {
    throw errorAt(
      tree,
      range,
      'UNSUPPORTED',
      'RUN --mount=type=ssh is not supported yet',
      'give a key or a token by --mount=type=secret',
    )
  }
  if (type === 'secret') return planSecret(tree, state, mount, range)
  if (type === 'cache') return planCache(context, state, mount, range)
  const source = type === 'bind' ? await sourceOf(context, mount, range) : undefined
  const target = targetOf(tree, state, mount.target, range)
  if (source === undefined)
    return { kind: 'tmpfs', range, target, readOnly, sizeBytes: mount.size || undefined }
  return { kind: 'bind', range, target, readOnly, taking: takingOf(source, mount.source) }
}

async function sourceOf(context: PlanContext, { from }: Mount, range: Range): Promise<Source> {
  return from === undefined || from === '' ? { kind: 'context' } : await context.source(from, range)
}

function planSecret(tree: Dockerfile, state: StageState, mount: Mount, range: Range): RunMount {
  const { env, required } = mount
  const id = mount.source || mount.id || posix.basename(mount.target ?? '')
  const target = mount.target || (env === undefined ? `/run/secrets/${posix.basename(id)}` : undefined)
  return {
    kind: 'secret',
    range,
    id,
    target: target && targetOf(tree, state, target, range),
    env: env === undefined ? undefined : env || id,
    required,
    mode: mount.mode ?? 0o400,
    uid: mount.uid ?? 0,
    gid: mount.gid ?? 0,
  }
}

async function planCache(
  context: PlanContext,
  state: StageState,
  mount: Mount,
  range: Range,
): Promise<Extract<RunMount, { kind: 'cache' }>> {
  const { tree, variables } = context
  const { from, uid, gid, mode, readOnly } = mount
  const source =
    from === undefined || from === '' || from === 'scratch' ? undefined : await context.source(from, range)
  const target = targetOf(tree, state, mount.target, range)
  const hasPath = pathOf(mount.source) !== '/'
  if (source === undefined && hasPath) {
    throw errorAt(
      tree,
      range,
      'MOUNT_CONFLICT',
      'a cache that begins empty has nothing at that source',
      'name what it begins with by from=, or leave source out',
    )
  }
  const namespace = variables.buildArgs.get('BUILDKIT_CACHE_MOUNT_NS') ?? ''
  const hasOwner = uid !== undefined || gid !== undefined || mode !== undefined
  const owned = hasOwner && !hasPath
  return {
    kind: 'cache',
    range,
    target,
    readOnly,
    // The target as it is written, whatever the working directory: so BuildKit has it.
    id: posix.join(namespace, mount.id || posix.normalize(mount.target ?? '')),
    sharing: mount.sharing ?? 'shared',
    // With an owner or a mode it begins as an empty directory that has them, whatever `from` is.
    owner: owned ? { uid: uid ?? 0, gid: gid ?? 0, mode: mode ?? 0o755 } : undefined,
    taking: source === undefined || owned ? undefined : takingOf(source, mount.source),
  }
}

function targetOf(tree: Dockerfile, state: StageState, given: string | undefined, range: Range): string {
  const target = absolute(state, given ?? '').replace(/(.)\/$/, '$1')
  if (target !== '/') return target
  throw errorAt(
    tree,
    range,
    'MOUNT_TARGET',
    'nothing can be mounted at /',
    'write target=DIRECTORY; a relative one is in the working directory',
  )
}

function pathOf(source: string | undefined): string {
  return posix.join('/', source ?? '')
}

function takingOf(source: Source, path: string | undefined): Taking {
  return {
    source,
    // A name, not a pattern.
    patterns: [pathOf(path).replaceAll(/[\\*?[]/g, String.raw`\$&`)],
    remotes: new Map(),
    inline: [],
    destination: '/',
    excludes: [],
    parents: false,
  }
}

function byBytes(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
