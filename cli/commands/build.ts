import { rmSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { build as buildImage, type BuildRequest } from '../../builder/index.ts'
import { TbuildError } from '../../errors.ts'
import { LIMIT_OPTIONS, STORE_OPTION, defineCommand, type Values } from '../arguments/types.ts'
import { parseLimits, parsePair } from '../arguments/values.ts'
import { shortId } from '../format.ts'
import { familiarName, parseName } from '../images.ts'
import { interruptible } from '../interrupt.ts'
import { out, say } from '../output.ts'
import { checkPlatform } from '../platform.ts'
import { PROGRESS_MODES, createProgress, type ProgressMode } from '../progress/index.ts'
import { sourceDateEpoch } from '../source-date-epoch.ts'
import { openChosenStore } from '../store.ts'

const OPTIONS = {
  tag: { kind: 'list', short: 't', value: 'NAME', help: "The image's name, e.g. app or app:1.2" },
  file: {
    kind: 'value',
    short: 'f',
    value: 'FILE',
    help: 'The Dockerfile (default: Dockerfile in the context)',
  },
  'build-arg': {
    kind: 'list',
    value: 'KEY[=VALUE]',
    help: 'Set an ARG; without a value, from the environment',
  },
  target: { kind: 'value', value: 'STAGE', help: 'Build this stage, not the last one' },
  'no-cache': { kind: 'flag', help: 'Run every step again' },
  network: {
    kind: 'value',
    value: 'MODE',
    choices: ['host', 'none'],
    help: 'Network of each RUN (default: host)',
  },
  ...LIMIT_OPTIONS,
  label: { kind: 'list', value: 'KEY=VALUE', help: 'Add a label to the image' },
  platform: { kind: 'value', value: 'OS/ARCH', help: "Only this machine's own is built" },
  progress: { kind: 'value', value: 'HOW', choices: PROGRESS_MODES, help: 'How to show it (default: auto)' },
  iidfile: { kind: 'value', value: 'FILE', help: "Write the image's id to this file" },
  quiet: { kind: 'flag', short: 'q', help: "Print only the image's id" },
  ...STORE_OPTION,
} as const

export const build = defineCommand({
  usage: '[OPTIONS] CONTEXT',
  description: `
CONTEXT is the directory that COPY and ADD take files from. The word "build" may be left out.
SOURCE_DATE_EPOCH, from the environment or as a build argument, fixes the image's dates (seconds since 1970).`,
  options: OPTIONS,
  examples: [
    ['tbuild -t app .', 'build ./Dockerfile as app:latest'],
    [
      'tbuild build -f prod.Dockerfile -t app:prod --build-arg V=2 src',
      'another Dockerfile, with an argument',
    ],
    ['tbuild build --target test --network none -m 512m .', 'one stage, offline, with at most 512 MiB'],
  ],
  arguments: { least: 1, most: 1 },
  async run({ options, args: [context = ''] }) {
    const request = requestOf(options, context)
    const { iidfile, quiet } = options
    if (iidfile !== undefined) rmSync(iidfile, { force: true })
    const progress = await createProgress(quiet ? 'quiet' : progressMode(options.progress), process.stderr)
    const begun = performance.now()
    const result = await interruptible(async (signal) => {
      try {
        await using store = await openChosenStore(options)
        return await buildImage({ ...request, signal }, store, progress.observe)
      } finally {
        progress.finish()
      }
    })
    if (iidfile !== undefined) writeFileSync(iidfile, result.imageId)
    if (quiet) {
      out(`${result.imageId}\n`)
    } else if (options.progress !== 'quiet') {
      const { total, cached } = result.steps
      const name = request.tags[0] === undefined ? '' : ` ${familiarName(request.tags[0])}`
      const time = ((performance.now() - begun) / 1000).toFixed(2)
      say(`built${name} ${shortId(result.imageId)}: ${total} steps, ${cached} cached, ${time}s`)
    }
  },
})

function progressMode(text: string | undefined): ProgressMode {
  return PROGRESS_MODES.find((mode) => mode === text) ?? 'auto'
}

function requestOf(options: Values<typeof OPTIONS>, context: string): BuildRequest {
  checkContext(context)
  checkPlatform(options.platform)
  if (options.file === '-')
    throw new TbuildError('DOCKERFILE_UNSUPPORTED', 'A Dockerfile is not read from standard input.', {
      hint: 'write it to a file: -f FILE',
    })
  const buildArgs = new Map(options['build-arg'].map((text) => parsePair(text, '--build-arg')))
  return {
    context: resolve(context),
    dockerfile: options.file === undefined ? join(resolve(context), 'Dockerfile') : resolve(options.file),
    tags: [...new Set(options.tag.map(parseName))],
    buildArgs,
    target: options.target,
    noCache: options['no-cache'],
    network: options.network === 'none' ? 'none' : 'host',
    limits: parseLimits(options),
    labels: new Map(
      options.label.map((text) => {
        const [key, value] = parsePair(text, '--label')
        return [key, value ?? '']
      }),
    ),
    sourceDateEpoch: sourceDateEpoch(buildArgs.get('SOURCE_DATE_EPOCH')),
  }
}

/** A directory; what docker also takes is told apart, so that nobody looks for a typing mistake. */
function checkContext(context: string): void {
  const hint = 'give a directory, e.g. tbuild -t app .'
  if (context === '-' || /^(?:https?|git|ssh):\/\/|^git@/.test(context))
    throw new TbuildError(
      'CONTEXT_UNSUPPORTED',
      `The build context ${JSON.stringify(context)} is not a directory.`,
      { hint },
    )
  const info = statSync(context, { throwIfNoEntry: false })
  if (info === undefined)
    throw new TbuildError('CONTEXT_NOT_FOUND', `There is no directory ${JSON.stringify(context)}.`, { hint })
  if (!info.isDirectory())
    throw new TbuildError(
      'CONTEXT_UNSUPPORTED',
      `The build context ${JSON.stringify(context)} is not a directory.`,
      { hint },
    )
}
