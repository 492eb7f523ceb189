/** No input, however mangled, crashes or hangs the parser; what it accepts it prints back. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { dumpTree } from './dump.ts'
import { DockerfileError, parse, print, stagesOf } from './index.ts'
import type { Dockerfile, Range } from './index.ts'
import { attempt } from './testing.ts'

const root = join(import.meta.dirname, '../fixtures/dockerfile-parser/testfiles')
const seeds = readdirSync(root).map((name) => readFileSync(join(root, name, 'Dockerfile'), 'utf8'))
seeds.push(
  '\ufeff# syntax=a\r\n# escape=`\r\nARG V\r\nFROM --platform=$P a:$V AS b\r\nRUN x `\r\n # c\r\n\r\n y\r\n',
  'FROM a\nRUN --mount=type=cache,target=/x <<-EOF <<"B" cat\n\tq\n\tEOF\nB\nCOPY <<A --link=true x /y\nA\n',
  'FROM a\nONBUILD COPY --from=b <<E /x\n$y\nE\nHEALTHCHECK --interval=1m CMD ["a"]\nSHELL ["b"]\n',
)

const word = fc.constantFrom(
  ...'FROM RUN COPY ADD ENV ARG LABEL ONBUILD HEALTHCHECK CMD SHELL VOLUME # <<E <<-E E \\ ` " \' [ ] ["a"] = $ ${ -- --from=a AS'.split(
    ' ',
  ),
  ' ',
  '\n',
  '\r\n',
  '\t',
  '\\\n',
  '\u00a0',
  '\ufeff',
  '\u0000',
  '\ud800',
  'é',
)
const noise = fc.array(word, { maxLength: 60 }).map((words) => words.join(''))

/** A seed with pieces cut out, put in, doubled and exchanged. */
const mutated = fc
  .tuple(
    fc.constantFrom(...seeds),
    fc.array(fc.tuple(fc.nat(), fc.nat(40), fc.oneof(word, fc.string({ maxLength: 4 }))), {
      minLength: 1,
      maxLength: 6,
    }),
  )
  .map(([seed, edits]) => {
    let text = seed
    for (const [where, cut, put] of edits) {
      const at = where % (text.length + 1)
      text = text.slice(0, at) + put + text.slice(at + (where % 3 === 0 ? cut : 0))
    }
    return text
  })

function check(text: string): void {
  const outcome = attempt(() => parse(text))
  if (outcome instanceof DockerfileError) checkMistake(outcome)
  else checkTree(outcome, text)
}

function checkMistake({ code, hint, source }: DockerfileError): void {
  expect([typeof code, typeof hint, source?.frame.includes('^')]).toEqual(['string', 'string', true])
}

function checkTree(tree: Dockerfile, text: string): void {
  expect(print(tree)).toBe(text)
  expect(parse(print(tree))).toEqual(tree)
  let before = 0
  for (const { range } of tree.instructions) {
    expect(range.start.offset).toBeGreaterThanOrEqual(before)
    expect(range.end.offset).toBeGreaterThan(range.start.offset)
    before = range.end.offset
  }
  walk(tree, text)
  attempt(() => stagesOf(tree))
  dumpTree(text)
}

/** Every range lies in the text, with line and column that fit its offset. */
function walk(value: unknown, text: string): void {
  if (typeof value !== 'object' || value === null) return
  if ('start' in value && 'end' in value) {
    const { start, end } = value as Range
    for (const { offset, line, column } of [start, end]) {
      const before = text.slice(0, offset)
      expect([line, column]).toEqual([before.split('\n').length, offset - before.lastIndexOf('\n')])
    }
    expect(end.offset).toBeLessThanOrEqual(text.length)
    return
  }
  for (const inner of Object.values(value)) walk(inner, text)
}

const runs = Number(process.env['TBUILD_PARSER_RUNS'] ?? 2000)

test('noise', () => {
  fc.assert(fc.property(noise, check), { numRuns: runs })
})

test('any string', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), check), { numRuns: runs })
})

test('any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      expect(attempt(() => parse(bytes))).toBeDefined()
    }),
    { numRuns: runs },
  )
})

test('mutated files', () => {
  fc.assert(fc.property(mutated, check), { numRuns: runs })
})

describe('long input takes linear time', () => {
  // Each would take minutes if any step were quadratic; the test's time limit is the assertion.
  const n = 200_000
  test.each([
    ['one instruction of many lines', `FROM a\nRUN ${'x \\\n'.repeat(n)}`],
    ['comments in a continuation', `FROM a\nRUN x \\\n${'# c\n'.repeat(n)} y`],
    ['blank lines in a continuation', `FROM a\nRUN x \\\n${'\n'.repeat(n)} y`],
    ['many words', `FROM a\nCOPY ${'x \\\n'.repeat(n)} y`],
    ['many pairs', `FROM a\nENV ${'a=b \\\n'.repeat(n)}`],
    ['an open quote', `FROM a\nENV a="${'b c \\\n'.repeat(n)}`],
    ['many flags', `FROM a\nRUN ${'--mount=x \\\n'.repeat(n)} y`],
    ['open brackets', `FROM a\nRUN ${'[[[[[[[[[[ \\\n'.repeat(n)}`],
    ['nested arrays', `FROM a\nRUN ${'[\\\n'.repeat(n)}1e9${']\\\n'.repeat(n)}`],
    ['many heredocs', `FROM a\nRUN ${'<<E \\\n'.repeat(n)}\n${'E\n'.repeat(n)}`],
    ['a heredoc that is not ended', `FROM a\nRUN <<E\n${'x\n'.repeat(n)}`],
    ['dollars and braces', `FROM a\nRUN <<E ${'${x:-\\\n'.repeat(n)}`],
    ['less-thans', `FROM a\nRUN ${'<<<< \\\n'.repeat(n)}`],
    ['ONBUILDs', `FROM a\n${'ONBUILD \\\n'.repeat(n)} RUN x`],
    ['instructions', `FROM a\n${'RUN x\n'.repeat(n)}`],
    ['blanks', `FROM a\nRUN x${'    \\\n'.repeat(n)}`],
    ['directives', '# escape=\\\n'.repeat(n)],
    ['a long keyword', 'x\\\n'.repeat(n)],
  ])('%s', (_, text) => {
    const printed = attempt(() => print(parse(text)))
    expect(printed instanceof DockerfileError || printed.length === text.length).toBe(true)
  })
})
