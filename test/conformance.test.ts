/** Every case of fixtures/conformance: configuration and file system as BuildKit made them. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from '../builder/index.ts'
import { openStore, type Image, type Store } from '../cas/index.ts'
import {
  cases,
  compareConfigs,
  compareTrees,
  entriesOf,
  expectedOf,
  makeBases,
  prepare,
  substitute,
  type Case,
} from './support/conformance.ts'

const directory = mkdtempSync(join(tmpdir(), 'tbuild-conformance-'))
let store: Store
let bases: ReadonlyMap<string, Image>

beforeAll(async () => {
  store = await openStore(join(directory, 'store'))
  bases = await makeBases(store, directory)
})
afterAll(async () => {
  await store[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})

async function differences(one: Case): Promise<string[]> {
  const expected = expectedOf(one.id)
  const place = join(directory, one.id)
  mkdirSync(place)
  const { context, dockerfile } = prepare(one, place)
  const request = {
    context,
    dockerfile,
    tags: [],
    buildArgs: new Map(Object.entries(one.buildArgs ?? {}).map(([name, value]) => [name, substitute(value)])),
    noCache: true,
    network: 'none' as const,
    limits: {},
    labels: new Map<string, string>(),
  }
  let image: Image | undefined
  try {
    const { manifestDigest } = await build(request, store)
    image = store.images.byManifest(manifestDigest)
  } catch (error) {
    return expected.result === 'error' ? [] : [error instanceof Error ? error.message : String(error)]
  }
  if (expected.result === 'error') return ['the build should have failed']
  const base = await entriesOf(store, bases.get(expected.base))
  const built = await entriesOf(store, image)
  return [
    ...compareConfigs(expected.image.config, { ...image?.config.config }),
    ...compareTrees(expected, base, built),
  ]
}

describe('conformance', () => {
  test.each(cases.map((one) => [one.id, one] as const))('%s', async (_, one) => {
    expect(await differences(one)).toEqual([])
  })
})
