import { describe, expect, test } from '@jest/globals'
import { encode, frame, parse, print, printBytes, stagesOf } from './index.ts'
import type { Dockerfile, Instruction } from './index.ts'

/** The last instruction of a file. */
function last<K extends Instruction['kind']>(text: string, kind: K): Extract<Instruction, { kind: K }> {
  const instruction = parse(text).instructions.at(-1)
  if (instruction?.kind !== kind) throw new Error(`it is ${instruction?.kind}`)
  return instruction as Extract<Instruction, { kind: K }>
}

const raws = (words: readonly { readonly raw: string }[]): string[] => words.map((word) => word.raw)
const shell = (text: string): unknown => {
  const { command } = last(text, 'RUN')
  return command.form === 'shell' ? command.text : command.args
}

describe('lines', () => {
  test('a byte order mark is not part of the first instruction', () => {
    const tree = parse('\ufeffFROM a')
    expect(tree.instructions[0]?.range.start).toEqual({ offset: 1, line: 1, column: 2 })
    expect(tree.nodes[0]?.kind).toBe('bom')
  })

  test('carriage returns end up in no word, and continue lines all the same', () => {
    const tree = parse('FROM a\r\nRUN x \\\r\n  y\r\nENV a=b\r\n')
    expect(tree.instructions.map(({ text }) => text)).toEqual(['FROM a', 'RUN x   y', 'ENV a=b'])
  })

  test('comments and blank lines within a continuation are dropped, even those that end in a backslash', () => {
    expect(shell('FROM a\nRUN x \\\n# c \\\n\n   # d\n \\\n  y \\\n\n&& z')).toBe('x    y && z')
  })

  test('a # within a line, or behind blanks that continue a word, is no comment', () => {
    expect(shell('FROM a\nRUN x # y \\\n  z')).toBe('x # y   z')
  })

  test('blanks behind the continuation character do not matter, another continuation character does', () => {
    expect(shell('FROM a\nRUN x \\ \t \n y')).toBe('x  y')
    expect(() => parse('FROM a\nRUN x \\\\\n y')).toThrow('unknown instruction')
  })

  test('a continuation at the end of the file is dropped', () => {
    expect(shell('FROM a\nRUN x \\')).toBe('x')
    expect(shell('FROM a\nRUN x \\\n\n# c\n')).toBe('x')
  })

  test('a word broken by a continuation is one word', () => {
    expect(last('FROM al\\\npine', 'FROM').image).toEqual({
      raw: 'alpine',
      range: { start: { offset: 5, line: 1, column: 6 }, end: { offset: 13, line: 2, column: 5 } },
    })
  })

  test('keywords in any case, tabs between words', () => {
    expect(last('from\ta\taS\tB', 'FROM')).toMatchObject({ image: { raw: 'a' }, as: { raw: 'B' } })
  })
})

describe('directives', () => {
  test('escape changes continuation and words, not the escapes in flags', () => {
    const tree = parse('# escape=`\nFROM a\nENV a=b` c d=e\\ `\n f=g')
    expect(tree.escape).toBe('`')
    expect(tree.instructions[1]).toMatchObject({
      pairs: [
        { name: { raw: 'a' }, value: { raw: 'b` c' } },
        { name: { raw: 'd' }, value: { raw: 'e\\' } },
        { name: { raw: 'f' }, value: { raw: 'g' } },
      ],
    })
  })

  test.each([
    ['behind a comment', '# hello\n# escape=`\nFROM a'],
    ['behind a blank line', '\n# escape=`\nFROM a'],
    ['behind an unknown directive', '# key=value\n# escape=`\nFROM a'],
    ['behind an instruction', 'FROM a\n# escape=`\nRUN x'],
    ['behind a shebang', '#!/usr/bin/env x\n# escape=`\nFROM a'],
  ])('escape %s is a comment', (_, text) => {
    expect(parse(text).escape).toBe('\\')
  })

  test('names in any case, blanks about, values to the end of the line', () => {
    const { directives } = parse(
      '#  SynTax =  docker/dockerfile:1 -- x \t\n#check=skip=A,B;error=true\nFROM a',
    )
    expect(directives.syntax?.value).toBe('docker/dockerfile:1 -- x')
    expect(directives.check?.value).toBe('skip=A,B;error=true')
    expect(directives.escape).toBeUndefined()
  })

  test('syntax and check are still found behind a shebang', () => {
    expect(parse('#!/bin/x\n# syntax=a/b\nFROM a').directives.syntax?.value).toBe('a/b')
  })

  test('the same directive again, once directives are over, is a comment', () => {
    expect(parse('# syntax=a\nFROM a\n# syntax=b').directives.syntax?.value).toBe('a')
  })
})

