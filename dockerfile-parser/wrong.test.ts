/** Wrong Dockerfiles: each row is a file, the code, the words under the caret, and a word of the hint. */
import { describe, expect, test } from '@jest/globals'
import { parse, stagesOf, type DockerfileError } from './index.ts'
import { refusal } from './testing.ts'

type Row = readonly [text: string, code: string, line: number, under: string, hint: string]

const rows: readonly Row[] = [
  // The file as a whole
  ['', 'EMPTY_DOCKERFILE', 1, '', 'FROM'],
  ['# only a comment\n\n', 'EMPTY_DOCKERFILE', 1, '# only a comment', 'FROM'],
  ['\ufeff', 'EMPTY_DOCKERFILE', 1, '', 'FROM'],
  ['ARG A=1\n', 'NO_STAGE', 1, 'ARG A=1', 'FROM'],
  ['ARG A\nRUN x\nFROM a', 'NO_STAGE', 2, 'RUN x', 'ARG'],
  ['ENV A=1\nFROM a', 'NO_STAGE', 1, 'ENV A=1', 'ARG'],
  [`FROM a\nRUN ${'x'.repeat(70_000)}`, 'LINE_TOO_LONG', 2, 'R', 'continuations'],
  // Directives
  ['# escape=/\nFROM a', 'INVALID_ESCAPE', 1, '/', '`'],
  ['# escape=\\\\\nFROM a', 'INVALID_ESCAPE', 1, '\\\\', '`'],
  ['# escape=`\n# ESCAPE=\\\nFROM a', 'DUPLICATE_DIRECTIVE', 2, '# ESCAPE=\\', 'remove'],
  ['#syntax=a\n#syntax=b\nFROM a', 'DUPLICATE_DIRECTIVE', 2, '#syntax=b', 'comment'],
  // Instructions
  ['FORM alpine', 'UNKNOWN_INSTRUCTION', 1, 'FORM', 'did you mean FROM?'],
  ['FROM a\nRNU x', 'UNKNOWN_INSTRUCTION', 2, 'RNU', 'did you mean RUN?'],
  ['FROM a\nENTRYPIONT x', 'UNKNOWN_INSTRUCTION', 2, 'ENTRYPIONT', 'did you mean ENTRYPOINT?'],
  ['FROM a\nworkdirr x', 'UNKNOWN_INSTRUCTION', 2, 'workdirr', 'did you mean WORKDIR?'],
  ['FROM a\nRUN a &&\n  apt-get install b', 'UNKNOWN_INSTRUCTION', 3, 'apt-get', '\\'],
  ['FROM a\nRUN\u00a0echo hi', 'UNKNOWN_INSTRUCTION', 2, 'RUN\u00a0echo', 'plain space'],
  ['FROM a\nRUN,x', 'UNKNOWN_INSTRUCTION', 2, 'RUN,x', 'plain space'],
  ['\\\n', 'UNKNOWN_INSTRUCTION', 1, '\\', 'remove'],
  // FROM
  ['FROM', 'MISSING_ARGUMENT', 1, 'FROM', 'debian'],
  ['FROM a b', 'TOO_MANY_ARGUMENTS', 1, 'b', 'AS'],
  ['FROM a as b c', 'TOO_MANY_ARGUMENTS', 1, 'as b c', 'AS'],
  ['FROM a ass b', 'TOO_MANY_ARGUMENTS', 1, 'ass b', 'AS'],
  ['FROM a AS 1st', 'INVALID_STAGE_NAME', 1, '1st', 'letter'],
  ['FROM a AS b/c', 'INVALID_STAGE_NAME', 1, 'b/c', 'letter'],
  ['FROM a AS $x', 'INVALID_STAGE_NAME', 1, '$x', 'letter'],
  ['FROM --plattform=x a', 'UNKNOWN_FLAG', 1, '--plattform=x', 'did you mean --platform?'],
  // Flags
  ['FROM a\nCOPY --form=b x y', 'UNKNOWN_FLAG', 2, '--form=b', 'did you mean --from?'],
  ['FROM a\nADD --from=b x y', 'UNKNOWN_FLAG', 2, '--from=b', 'ADD takes'],
  ['FROM a\nENV --x a=b', 'UNKNOWN_FLAG', 2, '--x', 'no flags'],
  ['FROM a\nCMD --x true', 'UNKNOWN_FLAG', 2, '--x', 'no flags'],
  ['FROM a\nRUN --mounts=x true', 'UNKNOWN_FLAG', 2, '--mounts=x', 'did you mean --mount?'],
  ['FROM a\nRUN --=x true', 'UNKNOWN_FLAG', 2, '--=x', '--mount'],
  ['FROM a\nRUN --toString=x true', 'UNKNOWN_FLAG', 2, '--toString=x', '--mount'],
  ['FROM a\nCOPY --from=a --from=b x y', 'DUPLICATE_FLAG', 2, '--from=b', 'once'],
  ['FROM a\nCOPY --link --link x y', 'DUPLICATE_FLAG', 2, '--link', 'once'],
  ['FROM a\nCOPY --chown x y', 'FLAG_WITHOUT_VALUE', 2, '--chown', '--chown=VALUE'],
  ['FROM a\nRUN --mount true', 'FLAG_WITHOUT_VALUE', 2, '--mount', '--mount=VALUE'],
  ['FROM a\nCOPY --link= x y', 'FLAG_WITHOUT_VALUE', 2, '--link=', '--link=false'],
  ['FROM a\nCOPY --link=yes x y', 'FLAG_NOT_BOOLEAN', 2, '--link=yes', '--link=false'],
  ['FROM a\nRUN --network=hots x', 'INVALID_VALUE', 2, 'hots', 'did you mean host?'],
  ['FROM a\nRUN --security=none x', 'INVALID_VALUE', 2, 'none', 'sandbox, insecure'],
  // COPY and ADD
  ['FROM a\nCOPY', 'MISSING_ARGUMENT', 2, 'COPY', '/destination/'],
  ['FROM a\nCOPY x', 'MISSING_DESTINATION', 2, 'x', '/destination/'],
  ['FROM a\nADD ["x"]', 'MISSING_DESTINATION', 2, '"x"', '/destination/'],
  ['FROM a\nCOPY []', 'MISSING_ARGUMENT', 2, 'COPY', '/destination/'],
  ['FROM a\nCOPY x <<EOF\nEOF', 'HEREDOC_DESTINATION', 2, '<<EOF', 'last'],
  ['FROM a\nCOPY ["x", 1]', 'JSON_NOT_STRINGS', 2, '["x", 1]', 'quotes'],
  // ENV, LABEL, ARG
  ['FROM a\nENV', 'MISSING_ARGUMENT', 2, 'ENV', 'name=value'],
  ['FROM a\nENV PATH', 'MISSING_VALUE', 2, 'PATH', 'ENV PATH=value'],
  ['FROM a\nENV a=b c', 'MISSING_EQUALS', 2, 'c', 'quotes'],
  ['FROM a\nENV =b', 'BLANK_NAME', 2, '=b', 'name=value'],
  ['FROM a\nLABEL a=b =c', 'BLANK_NAME', 2, '=c', 'name=value'],
  ['FROM a\nARG', 'MISSING_ARGUMENT', 2, 'ARG', 'VERSION'],
  ['FROM a\nARG a =b', 'BLANK_NAME', 2, '=b', 'name=value'],
  // The rest
  ['FROM a\nWORKDIR', 'MISSING_ARGUMENT', 2, 'WORKDIR', '/app'],
  ['FROM a\nUSER', 'MISSING_ARGUMENT', 2, 'USER', 'USER app'],
  ['FROM a\nSTOPSIGNAL', 'MISSING_ARGUMENT', 2, 'STOPSIGNAL', 'SIGTERM'],
  ['FROM a\nMAINTAINER', 'MISSING_ARGUMENT', 2, 'MAINTAINER', 'LABEL'],
  ['FROM a\nEXPOSE', 'MISSING_ARGUMENT', 2, 'EXPOSE', '80/tcp'],
  ['FROM a\nVOLUME []', 'MISSING_ARGUMENT', 2, 'VOLUME', '/data'],
  ['FROM a\nVOLUME ["/a", " "]', 'EMPTY_VALUE', 2, '" "', '/data'],
  ['FROM a\nRUN []', 'MISSING_ARGUMENT', 2, '[]', 'RUN ["command"'],
  ['FROM a\nCMD ["a", ["b"]]', 'JSON_NOT_STRINGS', 2, '["a", ["b"]]', 'quotes'],
  ['FROM a\nENTRYPOINT [null]', 'JSON_NOT_STRINGS', 2, '[null]', 'quotes'],
  ['FROM a\nSHELL /bin/bash -c', 'SHELL_NOT_JSON', 2, '/bin/bash -c', 'SHELL ["/bin/bash", "-c"]'],
  ['FROM a\nSHELL []', 'MISSING_ARGUMENT', 2, 'SHELL', 'SHELL ["/bin/bash", "-c"]'],
  ['FROM a\nHEALTHCHECK', 'MISSING_ARGUMENT', 2, 'HEALTHCHECK', 'CMD'],
  ['FROM a\nHEALTHCHECK curl x', 'HEALTHCHECK_TYPE', 2, 'curl', 'CMD'],
  ['FROM a\nHEALTHCHECK CMD', 'MISSING_ARGUMENT', 2, 'CMD', 'CMD curl'],
  ['FROM a\nHEALTHCHECK NONE now', 'TOO_MANY_ARGUMENTS', 2, 'now', 'remove'],
  ['FROM a\nHEALTHCHECK --interval=5 CMD x', 'INVALID_DURATION', 2, '5', '30s'],
  ['FROM a\nHEALTHCHECK --timeout=1us CMD x', 'INVALID_DURATION', 2, '1us', '0'],
  ['FROM a\nHEALTHCHECK --retries=many CMD x', 'INVALID_RETRIES', 2, 'many', 'whole number'],
  ['FROM a\nONBUILD', 'MISSING_ARGUMENT', 2, 'ONBUILD', 'COPY'],
  ['FROM a\nONBUILD ONBUILD RUN x', 'ONBUILD_CHAIN', 2, 'ONBUILD', 'remove'],
  ['FROM a\nONBUILD FROM b', 'ONBUILD_TRIGGER', 2, 'FROM', 'another'],
  ['FROM a\nONBUILD CPOY . .', 'UNKNOWN_INSTRUCTION', 2, 'CPOY', 'did you mean COPY?'],
  [
    'FROM a\nHEALTHCHECK --intervall=5s CMD x',
    'UNKNOWN_FLAG',
    2,
    '--intervall=5s',
    'did you mean --interval?',
  ],
  [
    'FROM a\nHEALTHCHECK --start-intervall=5s CMD x',
    'UNKNOWN_FLAG',
    2,
    '--start-intervall=5s',
    '--start-interval?',
  ],
  ['FROM a\nONBUILD --x RUN y', 'UNKNOWN_FLAG', 2, '--x', 'no flags'],
  ['FROM a\nHEALTHCHECK --retries=-1 CMD x', 'INVALID_RETRIES', 2, '-1', '0 or more'],
  // Flags of RUN, COPY and ADD
  ['FROM a\nRUN --mount=from=$x,target=/y z', 'MOUNT_FROM_VARIABLE', 2, 'from=$x', 'begin a stage'],
  ['FROM a\nRUN --mount= x', 'MOUNT_SYNTAX', 2, '--mount=', 'key=value'],
  ['FROM a\nRUN --device=a,b x', 'DEVICE_SYNTAX', 2, 'b', '--device=name'],
  ['FROM a\nRUN --network= x', 'INVALID_VALUE', 2, '--network=', 'default, none, host'],
  ['FROM a\nCOPY --from=$x a b', 'FROM_FLAG_VARIABLE', 2, '$x', 'begin a stage'],
  ['FROM a\nCOPY --from=${x} a b', 'FROM_FLAG_VARIABLE', 2, '${x}', 'begin a stage'],
  ['FROM a\nCOPY --from=2 a b', 'INVALID_STAGE_INDEX', 2, '2', 'one stage'],
  ['FROM a\nFROM b\nCOPY --from=-1 a b', 'INVALID_STAGE_INDEX', 3, '-1', 'from 0 to 1'],
  ['FROM a\nADD --unpack=maybe a b', 'FLAG_NOT_BOOLEAN', 2, '--unpack=maybe', '--unpack=false'],
  ['FROM a\nADD --parents a b', 'UNKNOWN_FLAG', 2, '--parents', 'ADD takes'],
  ['FROM a\nCOPY --checksum=x a b', 'UNKNOWN_FLAG', 2, '--checksum=x', 'COPY takes'],
  ['FROM a\nCOPY --exlcude=x a b', 'UNKNOWN_FLAG', 2, '--exlcude=x', 'did you mean --exclude?'],
  // Heredocs
  ['FROM a\nRUN <<EOF\necho hi\n', 'UNTERMINATED_HEREDOC', 2, '<<EOF', 'EOF'],
  ['FROM a\nRUN <<EOF\necho hi\n EOF\n', 'UNTERMINATED_HEREDOC', 2, '<<EOF', 'line of its own'],
  ['FROM a\nCOPY <<A <<B /x\nA\n', 'UNTERMINATED_HEREDOC', 2, '<<B', 'B'],
]

