import { describe, expect, test } from '@jest/globals'
import {
  check,
  createIgnoreMatcher,
  parse,
  type BaseImage,
  type CheckOptions,
  type RuleName,
} from '../index.ts'

/** Rules and the lines of their instructions; only BuildKit's. */
function found(text: string, options: CheckOptions = {}): string[] {
  return check(text, { own: false, ...options }).findings.map(({ rule, line }) => `${rule} ${line}`)
}
const ownFound = (text: string): string[] =>
  check(text).findings.flatMap(({ rule, level, line }) => (level === 'info' ? [`${rule} ${line}`] : []))
const args = (...pairs: readonly (readonly [string, string])[]): ReadonlyMap<string, string> => new Map(pairs)

const given = (value: string): CheckOptions => ({ buildArgs: args(['BUILDKIT_DOCKERFILE_CHECK', value]) })
const armImage = (): BaseImage => ({
  env: [],
  platform: { os: 'linux', architecture: 'arm64', variant: '' },
})
const javaImage = (): BaseImage => ({
  env: ['JAVA_HOME=/j'],
  shell: ['/bin/bash', '-c'],
  onBuild: ['COPY $nope .'],
})

/** The words that a finding points to. */
function words(text: string, rule: RuleName, options: CheckOptions = {}): string[] {
  return check(text, options).findings.flatMap((one) =>
    one.rule === rule ? [text.slice(one.range.start.offset, one.range.end.offset)] : [],
  )
}

type Row = readonly [what: string, text: string, expected: readonly string[]]

describe('what is written', () => {
  test.each<Row>([
    ['a stage in capitals', 'FROM a AS Base', ['StageNameCasing 1']],
    ['as beside FROM', 'FROM a as base', ['FromAsCasing 1']],
    ['AS beside from', 'from a AS base', ['FromAsCasing 1']],
    ['From is inconsistent in itself: one finding', 'From a as base', ['ConsistentInstructionCasing 1']],
    ['the majority is lower', 'from a\ncopy b c\nUSER d', ['ConsistentInstructionCasing 3']],
    ['a tie goes to upper', 'from a\nCOPY b c', ['ConsistentInstructionCasing 1']],
    ['arguments before FROM are not counted', 'arg A\narg B\nFROM a', []],
    ['a heredoc is no instruction', "FROM a\nRUN <<'E'\nenv\nE", []],
    [
      'a name twice, in another case',
      'FROM a AS b\nFROM a AS B',
      ['DuplicateStageName 2', 'StageNameCasing 2'],
    ],
    [
      'reserved names',
      'FROM scratch AS scratch\nFROM scratch AS context',
      ['ReservedStageName 1', 'ReservedStageName 2'],
    ],
    ['a reserved name as a base is fine', 'FROM scratch\nFROM scratch AS a', []],
    ['MAINTAINER', 'FROM a\nMAINTAINER me', ['MaintainerDeprecated 2']],
    [
      'the line after an empty one is told',
      'FROM a\nCOPY b \\\n\nc\nCOPY b \\\nc',
      ['NoEmptyContinuation 4'],
    ],
    ['a comment in between is fine', 'FROM a\nCOPY b \\\n# x\nc', []],
    ['empty lines of a heredoc are its own', 'FROM a\nCOPY <<E /x\n\n\nE', []],
  ])('%s', (_, text, expected) => {
    expect(found(text)).toEqual(expected)
  })

  test('a comment above ARG or a named stage begins with its name', () => {
    const on = '# check=experimental=InvalidDefinitionDescription\n'
    expect(found(`${on}# foo is it\nARG foo=bar\n# base is it\nFROM scratch AS base\n# b\nCOPY a b`)).toEqual(
      [],
    )
    expect(found(`${on}# baz is it\nARG foo bar baz\nFROM scratch\n# any\n#\nARG x`)).toEqual([])
    expect(found(`${on}# bar\nARG foo\n# BasE\nFROM scratch AS base\n# bad\nARG foo=baz bar`, {})).toEqual([
      'InvalidDefinitionDescription 3',
      'InvalidDefinitionDescription 5',
      'InvalidDefinitionDescription 7',
    ])
    expect(found('# bar\nARG foo\nFROM scratch')).toEqual([])
  })
})

