/** Other builders, for comparison: Debian's buildah, and the BuildKit that is in Debian's dockerd. Both with overlay storage, in the scratch directory. */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { writeFileSync } from 'node:fs'
import { startDocker } from '../test/support/docker-daemon.ts'
import { allocated, quietly, type Bench } from './measure.ts'

/** Debian's crun refuses a machine with v1 and an empty v2 tree. */
const RUNTIME = ['--runtime', 'runc']
/** Machines without CAP_SYS_RESOURCE refuse raised limits. */
const LIMITS = ['--ulimit', 'nofile=512:512', '--ulimit', 'nproc=512:512']

export interface Peer extends AsyncDisposable {
  readonly name: string
  /** With its cache, unless the options say otherwise; RUN has the host's network. */
  build(...options: readonly string[]): void
  /** A tar of a root file system, as an image of one layer. */
  importTar(tar: string, image: string): void
  /** From a registry on loopback. */
  pull(image: string): void
  /** Runs `true` in a container without network. */
  run(image: string): void
  /** Removes all images, and what was cached. */
  empty(): void
  /** Bytes on disk of all that it stores. */
  allocated(): number
}

/** One after the other, each there while it is measured only, beginning with the base image. What cannot be had is said, and left out. */
export async function* peers(bench: Bench): AsyncGenerator<Peer> {
  for (const open of [openBuildah, openDocker]) {
    await using peer = await open(bench)
    if (peer !== undefined) yield peer
  }
}
