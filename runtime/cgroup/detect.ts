/** Which cgroups this machine offers, and where in them ours belong. */
import { accessSync, constants, mkdirSync, readFileSync } from 'node:fs'
import { isErrno } from '../../linux/index.ts'
import { noDriver } from './none.ts'
import type { CgroupDriver } from './types.ts'
import { v1Driver } from './v1.ts'
import { controllersOf, enableControllers, v2Driver } from './v2.ts'

const V1_CONTROLLERS = ['memory', 'cpuacct', 'cpu', 'pids']

interface CgroupMount {
  readonly type: 'cgroup' | 'cgroup2'
  /** The part of the hierarchy that is mounted, and where. */
  readonly root: string
  readonly at: string
  readonly options: readonly string[]
}

let chosen: CgroupDriver | undefined

/** The driver for this process, found once. On a hybrid machine v1: there v2's tree has no controllers. */
export function cgroupDriver(): CgroupDriver {
  return (chosen ??= v1Here() ?? v2Here() ?? noDriver('no cgroup file system may be written to'))
}

/** For tests: use this one from now on; without one, detect anew. */
export function useCgroupDriver(driver?: CgroupDriver): void {
  chosen = driver
}

/**
 * v1, if its hierarchies are mounted and ours to write. Cgroups are made at the root of what is mounted and not below
 * our own: that one is the login session's, and what a killed process left would be found from that session only.
 */
export function v1Here(): CgroupDriver | undefined {
  const mounts = cgroupMounts()
  const roots = new Map<string, string>()
  for (const controller of V1_CONTROLLERS) {
    const mount = mounts.find(({ type, options }) => type === 'cgroup' && options.includes(controller))
    if (mount !== undefined) roots.set(controller, mount.at)
  }
  return roots.size > 0 && writable([...roots.values()]) ? v1Driver(roots) : undefined
}

export function v2Here(): CgroupDriver | undefined {
  const mount = cgroupMounts().find(({ type }) => type === 'cgroup2')
  if (mount === undefined) return undefined
  const parent = v2Parent(mount, ownUnified())
  return parent === undefined ? undefined : v2Driver(mount.at, parent.slice(mount.at.length + 1))
}

/**
 * v2 forbids processes in a cgroup that gives controllers to children ("no internal processes"), the root excepted.
 * Ours is never empty (tbuild itself is in it), so the containers' parent is a sibling: `tbuild` beside our cgroup,
 * when its parent gives it all controllers (or lets us make it give them), else `/tbuild`.
 */
function v2Parent(mount: CgroupMount, own: string | undefined): string | undefined {
  const here = pathIn(mount, own) ?? mount.at
  const beside = here === mount.at ? mount.at : here.slice(0, here.lastIndexOf('/'))
  for (const base of new Set([beside, mount.at])) {
    try {
      enableControllers(base)
      mkdirSync(`${base}/tbuild`, { recursive: true })
      accessSync(`${base}/tbuild/cgroup.subtree_control`, constants.W_OK)
      const missing = controllersOf(mount.at).filter(
        (name) => !controllersOf(`${base}/tbuild`).includes(name),
      )
      if (missing.length === 0 || base === mount.at) return `${base}/tbuild`
    } catch (error) {
      if (!isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOENT')) throw error
    }
  }
  return undefined
}

function writable(paths: readonly string[]): boolean {
  try {
    for (const path of paths) accessSync(path, constants.W_OK)
    return true
  } catch (error) {
    if (isErrno(error, 'EACCES', 'EROFS', 'ENOENT', 'EPERM')) return false
    throw error
  }
}

/** Where `path` of a hierarchy is seen under this mount; `undefined` when it lies outside of what is mounted. */
function pathIn(mount: CgroupMount, path: string | undefined): string | undefined {
  if (path === undefined) return undefined
  const root = mount.root === '/' ? '' : mount.root
  if (path !== root && !path.startsWith(`${root}/`)) return undefined
  return `${mount.at}${path.slice(root.length)}`.replace(/\/$/, '')
}

/** proc_pid_mountinfo(5): "36 35 98:0 ROOT AT OPTIONS [TAGS] - TYPE SOURCE SUPER-OPTIONS". */
function cgroupMounts(): CgroupMount[] {
  const list: CgroupMount[] = []
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [mount, superblock] = line.split(' - ')
    const [type, , options] = superblock?.split(' ') ?? []
    const [, , , root, at] = mount?.split(' ') ?? []
    if ((type !== 'cgroup' && type !== 'cgroup2') || root === undefined || at === undefined) continue
    list.push({ type, root: unescape(root), at: unescape(at), options: options?.split(',') ?? [] })
  }
  return list
}

function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

/** Our cgroup in the unified hierarchy: proc_pid_cgroup(5), "0::/path". */
function ownUnified(): string | undefined {
  return /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1]
}
