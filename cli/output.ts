/** Writing: results to stdout, everything else to stderr. Both are synchronous on Linux, whatever they are. */

let guarded = false

/** A result. A reader that has seen enough (`| head`) ends us quietly, as it ends `cat`. */
export function out(text: string | Uint8Array): void {
  if (!guarded) {
    guarded = true
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(141)
      throw error
    })
  }
  process.stdout.write(text)
}

/** Something said on the way. */
export function say(text: string): void {
  process.stderr.write(`${text}\n`)
}
