import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { DockerfileError, expand as expandAll, expandWord, expandWords } from './index.ts'
import type { ExpandOptions } from './index.ts'
import { attempt } from './testing.ts'

const values: Readonly<Record<string, string>> = {
  A: 'a b',
  E: '',
  P: '/usr/local/bin:/usr/bin',
  STAR: '*',
  Ä: 'umlaut',
  L: 'one\ntwo',
  D: '$A',
}
const lookup = (name: string): string | undefined => values[name]
const word = (raw: string, options: Partial<ExpandOptions> = {}): string =>
  expandWord(raw, { lookup, ...options })

describe('expandWord', () => {
  test.each([
    ['a value is not expanded again', '$D ${D}', '$A $A'],
    ['names take letters of any script', '$Ä.', 'umlaut.'],
    ['a digit ends a positional name', '$12a', 'a'],
    ['a dollar at the end, or before a blank, is itself', '$ a$', '$ a$'],
    ['escapes of other characters vanish outside quotes', '\\a\\"\\$A', 'a"$A'],
    ['and stay inside double quotes', '"\\a\\"\\$A\\\\"', '\\a"$A\\'],
    ['nothing is special in single quotes', "'\\$A\"'", '\\$A"'],
    ['quotes in a default are resolved', '${X:-"a  b"\'$A\'}', 'a  b$A'],
    ['a quoted brace does not end a default', '${X:-"}"\\}}', '}}'],
    ['defaults nest', '${X:-${Y:-${A}}}', 'a b'],
    ['shortest prefix', '${P#*/}', 'usr/local/bin:/usr/bin'],
    ['longest prefix', '${P##*/}', 'bin'],
    ['shortest suffix', '${P%:*}', '/usr/local/bin'],
    ['longest suffix', '${P%%/*}', ''],
    ['a pattern from a variable is a pattern', '${P#$STAR/}', 'usr/local/bin:/usr/bin'],
    ['a doubled mark from a variable means the longest', '${P#${X:-#*/}}', 'bin'],
    ['first match', '${P/usr/x}', '/x/local/bin:/usr/bin'],
    ['all matches', '${P//\\/usr/}', '/local/bin:/bin'],
    ['longest match', '${P/l*l/x}', '/usr/x/bin:/usr/bin'],
    ['an empty pattern matches everywhere', '${A///-}', '-a- -b-'],
    ['a star does not cross a newline', '${L/*/x}', 'x\ntwo'],
    ['a question mark does not match one', '${L//?/x}', 'xxx\nxxx'],
    ['a replaced character may be more than one unit', '${X:-😀é}${A/?/😀}', '😀é😀 b'],
  ])('%s', (_, raw, expected) => {
    expect(word(raw)).toBe(expected)
  })

  test.each([
    '"a',
    "'a",
    '${',
    '${}',
    '${A',
    '${A:-',
    '${A:}',
    '${A^}',
    '${A:=x}',
    '${A:#x}',
    '${A/x}',
    '${A//x/y',
    '${A#\\x}',
    '${X?}',
    '${E:?empty}',
    '${X:-"}',
  ])('%s is refused', (raw) => {
    expect(() => word(raw)).toThrow(DockerfileError)
  })

  test('the message of ${v:?message} is given', () => {
    expect(() => word('${X:?set X to $A}')).toThrow('X: set X to a b')
  })

  test('escape character `', () => {
    expect(word('C:\\$A`$A`"', { escape: '`' })).toBe('C:\\a b$A"')
  })

  test('a heredoc’s body keeps its quotes', () => {
    expect(word(`it's "$A" \\$A`, { skipQuotes: true })).toBe(`it's "a b" $A`)
  })

  test('unset variables can be left alone', () => {
    expect(word('$X ${X} ${X:-y} ${X#z} ${X/a/b} $A', { skipUnset: true })).toBe(
      '$X ${X} ${X:-y} ${X#z} ${X/a/b} a b',
    )
  })

  test('raw quotes and escapes', () => {
    expect(word('"a\\"" \'b\' \\c', { rawQuotes: true, rawEscapes: true })).toBe('"a\\"" \'b\' \\c')
  })

  test('names that were looked up', () => {
    const { matched, unmatched } = expandAll('$A ${X:-$E} ${Y+$P}', { lookup })
    expect([[...matched], [...unmatched]]).toEqual([
      ['A', 'E', 'P'],
      ['X', 'Y'],
    ])
  })
})

