/**
 * The one error class. Every folder but `dockerfile-parser` (which stands alone, with an error of the same shape)
 * throws it; callers match on `code`, never on `message`.
 */

/** Where in a user's file an error lies. */
export interface ErrorSource {
  readonly file: string
  /** 1-based. */
  readonly line: number
  /** The source lines with a caret under the exact words, ready to print. */
  readonly frame: string
}

export interface ErrorDetails {
  readonly hint?: string | undefined
  readonly source?: ErrorSource | undefined
  readonly cause?: unknown
}

/** An error the user can act on. Anything else that is thrown is a bug and shown with its stack. */
export class TbuildError extends Error {
  override readonly name: string = 'TbuildError'
  /** Stable, upper-case, e.g. `IMAGE_NOT_FOUND`. */
  readonly code: string
  readonly hint?: string | undefined
  readonly source?: ErrorSource | undefined

  constructor(code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.hint = details.hint
    this.source = details.source
  }
}
