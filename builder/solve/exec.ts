/** A RUN: the command in a container on a fresh upper, which then is the layer. */
import { rmSync, writeFileSync } from 'node:fs'
import { TbuildError } from '../../errors.ts'
import {
  checkContainersAllowed,
  memoryLimitMessage,
  resolveUser,
  runContainer,
  type Exit,
} from '../../runtime/index.ts'
import type { Layer } from '../../cas/index.ts'
import { SCRIPT_NAME } from '../plan/instructions.ts'
import type { ExecStep, Taking } from '../plan/types.ts'
import type { SolveContext } from './context.ts'
import { openRunMounts, type MountInput } from './mounts.ts'
import type { StepProgress } from './observer.ts'

const TAIL_BYTES = 64 * 1024
const TAIL_LINES = 20

/** `inputs`: what its mounts take. */
export async function runExec(
  context: SolveContext,
  step: ExecStep,
  layers: readonly Layer[],
  progress: StepProgress,
  inputs: ReadonlyMap<Taking, MountInput>,
): Promise<Layer> {
  const { store, request, signal, nowNs } = context
  checkContainersAllowed()
  await using mounts = await openRunMounts(context, step, inputs, progress)
  await using root = await store.layers.mountWritable(layers)
  // One name, directly in the root: nothing of the image can lead it elsewhere.
  const script = step.script === undefined ? undefined : `/proc/self/fd/${root.fd}/${SCRIPT_NAME}`
  if (script !== undefined) writeFileSync(script, step.script ?? '', { flag: 'wx', mode: 0o755 })
  const tail = createTail()
  const { scope, fd } = store.lease()
  const container = await runContainer(
    {
      root: root.fd,
      args: step.args,
      env: environment(step, root.fd, mounts.env),
      cwd: step.cwd.replace(/(.)\/+$/, '$1'),
      user: step.user,
      hostname: 'tbuild',
      network: step.network,
      limits: request.limits,
      ...request.container,
      readonlyEtcFiles: true,
      stdio: { stdin: 'ignore', stdout: 'pipe', stderr: 'pipe' },
      tty: false,
      scope,
      inheritFds: [fd, ...mounts.locks],
      mounts: mounts.list,
    },
    { signal },
  )
  for (const stream of [container.stdout, container.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      tail.push(chunk)
      progress.output(chunk)
    })
  }
  const exit = await container.exited
  signal.throwIfAborted()
  if (exit.exitCode !== 0) {
    const hint = store.layers.driver === 'erofs' ? aclHint(tail.lines()) : undefined
    throw failure(step, exit, request.limits.memoryBytes, tail.lines(), hint)
  }
  if (script !== undefined) rmSync(script, { force: true, recursive: true })
  return await root.commit({
    clampMtimeNs: request.sourceDateEpoch === undefined ? undefined : nowNs,
    // Not the build's own, which a failing step aborts: what others have done is kept.
    signal: request.signal,
  })
}

function environment(step: ExecStep, root: number, secrets: ReadonlyMap<string, string>): string[] {
  const given = [...step.env, ...step.hiddenEnv].filter(
    (entry) => !secrets.has(entry.slice(0, entry.indexOf('='))),
  )
  const env = [...given, ...[...secrets].map(([name, value]) => `${name}=${value}`)]
  if (!env.some((entry) => entry.startsWith('HOME='))) env.push(`HOME=${resolveUser(root, step.user).home}`)
  return env
}

function failure(
  step: ExecStep,
  exit: Exit,
  limit: number | undefined,
  lines: readonly string[],
  hint: string | undefined,
): TbuildError {
  const command = `process ${JSON.stringify(step.args.join(' '))}`
  const output = lines.length === 0 ? '' : `\n${lines.map((line) => `  | ${line}`).join('\n')}`
  if (exit.oomKilled) {
    const why =
      limit === undefined ? 'was killed because the machine ran out of memory' : memoryLimitMessage(limit)
    return new TbuildError('RUN_OUT_OF_MEMORY', `${command} ${why}${output}`, {
      hint: limit === undefined ? undefined : 'Raise --memory, or make the step use less.',
    })
  }
  const signal = exit.signal === undefined ? '' : ` (${exit.signal})`
  return new TbuildError(
    'RUN_FAILED',
    `${command} did not complete successfully: exit code: ${exit.exitCode}${signal}${output}`,
    { hint },
  )
}

/** overlayfs asks whether a lower's file system could set an ACL before it copies a file up (ovl_set_acl), and EROFS cannot. */
function aclHint(lines: readonly string[]): string | undefined {
  if (!lines.some((line) => line.includes('Operation not supported'))) return undefined
  return 'If it was an ACL (setfacl): the kernel sets none on what a lower layer has, while it is an EROFS image. Change the mode first (chmod u+r NAME), or build with --driver copy.'
}

/** The last lines of the output. */
function createTail() {
  let chunks: Buffer[] = []
  let size = 0
  return {
    push: (chunk: Buffer): void => {
      chunks.push(chunk)
      size += chunk.length
      if (size > 2 * TAIL_BYTES) {
        const kept = Buffer.concat(chunks).subarray(-TAIL_BYTES)
        chunks = [kept]
        size = kept.length
      }
    },
    lines: (): string[] => {
      const text = Buffer.concat(chunks).toString().trimEnd()
      if (text === '') return []
      return text
        .split('\n')
        .slice(-TAIL_LINES)
        .map((line) => line.replaceAll(/[\p{Cc}]/gu, (char) => (char === '\t' ? char : '')))
    },
  }
}