describe('JSON form', () => {
  test.each([
    ['single quotes', "RUN ['a']", "['a']"],
    ['no closing bracket', 'RUN ["a"', '["a"'],
    ['words behind it', 'RUN ["a"] && b', '["a"] && b'],
    ['a comma at the end', 'RUN ["a",]', '["a",]'],
    ['an unknown escape', 'RUN ["a\\x"]', '["a\\x"]'],
    ['a shell test', 'RUN [ -f /a ] && b', '[ -f /a ] && b'],
    ['a number that is none', 'RUN [1e999]', '[1e999]'],
  ])('%s: taken as shell form', (_, line, text) => {
    expect(shell(`FROM a\n${line}`)).toBe(text)
  })

  test('is kept over continuations, with Go’s strings', () => {
    expect(shell('FROM a\nRUN [ "a", \\\n # c\n "\\u00e9\\ud800" ]')).toEqual(['a', 'é\ufffd'])
  })

  test('paths with blanks', () => {
    const copy = last('FROM a\nCOPY --chown=1 ["a b", "c\\"d", "/e f/"]', 'COPY')
    expect(raws(copy.sources)).toEqual(['a b', 'c"d'])
    expect(copy.destination.raw).toBe('/e f/')
    expect(copy.sources[1]?.range.start.column).toBe(24)
  })

  test('JSON that is none splits at blanks', () => {
    expect(raws(last('FROM a\nVOLUME ["a" "b"]', 'VOLUME').paths)).toEqual(['["a"', '"b"]'])
  })
})

describe('flags', () => {
  test('quotes and backslashes are resolved; the range is the value’s', () => {
    const copy = last('FROM a\nCOPY --from="a b"\\ c --chmod=u=rwX x y', 'COPY')
    expect(copy.from?.raw).toBe('a b c')
    expect(copy.chmod).toMatchObject({ raw: 'u=rwX', range: { start: { column: 30 }, end: { column: 35 } } })
  })

  test('-- ends them; what comes later is an argument', () => {
    expect(raws(last('FROM a\nCOPY --link -- --from=x y /z', 'COPY').sources)).toEqual(['--from=x', 'y'])
    expect(shell('FROM a\nRUN --network=none x --mount=y')).toBe('x --mount=y')
  })

  test('all of them', () => {
    const add =
      'ADD --keep-git-dir --checksum=sha256:1 --unpack=FALSE --link=true --exclude=a --exclude=b x y'
    expect(last(`FROM a\n${add}`, 'ADD')).toMatchObject({
      keepGitDir: true,
      checksum: { raw: 'sha256:1' },
      unpack: false,
      link: true,
      excludes: [{ raw: 'a' }, { raw: 'b' }],
    })
    const run = 'RUN --mount=type=tmpfs,target=/a --mount=b --network=host --security=insecure --device=c x'
    expect(last(`FROM a\n${run}`, 'RUN')).toMatchObject({
      mounts: [{ raw: 'type=tmpfs,target=/a' }, { raw: 'b' }],
      network: { raw: 'host' },
      security: { raw: 'insecure' },
      devices: [{ raw: 'c' }],
    })
    expect(last('FROM a\nADD x y', 'ADD').unpack).toBeUndefined()
  })

  test('an empty value is no value, but for those that have a default', () => {
    const copy = last('FROM a\nCOPY --from= --chown= --chmod= x y', 'COPY')
    expect([copy.from, copy.chown, copy.chmod]).toEqual([undefined, undefined, undefined])
    expect(last('FROM --platform= a', 'FROM').platform).toBeUndefined()
  })

  test('those of ARG, STOPSIGNAL and HEALTHCHECK NONE are not looked at, as in BuildKit', () => {
    expect(last('FROM a\nARG --x b', 'ARG').args[0]?.name).toBe('b')
    expect(last('FROM a\nSTOPSIGNAL --x 9', 'STOPSIGNAL').signal.raw).toBe('9')
    expect(last('FROM a\nHEALTHCHECK --x NONE', 'HEALTHCHECK').none).toBe(true)
  })
})

