/** Step keys: digests over named components, of which the first that differs explains a miss. */
import { isUtf8 } from 'node:buffer'
import { hash } from 'node:crypto'
import type { Component, StepKey } from '../../cas/index.ts'
import { machinePlatform } from '../plan/variables.ts'
import type { ContainerOptions } from '../types.ts'
import type { Base, CopyStep, ExecStep, RunMount, Taking, WorkdirStep } from '../plan/types.ts'

/** Bumped when the same components would make another layer. */
const RULES = '1'

export function keyOf(components: readonly Component[]): StepKey {
  return `sha256:${hash('sha256', JSON.stringify(components))}` as StepKey
}

/** What a stage stands on. A stage on another continues with that one's key. */
export function baseComponents(base: Exclude<Base, { kind: 'stage' }>): readonly Component[] {
  if (base.kind === 'scratch') return [['base', 'scratch']]
  return base.image.config.rootfs.diff_ids.map((diffId) => ['base layer', diffId] as const)
}

function common(parent: StepKey, epoch: number | undefined): Component[] {
  const { os, architecture } = machinePlatform()
  return [
    ['rules', RULES],
    ['parent', parent],
    ['platform', `${os}/${architecture}`],
    ...(epoch === undefined ? [] : [['SOURCE_DATE_EPOCH', String(epoch)] as const]),
  ]
}

/** `contentsOf`: a digest of what a mount shows. */
export function execComponents(
  step: ExecStep,
  parent: StepKey,
  epoch: number | undefined,
  contentsOf: (taking: Taking) => string,
): readonly Component[] {
  return [
    ...common(parent, epoch),
    ['command', JSON.stringify(step.args)],
    ...(step.script === undefined ? [] : [contentComponent('script', '', step.script)]),
    // Sorted: the order in which variables are set changes nothing.
    ...step.env.toSorted().map((entry) => ['environment', entry] as const),
    ['working directory', step.cwd],
    ['user', step.user],
    ['network', step.network],
    ...step.mounts.flatMap((mount) => mountComponents(mount, contentsOf)),
  ]
}

/** Neither secrets nor what caches hold, nor which cache it is: as in BuildKit. */
function mountComponents(mount: RunMount, contentsOf: (taking: Taking) => string): Component[] {
  const { kind, target = '' } = mount
  const told = (how: object): Component => ['mount', `${kind} ${target} ${JSON.stringify(how)}`]
  if (mount.kind === 'bind')
    return [told({ readOnly: mount.readOnly }), [`contents of ${target}`, contentsOf(mount.taking)]]
  if (mount.kind === 'tmpfs') return [told({ readOnly: mount.readOnly, sizeBytes: mount.sizeBytes })]
  if (mount.kind === 'cache') {
    const { readOnly, owner, taking } = mount
    const begins = taking === undefined ? [] : [[`contents of ${target}`, contentsOf(taking)] as const]
    return [told({ readOnly, owner }), ...begins]
  }
  const { id, env, required, mode, uid, gid } = mount
  return [told({ id, env, required, mode, uid, gid })]
}

/**
 * Of a RUN, where they differ from what is usual: names of hosts but not their addresses, as in BuildKit, for those differ from one machine to the next.
 * Which cgroup is the parent changes nothing that a command sees.
 */
export function containerComponents({
  extraHosts,
  shmBytes,
  ulimits,
}: ContainerOptions = {}): readonly Component[] {
  return [
    ...(extraHosts ?? [])
      .map(([, name]) => name)
      .toSorted()
      .map((name) => ['extra host', name] as const),
    ...(shmBytes === undefined ? [] : [['size of /dev/shm', String(shmBytes)] as const]),
    ...(ulimits ?? [])
      .map(({ name, soft, hard }) => `${name}=${soft}:${hard}`)
      .toSorted()
      .map((limit) => ['ulimit', limit] as const),
  ]
}

export function workdirComponents(
  step: WorkdirStep,
  parent: StepKey,
  epoch: number | undefined,
): readonly Component[] {
  return [...common(parent, epoch), ['directory', step.path], ['user', step.user]]
}

/** `contents`: a digest of what is copied, or what stands for it. */
export function copyComponents(
  step: CopyStep,
  parent: StepKey,
  epoch: number | undefined,
  contents: Component,
): readonly Component[] {
  return [
    ...common(parent, epoch),
    ['instruction', step.instruction],
    // With contents by digest the patterns are spent; for what stands for them they are not.
    ...(contents[0] === 'contents' ? [] : step.patterns.map((pattern) => ['source', pattern] as const)),
    ...step.inline.map(({ name, content }) => contentComponent('inline file', `${name}\n`, content)),
    ['destination', step.destination],
    ['chown', step.chown ?? ''],
    ['chmod', step.chmod ?? ''],
    ...step.excludes.map((pattern) => ['exclude', pattern] as const),
    ['unpack', String(step.unpack)],
    ...(step.unpackRemote ? [['unpack what is fetched', 'true'] as const] : []),
    ...(step.parents ? [['parents', 'true'] as const] : []),
    contents,
  ]
}

/** What stays the same of a COPY from build to build, whatever it copies, and onto what. */
export function placeComponents(step: CopyStep, stage: string, index: number): readonly Component[] {
  return copyComponents(step, '' as StepKey, undefined, ['place', `${index} of ${stage}`])
}

/** As text, to be read by people; what is no text by its digest, under another name so that it cannot be taken for a text. */
function contentComponent(name: string, prefix: string, content: Uint8Array): Component {
  const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength)
  if (isUtf8(bytes)) return [name, `${prefix}${bytes.toString()}`]
  return [`${name}, not text`, `${prefix}sha256:${hash('sha256', bytes)}`]
}
