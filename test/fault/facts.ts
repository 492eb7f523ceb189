/** What a scenario has told (scenario.ts), and what follows from it at some point of its run. */
import type { Tell } from './scenario.ts'

export interface Mark {
  readonly kind: 'begin' | 'done' | 'durable'
  readonly key: string
  readonly value: string | null
}

/** Of each key the values that it may have. One value: it must. */
export type Facts = ReadonlyMap<string, ReadonlySet<string | null>>

export function tellInto(take: (mark: Mark) => void): Tell {
  const told =
    (kind: Mark['kind']) =>
    (key: string, value: string | null): void =>
      take({ kind, key, value })
  return { begin: told('begin'), done: told('done'), durable: told('durable') }
}

/** `before`: marks of the preparation, all of which is durable. */
export function factsOf(before: readonly Mark[], marks: readonly Mark[], powerCut: boolean): Facts {
  const facts = new Map<string, Set<string | null>>()
  const take = ({ kind, key, value }: Mark, isHeld: boolean): void => {
    if (isHeld && kind !== 'begin') facts.set(key, new Set([value]))
    // Never heard of before: it was not there.
    else facts.set(key, (facts.get(key) ?? new Set([null])).add(value))
  }
  for (const mark of before) take(mark, true)
  for (const mark of marks) take(mark, mark.kind === 'durable' || !powerCut)
  return facts
}

export function formatMark({ kind, key, value }: Mark): string {
  return `${JSON.stringify([kind, key, value])}\n`
}

export function parseMarks(text: string): Mark[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [kind, key, value] = JSON.parse(line) as [Mark['kind'], string, string | null]
      return { kind, key, value }
    })
}
