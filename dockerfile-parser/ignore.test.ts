import { describe, expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { createIgnoreMatcher, DockerfileError, parseIgnoreFile } from './index.ts'
import { attempt } from './testing.ts'

const matcherOf = (text: string): ReturnType<typeof createIgnoreMatcher> =>
  createIgnoreMatcher(parseIgnoreFile(text))

describe('parseIgnoreFile', () => {
  test('lines, comments, blanks, byte order mark, carriage returns', () => {
    const text = '\ufeff# c\r\n  a/ \r\n\r\n #b\n!/c/../d\n./e//f\n!'
    expect(parseIgnoreFile(text)).toEqual([
      { pattern: 'a', negated: false, line: 2 },
      { pattern: '#b', negated: false, line: 4 },
      { pattern: 'd', negated: true, line: 5 },
      { pattern: 'e/f', negated: false, line: 6 },
      { pattern: '', negated: true, line: 7 },
    ])
  })

  test('a bare ! is refused with its line', () => {
    expect(() => matcherOf('a\n!\n')).toThrow('line 2')
  })
})

describe('ignores', () => {
  test.each([
    ['a', 'a/b/c', true],
    ['a', 'b/a', false],
    ['**/a', 'b/a/c', true],
    ['a/**', 'a', false],
    ['*.md\n!README.md', 'README.md', false],
    ['!README.md\n*.md', 'README.md', true],
    ['*\n!a', 'a/b', false],
    ['*\n!a/b', 'a/c', true],
    ['a\n!a/b\na/b/c', 'a/b/c', true],
    ['*', '.', false],
    ['.', 'a', false],
    ['a\\b', 'ab', false],
    ['x*\\d', 'xy1', true],
    ['[!a]', 'b', false],
    ['a^*', 'a^b', false],
    ['**', 'a\nb', true],
    ['*/a', 'x\ny/a', true],
    ['**/x/**/y', 'a/x/b/c/y/z', true],
  ])('%j %s', (patterns, path, expected) => {
    expect(matcherOf(patterns).ignores(path)).toBe(expected)
  })

  test('why names the pattern and its line', () => {
    const matcher = matcherOf('# c\n*.log\n!keep.log\n**/tmp\n')
    expect(matcher.why('a.log')).toEqual({ pattern: '*.log', negated: false, line: 2 })
    expect(matcher.why('a/tmp/keep.log')).toMatchObject({ line: 4 })
    expect(matcher.why('keep.log')).toBeUndefined()
  })

  test.each(['[', 'a[', '[a', '[]', '[z-a]', '\\', 'a/[-]', '*.{2}{3}', 'x[a-\\', '\\c'])(
    '%j is refused',
    (pattern) => {
      expect(() => createIgnoreMatcher([pattern])).toThrow(
        expect.objectContaining({ code: 'IGNORE_PATTERN' }),
      )
    },
  )
})

test('directories asked for one by one, and a path at once, give the same', () => {
  const piece = fc.constantFrom('a', 'b', '/', '/', '*', '**/', '**', '?', '[ab]', '!', '|', '.', 'é')
  const pattern = fc.array(piece, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''))
  const path = fc.array(fc.constantFrom('a', 'b', 'ab', '.a', 'é'), { minLength: 1, maxLength: 5 })
  fc.assert(
    fc.property(fc.array(pattern, { minLength: 1, maxLength: 4 }), path, (patterns, names) => {
      const at = (count: number): string => names.slice(0, count).join('/')
      const walked = attempt(() => createIgnoreMatcher(patterns))
      if (walked instanceof DockerfileError) return
      for (let count = 1; count < names.length; count++) walked.ignores(at(count))
      expect(createIgnoreMatcher(patterns).ignores(at(names.length))).toBe(walked.ignores(at(names.length)))
    }),
    { numRuns: 5000 },
  )
})

describe('mayReinclude', () => {
  test.each([
    ['a', 'a', false],
    ['!a/b\na', 'a', false],
    ['a\n!a/b', 'a', true],
    ['a\n!a/b', 'c', false],
    ['*\n!a/b/c', 'a/b', true],
    ['*\n!a/b/c', 'a/c', false],
    ['*\n!*/b', 'a', true],
    ['*\n!*/b', 'a/b', false],
    ['*\n!**/b', 'x/y/z', true],
    ['*\n!a/**', 'a/b', true],
    ['*\n!x*/?', 'y', false],
  ])('%j %s', (patterns, directory, expected) => {
    expect(matcherOf(patterns).mayReinclude(directory)).toBe(expected)
  })

  test('a directory that it lets go has nothing below that is not ignored', () => {
    const name = fc.constantFrom('a', 'b', 'c')
    const piece = fc.constantFrom('a', 'b', 'c', '/', '*', '**/', '**', '?', '[ab]', '!')
    const pattern = fc.array(piece, { minLength: 1, maxLength: 6 }).map((parts) => parts.join(''))
    const path = fc.array(name, { minLength: 1, maxLength: 3 })
    fc.assert(
      fc.property(fc.array(pattern, { minLength: 1, maxLength: 4 }), path, path, (patterns, above, below) => {
        const matcher = attempt(() => createIgnoreMatcher(patterns))
        if (matcher instanceof DockerfileError) return
        const directory = above.join('/')
        if (!matcher.ignores(directory) || matcher.mayReinclude(directory)) return
        expect(matcher.ignores([...above, ...below].join('/'))).toBe(true)
      }),
      { numRuns: 5000 },
    )
  })
})

describe('hostile input', () => {
  test('many stars do not backtrack', () => {
    const matcher = createIgnoreMatcher([`${'**/*a'.repeat(200)}b`, `${'*'.repeat(999)}b`])
    expect(matcher.ignores('a'.repeat(4000))).toBe(false)
    expect(matcher.ignores('a/'.repeat(300))).toBe(false)
  })

  test('a path of 2,000 directories costs one pass for each pattern', () => {
    const deep = `${'a/'.repeat(2000)}z`
    const patterns = Array.from({ length: 50 }, (_, i) => `${'**/*a/'.repeat(20)}b${i}`)
    expect(createIgnoreMatcher(patterns).ignores(deep)).toBe(false)
    expect(createIgnoreMatcher([...patterns, `**/${'a/'.repeat(1000)}**/z`]).ignores(deep)).toBe(true)
  })

  test('any pattern and path give an answer or a DockerfileError', () => {
    const piece = fc.constantFrom(
      ...'a * ** ? [ ] [^ - \\ / ! ^ { } | ( ) . .. {2} \\d \\x [:'.split(' '),
      ' ',
      'é',
      '\n',
    )
    const text = fc.array(piece, { maxLength: 10 }).map((parts) => parts.join(''))
    fc.assert(
      fc.property(fc.array(text, { maxLength: 3 }), text, (patterns, path) => {
        const answer = attempt(() => createIgnoreMatcher(patterns).ignores(path))
        expect(answer instanceof DockerfileError || typeof answer === 'boolean').toBe(true)
      }),
      { numRuns: 10_000 },
    )
  })
})