describe('FROM', () => {
  test.each<Row>([
    ['declared', 'ARG base=scratch\nFROM $base', []],
    ['a platform argument needs no ARG', 'FROM --platform=$BUILDPLATFORM scratch', []],
    ['declared without a value', 'ARG D\nFROM scratch${D}', []],
    ['not declared', 'ARG tag=1\nFROM b:${tag}${version} AS b', ['UndefinedArgInFrom 2']],
    ['redundant platform', 'FROM --platform=$TARGETPLATFORM scratch', ['RedundantTargetPlatform 1']],
    [
      'redundant platform in braces',
      'FROM --platform=${TARGETPLATFORM} scratch',
      ['RedundantTargetPlatform 1'],
    ],
    ['part of a platform is not redundant', 'FROM --platform=linux/$TARGETARCH scratch', []],
    ['a constant platform', 'FROM --platform=linux/amd64 scratch', ['FromPlatformFlagConstDisallowed 1']],
    ['a stage named for its platform', 'FROM --platform=linux/amd64 scratch AS my_amd64_stage', []],
    ['a stage named for its system', 'FROM --platform=linux/amd64 scratch AS linux', []],
    ['an empty default is fine where the name stays one', 'ARG V=""\nFROM b:stable${V}', []],
  ])('%s', (_, text, expected) => {
    expect(found(text)).toEqual(expected)
  })

  test('an image that is a name only with a build argument', () => {
    const version = { buildArgs: args(['VERSION', '1']) }
    expect(found('ARG VERSION\nFROM b:$VERSION', version)).toEqual(['InvalidDefaultArgInFrom 2'])
    expect(check('ARG VERSION\nFROM b:$VERSION', version).errors).toEqual([])
    expect(found('ARG VERSION=1\nFROM b:$VERSION', version)).toEqual([])
  })

  test('a name with a typing error is suggested, and the build’s mistake is told too', () => {
    const { findings, errors } = check('FROM --platform=$BULIDPLATFORM scratch')
    expect(findings[0]?.message).toBe(
      "FROM argument 'BULIDPLATFORM' is not declared (did you mean BUILDPLATFORM?)",
    )
    expect(errors[0]).toMatchObject({ code: 'PLATFORM_INVALID', hint: 'did you mean $BUILDPLATFORM?' })
  })

  test('the image is for another platform', () => {
    const { findings } = check('FROM a:1', { baseImage: armImage })
    expect(findings[0]?.message).toBe(
      'Base image a:1 was pulled with platform "linux/arm64", expected "linux/amd64" for current build',
    )
    expect(
      check('FROM --platform=$BUILDPLATFORM a:1', { baseImage: armImage, buildPlatform: armImage().platform })
        .findings,
    ).toEqual([])
  })
})

