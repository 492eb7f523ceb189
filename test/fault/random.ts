/** Pseudo-random numbers that depend on their seed only, so that every state can be made again. */
export interface Random {
  /** A whole number, 0 to `below` - 1. */
  next(below: number): number
  pick<T>(choices: readonly T[]): T
}

/** SplitMix32 over a hash (FNV-1a) of the seed's text. */
export function randomFrom(...seed: readonly (string | number)[]): Random {
  let state = 0x811c9dc5
  for (const byte of Buffer.from(seed.join(' '))) state = Math.imul(state ^ byte, 0x01000193) >>> 0
  const next = (below: number): number => {
    state = (state + 0x9e3779b9) >>> 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    return Math.floor((((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32) * below)
  }
  return {
    next,
    pick: (choices) => {
      if (choices.length === 0) throw new RangeError('nothing to pick from')
      return choices[next(choices.length)] as (typeof choices)[number]
    },
  }
}

/** Numbers from 1 to `count`: all, or `limit` of them at about equal distances, in order. */
export function spread(count: number, limit: number | undefined, random: Random): number[] {
  if (limit === undefined || limit >= count) return Array.from({ length: count }, (_, i) => i + 1)
  return Array.from({ length: limit }, (_, i) => {
    const from = Math.floor((i * count) / limit)
    const to = Math.floor(((i + 1) * count) / limit)
    return from + random.next(to - from) + 1
  })
}
