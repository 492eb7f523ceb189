/** Errors of steps, with the place in the Dockerfile that they are about. */
import { TbuildError } from '../errors.ts'
import { DockerfileError, errorAt, frame, type Dockerfile, type Range } from '../dockerfile-parser/index.ts'

export function isErrorWithSource(error: unknown): boolean {
  return (error instanceof TbuildError || error instanceof DockerfileError) && error.source !== undefined
}

/** The same error, showing where; what is not the user's to mend is left as it is. */
export function withSource(error: unknown, tree: Dockerfile, range: Range): unknown {
  if (error instanceof DockerfileError) return errorAt(tree, range, error.code, error.message, error.hint)
  if (!(error instanceof TbuildError)) return error
  return new TbuildError(error.code, error.message, {
    hint: error.hint,
    source: { file: tree.file, line: range.start.line, frame: frame(tree, range) },
    cause: error.cause ?? error,
  })
}