describe('expandWords', () => {
  test.each([
    ['$A"$A"', ['a', 'ba b']],
    ['"" $E', []],
    ['  x\ty ', ['x', 'y']],
    ['x${X:-y z}w', ['xy', 'zw']],
    ['a\\ b', ['a b']],
  ])('%s', (raw, expected) => {
    expect(expandWords(raw, { lookup })).toEqual(expected)
  })
})

describe('hostile input', () => {
  test('a hundred thousand nested defaults do not exhaust the stack', () => {
    expect(() => word('${X:-'.repeat(100_000))).toThrow(
      expect.objectContaining({ code: 'EXPANSION_TOO_DEEP' }),
    )
    expect(word(`${'${X:-'.repeat(400)}x${'}'.repeat(400)}`)).toBe('x')
  })

  test('values that double do not exhaust the memory', () => {
    let value = 'x'.repeat(1024)
    const double = (): void => {
      for (let i = 0; i < 60; i++) value = expandWord('$V$V', { lookup: () => value })
    }
    expect(double).toThrow(expect.objectContaining({ code: 'EXPANSION_TOO_LARGE' }))
    expect(() => expandWord('${V//x/$V}', { lookup: () => 'x'.repeat(50_000) })).toThrow(
      expect.objectContaining({ code: 'EXPANSION_TOO_LARGE' }),
    )
  })

  test('patterns with many stars are matched, or refused, without backtracking', () => {
    const long = 'a'.repeat(60_000)
    expect(expandWord(`\${V#${'*a'.repeat(40)}*b}`, { lookup: () => long })).toBe(long)
    expect(() => expandWord(`\${V/${'a'.repeat(30_000)}b/}`, { lookup: () => long })).toThrow(
      expect.objectContaining({ code: 'EXPANSION_PATTERN' }),
    )
  })

  test('any word gives a string or a DockerfileError', () => {
    const piece = fc.constantFrom(
      ...'$ { } A X : - + ? # % / * \\ " \' ` < << a b'.split(' '),
      ' ',
      '\n',
      'é',
      '😀',
    )
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 30 }),
        fc.boolean(),
        fc.boolean(),
        (pieces, skipUnset, raw) => {
          const options = { skipUnset, rawQuotes: raw, rawEscapes: raw }
          const outcome = attempt(() => word(pieces.join(''), options))
          expect(outcome instanceof DockerfileError || typeof outcome === 'string').toBe(true)
        },
      ),
      { numRuns: 5000 },
    )
  })

  test('patterns match as a plain matcher does', () => {
    const chars = fc.string({ unit: fc.constantFrom('a', 'b', '/', '😀'), maxLength: 10 })
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?', '😀'), maxLength: 6 })
    const sides = fc.constantFrom('#', '##', '%', '%%')
    fc.assert(
      fc.property(chars, pattern, sides, (value, glob, operator) => {
        expect(expandWord(`\${V${operator}${glob}}`, { lookup: () => value })).toBe(
          trimmed(value, glob, operator),
        )
      }),
      { numRuns: 5000 },
    )
  })
})

/** The same by trying every cut. */
function trimmed(value: string, glob: string, operator: string): string {
  const source = Array.from(glob, (char) => (char === '*' ? '.*' : char === '?' ? '.' : char)).join('')
  const whole = new RegExp(`^(?:${source})$`, 'u')
  const chars = Array.from(value)
  const sizes = chars.map((_, i) => i).concat(chars.length)
  if (operator.length === 2) sizes.reverse()
  for (const size of sizes) {
    const cut = operator.startsWith('#') ? chars.slice(0, size) : chars.slice(chars.length - size)
    const left = operator.startsWith('#') ? chars.slice(size) : chars.slice(0, chars.length - size)
    if (whole.test(cut.join(''))) return left.join('')
  }
  return value
}
