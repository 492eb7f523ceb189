/**
 * Other builders, given a conformance case: Debian's buildah, and BuildKit as Debian's docker has it in its daemon. Each with storage of its own
 * below a directory of the test's, without network, with base images from tbuild's store.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { createWriteStream, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { saveImages } from '../../builder/index.ts'
import type { Image, Store } from '../../cas/index.ts'
import { startDocker } from './docker-daemon.ts'
import type { ImageFiles } from './unpacked.ts'

export interface PeerBuild {
  readonly context: string
  /** Of a Dockerfile outside the context. */
  readonly dockerfile: string
  readonly buildArgs: Readonly<Record<string, string>>
  /** Not there yet: for the image's files. */
  readonly output: string
}

export interface Peer extends AsyncDisposable {
  load(archive: string): void
  /** The image, or what the builder said when it failed. */
  build(request: PeerBuild): ImageFiles | string
}

export function openBuildah(directory: string): Peer {
  const roots = ['--root', join(directory, 'buildah'), '--runroot', join(directory, 'buildah-run')]
  const buildah = (...args: readonly string[]): string => say('buildah', [...roots, ...args])
  // As bench/measure.ts: Debian's crun refuses a machine with v1 and an empty v2 tree, and machines without CAP_SYS_RESOURCE raised limits.
  const sandbox = [
    '--runtime',
    'runc',
    '--ulimit',
    'nofile=512:512',
    '--ulimit',
    'nproc=512:512',
    '--network',
    'none',
  ]
  // The docker format, because OCI's has no SHELL; no label with buildah's version.
  const format = ['--format', 'docker', '--identity-label=false', '--no-cache', '--pull-never', '--layers']
  return {
    load: (archive) => void buildah('pull', '--quiet', `docker-archive:${archive}`),
    build: ({ context, dockerfile, buildArgs, output }) => {
      try {
        buildah(
          'bud',
          ...sandbox,
          ...format,
          ...Object.entries(buildArgs).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]),
          '--file',
          dockerfile,
          '--tag',
          'localhost/built',
          context,
        )
      } catch (error) {
        return reason(error)
      }
      buildah('push', '--quiet', '--disable-compression', 'localhost/built', `dir:${output}`)
      const manifest = JSON.parse(readFileSync(join(output, 'manifest.json'), 'utf8')) as {
        readonly config: { readonly digest: string }
        readonly layers: readonly { readonly digest: string }[]
      }
      const file = ({ digest }: { readonly digest: string }): string =>
        join(output, digest.replace('sha256:', ''))
      return { config: file(manifest.config), layers: manifest.layers.map(file) }
    },
    [Symbol.asyncDispose]: () => {
      spawnSync('buildah', [...roots, 'rm', '--all'], { stdio: 'ignore' })
      rmSync(join(directory, 'buildah'), { recursive: true, force: true })
      return Promise.resolve()
    },
  }
}

export async function openDocker(directory: string): Promise<Peer> {
  const daemon = await startDocker(directory, 'vfs')
  const docker = (...args: readonly string[]): string => say(daemon.docker, args, daemon.env)
  return {
    load: (archive) => void docker('load', '--quiet', '--input', archive),
    build: ({ context, dockerfile, buildArgs, output }) => {
      // The frontend that a first line names would be fetched; what is built in is all there is.
      writeFileSync(dockerfile, readFileSync(dockerfile, 'utf8').replace(/^# *syntax *=.*\n/, '\n'))
      try {
        docker(
          'build',
          '--network=none',
          '--no-cache',
          '--progress=plain',
          '--tag=built',
          `--file=${dockerfile}`,
          ...Object.entries(buildArgs).flatMap(([name, value]) => ['--build-arg', `${name}=${value}`]),
          context,
        )
      } catch (error) {
        return reason(error)
      }
      docker('save', '--output', `${output}.tar`, 'built')
      return openDockerArchive(`${output}.tar`, output)
    },
    [Symbol.asyncDispose]: () => daemon[Symbol.asyncDispose](),
  }
}

/** An image of ours, as `tbuild save` writes it. */
export async function filesOf(store: Store, image: Image, output: string): Promise<ImageFiles> {
  await save(store, image, undefined, `${output}.tar`)
  return openDockerArchive(`${output}.tar`, output)
}

function openDockerArchive(archive: string, output: string): ImageFiles {
  mkdirSync(output)
  execFileSync('tar', ['-C', output, '-xf', archive])
  const [image] = JSON.parse(readFileSync(join(output, 'manifest.json'), 'utf8')) as {
    readonly Config: string
    readonly Layers: readonly string[]
  }[]
  if (image === undefined) throw new Error(`${archive} holds no image`)
  return { config: join(output, image.Config), layers: image.Layers.map((layer) => join(output, layer)) }
}

export async function giveBases(
  peer: Peer,
  store: Store,
  bases: ReadonlyMap<string, Image>,
  directory: string,
): Promise<void> {
  for (const [name, image] of bases) {
    const archive = join(directory, `${name.replaceAll('/', '_')}-image.tar`)
    // One after the other: a peer has one store.
    // oxlint-disable-next-line no-await-in-loop
    await save(store, image, `${name}:latest`, archive)
    peer.load(archive)
  }
}

async function save(store: Store, image: Image, name: string | undefined, archive: string): Promise<void> {
  await pipeline(saveImages(store, [{ image, name }], { format: 'docker' }), createWriteStream(archive))
}

function say(program: string, args: readonly string[], env = process.env): string {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    env,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  })
  if (error !== undefined) throw error
  if (status !== 0)
    throw new PeerFailure(`${program} ended with ${status}: ${stderr.trim() || stdout.trim()}`)
  return stdout
}

class PeerFailure extends Error {}

function reason(error: unknown): string {
  if (error instanceof PeerFailure) return error.message
  throw error
}