describe(`wrong Dockerfiles: ${rows.length}`, () => {
  test.each(rows)('%j %s', (text, code, line, under, hint) => {
    const error = refusal(() => stagesOf(parse(text)))
    expect({ code: error.code, line: error.source?.line, under: underCaret(error) }).toEqual({
      code,
      line,
      under,
    })
    expect(error.hint).toContain(hint)
    expect(error.source?.file).toBe('Dockerfile')
  })
})

test('an error in a continued instruction points to its own line', () => {
  const error = refusal(() => parse('FROM a\nCOPY --from=b \\\n # comment\n\n  --chwon=x \\\n  y z'))
  expect(error.code).toBe('UNKNOWN_FLAG')
  expect(error.source).toMatchObject({
    file: 'Dockerfile',
    line: 5,
    frame: '5 |   --chwon=x \\\n  |   ^^^^^^^^^',
  })
})

/** What a message says is part of the interface as well: a few, word for word. */
test.each([
  ['FORM alpine', "unknown instruction 'FORM'"],
  ['FROM a\nCOPY --form=b x y', 'COPY has no flag --form'],
  ['FROM a\nCOPY x', 'COPY needs a source and a destination, and there is only one argument'],
  ['FROM a\nRUN --mount=from=$x,target=/y z', 'from= takes no variables'],
  ['FROM a\nCOPY --from=$x a b', '--from takes no variables'],
  ['FROM a\nRUN <<EOF\nx', "the heredoc is not ended: no line is exactly 'EOF'"],
  ['FROM a\nENV a=b c', "'c' has no '=': ENV takes name=value"],
  ['FROM a\nSHELL x', 'SHELL takes a JSON array of strings'],
])('%j: %s', (text, message) => {
  expect(refusal(() => stagesOf(parse(text))).message).toBe(message)
})

