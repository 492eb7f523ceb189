import { expect, test } from '@jest/globals'
import type { BuildEvent } from '../../builder/index.ts'
import { plainProgress } from './plain.ts'
import { clip, oneLine, outputText } from './text.ts'

/** What is written for these events; a number lets so many milliseconds pass. */
function shown(...script: readonly (BuildEvent | number)[]): string {
  let text = ''
  let time = 0
  const write = (chunk: string | Uint8Array): boolean => {
    text += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString('latin1')
    return true
  }
  const progress = plainProgress({ write }, () => time)
  for (const event of script) {
    if (typeof event === 'number') time += event
    else progress.observe(event)
  }
  progress.finish()
  return text
}
const started = (id: number, title: string): BuildEvent => ({ kind: 'started', id, title })
const output = (id: number, text: string): BuildEvent => ({
  kind: 'output',
  id,
  chunk: Buffer.from(text, 'latin1'),
})
const end = (id: number, kind: 'cached' | 'done' | 'canceled'): BuildEvent => ({ kind, id })

test('a build as BuildKit prints it', () => {
  expect(
    shown(
      started(1, '[1/2] FROM base'),
      end(1, 'cached'),
      started(2, '[2/2] RUN make'),
      412,
      output(2, 'compiling\nlin'),
      100,
      output(2, 'king\nthe end'),
      end(2, 'done'),
    ),
  ).toBe(`#1 [1/2] FROM base
#1 CACHED

#2 [2/2] RUN make
#2 0.412 compiling
#2 0.512 linking
#2 0.512 the end
#2 DONE 0.5s

`)
})

test('steps that run at the same time take turns', () => {
  expect(
    shown(
      started(1, 'RUN a'),
      started(2, 'RUN b'),
      output(2, 'b\n'),
      output(1, 'a\n'),
      { kind: 'failed', id: 1, message: 'exit code: 1' },
      end(2, 'canceled'),
    ),
  ).toBe(`#1 RUN a
#1 ...

#2 RUN b
#2 0.000 b
#2 ...

#1 RUN a
#1 0.000 a
#1 ERROR exit code: 1

#2 RUN b
#2 CANCELED

`)
})

test('output goes through byte by byte, titles do not', () => {
  expect(shown(started(1, 'RUN \u{1b}[2Jx\ny'), output(1, '\x1b[31mred\xff\r\n'), end(1, 'done'))).toBe(
    '#1 RUN x y\n#1 0.000 \x1b[31mred\xff\r\n#1 DONE 0.0s\n\n',
  )
})

test('a line without an end is shown in pieces', () => {
  const long = 'x'.repeat(70_000)
  expect(shown(started(1, 'RUN a'), output(1, long), output(1, 'y\n'), end(1, 'done'))).toBe(
    `#1 RUN a\n#1 0.000 ${long}\n#1 0.000 y\n#1 DONE 0.0s\n\n`,
  )
})

test('what is still running when the build ends was canceled', () => {
  expect(shown(started(1, 'RUN a'))).toBe('#1 RUN a\n#1 CANCELED\n\n')
})

test('a warning and its frame stand alone', () => {
  expect(
    shown(
      started(1, 'RUN a'),
      { kind: 'warning', message: 'old form', frame: '1 | MAINTAINER x' },
      end(1, 'done'),
    ),
  ).toBe('#1 RUN a\n#1 ...\n\nWARNING: old form\n1 | MAINTAINER x\n#1 RUN a\n#1 DONE 0.0s\n\n')
})

test('text for a terminal steers nothing', () => {
  expect(oneLine('a\u{1b}[31m b\r\n\u{7}\u{202e}c')).toBe('a b c')
  expect(outputText(Buffer.from('  10%\r  20%\tdone\u{1b}[K\r'))).toBe('  20%    done')
  expect(clip('äbcdef', 4)).toBe('äbc…')
})
