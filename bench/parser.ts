/**
 * The parser: speed on a Dockerfile of 10,000 lines, adversarial input of growing size, and a million mutated files, none of which may crash it,
 * hang it, or be printed other than it was. `node bench/parser.ts [files] [seed]`. Bound of the speed: going once through the characters.
 *
 * Imports the parser, which no command shows alone. Needs no root and no bundle.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  check,
  createIgnoreMatcher,
  DockerfileError,
  parse,
  print,
  printBytes,
} from '../dockerfile-parser/index.ts'
import { table, time } from './measure.ts'

const files = Number(process.argv[2] ?? 1_000_000)
const seed = Number(process.argv[3] ?? 1)

speed()
growth()
mutations()

function speed(): void {
  const lines = ['# syntax=docker/dockerfile:1', 'ARG VERSION=12', 'FROM debian:${VERSION} AS base']
  for (let i = 0; lines.length <= 9990; i++) {
    lines.push(
      `# step ${i}`,
      `ENV A${i}="value ${i}" B${i}=$A${i - 1}`,
      `RUN --mount=type=cache,target=/var/cache/${i} set -e; \\`,
      `    echo ${i} > /tmp/${i} && \\`,
      `    rm -f /tmp/${i}`,
      `COPY --chown=1000:1000 src/${i} lib/${i} /app/${i}/`,
      `COPY <<'EOF' /etc/${i}.conf`,
      `key = ${i}`,
      'EOF',
      '',
    )
  }
  while (lines.length < 10_000) lines.push('USER app')
  const text = lines.join('\n')
  const bytes = Buffer.from(text)
  table(`a Dockerfile of 10,000 lines, ${(bytes.length / 1e3).toFixed(0)} kB`, [
    { what: 'parse', time: time(20, () => parse(bytes)) },
    { what: 'parse and print', time: time(20, () => printBytes(parse(bytes))) },
    { what: 'check (parses as well)', time: time(20, () => check(bytes)) },
    { what: 'bound: characters, once', time: time(20, () => countLines(text)) },
  ])
}

function countLines(text: string): number {
  let count = 0
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) === 10) count++
  return count
}

/** Four times the input may take four times as long, and some more for the memory it takes. */
function growth(): void {
  const shapes: Readonly<Record<string, (n: number) => unknown>> = {
    'lines of one RUN': (n) => parse(`FROM a\nRUN ${'x \\\n'.repeat(n)}y`),
    'open quotes': (n) => parse(`FROM a\nENV a="${'b c \\\n'.repeat(n)}"`),
    'open brackets': (n) => parse(`FROM a\nRUN ${'[[[[ \\\n'.repeat(n)}x`),
    heredocs: (n) => parse(`FROM a\nRUN ${'<<E \\\n'.repeat(n)}\n${'E\n'.repeat(n)}`),
    variables: (n) => check(`FROM a\nCOPY ${Array.from({ length: n }, (_, i) => `$v${i} \\\n`).join('')} y`),
    stages: (n) => check(`FROM a AS s\n${'FROM s AS s\nENV a=b\n'.repeat(n / 10)}`),
    'directories against **/*a/ ten times': (n) =>
      createIgnoreMatcher([`${'**/*a/'.repeat(10)}b`]).ignores(`${'a/'.repeat(n)}z`),
  }
  console.log(
    `\n${'adversarial input, ms'.padEnd(44)}${['n=50,000', '200,000', 'ratio'].map((text) => text.padStart(10)).join('')}`,
  )
  for (const [what, work] of Object.entries(shapes)) {
    const run = (): void => void attempt(() => work(50_000))
    const small = time(3, run).least
    const large = time(3, () => void attempt(() => work(200_000))).least
    console.log(
      `${what.padEnd(44)}${small.toFixed(1).padStart(10)}${large.toFixed(1).padStart(10)}${(large / small).toFixed(1).padStart(10)}`,
    )
  }
}

