import { errorAt, indexLines } from './source.ts'
import type { Arg, Dockerfile, From, Instruction } from './types.ts'

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
 * Throws DockerfileError: NO_STAGE.
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
  return { globalArgs, stages }
}