describe('names and values', () => {
  test('the old form of ENV takes the rest of the line', () => {
    expect(last('FROM a\nENV a  b "c d" = e', 'ENV').pairs).toMatchObject([
      { name: { raw: 'a' }, value: { raw: 'b "c d" = e' }, equals: false },
    ])
  })

  test('quotes and escapes keep blanks in a word; an escape at the very end is dropped', () => {
    expect(
      last(`FROM a\nENV a="b c" d='e \\' f=g\\ h i="j\\"k" l=m\\`, 'ENV').pairs.map((pair) => pair.value.raw),
    ).toEqual(['"b c"', "'e \\'", 'g\\ h', '"j\\"k"', 'm'])
  })

  test('ARG with and without a value', () => {
    expect(last('FROM a\nARG a b= c="d e"', 'ARG').args.map(({ name, value }) => [name, value?.raw])).toEqual(
      [
        ['a', undefined],
        ['b', ''],
        ['c', '"d e"'],
      ],
    )
  })
})

describe('heredocs', () => {
  test('a sole one is the script', () => {
    const run = last('FROM a\nRUN <<-"EOF"\n\t#!/bin/sh\n\t\techo $x\n\tEOF\n', 'RUN')
    expect(run.command).toMatchObject({ form: 'shell', text: '#!/bin/sh\necho $x\n' })
    expect(run.script).toMatchObject({
      name: 'EOF',
      expand: false,
      chomp: true,
      rawContent: '\t#!/bin/sh\n\t\techo $x\n',
    })
  })

  test('others are put back for the shell, tabs and all', () => {
    const run = last('FROM a\nRUN cat <<-A 3<<B > c\n\tx\n\tA\ny\nB\nUSER d\n', 'USER')
    expect(run.user.raw).toBe('d')
    expect(shell('FROM a\nRUN cat <<-A 3<<B > c\n\tx\n\tA\ny\nB\n')).toBe('cat <<-A 3<<B > c\n\tx\nA\ny\nB')
  })

  test('lines that look like instructions, comments or continuations are content', () => {
    expect(shell('FROM a\nRUN <<E\n# c\nRUN x \\\n\nE')).toBe('# c\nRUN x \\\n\n')
  })

  test.each([
    ['in quotes', 'RUN echo "<<E"'],
    ['in the JSON form', 'RUN ["<<E"]'],
    ['three less-thans', 'RUN cat <<<E'],
    ['not at the start of a word', 'RUN echo $((1<<E))'],
    ['behind an open quote', "RUN echo it's <<E"],
    ['not for ENV', 'ENV a=<<E'],
    ['no delimiter', 'RUN cat <<'],
  ])('%s: none', (_, line) => {
    expect(parse(`FROM a\n${line}\nUSER b`).instructions).toHaveLength(3)
  })

  test('inline files of COPY stand beside paths; of two with one name the last content counts', () => {
    const copy = last('FROM a\nCOPY <<E x <<E /y/\n1\nE\n2\nE\n', 'COPY')
    expect(raws(copy.sources)).toEqual(['x'])
    expect(copy.heredocs.map(({ name, content }) => [name, content])).toEqual([
      ['E', '2\n'],
      ['E', '2\n'],
    ])
  })

  test('of an ONBUILD belong to its instruction, and to the text that goes into the image', () => {
    const onbuild = last('FROM a\nONBUILD COPY <<E /x\n1\nE\n', 'ONBUILD')
    expect(onbuild.trigger).toBe('COPY <<E /x\n1\nE')
    expect(onbuild.instruction).toMatchObject({
      kind: 'COPY',
      heredocs: [{ content: '1\n' }],
      destination: { raw: '/x' },
    })
  })
})

describe('HEALTHCHECK', () => {
  test.each([
    ['1h2m3.5s', 3_723_500_000_000],
    ['1ms', 1_000_000],
    ['0', 0],
    ['.5s', 500_000_000],
    ['1000µs', 1_000_000],
  ])('--interval=%s', (text, nanoseconds) => {
    expect(last(`FROM a\nHEALTHCHECK --interval=${text} CMD x`, 'HEALTHCHECK')).toMatchObject({
      interval: nanoseconds,
    })
  })

  test.each(['5', '1x', 's', '-1s', '1', '1.s.', ' ', '999us', '9999999999999h'])(
    '--interval=%j is refused',
    (text) => {
      expect(() => parse(`FROM a\nHEALTHCHECK --interval="${text}" CMD x`)).toThrow(
        expect.objectContaining({ code: 'INVALID_DURATION' }),
      )
    },
  )
})

