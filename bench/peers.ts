/** Other builders: Debian's buildah, and the BuildKit that is in Debian's dockerd. Each keeps what it has in the scratch directory, on overlay. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { startDocker } from '../test/support/docker-daemon.ts'
import { quietly, type Bench } from './measure.ts'

/** Debian's crun refuses a machine with v1 and an empty v2 tree, and machines without CAP_SYS_RESOURCE refuse raised limits. */
const RUNTIME = ['--runtime', 'runc']
const LIMITS = ['--ulimit', 'nofile=512:512', '--ulimit', 'nproc=512:512']

export interface Peer extends AsyncDisposable {
  readonly name: string
  /** The directory of all that it stores. */
  readonly store: string
  /** What has not changed comes from its cache. RUN has the host's network. */
  build(...args: readonly string[]): void
  /** A tar of a root file system, as an image of one layer. */
  importTar(tar: string, image: string): void
  /** From a registry on loopback. */
  pull(image: string): void
  /** Runs `true`, without network. */
  run(image: string): void
  /** Removes all images and what is cached. */
  empty(): void
}

/**
 * One after the other, each there only while it is measured, with nothing but the base image. Who cannot be had is left out, and why is said.
 *
 * What they stored goes with the scratch directory, and buildah, which removes the files of its containers itself, is the last: ext4 without a journal
 * steps over the inodes that were freed in the last six minutes, one by one for each file that it makes. Soon after such removals docker took 43 s for a
 * COPY of 30,000 files, not 10.
 */
export async function* peers({ directory }: Bench): AsyncGenerator<Peer> {
  for (const open of [openDocker, openBuildah]) {
    // One is gone before the next comes.
    // oxlint-disable-next-line no-await-in-loop
    await using peer = await open(directory).catch(sayWhy)
    if (peer === undefined) continue
    peer.importTar(join(directory, 'base.tar'), 'localhost/base')
    yield peer
  }
}

function sayWhy(error: Error): undefined {
  console.log(`(${error.message}: no peer)`)
}

async function openBuildah(directory: string): Promise<Peer> {
  if (!existsSync('/usr/bin/buildah') || !existsSync('/usr/sbin/runc'))
    throw new Error('buildah and runc are not here')
  const store = mkdtempSync(join(directory, 'buildah-'))
  const roots = ['--root', join(store, 'root'), '--runroot', join(store, 'run')]
  const buildah = (...args: readonly string[]): void => quietly('buildah', [...roots, ...args])
  const build = (...args: readonly string[]): void =>
    buildah('bud', '--layers', ...RUNTIME, ...LIMITS, '--network', 'host', ...args)
  /** By their images. */
  const containers = new Map<string, string>()
  return {
    name: 'buildah',
    store,
    build,
    importTar: (tar, image) => {
      const dockerfile = join(directory, 'Dockerfile')
      writeFileSync(dockerfile, `FROM scratch\nADD ${basename(tar)} /\n`)
      build('--file', dockerfile, '--tag', image, dirname(tar))
    },
    pull: (image) => buildah('pull', '--quiet', '--tls-verify=false', image),
    run: (image) => {
      // Its `run` wants a container, which is made once.
      const container =
        containers.get(image) ??
        execFileSync('buildah', [...roots, 'from', image], { encoding: 'utf8' }).trim()
      containers.set(image, container)
      buildah('run', ...RUNTIME, '--network', 'none', container, 'true')
    },
    empty: () => {
      buildah('rmi', '--all', '--force')
      containers.clear()
    },
    [Symbol.asyncDispose]: () => {
      spawnSync('buildah', [...roots, 'rm', '--all'], { stdio: 'ignore' })
      return Promise.resolve()
    },
  }
}

async function openDocker(directory: string): Promise<Peer> {
  const daemon = await startDocker(directory, 'overlay2')
  const docker = (...args: readonly string[]): void => quietly(daemon.docker, args, daemon.env)
  return {
    name: 'docker',
    store: daemon.data,
    build: (...args) => docker('build', '--network=host', ...args),
    importTar: (tar, image) => docker('import', tar, image),
    pull: (image) => docker('pull', '--quiet', image),
    run: (image) => docker('run', '--rm', '--network=none', image, 'true'),
    empty: () => docker('system', 'prune', '--all', '--force'),
    [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose](),
  }
}
