import { errorAt, indexLines } from './source.ts'
import { expandIn } from './scope.ts'
import type { Arg, Dockerfile, From, Instruction, Word } from './types.ts'

export interface Stage {
  readonly index: number
  readonly from: From
  /** In lower case, as it is compared. */
  readonly name?: string | undefined
  /** Those after the FROM. */
  readonly instructions: readonly Instruction[]
}

/**
 * The build stages. ARG before the first FROM is global; nothing else may stand there.
 *
 * Throws DockerfileError: NO_STAGE, FROM_FLAG_VARIABLE, INVALID_STAGE_INDEX.
 */
export function stagesOf(tree: Dockerfile): {
  readonly globalArgs: readonly Arg[]
  readonly stages: readonly Stage[]
} {
  const globalArgs: Arg[] = []
  const stages: { index: number; from: From; name: string | undefined; instructions: Instruction[] }[] = []
  for (const instruction of tree.instructions) {
    const current = stages.at(-1)
    if (instruction.kind === 'FROM')
      stages.push({
        index: stages.length,
        from: instruction,
        name: instruction.as?.raw.toLowerCase(),
        instructions: [],
      })
    else if (current !== undefined) current.instructions.push(instruction)
    else if (instruction.kind === 'ARG') globalArgs.push(instruction)
    else
      throw errorAt(
        tree,
        instruction.range,
        'NO_STAGE',
        `${instruction.kind} stands before the first FROM`,
        'only ARG can; begin the stage with FROM image',
      )
  }
  if (stages.length === 0)
    throw errorAt(
      tree,
      tree.instructions[0]?.range ?? indexLines(tree.source).range(0, 0),
      'NO_STAGE',
      'there is no FROM, and so nothing to build',
      'begin with FROM, for example: FROM debian:12',
    )
  for (const { instructions } of stages)
    for (const instruction of instructions)
      if (instruction.kind === 'COPY' && instruction.from !== undefined)
        checkFrom(tree, instruction.from, stages.length)
  return { globalArgs, stages }
}

/** Stages stand on one another, and who builds goes as deep. */
const MOST_STAGES = 1000

/** As `stagesOf`, for those who go from stage to stage. Throws also TOO_MANY_STAGES. */
export function stagesToBuild(tree: Dockerfile): ReturnType<typeof stagesOf> {
  const found = stagesOf(tree)
  const first = found.stages[MOST_STAGES]
  if (first === undefined) return found
  throw errorAt(
    tree,
    first.from.range,
    'TOO_MANY_STAGES',
    `there are ${found.stages.length} stages, more than can be built`,
    `${MOST_STAGES} are the most; split the build`,
  )
}

/** `COPY --from` names a stage, a number of a stage, an image or a context, and is never expanded. */
function checkFrom(tree: Dockerfile, from: Word, count: number): void {
  const { text } = expandIn(tree, from, () => undefined)
  if (text !== from.raw)
    throw errorAt(
      tree,
      from.range,
      'FROM_FLAG_VARIABLE',
      '--from takes no variables',
      'begin a stage with FROM and the variable (its ARG before the first FROM), and name that stage here',
    )
  const index = stageIndex(from.raw)
  if (index !== undefined && (index < 0 || index >= count))
    throw errorAt(
      tree,
      from.range,
      'INVALID_STAGE_INDEX',
      `there is no stage number ${from.raw}`,
      count === 1
        ? 'there is one stage, number 0'
        : `there are ${count} stages, numbered from 0 to ${count - 1}`,
    )
}

/** Go `strconv.Atoi`: what looks like a number is one, and no name. */
function stageIndex(text: string): number | undefined {
  return /^[+-]?\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** The stage that `COPY --from` or `--target` means: by its name, of several the last, or by its number. Undefined if it is none. */
export function findStage(stages: readonly Stage[], text: string): Stage | undefined {
  const lower = text.toLowerCase()
  return stages.findLast(({ name }) => name !== undefined && name === lower) ?? stages[stageIndex(text) ?? -1]
}
