/**
 * For tests only: fsck.erofs and dump.erofs of Debian 13, which know all that we write; older ones (Debian 12 has 1.5) do not. They are fetched by apt from the
 * mirror that this machine is set up with, are unpacked into a cache, and run with the C library that they were built for; nothing is installed.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const SUITE = 'trixie'
const PACKAGES = [
  'erofs-utils',
  'libc6',
  'libdeflate0',
  'libgcc-s1',
  'liblz4-1',
  'liblzma5',
  'libpcre2-8-0',
  'libselinux1',
  'libuuid1',
  'libxxhash0',
  'libzstd1',
  'zlib1g',
]
const CACHE = join(import.meta.dirname, '../../node_modules/.cache')

export interface ToolResult {
  readonly status: number | null
  /** Both streams. */
  readonly output: string
}

export type ErofsTool = (name: 'fsck.erofs' | 'dump.erofs', args: readonly string[]) => ToolResult

/** Throws when they cannot be had: a test that needs them is not to be passed over. */
export function erofsUtils(): ErofsTool {
  const root = join(CACHE, `erofs-utils-${SUITE}`)
  if (!existsSync(root)) fetchInto(root)
  const [loader] = globSync('usr/lib/*-linux-gnu/ld-linux-*.so.*', { cwd: root })
  if (loader === undefined) throw new Error(`${root} has no dynamic loader: remove it, to have it made again`)
  const libraries = join(root, loader, '..')
  return (name, args) => {
    const command = ['--library-path', libraries, join(root, 'usr/bin', name), ...args]
    const env = { TZ: 'UTC' }
    const { status, stdout, stderr, error } = spawnSync(join(root, loader), command, {
      encoding: 'utf8',
      env,
    })
    if (error !== undefined) throw error
    return { status, output: stdout + stderr }
  }
}

function fetchInto(root: string): void {
  mkdirSync(CACHE, { recursive: true })
  const directory = mkdtempSync(`${root}-`)
  try {
    const unpacked = join(directory, 'root')
    for (const made of ['lists/partial', 'archives/partial', 'debs', 'root']) {
      mkdirSync(join(directory, made), { recursive: true })
    }
    writeFileSync(join(directory, 'sources.list'), `deb ${mirror()} ${SUITE} main\n`)
    const options = {
      'Dir::Etc::sourcelist': join(directory, 'sources.list'),
      'Dir::Etc::sourceparts': '-',
      'Dir::State::lists': join(directory, 'lists'),
      'Dir::Cache': directory,
      'APT::Sandbox::User': 'root',
      'Acquire::Retries': '3',
    }
    const args = Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])
    apt([...args, 'update'], directory)
    apt([...args, 'download', ...PACKAGES], join(directory, 'debs'))
    for (const deb of globSync('debs/*.deb', { cwd: directory })) {
      execFileSync('dpkg-deb', ['-x', join(directory, deb), unpacked])
    }
    // Another test process may have been first.
    if (!existsSync(root)) renameSync(unpacked, root)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Where apt would get this package for the release that this machine runs. */
function mirror(): string {
  const uris = apt(['--print-uris', 'download', 'erofs-utils'], '/')
  const base = /'(\S+)\/pool\//.exec(uris)?.[1]
  if (base === undefined) throw new Error(`no mirror of Debian is known to apt: apt-get update\n${uris}`)
  return base
}

function apt(args: readonly string[], cwd: string): string {
  const { status, stdout, stderr, error } = spawnSync('apt-get', ['-q', ...args], { cwd, encoding: 'utf8' })
  if (status === 0) return stdout
  throw new Error(
    `erofs-utils of Debian ${SUITE} are needed for this test, and could not be fetched: apt-get ${args.at(-1)}: ${error?.message ?? stderr}`,
  )
}