describe('instructions of a stage', () => {
  test.each<Row>([
    ['an ARG without a value is defined', 'FROM a\nARG foo\nCOPY D${foo} .', []],
    ['arguments of the stage below', 'FROM a AS b\nARG foo=D\nFROM b\nCOPY $foo .', []],
    ['variables of RUN are the shell’s', 'FROM a\nRUN echo $x\nCMD ["$x"]', []],
    ['defined too late', 'FROM a\nCOPY $foo .\nARG foo=bar', ['UndefinedVar 2']],
    ['a global ARG that is not declared here', 'ARG g=1\nFROM a\nCOPY $g .', ['UndefinedVar 3']],
    ['in a default that is not evaluated in vain', 'FROM a\nARG x=$y', ['UndefinedVar 2']],
    ['in a heredoc', 'FROM a\nCOPY <<E /x\n$foo\nE', ['UndefinedVar 2']],
    ['not in a quoted heredoc', "FROM a\nCOPY <<'E' /x\n$foo\nE", []],
    ['in a mount', 'FROM a\nRUN --mount=type=cache,target=$foo x', ['UndefinedVar 2']],
    ['ENV in one instruction', 'FROM a\nENV x=1 y=$x', ['UndefinedVar 2']],
    ['PATH is always there', 'FROM scratch\nENV PATH=$PATH:/x', []],
    ['relative before absolute', 'FROM a\nWORKDIR app/\nWORKDIR sub', ['WorkdirRelativePath 2']],
    ['absolute in the stage below', 'FROM a AS b\nWORKDIR /app\nFROM b\nWORKDIR sub/', []],
    ['shell form', 'FROM a\nCMD x', ['JSONArgsRecommended 2']],
    ['shell form with a SHELL', 'FROM a AS b\nSHELL ["/x"]\nFROM b\nENTRYPOINT x', []],
    ['the earlier one is told', 'FROM a\nCMD ["x"]\nUSER u\nCMD ["y"]', ['MultipleInstructionsDisallowed 2']],
    ['one a stage', 'FROM a AS b\nCMD ["x"]\nFROM b\nCMD ["y"]', []],
    ['HEALTHCHECK', 'FROM a\nHEALTHCHECK NONE\nHEALTHCHECK CMD x', ['MultipleInstructionsDisallowed 2']],
    ['the old form', 'FROM a\nENV k v\nLABEL k v', ['LegacyKeyValueFormat 2', 'LegacyKeyValueFormat 3']],
    [
      'names of secrets',
      'FROM a\nARG SECRET_PASSPHRASE\nENV SUPER_Secret=f password=b\nENV apikey=b sunflower=f git_key= PUBLIC_KEY= KEY_FILE=x keys=1\nARG public_token auth',
      [
        'SecretsUsedInArgOrEnv 2',
        'SecretsUsedInArgOrEnv 3',
        'SecretsUsedInArgOrEnv 3',
        'SecretsUsedInArgOrEnv 4',
        'SecretsUsedInArgOrEnv 4',
        'SecretsUsedInArgOrEnv 5',
      ],
    ],
    ['protocols', 'FROM a\nEXPOSE 80/TCP 81/tcp 82', ['ExposeProtoCasing 2']],
    ['addresses', 'FROM a\nEXPOSE 80:80 [::1]:81:81', ['ExposeInvalidFormat 2', 'ExposeInvalidFormat 2']],
    [
      'a trigger is checked in the stage that it runs in',
      'FROM scratch AS b\nONBUILD CMD x\nFROM b\n',
      ['JSONArgsRecommended 3'],
    ],
  ])('%s', (_, text, expected) => {
    expect(found(text)).toEqual(expected)
  })

  test('a default is not expanded where a build argument is given', () => {
    expect(found('FROM a\nARG x=$y', { buildArgs: args(['x', '1']) })).toEqual([])
  })

  test('what the base image has is known', () => {
    const baseImage = javaImage
    const text = 'FROM a\nCOPY $JAVA_HOME .\nCMD x'
    expect(found(text)).toEqual(['UndefinedVar 2', 'JSONArgsRecommended 3'])
    expect(check(text, { own: false }).findings[0]?.note).toContain('the image a was not looked at')
    expect(found(text, { baseImage })).toEqual(['UndefinedVar 1'])
  })

  test('the exact words', () => {
    expect(words('FROM a\nCOPY x${foo:-1}$b ${b} $bc .', 'UndefinedVar')).toEqual([
      '${foo',
      '$b',
      '${b}',
      '$bc',
    ])
    expect(words('FROM a\nENV x=1 \\\n  my_token=2', 'SecretsUsedInArgOrEnv')).toEqual(['my_token'])
    expect(words('FROM a\nEXPOSE 1 2/UDP 3', 'ExposeProtoCasing')).toEqual(['2/UDP'])
  })

  test('a suggestion comes from what is defined', () => {
    const { findings } = check('FROM a:1\nENV PATH=$PAHT:/x')
    expect(findings[0]?.message).toBe("Usage of undefined variable '$PAHT' (did you mean $PATH?)")
  })
})

