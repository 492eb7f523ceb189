/** Stacks of layer directories as overlay mounts; where none can be mounted, whole directories, and copies of them. */
import { chmodSync, chownSync, closeSync, fstatSync, lutimesSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { TbuildError } from '../../errors.ts'
import {
  isErrno,
  MOUNT_ATTR_RDONLY,
  mountDirectory,
  mountOverlay,
  setXattr,
  type OverlaySpec,
} from '../../linux/index.ts'
import { readAttributes } from '../tar/attributes.ts'
import { copyTree, type TreeCopy } from '../tar/index.ts'
import { openDirectory } from '../tar/tree.ts'
import type { StoreContext } from './context.ts'
import { discard } from './discard.ts'

/** The kernel's own bound (OVL_MAX_STACK), less the upper or our directory for the root's attributes. */
const MOST_LAYERS = 499

/** A layer as a directory, open. */
export interface LayerDirectory {
  /** Names the directory: two layers of a stack may be the same. */
  readonly id: string
  readonly fd: number
  /** A directory that belongs to it, right above. */
  readonly above?: number | undefined
  /** All below is hidden: what overlayfs cannot say of a layer's root. */
  readonly opaqueRoot: boolean
  /** Its root has the attributes that the whole tree's root should have. */
  readonly hasRoot: boolean
}

/** What one directory of layers shows of its root: that of the topmost layer which says something of it. */
export interface Stack {
  /** Topmost first. */
  readonly lowers: readonly number[]
  /** Where the lowers' files have their data, when that is not in them. */
  readonly data: number | undefined
  /** Copy the root's attributes from here; `undefined`: as a new directory, 0755 and root's. */
  readonly rootFrom: number | undefined
  /** The topmost layer shows the root as it is. */
  readonly exact: boolean
}

/**
 * Bottom layer first.
 * @param data the driver's directory of data, if it has one
 */
export function stackOf(directories: readonly LayerDirectory[], data?: number): Stack {
  const bottom = Math.max(
    0,
    directories.findLastIndex(({ opaqueRoot }) => opaqueRoot),
  )
  // overlayfs takes no directory twice. What a lower one of two equal layers adds, the upper one adds again.
  const shown: LayerDirectory[] = []
  for (const directory of directories.slice(bottom).toReversed()) {
    if (!shown.some(({ id }) => id === directory.id)) shown.push(directory)
  }
  const lowers = shown.flatMap(({ fd, above }) => (above === undefined ? [fd] : [above, fd]))
  const most = data === undefined ? MOST_LAYERS : MOST_LAYERS - 1
  if (lowers.length > most) {
    throw new TbuildError(
      'TOO_MANY_LAYERS',
      `The image has ${lowers.length} layers; overlayfs takes ${most}.`,
      {
        hint: 'Combine instructions: every RUN, COPY, ADD and WORKDIR makes a layer.',
      },
    )
  }
  return {
    lowers,
    data,
    // Also layers that an opaque root hides may say what the root is.
    rootFrom: directories.findLast(({ hasRoot }) => hasRoot)?.fd,
    exact: shown[0]?.hasRoot === true,
  }
}

/** A read-only mount. */
export function mountStack(context: StoreContext, stack: Stack): number {
  const { data, lowers } = stack
  const [only] = lowers
  if (only === undefined) return context.openDirectory(rootDirectory(context, stack))
  // overlayfs wants two lowers where there is no upper; a single one would show its whiteouts as devices, too.
  if (stack.exact && lowers.length > 1) return mount({ lowers, data })
  const fd = context.openDirectory(rootDirectory(context, stack))
  try {
    return mount({ lowers: [fd, ...lowers], data })
  } finally {
    closeSync(fd)
  }
}

export interface Upper {
  readonly mount: number
  /** Open on the upper directory. */
  readonly fd: number
  /** Of the directory that holds the upper and what else the mount needs. */
  readonly base: string
  /** There is no overlay: `fd` began as a copy of the whole root below it. */
  readonly copy?: TreeCopy
}

/** An overlay with a fresh upper in a work directory of its own. */
export function mountUpper(context: StoreContext, stack: Stack): Upper {
  const base = context.workDirectory('upper')
  const path = join(base, 'upper')
  makeRoot(path, stack)
  mkdirSync(join(base, 'work'))
  const fd = context.openDirectory(path)
  const opened = [context.openDirectory(join(base, 'work'))]
  try {
    let { lowers } = stack
    if (lowers.length === 0) {
      mkdirSync(join(base, 'empty'))
      const empty = context.openDirectory(join(base, 'empty'))
      opened.push(empty)
      lowers = [empty]
    }
    return {
      mount: mount({ lowers, data: stack.data, upper: { upper: fd, work: opened[0] ?? -1 } }),
      fd,
      base,
    }
  } catch (error) {
    closeSync(fd)
    throw error
  } finally {
    for (const one of opened) closeSync(one)
  }
}

/** A directory that is all of a root, to be read. */
export function openWhole(directory: number): number {
  return asMount(directory, MOUNT_ATTR_RDONLY)
}

/** A copy of it in a work directory of its own. */
export async function copyWhole(context: StoreContext, directory: number): Promise<Upper> {
  const base = context.workDirectory('upper')
  const path = join(base, 'whole')
  mkdirSync(path)
  const fd = context.openDirectory(path)
  try {
    const copy = await copyTree(directory, fd)
    return { mount: asMount(fd), fd, base, copy }
  } catch (error) {
    closeSync(fd)
    await discard(base)
    throw error
  }
}

/** Like an overlay it is a mount, whose root nothing leads out of; of who may mount nothing just the directory. */
function asMount(directory: number, attributes = 0): number {
  try {
    return mountDirectory(directory, attributes)
  } catch (error) {
    if (!isErrno(error, 'EPERM', 'ENOSYS')) throw error
    return openDirectory(directory, '')
  }
}

function mount(spec: OverlaySpec): number {
  try {
    return mountOverlay(spec)
  } catch (error) {
    if (!isErrno(error, 'E2BIG')) throw error
    const message = `The image has ${spec.lowers.length} layers; overlayfs of this kernel takes 128.`
    const hint = `Linux 6.13 takes ${MOST_LAYERS}; or combine instructions: every RUN, COPY, ADD and WORKDIR makes a layer.`
    throw new TbuildError('TOO_MANY_LAYERS', message, { hint, cause: error })
  }
}

function rootDirectory(context: StoreContext, stack: Stack): string {
  const path = context.workPath('root')
  makeRoot(path, stack)
  return path
}

function makeRoot(path: string, { rootFrom }: Stack): void {
  mkdirSync(path, { mode: 0o755 })
  if (rootFrom === undefined) {
    chmodSync(path, 0o755)
    lutimesSync(path, 0, 0)
    return
  }
  const stats = fstatSync(rootFrom)
  chownSync(path, stats.uid, stats.gid)
  chmodSync(path, stats.mode & 0o7777)
  for (const [name, value] of readAttributes(`/proc/self/fd/${rootFrom}/.`).layer) {
    setXattr(path, name, value)
  }
  lutimesSync(path, stats.atimeMs / 1000, stats.mtimeMs / 1000)
}
