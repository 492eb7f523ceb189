/** The one error of this folder. It has the shape of the project's other errors, but this folder imports nothing. */

import type { Range } from './types.ts'

/** Where in a user's file an error lies. */
export interface DockerfileErrorSource {
  readonly file: string
  /** 1-based. */
  readonly line: number
  /** The source lines with a caret under the exact words, ready to print. */
  readonly frame: string
  /** The exact words. */
  readonly range: Range
}

/** Something in a Dockerfile, an ignore file or an expansion that its author can put right. */
export class DockerfileError extends Error {
  override readonly name: string = 'DockerfileError'
  /** Stable, upper-case, e.g. `UNKNOWN_INSTRUCTION`. Match on this, never on the message. */
  readonly code: string
  /** What to do about it. */
  readonly hint?: string | undefined
  readonly source?: DockerfileErrorSource | undefined

  constructor(
    code: string,
    message: string,
    details: { readonly hint?: string | undefined; readonly source?: DockerfileErrorSource | undefined } = {},
  ) {
    super(message)
    this.code = code
    this.hint = details.hint
    this.source = details.source
  }
}