describe('stages', () => {
  test('global ARGs, numbers, names in lower case', () => {
    const tree = parse('ARG A\nARG B=1\nFROM x AS Base\nRUN y\nFROM base\nARG A\n')
    const { globalArgs, stages } = stagesOf(tree)
    expect(globalArgs.flatMap(({ args }) => args.map(({ name }) => name))).toEqual(['A', 'B'])
    expect(stages.map(({ index, name, instructions }) => [index, name, instructions.length])).toEqual([
      [0, 'base', 1],
      [1, undefined, 1],
    ])
  })
})

const latin1 = (body: string): Buffer => Buffer.from(`# \xff\r\nFROM a\nCOPY <<${body}\nE\n`, 'latin1')
const contentOf = (body: string): Buffer => {
  const copy = parse(latin1(body)).instructions[1]
  return Buffer.from(encode(copy?.kind === 'COPY' ? copy.heredocs[0]!.content : ''))
}

describe('bytes', () => {
  test('those that are not UTF-8 are printed as they were', () => {
    for (const body of [
      'E /x\n\xfc\xe9',
      "'E' /x\n\xed\xa0\x80\xf4\x90\xc3",
      'E /x\n\xf0\x9f\x98\x80\xc0\x80',
    ]) {
      const bytes = latin1(body)
      expect(Buffer.compare(printBytes(parse(bytes)), bytes)).toBe(0)
    }
  })

  test('a file that COPY writes has them, unless they went through the lexer', () => {
    expect(contentOf("'E' /x\na\xfcb")).toEqual(Buffer.from([0x61, 0xfc, 0x62, 10]))
    expect(contentOf('E /x\na\xfcb')).toEqual(Buffer.from('a\ufffdb\n'))
  })

  test('a text is printed as it was, with its line endings and its byte order mark', () => {
    const text = '\ufeff# syntax=x\r\n\r\nFROM a \\\r\n\r\n  # c\r\n AS b \t\r\nRUN <<E\r\n x\r\nE\r\n\t\n#'
    expect(print(parse(text))).toBe(text)
    expect(Buffer.from(printBytes(parse(Buffer.from(text)))).toString()).toBe(text)
  })
})

describe('tree and frame', () => {
  const source =
    '\ufeff# syntax=x\r\n\r\nFROM a AS \\\r\n\r\n # c\r\n\tb \t\nRUN --mount="x y" z <<E\n\tq\nE\n  \n# end'

  test('every character is in one token, and every token in its range', () => {
    const tree = parse(source)
    expect(print(tree)).toBe(source)
    let offset = 0
    for (const token of tree.nodes.flatMap(({ tokens }) => tokens)) {
      expect([token.range.start.offset, source.slice(offset, token.range.end.offset)]).toEqual([
        offset,
        token.text,
      ])
      offset = token.range.end.offset
    }
    expect(offset).toBe(source.length)
  })

  test('kinds of tokens', () => {
    const kinds = parse('FROM a\nRUN --mount="x y" z \\\n# c\n <<E\nq\nE').nodes[1]?.tokens.map(
      ({ kind }) => kind,
    )
    expect(kinds?.filter((kind) => kind !== 'newline' && kind !== 'blank')).toEqual([
      'keyword',
      'flag',
      'flag',
      'flag',
      'argument',
      'continuation',
      'comment',
      'argument',
      'heredoc',
      'heredoc-end',
    ])
  })

  test('a frame keeps tabs and shows no control characters', () => {
    const tree = parse('FROM a\n\tUSER\tx\u001b[31my\u202ez')
    expect(frameOf(tree)).toBe('2 | \tUSER\tx·[31my·z\n  | \t    \t^^^^^^^^^')
  })

  test('a frame of a long line shows the part about the range', () => {
    const lines = frameOf(parse(`FROM a\nUSER ${' '.repeat(1000)}x${' '.repeat(1000)}`)).split('\n')
    expect(lines.every((line) => line.length < 200)).toBe(true)
    expect(lines[0]?.[lines[1]?.indexOf('^') ?? 0]).toBe('x')
  })

  test('a frame of many lines shows the first', () => {
    const tree = parse(`FROM a\nRUN ${'x \\\n'.repeat(100)}y`)
    const lines = frame(tree, tree.instructions[1]!.range).split('\n')
    expect(lines.length).toBeLessThan(16)
    expect(lines.at(-1)).toContain('...')
  })
})

function frameOf(tree: Dockerfile): string {
  const user = tree.instructions.at(-1)
  if (user?.kind !== 'USER') throw new Error('no USER')
  return frame(tree, user.user.range)
}
