/** The name that was probably meant: within two edits (one for short names), or undefined. */
export function suggest(word: string, names: readonly string[]): string | undefined {
  // Longer than any name plus the allowed edits: not a typing error, and no reason to fill a table for it.
  if (word.length === 0 || word.length > 24) return undefined
  const lower = word.toLowerCase()
  let best: string | undefined
  let bestDistance = lower.length <= 3 ? 2 : 3
  for (const name of names) {
    const distance = editDistance(lower, name.toLowerCase())
    if (distance < bestDistance) {
      best = name
      bestDistance = distance
    }
  }
  return best
}

const MAX_NAMES = 1000

/** BuildKit's suggestion: the first name within two plain edits, case kept; none if the name itself is there. */
export function nearest(word: string, names: Iterable<string>): string | undefined {
  if (word.length > 100) return undefined
  let best: string | undefined
  let bestDistance = 3
  let left = MAX_NAMES
  for (const name of names) {
    if (left-- === 0) break
    if (name === word) return undefined
    if (Math.abs(name.length - word.length) >= bestDistance) continue
    const distance = editDistance(word, name, false)
    if (distance < bestDistance) {
      best = name
      bestDistance = distance
    }
  }
  return best
}

/** Edits by insertion, deletion, replacement and, if wanted, exchange of neighbours (optimal string alignment). */
function editDistance(a: string, b: string, exchange = true): number {
  const rows = a.length + 1
  const columns = b.length + 1
  const table = new Uint16Array(rows * columns)
  for (let i = 0; i < rows; i++) table[i * columns] = i
  for (let j = 0; j < columns; j++) table[j] = j
  for (let i = 1; i < rows; i++) {
    for (let j = 1; j < columns; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1
      let cost = Math.min(
        table[(i - 1) * columns + j]! + 1,
        table[i * columns + j - 1]! + 1,
        table[(i - 1) * columns + j - 1]! + same,
      )
      if (exchange && i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, table[(i - 2) * columns + j - 2]! + 1)
      table[i * columns + j] = cost
    }
  }
  return table[rows * columns - 1]!
}
