/** Pulls, pushes, saves and loads: a line for each layer when its state changes; on a terminal also a running count below. */
import type { TransferEvent, TransferObserver } from '../../builder/index.ts'
import { humanSize, shortId } from '../format.ts'
import { clip, oneLine } from './text.ts'

export interface TransferProgress {
  readonly observe: TransferObserver
  /** Takes the running count away. To be called however it ends, before anything else is printed. */
  finish(): void
}

interface Layer {
  readonly size: number
  bytes: number
}

const REDRAW_MS = 100

/** `verb`, e.g. `pulling`. */
export function transferProgress(
  verb: string,
  stream: NodeJS.WriteStream,
  how: { readonly quiet?: boolean } = {},
): TransferProgress {
  const moving = new Map<string, Layer>()
  const live = stream.isTTY && stream.columns > 0 && process.env['TERM'] !== 'dumb'
  const begun = performance.now()
  let drawn = false
  let lastDraw = 0
  let total = 0

  const clear = (): void => {
    if (drawn) stream.write('\r\u{1b}[K')
    drawn = false
  }
  const line = (text: string): void => {
    clear()
    stream.write(`${oneLine(text)}\n`)
  }
  const draw = (): void => {
    const now = performance.now()
    if (!live || moving.size === 0 || now - lastDraw < REDRAW_MS) return
    lastDraw = now
    const layers = [...moving.values()]
    const bytes = layers.reduce((sum, layer) => sum + layer.bytes, 0)
    const size = layers.reduce((sum, layer) => sum + layer.size, 0)
    const speed = (total / Math.max(1, now - begun)) * 1000
    const text = `${verb} ${layers.length} layer${layers.length === 1 ? '' : 's'}: ${humanSize(bytes)} of ${humanSize(size)}, ${humanSize(Math.round(speed))}/s`
    stream.write(`\r\u{1b}[K${clip(text, (stream.columns || 80) - 1)}`)
    drawn = true
  }
  const layerLine = (event: Extract<TransferEvent, { kind: 'layer' }>): void => {
    const { digest, size, state } = event
    const id = shortId(digest)
    if (state === 'done' || state === 'exists' || state === 'mounted') moving.delete(digest)
    else moving.set(digest, { size, bytes: 0 })
    switch (state) {
      case 'started':
        return line(`${id}: ${verb} ${humanSize(size)}`)
      case 'compressing':
        return line(`${id}: compressing ${humanSize(size)}`)
      case 'exists':
        return line(`${id}: already there`)
      case 'mounted':
        return line(`${id}: taken over within the registry`)
      case 'done':
        return line(`${id}: done`)
      default:
        state satisfies never
    }
  }
  return {
    observe(event) {
      switch (event.kind) {
        case 'layer':
          if (how.quiet !== true) layerLine(event)
          break
        case 'progress': {
          const layer = moving.get(event.digest)
          if (layer === undefined) break
          total += Math.max(0, event.bytes - layer.bytes)
          layer.bytes = event.bytes
          break
        }
        case 'note':
          line(`note: ${event.text}`)
          break
        default:
          event satisfies never
      }
      if (how.quiet !== true) draw()
    },
    finish: clear,
  }
}
