/** No input, however mangled, crashes or hangs the parser; what it accepts it prints back. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { dumpTree } from './dump.ts'
import {
  check as runChecks,
  DockerfileError,
  parse,
  print,
  printBytes,
  renderSarif,
  stagesOf,
} from './index.ts'
import type { Dockerfile, Range } from './index.ts'
import { indexLines, type LineIndex } from './source.ts'
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
  walk(tree, text.length, indexLines(text))
  attempt(() => stagesOf(tree))
  dumpTree(text)
}

/** Every range lies in the text, with line and column that fit its offset. */
function walk(value: unknown, length: number, lines: LineIndex): void {
  if (typeof value !== 'object' || value === null) return
  if ('start' in value && 'end' in value) {
    const { start, end } = value as Range
    for (const position of [start, end]) {
      const { line, column } = lines.at(position.offset)
      if (line !== position.line || column !== position.column) expect(position).toEqual({ line, column })
    }
    if (end.offset > length) expect(end.offset).toBeLessThanOrEqual(length)
    return
  }
  for (const inner of Object.values(value)) walk(inner, length, lines)
}

/** What is found stands in the text, whatever the text is; a mistake of the parser is one here too. */
function checkChecks(text: string): void {
  const { findings, errors, ...result } = runChecks(text)
  for (const { range, frame, message } of findings) {
    expect([frame.includes('^'), message !== '']).toEqual([true, true])
    walk(range, text.length, indexLines(text))
  }
  const mistake = attempt(() => parse(text))
  const codes = errors.map(({ code }) => code)
  expect(mistake instanceof DockerfileError ? codes.includes(mistake.code) : true).toBe(true)
  JSON.parse(renderSarif({ findings, errors, ...result }))
}

// The same inputs in every run; a million of others are bench/parser.ts's. TBUILD_PARSER_RUNS asks for more, of a new seed.
const wanted = process.env['TBUILD_PARSER_RUNS']
const options = wanted === undefined ? { numRuns: 400, seed: 20_261_124 } : { numRuns: Number(wanted) }

test('noise', () => {
  fc.assert(fc.property(noise, check), options)
})

test('any string', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), check), options)
})

test('any bytes are printed as they were', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    // Around a Dockerfile, so that most are accepted.
    fc
      .tuple(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 40 }))
      .map(([one, two]) =>
        Buffer.concat([
          Buffer.from('# '),
          one.map((byte) => (byte === 10 ? 0xff : byte)),
          Buffer.from('\r\nFROM a\nCOPY <<E /x\n'),
          two,
          Buffer.from('\nE\n'),
        ]),
      ),
  )
  let accepted = 0
  fc.assert(
    fc.property(bytes, (input) => {
      const tree = attempt(() => parse(input))
      if (tree instanceof DockerfileError) return
      accepted++
      expect(Buffer.compare(printBytes(tree), input)).toBe(0)
    }),
    options,
  )
  expect(accepted).toBeGreaterThan(options.numRuns / 4)
})

test('mutated files', () => {
  fc.assert(fc.property(mutated, check), options)
})

test('checks of noise and of mutated files', () => {
  fc.assert(fc.property(fc.oneof(noise, mutated), checkChecks), options)
})

describe('long input takes linear time', () => {
  // Each would take a minute if any step were quadratic; the test's time limit is the assertion. bench/parser.ts has longer ones.
  const n = 20_000
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
    ['variables', `FROM a\nCOPY ${Array.from({ length: n }, (_, i) => `$v${i} \\\n`).join('')} y`],
    ['names', `FROM a\nENV ${Array.from({ length: n }, (_, i) => `v${i}=$w${i} \\\n`).join('')}`],
    ['values that double', `FROM a\nENV A=${'x'.repeat(1000)}\n${'ENV A=$A$A$A$A\n'.repeat(n / 10)}`],
    ['stages', `FROM a AS s\n${'FROM s AS s\nENV a=b\n'.repeat(n / 3)}`],
    [
      'stages with a variable more each',
      `FROM a AS s\n${Array.from({ length: n / 3 }, (_, i) => `FROM s AS s\nENV a${i}=b\n`).join('')}`,
    ],
    ['comments before each', `FROM a\n${'# check=skip=x\n# y\nCMD z\n'.repeat(n / 3)}`],
    ['here-documents in a script', `FROM a\nRUN <<E\n${'cat <<X\n'.repeat(n)}E`],
    ['ports', `FROM a\nEXPOSE ${'0-65535 \\\n'.repeat(n)} 1`],
    ['a long keyword', 'x\\\n'.repeat(n)],
  ])('%s', (_, text) => {
    const printed = attempt(() => print(parse(text)))
    expect(printed instanceof DockerfileError || printed.length === text.length).toBe(true)
    expect(runChecks(text).source).toBe(text)
  })
})
