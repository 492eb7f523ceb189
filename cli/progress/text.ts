import { stripVTControlCharacters } from 'node:util'

/** For one line of a display: escape sequences and control characters out, breaks and tabs as blanks. */
export function oneLine(text: string): string {
  return (
    stripVTControlCharacters(text)
      .replaceAll(/\s+/g, ' ')
      // eslint-disable-next-line no-control-regex -- they are what is looked for
      .replaceAll(/[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '')
      .trim()
  )
}

/** A line of a program's output: indentation stays, of what it drew over itself (`\r`) the last state. */
export function outputText(line: Buffer): string {
  const drawn = stripVTControlCharacters(line.toString('utf8').replace(/\r+$/, ''))
  return (
    drawn
      .slice(drawn.lastIndexOf('\r') + 1)
      .replaceAll('\t', '    ')
      // eslint-disable-next-line no-control-regex -- they are what is looked for
      .replaceAll(/[\0-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g, '')
  )
}

/** At most so many columns, counting each code point as one. */
export function clip(text: string, columns: number): string {
  const points = Array.from(text)
  return points.length <= columns ? text : `${points.slice(0, Math.max(0, columns - 1)).join('')}…`
}
