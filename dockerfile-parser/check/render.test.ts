import { Ajv } from 'ajv'
import { describe, expect, test } from '@jest/globals'
import { check, renderJson, renderSarif, renderText } from '../index.ts'

const text = '# check=skip=all;experimental=x\nFROM a:1\n'
const bad = 'FROM debian AS Bad\nENV k v\nSTOPSIGNAL x\n'

test('nothing found, nothing said', () => {
  expect(renderText(check(text))).toBe('')
})

test('source frames, the page of each, and counts', () => {
  expect(renderText(check(bad, { file: 'sub/Dockerfile' }))).toBe(
    [
      'info: The image debian has no tag, and so is whatever latest is on the day [UnpinnedBaseImage]',
      'sub/Dockerfile:1',
      '1 | FROM debian AS Bad',
      '  |      ^^^^^^',
      'note: name a version, or a digest (name@sha256:...)',
      'see docs/checks/UnpinnedBaseImage.md',
      '',
      "warning: Stage name 'Bad' should be lowercase [StageNameCasing]",
      'sub/Dockerfile:1',
      '1 | FROM debian AS Bad',
      '  |                ^^^',
      'note: names of stages are compared in lower case',
      'see docs/checks/StageNameCasing.md',
      '',
      'warning: "ENV key=value" should be used instead of legacy "ENV key value" format [LegacyKeyValueFormat]',
      'sub/Dockerfile:2',
      '2 | ENV k v',
      '  |     ^^^',
      'see docs/checks/LegacyKeyValueFormat.md',
      '',
      'error: "x" is not a signal [SIGNAL_INVALID]',
      'sub/Dockerfile:3',
      '3 | STOPSIGNAL x',
      '  |            ^',
      'hint: a name like SIGTERM, or a number',
      '',
      '1 error, 2 warnings, 1 remark',
      '',
    ].join('\n'),
  )
})

test('JSON has the fields of docker build --call=check,format=json, and ours', () => {
  const json: unknown = JSON.parse(renderJson(check(bad, { own: false })))
  expect(json).toEqual({
    warnings: [
      expect.objectContaining({ ruleName: 'StageNameCasing' }),
      {
        ruleName: 'LegacyKeyValueFormat',
        description: 'Legacy key/value format with whitespace separator should not be used',
        url: 'https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/',
        detail: '"ENV key=value" should be used instead of legacy "ENV key value" format',
        location: { sourceIndex: 0, ranges: [{ start: { line: 2 }, end: { line: 2 } }] },
        level: 'warning',
        page: 'docs/checks/LegacyKeyValueFormat.md',
        range: { start: { line: 2, column: 5 }, end: { line: 2, column: 8 } },
      },
    ],
    sources: [{ filename: 'Dockerfile' }],
    buildError: expect.objectContaining({ message: '"x" is not a signal' }),
    errors: [expect.objectContaining({ code: 'SIGNAL_INVALID' })],
  })
})

/** What SARIF 2.1.0 asks of the objects that are used here (sections 3.13 to 3.49); nothing else may be in them. */
const object = (required: readonly string[], properties: object): object => ({
  type: 'object',
  required,
  properties,
  additionalProperties: false,
})
const message = object(['text'], { text: { type: 'string', minLength: 1 } })
const level = { enum: ['none', 'note', 'warning', 'error'] }
const line = { type: 'integer', minimum: 1 }
const artifactLocation = object(['uri'], { uri: { type: 'string', pattern: '^[!-~]+$' } })
const SARIF = object(['version', 'runs'], {
  $schema: { type: 'string', pattern: '^https:' },
  version: { const: '2.1.0' },
  runs: {
    type: 'array',
    items: object(['tool', 'results'], {
      tool: object(['driver'], {
        driver: object(['name'], {
          name: { type: 'string' },
          version: { type: 'string' },
          rules: {
            type: 'array',
            uniqueItems: true,
            items: object(['id'], {
              id: { type: 'string' },
              name: { type: 'string' },
              shortDescription: message,
              helpUri: { type: 'string', pattern: '^https:' },
              help: message,
              defaultConfiguration: object([], { level }),
            }),
          },
        }),
      }),
      columnKind: { enum: ['utf16CodeUnits', 'unicodeCodePoints'] },
      artifacts: { type: 'array', items: object([], { location: artifactLocation }) },
      results: {
        type: 'array',
        items: object(['message'], {
          ruleId: { type: 'string' },
          ruleIndex: { type: 'integer', minimum: 0 },
          level,
          message,
          locations: {
            type: 'array',
            items: object([], {
              physicalLocation: object(['artifactLocation'], {
                artifactLocation,
                region: object(['startLine'], {
                  startLine: line,
                  startColumn: line,
                  endLine: line,
                  endColumn: line,
                }),
              }),
            }),
          },
        }),
      },
    }),
  },
})

interface Log {
  readonly runs: readonly [
    {
      readonly tool: { readonly driver: { readonly rules: readonly { readonly id: string }[] } }
      readonly results: readonly { readonly ruleId: string; readonly ruleIndex: number }[]
    },
  ]
}

describe('SARIF', () => {
  const validate = new Ajv({ strict: true, allErrors: true }).compile(SARIF)

  test.each([
    ['nothing', text],
    ['warnings, remarks and errors', bad],
    ['a syntax error', 'FROM a\nRUN <<E\n'],
    ['an empty file', ''],
    ['an empty range', 'FROM a\nRUN x \\\n\ny'],
  ])('%s: its shape', (_, source) => {
    const log = JSON.parse(renderSarif(check(source, { file: 'a dir/é:Dockerfile' }), '1.2.3')) as Log
    validate(log)
    expect(validate.errors).toBeNull()
    const [run] = log.runs
    for (const { ruleId, ruleIndex } of run.results) expect(run.tool.driver.rules[ruleIndex]?.id).toBe(ruleId)
  })

  test('places and levels', () => {
    const log: unknown = JSON.parse(renderSarif(check(bad, { file: '/x y/Dockerfile' })))
    expect(log).toMatchObject({
      runs: [
        {
          results: [
            { ruleId: 'UnpinnedBaseImage', level: 'note' },
            {
              ruleId: 'StageNameCasing',
              level: 'warning',
              locations: [
                {
                  physicalLocation: {
                    artifactLocation: { uri: 'file:///x%20y/Dockerfile' },
                    region: { startLine: 1, startColumn: 16, endLine: 1, endColumn: 19 },
                  },
                },
              ],
            },
            { ruleId: 'LegacyKeyValueFormat' },
            { ruleId: 'SIGNAL_INVALID', level: 'error' },
          ],
        },
      ],
    })
  })
})
