import { TbuildError } from '../../errors.ts'

/** The command line itself is wrong: exit status 2 (125 for `run`, whose other statuses are the command's own). */
export class UsageError extends TbuildError {
  override readonly name = 'UsageError'
}