describe('CopyIgnoredFile', () => {
  test.each([
    [['sub'], 'sub/a.txt', 'sub/a.txt'],
    [['sub'], './sub//a.txt', 'sub/a.txt'],
    [['sub'], 'other.txt', undefined],
    [['sub', '!sub/b.txt'], 'sub/a.txt', 'sub/a.txt'],
    [['!sub/b.txt', 'sub'], 'sub/a.txt', 'sub/a.txt'],
    [['sub', '!other/*.txt'], 'sub/a.txt', 'sub/a.txt'],
    [['sub', '!sub/keep.txt'], 'sub', undefined],
    [['sub', '!sub/*.txt'], 'sub', undefined],
    [['sub', '!*/keep.txt'], 'sub', undefined],
    [['**', '!sub'], 'sub/a.txt', undefined],
    [['*'], '.', '.'],
    [['**', '!Dockerfile'], '.', undefined],
    [['.*'], '.', undefined],
  ])('%j %s', (patterns, source, expected) => {
    const ignore = { matcher: createIgnoreMatcher(patterns), file: '.dockerignore' }
    const messages = (keyword: string): string[] =>
      check(`FROM a:1\n${keyword} ${source} /x`, { ignore, own: false }).findings.map(
        ({ message }) => message,
      )
    const says = (word: string): string[] =>
      expected === undefined
        ? []
        : [`Attempting to ${word} file "${expected}" that is excluded by .dockerignore`]
    expect(messages('COPY')).toEqual(says('Copy'))
    expect(messages('ADD')).toEqual(says('Add'))
    expect(messages('COPY --from=b:1')).toEqual([])
  })

  test('the note names file, line and pattern', () => {
    const matcher = createIgnoreMatcher([{ pattern: 'tmp/*.log', negated: false, line: 3 }])
    const { findings } = check('FROM a:1\nCOPY tmp/x.log /', { ignore: { matcher, file: '.dockerignore' } })
    expect(findings[0]?.note).toBe('line 3 of .dockerignore: tmp/*.log')
  })
})

describe('which checks run', () => {
  const text = 'FROM scratch as base\ncopy a b\n'
  test.each([
    ['', ['FromAsCasing 2', 'ConsistentInstructionCasing 3'], false],
    ['skip=all', [], false],
    ['skip=all;error=true', [], false],
    ['skip=ConsistentInstructionCasing, FromAsCasing', [], false],
    ['skip=ConsistentInstructionCasing', ['FromAsCasing 2'], false],
    [' skip = ConsistentInstructionCasing ; error = 1 ', ['FromAsCasing 2'], true],
    ['error=true;skip=all', [], false],
  ] as const)('# check=%s', (options, expected, fails) => {
    const line = options === '' ? '#' : `#check=${options}`
    expect(found(`${line}\n${text}`)).toEqual(expected)
    expect(check(`${line}\n${text}`).failure?.code).toBe(fails ? 'CHECKS_FAILED' : undefined)
  })

  test('the build argument goes before the file', () => {
    const all = `#check=skip=all\n${text}`
    const result = check(all, given('skip=ConsistentInstructionCasing;error=true'))
    expect(result.failure).toMatchObject({ message: 'lint violation found for rules: FromAsCasing' })
    expect(found(`#check=error=true;nonsense\n${text}`, given('skip=all'))).toEqual([])
    expect(check(text, given('wrong')).errors[0]?.code).toBe('INVALID_CHECK_OPTION')
  })

  test('a comment before an instruction is for that one', () => {
    expect(found('FROM a\n# check=skip=JSONArgsRecommended it is fine\n# more\nCMD x')).toEqual([])
    expect(found('FROM a\n# check=skip=StageNameCasing\nCMD x')).toEqual(['JSONArgsRecommended 3'])
    expect(found('FROM a\n# check=skip=all\n#\nCMD x')).toEqual(['JSONArgsRecommended 4'])
    expect(found('FROM a\n# check=nonsense\nCMD x')).toEqual(['JSONArgsRecommended 3'])
    expect(found('FROM a\n# check=experimental=all\nARG x')).toEqual(['InvalidDefinitionDescription 3'])
  })

  test('a wrong option is an error under its words', () => {
    const source = '# check=skip=all;eror=true\nFROM a'
    const [error] = check(source).errors
    expect(error).toMatchObject({ code: 'INVALID_CHECK_OPTION' })
    expect(source.slice(error!.source!.range.start.offset, error!.source!.range.end.offset)).toBe('eror=true')
  })

  test('own checks never fail a build', () => {
    expect(check('# check=error=true\nFROM debian').failure).toBeUndefined()
    expect(ownFound('# check=skip=UnpinnedBaseImage\nFROM debian')).toEqual([])
  })

  test('stages that the target does not need are left alone', () => {
    const stages = 'FROM scratch AS a\nENV k v\nFROM scratch AS b\nENV k v\nFROM scratch\nCOPY --from=b / /\n'
    expect(found(stages)).toEqual(['LegacyKeyValueFormat 2', 'LegacyKeyValueFormat 4'])
    expect(found(stages, { stages: 'needed' })).toEqual(['LegacyKeyValueFormat 4'])
    expect(found(stages, { target: 'A' })).toEqual(['LegacyKeyValueFormat 2'])
    expect(check(stages, { target: 'c' }).errors[0]).toMatchObject({
      code: 'TARGET_NOT_FOUND',
      hint: 'did you mean a?',
    })
  })
})

