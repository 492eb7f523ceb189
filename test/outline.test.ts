/** `--call=outline` and `--call=targets`, held to what BuildKit's own tests and buildx' printers say. */
import { afterAll, expect, test } from '@jest/globals'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freshCommand } from './support/bundle.ts'

const scratch = mkdtempSync(join(tmpdir(), 'tbuild-outline-'))
const command = freshCommand()
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function call(method: string, dockerfile: string, ...more: readonly string[]) {
  const env = { PATH: process.env['PATH'] ?? '', HOME: scratch, TBUILD_STORE: join(scratch, 'store') }
  const args = ['build', `--call=${method}`, ...more, '-f', '-', '.']
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: scratch,
    env,
    input: dockerfile,
    encoding: 'utf8',
  })
  return { status, stdout, stderr }
}

const ARGS = `# syntax=docker/dockerfile:1
ARG inherited=box
ARG inherited2=box2
ARG unused=abc\${inherited2}
# sfx is a suffix
ARG sfx="usy\${inherited}"

FROM b\${sfx} AS first
# this is not assigned to anything
ARG FOO=123
# BAR is a number
ARG BAR=456
RUN true

FROM alpine\${unused} AS second
ARG BAZ
RUN true

FROM scratch AS third
ARG ABC=a TARGETARCH
ARG LATER=$ABC-\\
b

# target defines build target
FROM third AS target
COPY --from=first /etc/passwd /

FROM --platform=$BUILDPLATFORM second
`

test('arguments of a target: its own, those of stages it needs, global ones that are used', () => {
  expect(call('outline', ARGS, '--target=target', '--build-arg=BAR=678')).toEqual({
    status: 0,
    stderr: '',
    stdout: `TARGET:      target
DESCRIPTION: defines build target

BUILD ARG   VALUE    DESCRIPTION
inherited   box      ${''}
sfx         usybox   is a suffix
FOO         123      ${''}
BAR         678      is a number
ABC         a        ${''}
LATER       a-b      ${''}

`,
  })
  expect(call('outline', ARGS).stdout).toBe(`BUILD ARG    VALUE     DESCRIPTION
inherited2   box2      ${''}
unused       abcbox2   ${''}
BAZ                    ${''}

`)
})

test('as JSON', () => {
  const { stdout } = call('outline,format=json', ARGS, '--target=target', '--build-context=first=.')
  expect(JSON.parse(stdout)).toEqual({
    name: 'target',
    description: 'defines build target',
    args: [
      { name: 'ABC', value: 'a', location: { ranges: [{ start: { line: 20 }, end: { line: 20 } }] } },
      { name: 'LATER', value: 'a-b', location: { ranges: [{ start: { line: 21 }, end: { line: 22 } }] } },
    ],
    sources: [Buffer.from(ARGS).toString('base64')],
  })
  expect(stdout).toMatch(/^\{\n {2}"name": "target",\n/)
})

const SECRETS = `
FROM busybox AS first
RUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh true

FROM alpine AS second
RUN --mount=type=secret,id=unused --mount=type=ssh,id=ssh2 true

FROM scratch AS third
ARG BAR
RUN --mount=type=secret,id=second\${BAR} true

FROM third AS target
COPY --from=first /foo /
RUN --mount=type=ssh,id=ssh3,required true

FROM second
`

test('secrets and agents', () => {
  expect(call('outline', SECRETS, '--target=target', '--build-arg=BAR=678').stdout).toBe(`TARGET: target

BUILD ARG   VALUE   DESCRIPTION
BAR         678     ${''}

SECRET      REQUIRED
passwd      true
second678   ${''}

SSH       REQUIRED
default   ${''}
ssh3      true

`)
})

test('a stage that is mounted from is needed, and one that needs itself ends', () => {
  const text = 'FROM a AS one\nARG A=1\nRUN --mount=from=two x\nFROM b AS two\nARG B=2\nCOPY --from=one x /\n'
  expect(call('outline', text, '--target=one').stdout).toContain('\nA           1')
  expect(call('outline', text, '--target=one').stdout).toContain('\nB           2')
})

test('targets', () => {
  const text = `# base is the beginning
FROM --platform=$BUILDPLATFORM debian:12 AS Base
FROM Base
# prod is
# an other comment
#
# prod is what is shipped

FROM scratch AS prod
`
  expect(call('targets', text)).toEqual({
    status: 0,
    stderr: '',
    stdout: `TARGET         DESCRIPTION
base           is the beginning
               ${''}
prod (default) is what is shipped
`,
  })
  expect(JSON.parse(call('targets,format=json', text).stdout)).toEqual({
    targets: [
      {
        name: 'base',
        description: 'is the beginning',
        base: 'debian:12',
        platform: '$BUILDPLATFORM',
        location: { ranges: [{ start: { line: 2 }, end: { line: 2 } }] },
      },
      { base: 'Base', location: { ranges: [{ start: { line: 3 }, end: { line: 3 } }] } },
      {
        name: 'prod',
        default: true,
        description: 'is what is shipped',
        base: 'scratch',
        location: { ranges: [{ start: { line: 9 }, end: { line: 9 } }] },
      },
    ],
    sources: [Buffer.from(text).toString('base64')],
  })
  expect(call('targets', 'FROM scratch\n').stdout).toBe('TARGET    DESCRIPTION\n(default) \n')
})

test('what is wrong is told', () => {
  expect(call('outline', ARGS, '--target=none')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('there is no stage "none" [TARGET_NOT_FOUND]'),
  })
  expect(call('targets', 'WHAT\n')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('Dockerfile:1'),
  })
})

const chain = (stages: number): string =>
  ['FROM scratch AS s0', ...Array.from({ length: stages - 1 }, (_, i) => `FROM s${i} AS s${i + 1}`)].join(
    '\n',
  )

test('stages that stand on one another, deep down', () => {
  expect(call('outline', chain(1000)).stdout).toMatch(/s999/)
  expect(call('outline', chain(1001)).stderr).toMatch(/TOO_MANY_STAGES/)
})
