/** Checks of what is written, before anything is known of variables and stages. */
import type { ParsedInstruction } from '../parse.ts'
import { quote } from '../dump.ts'
import type { LineIndex } from '../source.ts'
import type { Stage } from '../stages.ts'
import type { Dockerfile, From, Instruction, Range } from '../types.ts'
import type { Place, Reporter } from './report.ts'

/** Comments before an instruction. */
export interface Comments {
  /** Those since the instruction before it, or since an empty comment; without their `#`. */
  readonly texts: readonly string[]
  /** The last of them, if nothing stands between it and the instruction. */
  readonly last?: { readonly text: string; readonly range: Range } | undefined
}

export function commentsOf(tree: Dockerfile): ReadonlyMap<Instruction, Comments> {
  const found = new Map<Instruction, Comments>()
  let texts: string[] = []
  let last: Comments['last']
  for (const node of tree.nodes) {
    if (node.kind === 'comment') {
      const token = node.tokens[0]!
      const text = token.text.trim().slice(1).trim()
      if (text === '') texts = []
      else texts.push(text)
      last = text === '' ? undefined : { text, range: token.range }
    } else if (node.kind === 'instruction') {
      found.set(node.instruction, { texts, last })
      texts = []
      last = undefined
    } else last = undefined
  }
  return found
}

/** Lines without anything between the lines of an instruction. */
export function checkEmptyLines(
  lines: LineIndex,
  { syntax }: ParsedInstruction,
  place: Place,
  reporter: Reporter,
): void {
  const own = syntax.lines.filter(({ kind }) => kind !== 'heredoc' && kind !== 'heredoc-end')
  // What follows the last line that belongs to it continues nothing, but BuildKit says so all the same.
  const first = own.find(({ kind }) => kind === 'blank')
  if (first === undefined) return
  reporter.report(
    'NoEmptyContinuation',
    { ...place, line: lines.at(own.at(-1)!.line.start).line },
    lines.range(first.line.start, first.line.end),
    'Empty continuation line',
    'remove the line, or make it a comment',
  )
}

export function checkWritten(
  instruction: Instruction,
  place: Place,
  comments: Comments | undefined,
  reporter: Reporter,
): void {
  const { kind } = instruction
  if (kind === 'FROM') {
    checkFromCasing(instruction, place, reporter)
    if (instruction.as !== undefined)
      checkDescription(kind, [instruction.as.raw.toLowerCase()], place, comments, reporter)
  } else if (kind === 'ARG') {
    const names = instruction.args.map(({ name }) => name)
    checkDescription(kind, names, place, comments, reporter)
  } else if (kind === 'MAINTAINER')
    reporter.report(
      'MaintainerDeprecated',
      place,
      instruction.keyword.range,
      'Maintainer instruction is deprecated in favor of using label',
      'write LABEL org.opencontainers.image.authors="..."',
    )
}

function checkFromCasing({ keyword, asKeyword, as }: From, place: Place, reporter: Reporter): void {
  if (as === undefined || asKeyword === undefined) return
  if (as.raw !== as.raw.toLowerCase())
    reporter.report(
      'StageNameCasing',
      place,
      as.range,
      `Stage name '${as.raw}' should be lowercase`,
      'names of stages are compared in lower case',
    )
  const lower = keyword.raw === keyword.raw.toLowerCase()
  // Another check's matter.
  if (!lower && keyword.raw !== keyword.raw.toUpperCase()) return
  const expected = lower ? asKeyword.raw.toLowerCase() : asKeyword.raw.toUpperCase()
  if (asKeyword.raw !== expected)
    reporter.report(
      'FromAsCasing',
      place,
      asKeyword.range,
      `'${asKeyword.raw}' and '${keyword.raw}' keywords' casing do not match`,
      `write ${expected}`,
    )
}

function checkDescription(
  kind: 'ARG' | 'FROM',
  names: readonly string[],
  place: Place,
  comments: Comments | undefined,
  reporter: Reporter,
): void {
  const last = comments?.last
  if (last === undefined || names.includes(last.text.split(' ', 1)[0]!)) return
  const example = names.length > 1 ? '<arg_key>' : names[0]!
  reporter.report(
    'InvalidDefinitionDescription',
    place,
    last.range,
    `Comment for ${kind} should follow the format: \`# ${example} <description>\``,
  )
}

/** The file's stages as a whole: names, and upper or lower case of keywords. */
export function checkStages(
  stages: readonly Stage[],
  placeOf: (instruction: Instruction) => Place,
  reporter: Reporter,
): void {
  const names = new Set<string>()
  for (const { from, name } of stages) {
    if (name === undefined || from.as === undefined) continue
    const place = placeOf(from)
    if (name === 'context' || name === 'scratch')
      reporter.report(
        'ReservedStageName',
        place,
        from.as.range,
        `Stage name should not use the same name as reserved stage ${quote(name)}`,
      )
    if (names.has(name))
      reporter.report(
        'DuplicateStageName',
        place,
        from.as.range,
        `Duplicate stage name ${quote(name)}, stage names should be unique`,
      )
    names.add(name)
  }
  const all = stages.flatMap(({ from, instructions }) => [from, ...instructions])
  let lower = 0
  let upper = 0
  for (const { keyword } of all) {
    if (keyword.raw === keyword.raw.toLowerCase()) lower++
    else if (keyword.raw === keyword.raw.toUpperCase()) upper++
  }
  const casing = lower > upper ? 'lowercase' : 'uppercase'
  for (const instruction of all) {
    const { raw, range } = instruction.keyword
    const expected = casing === 'lowercase' ? raw.toLowerCase() : raw.toUpperCase()
    if (raw !== expected)
      reporter.report(
        'ConsistentInstructionCasing',
        placeOf(instruction),
        range,
        `Command '${raw}' should match the case of the command majority (${casing})`,
        `write ${expected}`,
      )
  }
}
