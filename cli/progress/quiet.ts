/** Nothing while all goes well; of a step that fails, the end of what it wrote. */
import type { Writable } from 'node:stream'
import type { Progress } from './index.ts'

const KEPT_BYTES = 64 * 1024

export function quietProgress(stream: Pick<Writable, 'write'>): Progress {
  const outputs = new Map<number, Buffer[]>()
  return {
    observe(event) {
      if (event.kind === 'output') {
        const chunks = outputs.get(event.id) ?? []
        outputs.set(event.id, chunks)
        chunks.push(Buffer.from(event.chunk))
        let length = chunks.reduce((sum, chunk) => sum + chunk.length, 0)
        while (length - (chunks[0]?.length ?? 0) > KEPT_BYTES) length -= chunks.shift()?.length ?? 0
      } else if (event.kind === 'failed') {
        for (const chunk of outputs.get(event.id) ?? []) stream.write(chunk)
        outputs.delete(event.id)
      } else if (event.kind === 'done' || event.kind === 'canceled') {
        outputs.delete(event.id)
      }
    },
    finish() {},
  }
}