test('bytes that are not UTF-8 are refused in an instruction and let be in a comment', () => {
  expect(parse(Buffer.from('# Jürgen\nFROM a', 'latin1')).instructions).toHaveLength(1)
  expect(() => parse(Buffer.from('FROM a\nENV NAME=Jürgen', 'latin1'))).toThrow(
    expect.objectContaining({ code: 'INVALID_UTF8' }),
  )
  for (const text of ['RUN <<E\nü\nE', 'LABEL ü=1', 'RUN a \\\n ü', 'COPY ü /x', 'ONBUILD COPY <<E /x\nü\nE'])
    expect(refusal(() => parse(Buffer.from(`FROM a\n${text}`, 'latin1'))).code).toBe('INVALID_UTF8')
  for (const text of ['RUN a \\\n # ü\n b', 'COPY <<E /x\nü\nE', "ADD <<'E' /x\nü\nE"])
    expect(parse(Buffer.from(`FROM a\n${text}`, 'latin1')).instructions).toHaveLength(2)
})

/** The words over the carets of a frame's first line. */
function underCaret(error: DockerfileError): string {
  const [source = '', carets = ''] = error.source?.frame.split('\n') ?? []
  const start = carets.indexOf('^')
  return source.slice(start, carets.lastIndexOf('^') + 1)
}
