import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { createHash, randomBytes } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  fstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as fc from 'fast-check'
import { readRecipe, recipeDigests } from './read.ts'
import { createRecipe, type RecipeWriter } from './write.ts'

let directory: string
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'recipe-'))
})
afterAll(() => rmSync(directory, { recursive: true }))

type Step =
  | { readonly kind: 'literal'; readonly bytes: Uint8Array }
  | { readonly kind: 'run' | 'keep' | 'zeros'; readonly length: number }

const digestOf = (length: number): Buffer => createHash('sha256').update(String(length)).digest()
let count = 0

async function write(steps: readonly Step[]): Promise<string> {
  const path = join(directory, String(++count))
  using recipe = createRecipe(path)
  for (const step of steps) {
    if (step.kind === 'literal') recipe.literal(step.bytes)
    else if (step.kind === 'zeros') recipe.zeros(step.length)
    else recipe[step.kind](digestOf(step.length), step.length)
  }
  await recipe.finish()
  return path
}

/** Adjacent literals count as one. */
function normal(steps: Iterable<Step & { readonly digest?: Buffer }>): unknown[] {
  const out: unknown[] = []
  let text = ''
  const end = (): void => {
    if (text !== '') out.push(text)
    text = ''
  }
  for (const step of steps) {
    if (step.kind === 'literal') {
      text += Buffer.from(step.bytes).toString('latin1')
    } else if (step.length > 0 || step.kind !== 'zeros') {
      end()
      if (step.digest?.equals(digestOf(step.length)) === false) throw new Error('another digest')
      out.push([step.kind, step.length])
    }
  }
  end()
  return out
}

test('what was written is read: any sequence, lengths beyond 2^32', async () => {
  const length = fc.oneof(fc.nat(2000), fc.integer({ min: 2 ** 31, max: 2 ** 43 }))
  const step = fc.oneof(
    fc.record({ kind: fc.constant('literal' as const), bytes: fc.uint8Array({ maxLength: 3000 }) }),
    fc.record({ kind: fc.constantFrom('run' as const, 'keep' as const, 'zeros' as const), length }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const path = await write(steps)
      expect(normal(readRecipe(path) as Iterable<Step>)).toEqual(normal(steps))
      const digests = [...recipeDigests(path)].map((digest) => Buffer.from(digest))
      expect(digests).toEqual(
        steps.flatMap((one) => (one.kind === 'run' || one.kind === 'keep' ? [digestOf(one.length)] : [])),
      )
    }),
    { numRuns: 60 },
  )
})

test('literals longer than a block, and 100,000 runs', async () => {
  const bytes = randomBytes(5_000_000)
  const runs = Array.from({ length: 100_000 }, (_, i) => ({ kind: 'run' as const, length: i }))
  const path = await write([{ kind: 'literal', bytes }, ...runs, { kind: 'literal', bytes }])
  const read = normal(readRecipe(path) as Iterable<Step>)
  expect(read).toHaveLength(100_002)
  expect(read[0] === bytes.toString('latin1')).toBe(true)
})

test('headers that repeat take little room', async () => {
  const header = Buffer.alloc(512, 'header')
  const path = await write(
    Array.from({ length: 10_000 }, () => ({ kind: 'literal' as const, bytes: header })),
  )
  expect(statSync(path).size).toBeLessThan(20_000)
})

test('each flipped byte and each truncation is found', async () => {
  const path = await write([
    { kind: 'literal', bytes: Buffer.from('some headers') },
    { kind: 'run', length: 7 },
    { kind: 'zeros', length: 505 },
    { kind: 'keep', length: 9 },
  ])
  const whole = readFileSync(path)
  const readAll = (): unknown[] => [...readRecipe(path)]
  for (let at = 0; at < whole.length; at++) {
    // The end block's other numbers mean nothing.
    if (at >= whole.length - 24 && at < whole.length - 8) continue
    const flipped = Buffer.from(whole)
    flipped[at] = (flipped[at] ?? 0) ^ 0x10
    writeFileSync(path, flipped)
    expect(readAll).toThrow(expect.objectContaining({ code: 'STORE_CORRUPT' }))
    writeFileSync(path, whole.subarray(0, at))
    expect(readAll).toThrow(expect.objectContaining({ code: 'STORE_CORRUPT' }))
  }
})

/** As many blocks as other threads have at a time, and more, of bytes that cannot be packed. */
function writeMuch(recipe: RecipeWriter): void {
  for (let part = 0; part < 40; part++) recipe.literal(randomBytes(256 * 1024))
}

test('a disk that is full while other threads pack is an error when it is finished', async () => {
  const small = join(directory, 'small')
  mkdirSync(small)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tbuild-test', small])
  try {
    using recipe = createRecipe(join(small, 'recipe'))
    // What is packed at once may meet it earlier.
    const outcome = async (): Promise<void> => {
      writeMuch(recipe)
      await recipe.finish()
    }
    await expect(outcome()).rejects.toMatchObject({ code: 'ENOSPC' })
  } finally {
    execFileSync('umount', ['--lazy', small])
  }
})

test("disposed while other threads pack, it writes into nobody else's file", async () => {
  const path = join(directory, 'disposed')
  {
    using recipe = createRecipe(path)
    writeMuch(recipe)
  }
  const size = statSync(path).size
  // They get the descriptor that it had.
  const others = Array.from({ length: 8 }, (_, i) => openSync(join(directory, `other-${i}`), 'w+'))
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(others.map((fd) => fstatSync(fd).size)).toEqual(others.map(() => 0))
  expect(statSync(path).size).toBe(size)
  for (const fd of others) closeSync(fd)
})
