import { repairStore, type FsckProblem, type FsckReport, type IndexRepair } from '../../cas/index.ts'
import { TbuildError } from '../../errors.ts'
import { STORE_OPTION, defineCommand } from '../arguments/types.ts'
import { humanSize } from '../format.ts'
import { Interrupted, interruptible } from '../interrupt.ts'
import { out } from '../output.ts'
import { byteProgress } from '../progress/bytes.ts'
import { openChosenStore, storePath } from '../store.ts'

/** As fsck(8) has them; they add up. */
const REPAIRED = 1
const LEFT = 4
const FAILED = 8

interface Outcome {
  readonly index: IndexRepair | undefined
  readonly report: FsckReport
}

export const fsck = defineCommand({
  usage: '[OPTIONS]',
  description: `
Reads everything in the store and compares it with what was stored. It may run while other commands do. What is
damaged is named, with the images that need it. With --repair it is had back from elsewhere in the store where that
can be; what cannot is taken out, so that it can be built or pulled again. The exit status is that of fsck(8): 0 all is
well, 1 all problems were repaired, 4 some are left, 8 the check itself failed.`,
  options: {
    repair: { kind: 'flag', help: 'Mend what is damaged' },
    quick: { kind: 'flag', help: 'Do not read the contents: only see whether everything is there' },
    json: { kind: 'flag', help: 'Print JSON' },
    ...STORE_OPTION,
  },
  examples: [
    ['tbuild fsck', 'after a crash, or when a disk is not trusted'],
    ['tbuild fsck --repair', 'also when no other command can open the store'],
    ['tbuild fsck --quick --json | jq .problems', 'for a script'],
  ],
  arguments: { least: 0, most: 0 },
  async run({ options }) {
    const { quick, repair } = options
    const progress = byteProgress('checking', process.stderr)
    let outcome: Outcome
    try {
      outcome = await interruptible(async (signal) => {
        const how = { signal, onProgress: progress.observe }
        try {
          const index = repair ? await repairStore(storePath(options.store), how) : undefined
          await using store = await openChosenStore(options, { onlyReads: !repair })
          return { index, report: await store.fsck({ quick, repair, ...how }) }
        } finally {
          progress.finish()
        }
      })
    } catch (error) {
      if (error instanceof TbuildError && error.code === 'STORE_CORRUPT') outcome = unreadable(error)
      else return await failure(error)
    }
    if (options.json)
      out(`${JSON.stringify({ ...outcome.report, index: outcome.index ?? null }, undefined, 2)}\n`)
    else out(text(outcome, repair))
    return status(outcome)
  },
})

async function failure(error: unknown): Promise<number> {
  const { report } = await import('../report.ts')
  const code = report(error, 'fsck')
  return error instanceof Interrupted ? code : FAILED
}

/** A store that cannot be opened has one problem, until that is repaired. */
function unreadable(error: TbuildError): Outcome {
  const problem: FsckProblem = {
    code: 'INDEX_DAMAGED',
    what: error.message,
    where: 'index.db',
    images: [],
    repair: 'make the index anew from the files of the store',
    repaired: false,
  }
  const counts = { contents: 0, bytes: 0, layers: 0, images: 0, blobs: 0 }
  return { index: undefined, report: { problems: [problem], leftovers: [], lost: [], counts, seconds: 0 } }
}

function status({ index, report: { problems } }: Outcome): number {
  const repaired = index !== undefined || problems.some((problem) => problem.repaired)
  return (repaired ? REPAIRED : 0) + (problems.every((problem) => problem.repaired) ? 0 : LEFT)
}

const MOST_SHOWN = 100

function text({ index, report }: Outcome, repair: boolean): string {
  const { problems, leftovers, lost, counts, seconds } = report
  const lines: string[] = []
  if (index !== undefined) {
    const kept = index.kept === undefined ? '' : `; the old one is in ${index.kept}`
    lines.push(`${index.reason} It was made anew from the files of the store${kept}.`, '')
  }
  for (const { code, what, where, images, repair: way, repaired } of problems.slice(0, MOST_SHOWN)) {
    lines.push(`${where}: ${what} [${code}]`)
    if (images.length > 0) lines.push(`  needed by ${images.join(', ')}`)
    lines.push(`  ${repaired ? 'repaired' : repair ? 'not repaired' : 'repair would'}: ${way}`)
  }
  if (problems.length > MOST_SHOWN)
    lines.push(`and ${problems.length - MOST_SHOWN} more; --json has them all`)
  if (problems.length > 0) lines.push('')
  if (lost.length > 0) lines.push(`Lost, to be built or pulled again: ${lost.join(', ')}`)
  const left = problems.filter(({ repaired }) => !repaired).length
  lines.push(
    `${plural(counts.images, 'image')}, ${plural(counts.layers, 'layer')}, ${plural(counts.contents, 'content')} of ${humanSize(counts.bytes)}, ${plural(counts.blobs, 'blob')}: ` +
      `${problems.length === 0 ? 'all is well' : left === 0 ? `${plural(problems.length, 'problem')} repaired` : plural(left, 'problem')} (${seconds.toFixed(1)} s)`,
  )
  if (leftovers.length > 0) {
    const bytes = leftovers.reduce((sum, leftover) => sum + leftover.bytes, 0)
    lines.push(
      `${plural(leftovers.length, 'file')} of ${humanSize(bytes)} without a record: tbuild prune removes them`,
    )
  }
  if (left > 0 && !repair) lines.push('tbuild fsck --repair mends what can be mended')
  return `${lines.join('\n')}\n`
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
