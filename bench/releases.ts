/**
 * What a history of releases takes: ten in a row of an npm application with its node_modules, and ten generations of a Debian base.
 *
 * (a) `@angular/cli`, ten consecutive releases. Each is installed into a clean directory, without a lock file, and copied onto one base. A release pins
 * what it depends on itself; what those depend on in turn is resolved on the day of the run, for all ten alike: a registry's mirror does not know the days on
 * which versions came out, so `npm install --before` would give trees that never were.
 *
 * (b) The first generation is bootstrapped from the release's own suite only; then the upgrades that the machine's other suites of it hold (security,
 * updates) are installed in nine steps, whole source packages at a time, in the order of their names: the days on which they came out are not in the index. Each
 * generation is imported whole, one layer that shares nothing with the others, which is how distributions publish theirs. Package lists and archives
 * are left out, as there.
 *
 * Needs network (npm's registry and Debian's, as the machine has them configured), npm, mmdebstrap and strace. 8 GB of scratch space.
 */
import { execFile } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { allocated, facts, megabytes, withBench, type Bench } from './measure.ts'
import { peers, type Peer } from './peers.ts'

const APPLICATION = '@angular/cli'
const RELEASES = [
  '17.2.0',
  '17.2.1',
  '17.2.2',
  '17.2.3',
  '17.3.0',
  '17.3.1',
  '17.3.2',
  '17.3.3',
  '17.3.4',
  '17.3.5',
]
const GENERATIONS = 10
/** What makes the base one that is used to run things on. */
const PACKAGES = 'ca-certificates,curl,git,openssl,python3,rsync,unzip,xz-utils'

const runs = promisify(execFile)

await withBench(async (bench) => {
  // They wait for networks, each in its own way.
  const [contexts, tars] = await Promise.all([installReleases(bench), makeGenerations(bench)])
  await measure(bench, `${RELEASES.length} releases of ${APPLICATION}, each copied onto the same base`, {
    count: contexts.length,
    tbuild: (image) => bench.countSyncs('build', '-t', `release:${image}`, contexts[image] ?? ''),
    theirs: (peer, image) => peer.build('-t', `release:${image}`, contexts[image] ?? ''),
  })
  bench.fresh()
  bench.tbuild('rmi', 'localhost/base')
  bench.tbuild('prune')
  await measure(bench, `${GENERATIONS} generations of a Debian base, each imported whole`, {
    count: tars.length,
    tbuild: (image) => bench.countSyncs('import', tars[image] ?? '', `debian:${image}`),
    theirs: (peer, image) => peer.importTar(tars[image] ?? '', `debian:${image}`),
  })
})

interface History {
  readonly count: number
  /** Makes an image; how often that synced the disk. */
  readonly tbuild: (image: number) => number
  readonly theirs: (peer: Peer, image: number) => void
}

/** The part of `tbuild df --json` that is used here. All in bytes. */
interface DiskUsage {
  readonly allocatedBytes: number
  readonly images: readonly { readonly contentBytes: number; readonly names: readonly string[] }[]
  readonly layers: readonly { readonly contentBytes: number; readonly images: readonly string[] }[]
}

/** The same of `tbuild savings --json`. */
interface Savings {
  readonly fileSharingSavedBytes: number
  readonly storedBytes: number
}

async function measure(bench: Bench, title: string, { count, tbuild, theirs }: History): Promise<void> {
  const numbers = Array.from({ length: count }, (_, number) => number)
  const before = allocated(bench.store)
  const sizes: number[] = []
  const syncs = numbers.map((image) => {
    const made = tbuild(image)
    sizes.push(allocated(bench.store))
    return made
  })
  const usage = JSON.parse(bench.tbuildSays('df', '--json')) as DiskUsage
  const savings = JSON.parse(bench.tbuildSays('savings', '--json')) as Savings
  // The base is an image as well.
  const ofReleases = usage.images.filter(({ names }) => !names.some((name) => name.includes('base')))
  const logical = sum(ofReleases)
  const layers = sum(usage.layers.filter(({ images }) => images.length > 0))
  const files = layers - savings.fileSharingSavedBytes
  const added = (sizes.at(-1) ?? 0) - before
  const rest = (sizes.at(-1) ?? 0) - (sizes[0] ?? 0)
  const rows: [string, string][] = [
    ['files of all images', megabytes(logical)],
    ['files of distinct layers (layer sharing)', megabytes(layers)],
    ['  x less than all images', ratio(logical, layers)],
    ['distinct files (file sharing)', megabytes(files)],
    ['  x less than layer sharing', ratio(layers, files)],
    ['distinct files, recipes and index images, as savings tells', megabytes(savings.storedBytes)],
    ['tbuild: allocated, as df tells', megabytes(usage.allocatedBytes)],
    ['tbuild: the disk blocks of the store (du)', megabytes(allocated(bench.store))],
    ['tbuild added', megabytes(added)],
    ['  x less than layer sharing', ratio(layers, added)],
    ['  the first image', megabytes((sizes[0] ?? 0) - before)],
    ['  each further image, on average', megabytes(rest / (count - 1))],
    ['  syncs for one image, least and most', `${Math.min(...syncs)} to ${Math.max(...syncs)}`],
  ]
  for await (const peer of peers(bench)) {
    const start = allocated(peer.store)
    for (const image of numbers) theirs(peer, image)
    const size = allocated(peer.store) - start
    rows.push([`${peer.name} added`, megabytes(size)], ['  x tbuild', ratio(size, added)])
  }
  facts(title, rows)
}

