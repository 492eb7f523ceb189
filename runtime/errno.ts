/**
 * Is this an error with one of these errno names? By its shape: under jest an error of `node:fs` is made in another
 * realm, where `instanceof Error` is false.
 */
export function isErrno(error: unknown, ...codes: readonly string[]): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && codes.includes(String(error.code))
}
