/**
 * What must be true of a store after a fault, by its public face only: it opens; the facts that a scenario told hold; `fsck`, which reads all
 * that there is, finds nothing; what dead processes left is swept.
 *
 * Keys of facts: `image NAME` -> its manifest's digest; `layer DIFFID` and `blob DIGEST` -> `stored`.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import {
  openStore,
  type BlobDigest,
  type DiffId,
  type OpenStoreOptions,
  type Store,
} from '../../cas/index.ts'
import { failureOf } from './failure.ts'
import type { Checker, Problem } from './scenario.ts'

export const imageKey = (name: string): string => `image ${name}`
export const layerKey = (diffId: DiffId): string => `layer ${diffId}`
export const blobKey = (digest: BlobDigest): string => `blob ${digest}`
export const STORED = 'stored'

export function checkerOf(options: OpenStoreOptions): Checker {
  return async ({ path, facts }) => {
    await using store = await openStore(path, options)
    const problems: Problem[] = []
    for (const [key, values] of facts) {
      // What nothing holds may go or stay: only its being there can be asked for.
      if (!key.startsWith('image ') && !(values.size === 1 && values.has(STORED))) continue
      const found = look(store, key)
      if (!values.has(found))
        problems.push({ kind: 'lost', what: `${key} is ${found}, not ${[...values].join(' or ')}` })
    }
    const own = store.lease().scope
    for (const directory of ['work', 'leases']) {
      // A lease without a name yet is left alone for a minute.
      const left = readdirSync(join(path, directory)).filter((name) => name !== own && !name.startsWith('.'))
      if (left.length > 0) problems.push({ kind: 'left', what: `${directory} still has ${left.join(', ')}` })
    }
    const report = await store.fsck()
    for (const { code, what, where } of report.problems)
      problems.push({ kind: 'corrupt', what: `${code} at ${where}: ${what}` })
    return problems
  }
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