function sum(parts: readonly { readonly contentBytes: number }[]): number {
  return parts.reduce((bytes, { contentBytes }) => bytes + contentBytes, 0)
}

function ratio(a: number, b: number): string {
  return (a / b).toFixed(2)
}

async function shell(script: string, ...args: readonly string[]): Promise<string> {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
  const { stdout } = await runs('sh', ['-euc', script, 'sh', ...args], { env, maxBuffer: 64 * 1024 * 1024 })
  return stdout
}

/** Contexts, the oldest release first. */
async function installReleases({ directory }: Bench): Promise<string[]> {
  const contexts: string[] = []
  for (const version of RELEASES) {
    const context = join(directory, `application-${version}`)
    const application = join(context, 'application')
    mkdirSync(application, { recursive: true })
    writeFileSync(join(application, 'package.json'), '{"private":true}')
    writeFileSync(join(context, 'Dockerfile'), 'FROM localhost/base\nCOPY application /application\n')
    await shell(
      'cd "$1"; npm install --ignore-scripts --no-audit --no-fund --no-package-lock --prefer-offline --cache "$2" "$3" >&2',
      application,
      join(directory, 'npm-cache'),
      `${APPLICATION}@${version}`,
    )
    contexts.push(context)
  }
  return contexts
}

/** Tars, the oldest generation first. */
async function makeGenerations({ directory }: Bench): Promise<string[]> {
  const root = join(directory, 'debian')
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1] ?? ''
  const suites = await debianSuites(release)
  const [own = ''] = suites.filter((suite) => suite.includes(` ${release} `))
  await shell(
    'mmdebstrap --quiet --variant=minbase --include="$1" "$2" "$3" "$4"',
    PACKAGES,
    release,
    root,
    own,
  )
  mkdirSync(join(directory, 'tars'))
  const tars = [await tarOf(root, join(directory, 'tars/0.tar'))]
  writeFileSync(join(root, 'etc/apt/sources.list'), `${suites.join('\n')}\n`)
  await shell('chroot "$1" apt-get -qq update', root)
  const upgrades = await upgradable(root)
  if (upgrades.length < GENERATIONS - 1) throw new Error(`${upgrades.length} source packages can be upgraded`)
  for (let step = 1; step < GENERATIONS; step++) {
    const part = (at: number): number => Math.round((at * upgrades.length) / (GENERATIONS - 1))
    const packages = upgrades.slice(part(step - 1), part(step)).flat()
    await shell(
      'root=$1; shift; chroot "$root" apt-get -qq install --only-upgrade "$@" </dev/null',
      root,
      ...packages,
    )
    tars.push(await tarOf(root, join(directory, `tars/${step}.tar`)))
  }
  return tars
}

/** Lines for sources.list. */
async function debianSuites(release: string): Promise<string[]> {
  const format = '$(ORIGIN) deb $(SITE) $(RELEASE) $(COMPONENT)'
  const lines = await shell(`apt-get indextargets --format '${format}' 'Identifier: Packages'`)
  return lines
    .split('\n')
    .filter((line) => line.startsWith('Debian ') && line.includes(` ${release}`))
    .map((line) => line.slice('Debian '.length))
}

/** Binary packages that can be upgraded, those of one source package together. */
async function upgradable(root: string): Promise<string[][]> {
  const plan = await shell('chroot "$1" apt-get -qq --simulate upgrade', root)
  const names = [...plan.matchAll(/^Inst (\S+)/gm)].map(([, name = '']) => name)
  const sources = await shell(
    'root=$1; shift; chroot "$root" dpkg-query --show --showformat "\\${source:Package} \\${Package}\\n" "$@"',
    root,
    ...names,
  )
  const groups = new Map<string, string[]>()
  for (const line of sources.trim().split('\n').toSorted()) {
    const [source = '', name = ''] = line.split(' ')
    groups.set(source, [...(groups.get(source) ?? []), name])
  }
  return [...groups.values()]
}

async function tarOf(root: string, path: string): Promise<string> {
  const without = ['./var/lib/apt/lists/*', './var/cache/apt/*'].map((name) => `--exclude=${name}`)
  await runs('tar', ['-C', root, '--numeric-owner', '--sort=name', ...without, '-cf', path, '.'])
  return path
}
