/**
 * A store of a page, to test the harness on: objects named for what is in them, and a file of records `NAME DIGEST CHECK` that says which are there. Right as
 * it stands; with `?bug=...` behind the module's name it has one of the bugs that the harness is there to find.
 */
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { randomFrom } from './random.ts'
import type { Problem, Run, Scenario } from './scenario.ts'

export const BUGS = {
  'no-file-sync': 'renamed into place without being synced',
  'no-directory-sync': 'its directory is not synced',
  'record-first': 'recorded before the data is there',
  'told-early': 'said to be done before the record is synced',
  'error-swallowed': 'an error of a write is ignored',
} as const
type Bug = keyof typeof BUGS

const bug = new URL(import.meta.url).searchParams.get('bug') as Bug | null

const digestOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const checkOf = (text: string): string => digestOf(Buffer.from(text)).slice(0, 8)

function sync(path: string): void {
  const fd = openSync(path, 'r')
  fsyncSync(fd)
  closeSync(fd)
}

function open(path: string): Map<string, string> {
  mkdirSync(join(path, 'objects'), { recursive: true })
  mkdirSync(join(path, 'tmp'), { recursive: true })
  for (const name of readdirSync(join(path, 'tmp'))) rmSync(join(path, 'tmp', name))
  const records = join(path, 'records')
  if (!existsSync(records)) writeFileSync(records, '')
  sync(path)
  // Up to the first that is torn; what comes after it was never told.
  const found = new Map<string, string>()
  let end = 0
  for (const line of readFileSync(records, 'latin1').split('\n').slice(0, -1)) {
    const [name = '', digest = '', check] = line.split(' ')
    if (check !== checkOf(`${name} ${digest}`)) break
    found.set(name, digest)
    end += line.length + 1
  }
  truncateSync(records, end)
  return found
}

function put({ path, tell }: Run, name: string, bytes: Buffer): void {
  const digest = digestOf(bytes)
  const object = join(path, 'objects', digest)
  const record = (): void => {
    appendFileSync(join(path, 'records'), `${name} ${digest} ${checkOf(`${name} ${digest}`)}\n`)
    if (bug === 'told-early') tell.durable(name, digest)
    sync(join(path, 'records'))
  }
  tell.begin(name, digest)
  if (bug === 'record-first') record()
  write(join(path, 'tmp', digest), bytes)
  renameSync(join(path, 'tmp', digest), object)
  if (bug !== 'no-directory-sync') sync(join(path, 'objects'))
  if (bug !== 'record-first') record()
  tell.durable(name, digest)
}

function write(path: string, bytes: Buffer): void {
  const fd = openSync(path, 'w')
  for (let at = 0; at < bytes.length; at += 8192) {
    try {
      writeSync(fd, bytes, at, Math.min(8192, bytes.length - at), at)
    } catch (error) {
      if (bug !== 'error-swallowed') throw error
    }
  }
  if (bug !== 'no-file-sync') fsyncSync(fd)
  closeSync(fd)
}

function problemsOf(path: string, facts: ReadonlyMap<string, ReadonlySet<string | null>>): Problem[] {
  const problems: Problem[] = []
  const found = open(path)
  for (const [name, values] of facts) {
    if (!values.has(found.get(name) ?? null)) problems.push({ kind: 'lost', what: name })
  }
  for (const [name, digest] of found) {
    const object = join(path, 'objects', digest)
    const isWhole = existsSync(object) && digestOf(readFileSync(object)) === digest
    if (!isWhole) problems.push({ kind: 'corrupt', what: name })
  }
  return problems
}

export const scenario: Scenario = {
  prepare: async (run) => {
    open(run.path)
    put(run, 'first', Buffer.from('first'))
  },
  run: async (run) => {
    open(run.path)
    const random = randomFrom(run.seed)
    for (const name of ['a', 'b', 'first', 'a'])
      put(run, name, Buffer.alloc(20_000, `${name} ${random.next(1000)} `))
  },
  check: async ({ path, facts }) => problemsOf(path, facts),
}
