/** What `check` found as text for people, as JSON, and as SARIF for code review tools. Pure: each gives a string. */
import type { DockerfileError } from '../source.ts'
import type { Range } from '../types.ts'
import type { CheckResult } from './check.ts'
import { RULES } from './rules.ts'

/** Source frames, each with its page; a line of counts at the end. Empty if nothing was found. */
export function renderText({ file, findings, errors }: CheckResult): string {
  const blocks = findings.map(({ rule, level, message, range, frame, note, page }) =>
    [
      `${level}: ${message} [${rule}]`,
      `${file}:${range.start.line}`,
      frame,
      ...(note === undefined ? [] : [`note: ${note}`]),
      `see ${page}`,
    ].join('\n'),
  )
  for (const { code, message, hint, source } of errors)
    blocks.push(
      [
        `error: ${message} [${code}]`,
        ...(source === undefined ? [] : [`${source.file}:${source.line}`, source.frame]),
        ...(hint === undefined ? [] : [`hint: ${hint}`]),
      ].join('\n'),
    )
  if (blocks.length === 0) return ''
  const warnings = findings.filter(({ level }) => level === 'warning').length
  const counts = [
    count(errors.length, 'error'),
    count(warnings, 'warning'),
    count(findings.length - warnings, 'remark'),
  ].filter((text) => text !== '')
  return `${blocks.join('\n\n')}\n\n${counts.join(', ')}\n`
}

function count(number: number, what: string): string {
  return number === 0 ? '' : `${number} ${what}${number === 1 ? '' : 's'}`
}

/**
 * The form of `docker build --call=check,format=json`, with a few fields more: `level`, `page`, `note`, and `range` with the exact words'
 * lines and columns (from 1, in UTF-16 units, end exclusive), while `location` has the instruction's line.
 */
export function renderJson({ file, findings, errors }: CheckResult): string {
  const warnings = findings.map(({ rule, level, message, description, url, page, range, line, note }) => ({
    ruleName: rule,
    description,
    ...(url !== '' && { url }),
    detail: message,
    location: location(line),
    level,
    page,
    ...(note !== undefined && { note }),
    range: plainRange(range),
  }))
  const failures = errors.map(({ code, message, hint, source }) => ({
    message,
    ...(source !== undefined && { location: location(source.line), range: plainRange(source.range) }),
    code,
    ...(hint !== undefined && { hint }),
  }))
  const [first] = failures
  return `${JSON.stringify(
    {
      warnings,
      sources: [{ filename: file }],
      ...(first !== undefined && { buildError: first, errors: failures }),
    },
    undefined,
    2,
  )}\n`
}

function location(line: number): object {
  return { sourceIndex: 0, ranges: [{ start: { line }, end: { line } }] }
}

function plainRange({ start, end }: Range): object {
  return {
    start: { line: start.line, column: start.column },
    end: { line: end.line, column: end.column },
  }
}

/** SARIF 2.1.0 (OASIS). Errors are results too, of level `error`. `version` is that of the program that says it. */
export function renderSarif(result: CheckResult, version?: string): string {
  const { file, findings, errors } = result
  const rules = new Map<string, { readonly index: number; readonly rule: object }>()
  const indexOf = (id: string, make: () => object): number => {
    const known = rules.get(id)
    if (known !== undefined) return known.index
    const index = rules.size
    rules.set(id, { index, rule: make() })
    return index
  }
  const results: SarifResult[] = findings.map(({ rule, level, message, range, note, page }) => ({
    ruleId: rule,
    ruleIndex: indexOf(rule, () => sarifRule(rule, page)),
    level: level === 'info' ? 'note' : level,
    message: { text: note === undefined ? message : `${message} (${note})` },
    locations: [sarifLocation(file, range)],
  }))
  for (const error of errors) results.push(sarifError(file, error, indexOf))
  const log = {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'tbuild',
            ...(version !== undefined && { version }),
            rules: [...rules.values()].map(({ rule }) => rule),
          },
        },
        columnKind: 'utf16CodeUnits',
        artifacts: [{ location: { uri: uriOf(file) } }],
        results,
      },
    ],
  }
  return `${JSON.stringify(log, undefined, 2)}\n`
}

interface SarifResult {
  readonly ruleId: string
  readonly ruleIndex: number
  readonly level: string
  readonly message: { readonly text: string }
  readonly locations: readonly object[]
}

function sarifRule(name: keyof typeof RULES, page: string): object {
  const { description, url, level } = RULES[name]
  return {
    id: name,
    name,
    shortDescription: { text: description },
    ...(url !== '' && { helpUri: url }),
    help: { text: `see ${page}` },
    defaultConfiguration: { level: level === 'info' ? 'note' : 'warning' },
  }
}

function sarifError(
  file: string,
  { code, message, hint, source }: DockerfileError,
  indexOf: (id: string, make: () => object) => number,
): SarifResult {
  return {
    ruleId: code,
    ruleIndex: indexOf(code, () => ({
      id: code,
      shortDescription: { text: 'The Dockerfile cannot be built' },
      defaultConfiguration: { level: 'error' },
    })),
    level: 'error',
    message: { text: hint === undefined ? message : `${message} (${hint})` },
    locations: [sarifLocation(source?.file ?? file, source?.range)],
  }
}

function sarifLocation(file: string, range: Range | undefined): object {
  return {
    physicalLocation: {
      artifactLocation: { uri: uriOf(file) },
      ...(range !== undefined && {
        region: {
          startLine: range.start.line,
          startColumn: range.start.column,
          endLine: range.end.line,
          endColumn: range.end.column,
        },
      }),
    },
  }
}

/** A relative reference, or a file address for an absolute path. */
function uriOf(file: string): string {
  const path = file
    .toWellFormed()
    .split('/')
    .map((name) => encodeURIComponent(name))
    .join('/')
  return path.startsWith('/') ? `file://${path}` : path
}
