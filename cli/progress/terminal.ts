/**
 * The live display. What has ended is printed once and scrolls away; below it stand the running steps with the last lines of
 * their output, redrawn by log-update. Cached steps are folded into one line.
 *
 * log-update is loaded only when a build takes longer than a blink: it costs more than a build that is all cached.
 */
import { styleText } from 'node:util'
import type logUpdate from 'log-update'
import type { BuildEvent } from '../../builder/index.ts'
import type { Progress } from './index.ts'
import { splitLines, type LineSplitter } from './lines.ts'
import { clip, oneLine, outputText } from './text.ts'

type LogUpdate = typeof logUpdate

interface Step {
  readonly title: string
  readonly started: number
  readonly lines: LineSplitter
  /** Newest last. */
  readonly tail: string[]
  note: string | undefined
}

const SHOWN_LINES = 6
const BLINK_MS = 150
const FRAME_MS = 100

export function terminalProgress(stream: NodeJS.WriteStream): Progress {
  const steps = new Map<number, Step>()
  /** Lines that are final, until they are printed. */
  let ready: string[] = []
  let cached = 0
  let dirty = false
  let finished = false
  let display: LogUpdate | undefined
  let timer: NodeJS.Timeout | undefined = setTimeout(() => void goLive(), BLINK_MS)

  const columns = (): number => Math.max(20, (stream.columns || 80) - 1)
  const style = (format: Parameters<typeof styleText>[0], text: string): string =>
    styleText(format, text, { stream })

  const goLive = async (): Promise<void> => {
    const { createLogUpdate } = await import('log-update')
    if (finished) return
    display = createLogUpdate(stream)
    timer = setInterval(draw, FRAME_MS)
    draw()
  }
  const foldCached = (): void => {
    const count = `${cached} step${cached === 1 ? '' : 's'}`
    if (cached > 0) ready.push(` ${style('green', '✔')} ${count} ${style('cyan', 'CACHED')}`)
    cached = 0
  }
  const final = (line: string): void => {
    foldCached()
    ready.push(line)
  }
  const ended = (mark: string, title: string, time: string): string => {
    const room = columns() - 5 - time.length
    return ` ${mark} ${clip(title, room).padEnd(room)} ${style('dim', time)}`
  }

  const draw = (): void => {
    if (display === undefined) return
    for (const line of ready) display.persist(line)
    const more = ready.length > 0
    ready = []
    if (steps.size > 0 || dirty || more) display(liveLines().join('\n'))
    dirty = false
  }
  /** Fits the screen: where there are too many steps, the last ones are only counted. */
  const liveLines = (): string[] => {
    const rows = Math.max(4, (stream.rows || 24) - 2)
    const each = Math.max(0, Math.min(SHOWN_LINES, Math.floor((rows - 1) / Math.max(1, steps.size)) - 1))
    const lines: string[] = []
    if (cached > 0) lines.push(style('dim', ` … ${cached} cached`))
    for (const step of steps.values()) {
      lines.push(ended(style('yellow', '▸'), step.title, elapsed(step.started)))
      const tail = step.note === undefined ? step.tail : [...step.tail, step.note]
      if (each > 0)
        for (const line of tail.slice(-each)) lines.push(style('dim', clip(`   │ ${line}`, columns())))
    }
    if (lines.length > rows)
      lines.splice(rows - 1, lines.length, style('dim', ` … and ${steps.size} steps in all`))
    return lines
  }
  const close = (id: number, show: (step: Step) => void): void => {
    const step = steps.get(id)
    if (step === undefined) return
    const rest = step.lines.end()
    if (rest !== undefined) step.tail.push(outputText(rest))
    steps.delete(id)
    show(step)
  }

  const observe = (event: BuildEvent): void => {
    dirty = true
    switch (event.kind) {
      case 'started':
        steps.set(event.id, {
          title: oneLine(event.title),
          started: performance.now(),
          lines: splitLines(),
          tail: [],
          note: undefined,
        })
        break
      case 'output': {
        const step = steps.get(event.id)
        if (step === undefined) break
        for (const line of step.lines.push(event.chunk).slice(-SHOWN_LINES)) step.tail.push(outputText(line))
        step.tail.splice(0, step.tail.length - SHOWN_LINES)
        break
      }
      case 'note': {
        const step = steps.get(event.id)
        if (step !== undefined) step.note = oneLine(event.text)
        break
      }
      case 'cached':
        close(event.id, () => cached++)
        break
      case 'done':
        close(event.id, (step) => final(ended(style('green', '✔'), step.title, elapsed(step.started))))
        break
      case 'failed':
        // Its error is printed next, and has the end of its output.
        close(event.id, (step) => final(ended(style('red', '✘'), step.title, elapsed(step.started))))
        break
      case 'canceled':
        close(event.id, (step) =>
          final(ended(style('yellow', '-'), `${step.title} CANCELED`, elapsed(step.started))),
        )
        break
      case 'warning':
        final(` ${style('yellow', '!')} ${oneLine(event.message)}`)
        if (event.frame !== undefined) ready.push(event.frame.replace(/\n$/, ''))
        break
      default:
        event satisfies never
    }
  }
  return {
    observe,
    finish() {
      finished = true
      clearTimeout(timer)
      timer = undefined
      for (const id of steps.keys()) observe({ kind: 'canceled', id })
      foldCached()
      display?.clear()
      display?.done()
      stream.write(ready.map((line) => `${line}\n`).join(''))
      ready = []
    },
  }
}

function elapsed(since: number): string {
  return `${((performance.now() - since) / 1000).toFixed(1)}s`
}
