import type { Pin, PruneReport, Store } from '../../cas/index.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { parseAge } from '../arguments/age.ts'
import { parseSize } from '../arguments/values.ts'
import { UsageError } from '../arguments/usage-error.ts'
import { humanSize, shortId, table } from '../format.ts'
import { familiarName } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out, say } from '../output.ts'
import { openChosenStore } from '../store.ts'

export const prune = defineCommand({
  usage: '[OPTIONS]',
  description: `
Removes images without a name, and the layers, blobs and cache records that no image needs. What a running build or
container uses stays, and so does every image with a name: tbuild rmi takes names away.

With --keep-storage only so much goes, the least recently used first, that the store takes no more of the disk than SIZE:
compressed layers that can be pulled again, then layers that no image needs, then, with --all, images without a name. If
that is not enough, what holds the rest is listed.`,
  options: {
    all: {
      kind: 'flag',
      short: 'a',
      help: 'Also layers to be pulled again, and (--keep-storage) unnamed images',
    },
    filter: { kind: 'list', value: 'until=AGE', help: 'Only what was last used before, e.g. until=24h' },
    'keep-storage': { kind: 'value', value: 'SIZE', help: 'Most that the store may take, e.g. 20g' },
    'max-used-space': { kind: 'value', value: 'SIZE', help: 'The same' },
    compact: { kind: 'flag', help: 'Copy what is left together, also where it wins little' },
    'dry-run': { kind: 'flag', help: 'Only say what would go, and why the rest stays' },
    json: { kind: 'flag', help: 'Print JSON, in bytes: docs/garbage-collection.md' },
    force: { kind: 'flag', short: 'f', help: 'Accepted: nothing is asked' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild prune --dry-run', 'how much it would free'],
    ['tbuild prune', 'do it'],
    ['tbuild prune --filter until=168h', 'what was not used for a week'],
    ['tbuild prune -a --keep-storage 20g', 'by last use, until the store takes 20 GiB'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    const { json, all, compact, 'dry-run': dryRun } = options
    const size = options['keep-storage'] ?? options['max-used-space']
    const wanted = {
      dryRun,
      all,
      compact,
      keepBytes: size === undefined ? undefined : parseSize(size, '--keep-storage'),
      olderThanMs: ageOf(options.filter),
    }
    const { report, pins } = await interruptible(async (signal) => {
      await using store = await openChosenStore(options, { onlyReads: dryRun })
      const done = await store.prune({ ...wanted, signal, notice: (what) => say(WAITS[what]) })
      return { report: done, pins: done.cap?.pins ?? (dryRun ? pinsOf(store) : []) }
    })
    if (json) out(`${JSON.stringify({ dryRun, ...report, ...(dryRun ? { pins } : {}) }, undefined, 2)}\n`)
    else out(textOf(report, pins, dryRun))
  },
})

const WAITS = {
  collection: 'waiting for another prune on this store, or for who reads it through a read-only mount',
  ingests: 'waiting for builds and pulls that began before to store what they have',
}

/** What no image needs is about to go. */
function pinsOf(store: Store): readonly Pin[] {
  return store.pins().filter(({ kind }) => kind !== 'cache')
}

/** @throws UsageError `OPTION_VALUE` */
function ageOf(filters: readonly string[]): number | undefined {
  const ages = filters.map((filter) => {
    const [key, value] = filter.split('=')
    if (key === 'until' && value !== undefined) return parseAge(value, '--filter until')
    throw new UsageError('OPTION_VALUE', `--filter: ${JSON.stringify(filter)} is not known.`, {
      hint: 'there is until=AGE, e.g. --filter until=24h',
    })
  })
  return ages.length === 0 ? undefined : Math.max(...ages)
}

function textOf(report: PruneReport, pins: readonly Pin[], dryRun: boolean): string {
  const { steps, freedBytes, waitingBytes, damaged, cap } = report
  const lines = [
    ...report.images.map((digest) => `image ${digest}`),
    ...report.layers.map((digest) => `layer ${digest}`),
    ...report.blobs.map((digest) => `blob ${digest}`),
    ...report.cacheMounts.map((name) => `cache mount ${name}`),
    ...(steps > 0 ? [`${steps} cache record${steps === 1 ? '' : 's'}`] : []),
    ...damaged.map(
      (digest) =>
        `layer ${digest} is damaged: until it is mended or removed, no file contents are freed (tbuild fsck)`,
    ),
    `${dryRun ? 'Would reclaim' : 'Reclaimed'}: ${humanSize(freedBytes)}`,
    ...(waitingBytes > 0
      ? [`${humanSize(waitingBytes)} more when the builds and pulls that are at work have ended`]
      : []),
  ]
  if (cap?.isKept === false) {
    const verb = dryRun ? 'would still take' : 'still takes'
    lines.push(
      `The store ${verb} ${humanSize(cap.allocatedBytes)}, more than ${humanSize(cap.keepBytes)}. It is held by:`,
    )
  } else if (pins.length > 0) {
    lines.push('The rest stays for:')
  }
  return `${lines.join('\n')}\n${pins.length === 0 ? '' : pinTable(pins)}`
}

const KINDS: Readonly<Record<Pin['kind'], string>> = {
  image: 'image',
  untagged: 'image without a name (--all)',
  process: 'process',
  cache: 'cache',
  ingest: 'at work',
  dead: 'not free yet',
  index: 'the store itself',
}

function pinTable(pins: readonly Pin[]): string {
  const rows = pins.map(({ kind, name, bytes, ownBytes }) => [
    KINDS[kind],
    nameOf(kind, name),
    humanSize(bytes),
    humanSize(ownBytes),
  ])
  return table(['WHAT', 'NAME', 'BYTES', 'ITS ALONE'], rows)
}

function nameOf(kind: Pin['kind'], name: string): string {
  if (kind === 'image') return name.split(', ').map(familiarName).join(', ')
  return kind === 'untagged' ? shortId(name) : name
}
