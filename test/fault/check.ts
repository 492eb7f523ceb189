/**
 * What must be true of a store after a fault, by its public face only: it opens; the facts that a scenario told hold; every image is whole (configs, manifests
 * and every layer's tar hash to their digests); `fsck` finds nothing; what dead processes left is swept.
 *
 * Keys of facts: `image NAME` -> its manifest's digest; `layer DIFFID` and `blob DIGEST` -> `stored`.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { openStore, type BlobDigest, type DiffId, type Store } from '../../cas/index.ts'
import { failureOf } from './failure.ts'
import type { Problem, State } from './scenario.ts'

export const imageKey = (name: string): string => `image ${name}`
export const layerKey = (diffId: DiffId): string => `layer ${diffId}`
export const blobKey = (digest: BlobDigest): string => `blob ${digest}`
export const STORED = 'stored'

export async function checkStore({ path, facts }: State): Promise<readonly Problem[]> {
  await using store = await openStore(path)
  const problems: Problem[] = []
  const lost = (what: string): number => problems.push({ kind: 'lost', what })
  const corrupt = (what: string): number => problems.push({ kind: 'corrupt', what })
  for (const [key, values] of facts) {
    const found = look(store, key)
    // What nothing holds may go or stay: only its being there can be asked for.
    if (!key.startsWith('image ') && !(values.size === 1 && values.has(STORED))) continue
    if (!values.has(found)) lost(`${key} is ${found}, not ${[...values].join(' or ')}`)
  }
  const layers = new Set<DiffId>()
  for (const key of facts.keys()) {
    const [kind, digest] = key.split(' ')
    if (kind === 'layer' && store.layers.find(digest as DiffId) !== undefined) layers.add(digest as DiffId)
  }
  try {
    for (const { config } of store.images.list())
      for (const diffId of config.rootfs.diff_ids) layers.add(diffId)
  } catch (error) {
    corrupt(`images: ${failureOf(error).message}`)
  }
  for (const diffId of layers) {
    try {
      // Verified while it streams.
      for await (const _ of store.layers.tar(diffId)) continue
    } catch (error) {
      corrupt(`layer ${diffId}: ${failureOf(error).message}`)
    }
  }
  for (const directory of ['work', 'leases']) {
    const own = ownScope(store)
    const left = readdirSync(join(path, directory)).filter((name) => name !== own && !name.startsWith('.'))
    if (left.length > 0) problems.push({ kind: 'left', what: `${directory} still has ${left.join(', ')}` })
  }
  return problems
}

function ownScope(store: Store): string {
  return store.lease().scope
}

function look(store: Store, key: string): string | null {
  const [kind = '', name = ''] = key.split(' ')
  try {
    if (kind === 'image') return store.images.byName(name)?.manifestDigest ?? null
    if (kind === 'layer') return store.layers.find(name as DiffId) === undefined ? null : STORED
    return store.blobs.size(name as BlobDigest) === undefined ? null : STORED
  } catch (error) {
    return failureOf(error).message
  }
}
