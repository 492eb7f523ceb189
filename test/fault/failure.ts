/** An error, as one process tells it to another. */

export interface Thrown {
  readonly name: string
  readonly code: string
  readonly message: string
}

export function failureOf(error: unknown): Thrown {
  // Thrown on the way out of a scope that was left because of an error: that one says what happened.
  if (error instanceof SuppressedError) return failureOf(error.suppressed)
  if (!(error instanceof Error)) return { name: typeof error, code: '', message: String(error) }
  const code = 'code' in error ? String(error.code) : ''
  return { name: error.name, code, message: error.message }
}