function mutations(): void {
  const root = join(import.meta.dirname, '../fixtures/dockerfile-parser/testfiles')
  const seeds = readdirSync(root).map((name) => readFileSync(join(root, name, 'Dockerfile')))
  seeds.push(
    Buffer.from(
      '\ufeff# syntax=a\r\n# escape=`\r\nARG V\r\nFROM --platform=$P a:$V AS b\r\nRUN x `\r\n # c\r\n\r\n y\r\n',
    ),
    Buffer.from(
      'FROM a\nRUN --mount=type=cache,target=/x <<-EOF <<"B" cat\n\tq\n\tEOF\nB\nCOPY <<A --link=true x /y\n$V\nA\n',
    ),
    Buffer.from(
      'FROM a\nONBUILD COPY --from=b <<E /x\n$y\nE\nHEALTHCHECK --interval=1m CMD ["a"]\nSHELL ["b"]\n',
    ),
  )
  const pieces = Buffer.from(
    'FROM RUN COPY ADD ENV ARG LABEL ONBUILD CMD SHELL # <<E <<-E \\ ` " \' [ ] = $ ${ -- \n \r \t \0 \u00a0 \u{1f600}',
  )
    .toString()
    .split(' ')
    .map((text) => Buffer.from(text))
  const random = mulberry32(seed)
  const below = (limit: number): number => Math.floor(random() * limit)
  let accepted = 0
  let slowest: { readonly ms: number; readonly input: Buffer } = { ms: 0, input: Buffer.alloc(0) }
  let characters = 0
  const began = performance.now()
  for (let count = 0; count < files; count++) {
    const input = mutate(seeds[below(seeds.length)]!, seeds, pieces, below)
    characters += input.length
    const start = performance.now()
    try {
      const tree = attempt(() => parse(input))
      if (!(tree instanceof DockerfileError)) {
        accepted++
        if (Buffer.compare(printBytes(tree), input) !== 0)
          throw new Error('it is printed otherwise than it was')
        if (print(tree).length !== tree.source.length) throw new Error('its text is printed otherwise')
      }
      check(input)
    } catch (error) {
      console.log(`file ${count} of seed ${seed}: ${JSON.stringify(input.toString('latin1'))}`)
      throw error
    }
    const ms = performance.now() - start
    if (ms > slowest.ms) slowest = { ms, input }
    if (count > 0 && count % 100_000 === 0) console.log(`${count.toLocaleString('en')} files ...`)
  }
  const seconds = (performance.now() - began) / 1000
  console.log(
    `\n${files.toLocaleString('en')} mutated files (seed ${seed}, ${(characters / 1e6).toFixed(0)} MB): no crash; ` +
      `${accepted.toLocaleString('en')} accepted, each printed as it was; ${seconds.toFixed(0)} s, ` +
      `slowest ${slowest.ms.toFixed(1)} ms: ${JSON.stringify(slowest.input.toString('latin1').slice(0, 200))}`,
  )
}

/** A file with pieces cut out, put in, doubled, taken from another, and bytes changed. */
function mutate(
  start: Buffer,
  seeds: readonly Buffer[],
  pieces: readonly Buffer[],
  below: (limit: number) => number,
): Buffer {
  // Mostly a few lines of it: short files reach as much, and a million of them is quick.
  const from = below(4) === 0 ? 0 : start.indexOf(10, below(start.length)) + 1
  const end = start.indexOf(10, from + below(300))
  let bytes: Buffer = start.subarray(from, end < 0 ? start.length : end + 1)
  if (below(4) > 0) bytes = Buffer.concat([Buffer.from('FROM a\n'), bytes])
  for (let edits = 1 + below(4); edits > 0; edits--) {
    const at = below(bytes.length + 1)
    const cut = below(3) === 0 ? below(40) : 0
    const other = seeds[below(seeds.length)]!
    const kind = below(5)
    const put =
      kind === 0
        ? Buffer.of(below(256))
        : kind === 1
          ? bytes.subarray(at, at + below(60))
          : kind === 2
            ? other.subarray(below(other.length), below(other.length))
            : pieces[below(pieces.length)]!
    bytes = Buffer.concat([bytes.subarray(0, at), put.subarray(0, 400), bytes.subarray(at + cut)])
  }
  return bytes
}

function attempt<T>(work: () => T): T | DockerfileError {
  try {
    return work()
  } catch (error) {
    if (error instanceof DockerfileError) return error
    throw error
  }
}

/** A generator whose numbers are the same in every run. */
function mulberry32(start: number): () => number {
  let state = start
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}