describe('mistakes', () => {
  test('warnings before the first mistake are given with it; all mistakes of instructions are told', () => {
    const { findings, errors } = check('FROM scratch AS Bad\nMAINTAINER me\nBADCMD\nMAINTAINER x\nWRKDIR /x')
    expect(findings.map(({ rule, line }) => `${rule} ${line}`)).toEqual([
      'StageNameCasing 1',
      'MaintainerDeprecated 2',
    ])
    expect(errors.map(({ code, source }) => `${code} ${source?.line}`)).toEqual([
      'UNKNOWN_INSTRUCTION 3',
      'UNKNOWN_INSTRUCTION 5',
    ])
  })

  test.each([
    ['FROM a:1\nSTOPSIGNAL SIGFOO', 'SIGNAL_INVALID'],
    ['FROM a:1\nEXPOSE 99999', 'PORT_INVALID'],
    ['FROM a:1\nEXPOSE localhost:80:80', 'PORT_INVALID'],
    ['FROM a:1\nVOLUME $x', 'VOLUME_EMPTY'],
    ['FROM A:1', 'IMAGE_NAME_INVALID'],
    ['FROM a AS Base\nFROM Base', 'IMAGE_NAME_INVALID'],
    ['FROM $x', 'FROM_EMPTY'],
    ['FROM --platform=a/b/c/d a:1', 'PLATFORM_INVALID'],
    ['FROM a:1 AS x\nCOPY --from=x a b', 'STAGE_ORDER'],
    ['FROM a:1\nRUN --mount=from=b,target=/x y\nFROM a:1 AS b', 'STAGE_ORDER'],
    ['FROM a:1\nCOPY --from=$x a b', 'FROM_FLAG_VARIABLE'],
    ['FROM a:1\nCOPY --from=1 a b', 'INVALID_STAGE_INDEX'],
    ['FROM a:1\nCOPY https://example.com/x /x', 'COPY_REMOTE'],
    ['FROM a:1\nRUN --mount=type=cahce,target=/x y', 'MOUNT_TYPE'],
    ['FROM a:1\nENV x=${y:?no}', 'EXPANSION_UNSET'],
    ['RUN x', 'NO_STAGE'],
    ['', 'EMPTY_DOCKERFILE'],
  ])('%j: %s', (text, code) => {
    const [error] = check(text).errors
    expect(error?.code).toBe(code)
    expect(error?.source?.frame).toContain('^')
    expect([typeof error?.message, error?.message]).not.toContain('')
  })

  test('a tree, text and bytes give the same', () => {
    const text = 'FROM a\nCMD x'
    expect(check(parse(text, { file: 'F' }))).toEqual(check(text, { file: 'F' }))
    expect(check(new TextEncoder().encode(text))).toEqual(check(text))
  })
})

