/**
 * BuildKit's plain form, which people grep: `#3 [build 2/4] RUN make`, `#3 0.412 a line of output`, `#3 DONE 0.5s`. Lines of
 * steps that run at the same time take turns: `#3 ...` ends a turn, a blank line and the title begin one. Output is
 * passed on byte by byte, as docker does; only titles and messages are cleaned of control characters.
 */
import type { Writable } from 'node:stream'
import type { BuildEvent } from '../../builder/index.ts'
import type { Progress } from './index.ts'
import { splitLines, type LineSplitter } from './lines.ts'
import { oneLine } from './text.ts'

interface Step {
  readonly title: string
  readonly started: number
  readonly lines: LineSplitter
}

export function plainProgress(
  stream: Pick<Writable, 'write'>,
  now: () => number = () => performance.now(),
): Progress {
  const steps = new Map<number, Step>()
  /** Whose turn it is. */
  let current: number | undefined
  let text: (string | Buffer)[] = []

  const turn = (id: number): void => {
    if (current === id) return
    if (current !== undefined) text.push(steps.has(current) ? `#${current} ...\n\n` : '\n')
    text.push(`#${id} ${steps.get(id)?.title ?? ''}\n`)
    current = id
  }
  const outputLine = (id: number, step: Step, line: Buffer): void => {
    turn(id)
    text.push(`#${id} ${seconds((now() - step.started) / 1000)} `, line, '\n')
  }
  const close = (id: number, status: (step: Step) => string): void => {
    const step = steps.get(id)
    if (step === undefined) return
    const rest = step.lines.end()
    if (rest !== undefined) outputLine(id, step, rest)
    turn(id)
    text.push(`#${id} ${status(step)}\n`)
    steps.delete(id)
  }
  const elapsed = (step: Step): string => `${((now() - step.started) / 1000).toFixed(1)}s`

  const handle = (event: BuildEvent): void => {
    switch (event.kind) {
      case 'started':
        steps.set(event.id, { title: oneLine(event.title), started: now(), lines: splitLines() })
        // Nobody's turn is interrupted by a title: then it comes with the step's first word.
        if (current === undefined || !steps.has(current)) turn(event.id)
        break
      case 'output': {
        const step = steps.get(event.id)
        if (step !== undefined)
          for (const line of step.lines.push(event.chunk)) outputLine(event.id, step, line)
        break
      }
      case 'note':
        if (!steps.has(event.id)) break
        turn(event.id)
        text.push(`#${event.id} ${oneLine(event.text)}\n`)
        break
      case 'cached':
        close(event.id, () => 'CACHED')
        break
      case 'done':
        close(event.id, (step) => `DONE ${elapsed(step)}`)
        break
      case 'failed':
        close(event.id, () => `ERROR ${oneLine(event.message)}`)
        break
      case 'canceled':
        close(event.id, () => 'CANCELED')
        break
      case 'warning':
        if (current !== undefined) text.push(steps.has(current) ? `#${current} ...\n\n` : '\n')
        current = undefined
        text.push(`WARNING: ${oneLine(event.message)}\n`)
        if (event.frame !== undefined) text.push(event.frame.replace(/\n?$/, '\n'))
        break
      default:
        event satisfies never
    }
  }
  const flush = (): void => {
    if (text.length > 0)
      stream.write(Buffer.concat(text.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))))
    text = []
  }
  return {
    observe(event) {
      handle(event)
      flush()
    },
    finish() {
      for (const id of steps.keys()) close(id, () => 'CANCELED')
      if (current !== undefined) text.push('\n')
      current = undefined
      flush()
    },
  }
}

/** Four characters of digits, as BuildKit: 0.412, 12.35, 123.4. */
function seconds(value: number): string {
  return value.toFixed(value < 10 ? 3 : value < 100 ? 2 : 1)
}
