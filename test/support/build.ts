/** For tests of builds: a store of its own, a busybox base in it, contexts written in place, and what a build told. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  createReadStream,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { build, type BuildEvent, type BuildRequest, type BuildResult } from '../../builder/index.ts'
import {
  MEDIA,
  openStore,
  type ContainerConfig,
  type Image,
  type Store,
  type StoredLayer,
} from '../../cas/index.ts'

export interface Workshop extends AsyncDisposable {
  readonly directory: string
  readonly store: Store
  /** A context of these files; the Dockerfile is one of them. */
  context(files: Readonly<Record<string, string>>): string
  build(context: string, more?: Partial<BuildRequest>): Promise<Built>
  image(built: BuildResult): Image
}

export interface Built extends BuildResult {
  readonly events: readonly BuildEvent[]
  /** Titles of the steps that ran, and of those that came from the cache. */
  readonly ran: readonly string[]
  readonly fromCache: readonly string[]
  /** All that the RUNs wrote. */
  readonly output: string
}

/** `base`: busybox, with /etc/passwd and /tmp and nothing else. */
export async function openWorkshop(path?: string): Promise<Workshop> {
  const directory = mkdtempSync(join(tmpdir(), 'tbuild-test-'))
  const store = await openStore(path ?? join(directory, 'store'))
  await importBusybox(store, directory)
  let contexts = 0
  return {
    directory,
    store,
    context: (files) => {
      const context = join(directory, `context-${++contexts}`)
      for (const [name, text] of Object.entries(files)) {
        mkdirSync(dirname(join(context, name)), { recursive: true })
        writeFileSync(join(context, name), text)
      }
      return context
    },
    build: (context, more) => buildIn(store, context, more),
    image: ({ manifestDigest }) => {
      const image = store.images.byManifest(manifestDigest)
      if (image === undefined) throw new Error('the image is not in the store')
      return image
    },
    [Symbol.asyncDispose]: async () => {
      await store[Symbol.asyncDispose]()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

export async function buildIn(
  store: Store,
  context: string,
  more: Partial<BuildRequest> = {},
): Promise<Built> {
  const events: BuildEvent[] = []
  const request: BuildRequest = {
    context,
    dockerfile: join(context, 'Dockerfile'),
    tags: ['docker.io/library/app:latest'],
    buildArgs: new Map(),
    noCache: false,
    network: 'none',
    limits: {},
    labels: new Map(),
    ...more,
  }
  const result = await build(request, store, (event) => void events.push(event))
  return { ...result, events, ...summary(events) }
}

/** Cgroups of a lease. find(1) does not mind those of other tests that vanish meanwhile. */
export function cgroupsOf(scope: string): string[] {
  const { stdout } = spawnSync('find', ['/sys/fs/cgroup', '-name', `*${scope}*`], { encoding: 'utf8' })
  return stdout.split('\n').filter((line) => line !== '')
}

export function summary(events: readonly BuildEvent[]): Pick<Built, 'ran' | 'fromCache' | 'output'> {
  const titles = new Map<number, string>()
  for (const event of events) if (event.kind === 'started') titles.set(event.id, event.title)
  const of = (kind: BuildEvent['kind']): string[] =>
    events.flatMap((event) => (event.kind === kind && 'id' in event ? [titles.get(event.id) ?? ''] : []))
  const output = events.map((event) => (event.kind === 'output' ? event.chunk.toString() : '')).join('')
  return { ran: of('done').filter((title) => title.startsWith('[')), fromCache: of('cached'), output }
}

async function importBusybox(store: Store, directory: string): Promise<void> {
  const name = 'docker.io/library/base:latest'
  if (store.images.byName(name) !== undefined) return
  const tar = join(directory, 'base.tar')
  busyboxTar(join(directory, 'base'), tar)
  const layer = await store.layers.ingestTar(createReadStream(tar))
  storeImage(store, layer, { Cmd: ['sh'] }, name)
}

/** A tar of busybox, with /etc/passwd and /tmp and nothing else, which is made at `root` first. */
export function busyboxTar(root: string, tar: string): void {
  for (const folder of ['bin', 'etc', 'tmp']) mkdirSync(join(root, folder), { recursive: true })
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const applet of execFileSync('/bin/busybox', ['--list'], { encoding: 'utf8' }).trim().split('\n'))
    if (applet !== 'busybox') symlinkSync('busybox', join(root, 'bin', applet))
  writeFileSync(
    join(root, 'etc/passwd'),
    'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n',
  )
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nann:x:1001:\nwheel:x:10:ann\n')
  execFileSync('tar', ['-C', root, '--sort=name', '--mtime=@1000000000', '--numeric-owner', '-cf', tar, '.'])
}

/** An image of one stored layer. */
export function storeImage(store: Store, layer: StoredLayer, config: ContainerConfig, name: string): Image {
  const bytes = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config,
      rootfs: { type: 'layers', diff_ids: [layer.diffId] },
      history: [{ comment: 'Imported from -' }],
    }),
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: { mediaType: MEDIA.config, digest: store.blobs.write(bytes), size: bytes.length },
    layers: [{ mediaType: MEDIA.layer, digest: layer.diffId, size: layer.size }],
  }
  return store.images.put(store.blobs.write(Buffer.from(JSON.stringify(manifest))), [name])
}