describe('checks of ours', () => {
  test.each<Row>([
    ['no tag', 'FROM debian', ['UnpinnedBaseImage 1']],
    ['latest', 'FROM debian:latest', ['UnpinnedBaseImage 1']],
    ['a registry with a port has no tag', 'FROM localhost:5000/x', ['UnpinnedBaseImage 1']],
    ['a digest', `FROM debian@sha256:${'0'.repeat(64)}`, []],
    ['a stage', 'FROM debian:12 AS x\nFROM x\nCOPY --from=x /a /b', []],
    ['scratch', 'FROM scratch', []],
    ['an image to copy from', 'FROM scratch\nCOPY --from=nginx /a /b', ['UnpinnedBaseImage 2']],
    ['an image to mount', 'FROM scratch\nRUN --mount=from=nginx,target=/x y', ['UnpinnedBaseImage 2']],
    ['no update', 'FROM d:1\nRUN apt-get install -y x', ['AptGetInstallWithoutUpdate 2']],
    [
      'options before the action',
      'FROM d:1\nRUN apt-get -qq -o A=b install x',
      ['AptGetInstallWithoutUpdate 2'],
    ],
    ['update in the same step', 'FROM d:1\nRUN apt-get update && apt-get install x', []],
    [
      'update on its own line of a script',
      'FROM d:1\nRUN <<E\nset -e\napt-get -y update\nsudo apt-get install x\nE',
      [],
    ],
    ['a script of another language', 'FROM d:1\nRUN <<E\n#!/usr/bin/env python3\napt-get install\nE', []],
    ['a file', 'FROM d:1\nRUN apt-get install ./x.deb', []],
    ['lists in a mount', 'FROM d:1\nRUN --mount=type=cache,target=/var/lib/apt apt-get install x', []],
    ['not a command', 'FROM d:1\nRUN echo "apt-get install x" # apt-get install', []],
    ['JSON form', 'FROM d:1\nRUN ["apt-get", "install", "x"]', ['AptGetInstallWithoutUpdate 2']],
    ['cd first', 'FROM d:1\nRUN cd /x && make', ['CdInsteadOfWorkdir 2']],
    ['cd in a subshell', 'FROM d:1\nRUN (cd /x && make) && y', []],
    ['all before npm', 'FROM d:1\nCOPY . /x\nRUN npm ci', ['CopyBeforeDependencyInstall 2']],
    [
      'lists before npm',
      'FROM d:1\nCOPY package.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build && npm ci',
      [],
    ],
    ['one package is no list', 'FROM d:1\nCOPY . .\nRUN npm install -g x', []],
    [
      'pip',
      'FROM d:1\nCOPY ./ ./\nRUN python -m pip install -r requirements.txt',
      ['CopyBeforeDependencyInstall 2'],
    ],
    ['another stage’s files', 'FROM d:1 AS b\nFROM d:1\nCOPY --from=b . .\nRUN npm ci', []],
    ['a key', 'FROM d:1\nENV a=AKIAIOSFODNN7EXAMPLE', ['SecretInValue 2']],
    ['a word that holds such letters', 'FROM d:1\nENV a=XAKIAIOSFODNN7EXAMPLE', []],
  ])('%s', (_, text, expected) => {
    expect(ownFound(text)).toEqual(expected)
  })

  test('the exact words of a command over several lines', () => {
    const text = 'FROM d:1\nRUN set -e; \\\n # c\n  apt-get \\\n  install x'
    expect(words(text, 'AptGetInstallWithoutUpdate')).toEqual(['apt-get \\\n  install'])
  })
})
