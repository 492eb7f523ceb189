/** `--chmod`: octal, or symbolic as chmod(1) has it (`u+x,go-w`, `a=rX`). */
import { TbuildError } from '../../errors.ts'

export type ModeChange = (mode: number, isDirectory: boolean) => number

const WHO: Readonly<Record<string, number>> = { u: 0o4700, g: 0o2070, o: 0o1007, a: 0o7777 }

/** Throws `CHMOD_INVALID`. */
export function parseMode(text: string): ModeChange {
  if (/^[0-7]{1,5}$/.test(text)) {
    const mode = Number.parseInt(text, 8)
    if (mode <= 0o7777) return () => mode
  }
  const clauses = text.split(',').map((clause) => parseClause(clause, text))
  return (mode, isDirectory) => clauses.reduce((now, clause) => clause(now, isDirectory), mode)
}

function parseClause(clause: string, whole: string): ModeChange {
  const match = /^([ugoa]*)((?:[-+=][rwxXst]*)+)$/.exec(clause)
  if (match === null) {
    throw new TbuildError('CHMOD_INVALID', `${JSON.stringify(whole)} is not a file mode`, {
      hint: 'an octal number like 0644, or symbols like u+x,go-w',
    })
  }
  const who = (match[1] || 'a').split('').reduce((bits, letter) => bits | (WHO[letter] ?? 0), 0)
  const actions = [...(match[2] ?? '').matchAll(/([-+=])([rwxXst]*)/g)]
  return (mode, isDirectory) => {
    let now = mode
    for (const [, operator, letters = ''] of actions) {
      const bits = bitsOf(letters, now, isDirectory) & who
      if (operator === '+') now |= bits
      else if (operator === '-') now &= ~bits
      else now = (now & ~(who & 0o777)) | bits
    }
    return now
  }
}

function bitsOf(letters: string, mode: number, isDirectory: boolean): number {
  let bits = 0
  for (const letter of letters) {
    if (letter === 'r') bits |= 0o444
    if (letter === 'w') bits |= 0o222
    if (letter === 'x' || (letter === 'X' && (isDirectory || (mode & 0o111) !== 0))) bits |= 0o111
    if (letter === 's') bits |= 0o6000
    if (letter === 't') bits |= 0o1000
  }
  return bits
}
