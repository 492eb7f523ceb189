/** Other builders' test data (fixtures/dockerfile-parser, fixtures/dockerignore; see the notes in the files). */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from '@jest/globals'
import { dumpTree } from './dump.ts'
import {
  check,
  createIgnoreMatcher,
  DockerfileError,
  expand as expandAll,
  expandWord,
  expandWords,
  parse,
  parseIgnoreFile,
  printBytes,
} from './index.ts'
import { parseSyntax } from './syntax.ts'

const root = join(import.meta.dirname, '../fixtures/dockerfile-parser')
const ignoreRoot = join(import.meta.dirname, '../fixtures/dockerignore')

const json = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'))

/** What a call gives, or 'error'. */
function outcome<T>(run: () => T): T | 'error' {
  try {
    return run()
  } catch (error) {
    if (error instanceof DockerfileError) return 'error'
    throw error
  }
}

const files = readdirSync(join(root, 'testfiles'))
describe(`parse trees: ${files.length} files`, () => {
  test.each(files)('%s', (name) => {
    const folder = join(root, 'testfiles', name)
    expect(dumpTree(readFileSync(join(folder, 'Dockerfile')))).toBe(
      readFileSync(join(folder, 'result'), 'utf8'),
    )
  })
})

const negative = readdirSync(join(root, 'testfiles-negative'))
describe(`refused files: ${negative.length}`, () => {
  test.each(negative)('%s', (name) => {
    const text = readFileSync(join(root, 'testfiles-negative', name, 'Dockerfile'))
    expect(() => parseSyntax(text)).toThrow(DockerfileError)
  })
})

test('line numbers: 1 file', () => {
  const expected = json(join(root, 'testfile-line/expected.json')) as {
    readonly rootStartLine: number
    readonly rootEndLine: number
    readonly children: readonly (readonly [number, number])[]
  }
  const tree = parseSyntax(readFileSync(join(root, 'testfile-line/Dockerfile')))
  // BuildKit counts the comments and blank lines behind the last continuation to the instruction.
  const spans = tree.nodes
    .filter((node) => node.kind === 'instruction')
    .map((node) => [tree.lines.at(node.start).line, tree.lines.at(Math.max(node.start, node.next - 1)).line])
  expect(spans).toEqual(expected.children)
  expect([spans[0]?.[0], spans.at(-1)?.[1]]).toEqual([expected.rootStartLine, expected.rootEndLine])
})

const heredocs = json(join(root, 'heredocs.json')) as {
  readonly cases: readonly {
    readonly index: number
    readonly instruction: string
    readonly heredocs: readonly unknown[]
  }[]
}
describe(`heredocs: ${heredocs.cases.length} cases`, () => {
  test.each(heredocs.cases)('$index', (one) => {
    const tree = parseSyntax(`FROM alpine:3.6\n\nENV NAME=me\n\n${one.instruction}`)
    const node = tree.nodes.at(-1)
    const found = node?.kind === 'instruction' ? node.heredocs : []
    expect(
      found.map(({ name, rawContent, expand, chomp, fd }) => ({
        name,
        content: rawContent,
        expand,
        chomp,
        fd: fd ?? 0,
      })),
    ).toEqual(one.heredocs)
  })
})

const wordTable = json(join(root, 'shell/env-words.json')) as {
  readonly env: Readonly<Record<string, string>>
  readonly cases: readonly {
    readonly line: number
    readonly platform: string
    readonly input: string
    readonly expected?: string
  }[]
}
const words = wordTable.cases.filter((one) => one.platform !== 'windows')
describe(`expanded words: ${words.length} cases`, () => {
  test.each(words)('$line: $input', ({ input, expected }) => {
    const result = outcome(() => expandWord(input, { lookup: (name) => wordTable.env[name] }))
    expect(result).toBe(expected ?? 'error')
  })
})

