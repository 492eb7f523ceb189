import { expect, test } from '@jest/globals'
import * as fc from 'fast-check'
import { regionsOf, type DeadPlace } from './dead.ts'

test('neighbours count as one; what is punched is whole blocks of dead places only, the rest stays on record', () => {
  const place = fc.record({ gap: fc.nat(12), blocks: fc.integer({ min: 1, max: 30 }) })
  fc.assert(
    fc.property(fc.array(place, { minLength: 1, maxLength: 40 }), (list) => {
      let at = 0
      const places = list.map(({ gap, blocks }): DeadPlace => {
        const block = at + gap
        at = block + blocks
        return { block, blocks }
      })
      const dead = set(places)
      const regions = regionsOf(places, 4096)
      expect(regions.flatMap(({ records }) => records)).toEqual(places.map(({ block }) => block))
      const punched = set(regions.map(({ from, to }) => ({ block: from / 512, blocks: (to - from) / 512 })))
      const rest = set(regions.flatMap((region) => region.rest))
      for (const block of punched) expect(dead.has(block) && !rest.has(block)).toBe(true)
      expect(punched.size + rest.size).toBe(dead.size)
      // Every whole block of 4 KiB is found.
      for (let block = 0; block < at; block += 8) {
        const isDead = Array.from({ length: 8 }, (_, i) => dead.has(block + i)).every(Boolean)
        expect(punched.has(block)).toBe(isDead)
      }
    }),
  )
})

test('the edges that a first hole left go with a neighbour that dies later', () => {
  const [first] = regionsOf([{ block: 4, blocks: 8 }], 4096)
  expect(first?.to).toBe(first?.from)
  expect(first?.rest).toEqual([{ block: 4, blocks: 8 }])
  const [wide] = regionsOf([{ block: 4, blocks: 16 }], 4096)
  expect(wide).toMatchObject({
    from: 4096,
    to: 8192,
    rest: [
      { block: 4, blocks: 4 },
      { block: 16, blocks: 4 },
    ],
  })
  const [, later] = regionsOf(
    [
      { block: 4, blocks: 4 },
      { block: 16, blocks: 4 },
      { block: 20, blocks: 4 },
    ],
    4096,
  )
  expect(later).toMatchObject({ from: 8192, to: 12288, rest: [] })
})

function set(spans: readonly DeadPlace[]): Set<number> {
  return new Set(spans.flatMap(({ block, blocks }) => Array.from({ length: blocks }, (_, i) => block + i)))
}
