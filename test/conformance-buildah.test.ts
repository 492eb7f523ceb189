/**
 * The conformance cases beside Debian's buildah. All of them take minutes, so `npm test` has a selection in which nearly every known difference
 * shows; `npm run test:peers` has all.
 */
import { expect, test } from '@jest/globals'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { BUILDAH, BUILDAH_SAMPLE, DOCKER } from './support/peer-differences.ts'
import { comparePeer } from './support/peer-suite.ts'
import { openBuildah } from './support/peers.ts'

const isWhole = process.env['TBUILD_PEERS'] === 'all'
comparePeer(openBuildah, BUILDAH, isWhole ? undefined : BUILDAH_SAMPLE)

test('docs/conformance.md tells every reason', () => {
  const page = readFileSync(join(import.meta.dirname, '../docs/conformance.md'), 'utf8')
  expect([...BUILDAH, ...DOCKER].filter(({ why }) => !page.includes(why))).toEqual([])
})
