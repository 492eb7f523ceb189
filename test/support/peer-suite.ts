/** The conformance cases, built by tbuild and by another builder: the two images are compared, and each difference must be known and told why. */
import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build } from '../../builder/index.ts'
import { openStore, type Store } from '../../cas/index.ts'
import { DockerfileError } from '../../dockerfile-parser/index.ts'
import { TbuildError } from '../../errors.ts'
import { cases, makeBases, notYet, prepare, substitute, type Case } from './conformance.ts'
import type { Reason } from './peer-differences.ts'
import { filesOf, giveBases, type Peer, type PeerBuild } from './peers.ts'
import { differencesOf, unpack, type Unpacked } from './unpacked.ts'

/** Of the cases named, or of all. An entry of `reasons` that no case needs any more fails too. */
export function comparePeer(
  open: (directory: string) => Peer | Promise<Peer>,
  reasons: readonly Reason[],
  ids?: readonly string[],
): void {
  const chosen = cases.filter(({ id }) => !notYet.has(id) && (ids === undefined || ids.includes(id)))
  const used = new Set<Reason>()
  const directory = mkdtempSync(join(tmpdir(), 'tbuild-peer-'))
  // What was made from then on has the build's time. Contexts and bases are years older.
  const since = Math.floor(Date.now() / 1000) - 1
  let store: Store
  let peer: Peer | undefined

  beforeAll(async () => {
    store = await openStore(join(directory, 'store'))
    peer = await open(directory)
    await giveBases(peer, store, await makeBases(store, directory), directory)
  }, 180_000)
  afterAll(async () => {
    await peer?.[Symbol.asyncDispose]()
    await store[Symbol.asyncDispose]()
    rmSync(directory, { recursive: true, force: true })
  })

  const differences = async (one: Case): Promise<string[]> => {
    const place = join(directory, one.id)
    mkdirSync(place)
    const buildArgs = Object.fromEntries(
      Object.entries(one.buildArgs ?? {}).map(([arg, value]) => [arg, substitute(value)]),
    )
    const request = { ...prepare(one, place), buildArgs }
    const ours = await buildOurs(store, { ...request, output: join(place, 'ours') }, since)
    if (peer === undefined) throw new Error('the other builder did not start')
    const files = peer.build({ ...request, output: join(place, 'theirs') })
    const theirs = typeof files === 'string' ? files : unpack(files, join(place, 'theirs-unpacked'), since)
    rmSync(place, { recursive: true })
    if (typeof ours !== 'string' && typeof theirs !== 'string') return differencesOf(ours, theirs)
    if (typeof ours === 'string' && typeof theirs === 'string') return []
    return [`build: ${outcome(ours)} | ${outcome(theirs)}`]
  }

  test.each(chosen.map((one) => [one.id, one] as const))('%s', async (id, one) => {
    const mine = reasons.filter((reason) => reason.cases === undefined || reason.cases.includes(id))
    const needed = new Set<Reason>()
    const unexplained = (await differences(one)).filter((line) => {
      const reason = mine.find(({ lines }) => lines.test(line))
      if (reason !== undefined) needed.add(reason)
      return reason === undefined
    })
    for (const reason of needed) used.add(reason)
    expect(unexplained).toEqual([])
    expect(mine.filter((reason) => reason.cases !== undefined && !needed.has(reason))).toEqual([])
  })

  test('every difference that is said to be in many cases is in one', () => {
    expect(reasons.filter((reason) => reason.cases === undefined && !used.has(reason))).toEqual([])
  })
}

function outcome(result: Unpacked | string): string {
  return typeof result === 'string' ? `failed: ${result.replaceAll('\n', ' ')}` : 'ok'
}

/** The image, or what the build said when it failed. */
async function buildOurs(store: Store, request: PeerBuild, since: number): Promise<Unpacked | string> {
  const { context, dockerfile, buildArgs, output } = request
  try {
    const { manifestDigest } = await build(
      {
        context,
        dockerfile,
        tags: [],
        buildArgs: new Map(Object.entries(buildArgs)),
        noCache: true,
        network: 'none',
        limits: {},
        labels: new Map(),
      },
      store,
    )
    const image = store.images.byManifest(manifestDigest)
    if (image === undefined) throw new Error('the image is not in the store')
    return unpack(await filesOf(store, image, output), `${output}-unpacked`, since)
  } catch (error) {
    if (error instanceof TbuildError || error instanceof DockerfileError) return error.message
    throw error
  }
}