const lists = json(join(root, 'shell/word-lists.json')) as {
  readonly cases: readonly {
    readonly line: number
    readonly env: readonly string[]
    readonly input: string
    readonly expected: readonly string[]
  }[]
}
describe(`word lists: ${lists.cases.length} cases`, () => {
  test.each(lists.cases)('$line: $input', ({ env, input, expected }) => {
    const values = new Map(
      env.map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]),
    )
    expect(expandWords(input, { lookup: (name) => values.get(name) })).toEqual(expected)
  })
})

const modifiers = json(join(root, 'shell/modifiers.json')) as {
  readonly cases: readonly {
    readonly index: number
    readonly input: string
    readonly env: Readonly<Record<string, string>>
    readonly expected?: string
    readonly matched?: readonly string[]
    readonly unmatched?: readonly string[]
  }[]
}
describe(`modifiers: ${modifiers.cases.length} cases`, () => {
  test.each(modifiers.cases)('$index: $input', ({ input, env, expected, matched, unmatched }) => {
    const result = outcome(() => {
      const { text, ...names } = expandAll(input, { lookup: (name) => env[name] })
      return {
        expected: text,
        matched: [...names.matched].toSorted(),
        unmatched: [...names.unmatched].toSorted(),
      }
    })
    expect(result).toEqual(expected === undefined ? 'error' : { expected, matched, unmatched })
  })
})

const patterns = json(join(ignoreRoot, 'patterns.json')) as {
  readonly cases: readonly {
    readonly patterns: readonly string[]
    readonly path: string | null
    readonly expected: boolean | 'error'
    readonly line: number
  }[]
}
describe(`ignore patterns: ${patterns.cases.length} cases`, () => {
  test.each(patterns.cases)('$line: $patterns $path', ({ patterns: list, path, expected }) => {
    expect(outcome(() => createIgnoreMatcher(list).ignores(path ?? ''))).toBe(expected)
  })
})

test('ignore file: 1 case', () => {
  const { content, expected } = json(join(ignoreRoot, 'readall.json')) as {
    readonly content: string
    readonly expected: readonly string[]
  }
  const read = parseIgnoreFile(content).map(({ pattern, negated }) => (negated ? '!' : '') + pattern)
  expect(read).toEqual(expected)
})

const conformance = json(join(import.meta.dirname, '../fixtures/conformance/cases.json')) as {
  readonly cases: readonly { readonly id: string; readonly dockerfile: string; readonly buildArgs?: object }[]
}
describe(`conformance: ${conformance.cases.length} Dockerfiles`, () => {
  test.each(conformance.cases)('$id', ({ id, dockerfile, buildArgs }) => {
    const folder = join(import.meta.dirname, '../fixtures/conformance/cases', id)
    const expected = json(join(folder, 'expected.json')) as {
      readonly result: string
      readonly error?: string
    }
    const bytes = readFileSync(join(folder, 'context', dockerfile))
    const { errors } = check(bytes, {
      buildArgs: new Map(Object.entries(buildArgs ?? {})) as Map<string, string>,
    })
    // What goes wrong with files while building cannot be seen here.
    const visible = expected.result === 'error' && /failed to process/.test(expected.error ?? '')
    expect(errors.map(({ code }) => code)).toEqual(visible ? ['EXPANSION_SYNTAX'] : [])
    if (visible) return
    expect(Buffer.compare(printBytes(parse(bytes)), bytes)).toBe(0)
  })
})

afterAll(() => {
  const counts = {
    'parse trees': files.length,
    'refused files': negative.length,
    'files of line numbers': 1,
    heredocs: heredocs.cases.length,
    words: words.length,
    'word lists': lists.cases.length,
    modifiers: modifiers.cases.length,
    'ignore patterns': patterns.cases.length,
    'ignore files': 1,
    'Dockerfiles of conformance': conformance.cases.length,
  }
  const said = Object.entries(counts).map(([what, count]) => `${count} ${what}`)
  process.stdout.write(`corpus: ${said.join(', ')}\n`)
})
