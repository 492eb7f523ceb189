export interface CsvField {
  readonly text: string
  /** Place in the line, quotes included. */
  readonly start: number
  readonly end: number
}

/** One record of Go's `encoding/csv`, as `RUN --mount` is split; or what is wrong with it. */
export function splitCsv(line: string): readonly CsvField[] | string {
  if (line === '') return 'there are none'
  const fields: CsvField[] = []
  let at = 0
  for (;;) {
    const start = at
    let text = ''
    if (line[at] === '"') {
      at++
      for (;;) {
        const quote = line.indexOf('"', at)
        if (quote < 0) return 'a double quote is not closed'
        text += line.slice(at, quote)
        at = quote + 1
        if (line[at] !== '"') break
        text += '"'
        at++
      }
      if (at < line.length && line[at] !== ',') return 'something follows a closing quote'
    } else {
      const comma = line.indexOf(',', at)
      at = comma < 0 ? line.length : comma
      text = line.slice(start, at)
      if (text.includes('"')) return 'a double quote stands within a field'
    }
    fields.push({ text, start, end: at })
    if (at >= line.length) return fields
    at++
  }
}
