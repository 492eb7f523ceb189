/** Where FROM finds its image. */
import { expect, test } from '@jest/globals'
import { openRegistry, parseReference } from '../registry/index.ts'
import { pushImage } from '../builder/index.ts'
import { openWorkshop } from './support/build.ts'
import { startRegistry } from './support/registry.ts'

test('a base that the store lacks is pulled, once', async () => {
  await using registry = await startRegistry()
  await using shop = await openWorkshop()
  const name = `${registry.host}/team/base:1`
  const reference = parseReference(name)
  const base = shop.store.images.byName('docker.io/library/base:latest')
  if (base === undefined) throw new Error('no base')
  await using there = await openRegistry(reference)
  await pushImage(shop.store, there, reference, base)

  await using other = await openWorkshop()
  const context = other.context({ Dockerfile: `FROM ${name}\nRUN echo pulled\n` })
  const first = await other.build(context)
  expect(first.output).toBe('pulled\n')
  expect(first.events[0]).toMatchObject({ kind: 'started', title: `[internal] pull ${name}` })
  const again = await other.build(context)
  expect(again.ran).toEqual([])
  expect(again.events[0]).toMatchObject({ title: `[1/2] FROM ${name}` })
})

test('one that is nowhere is named with its line and the registry’s answer', async () => {
  await using registry = await startRegistry()
  await using shop = await openWorkshop()
  const context = shop.context({ Dockerfile: `FROM base AS a\nFROM ${registry.host}/no/such:tag\n` })
  await expect(shop.build(context)).rejects.toMatchObject({
    code: 'IMAGE_NOT_FOUND',
    source: { line: 2 },
    hint: expect.stringContaining('no/such'),
  })
})

test('by the beginning of its id', async () => {
  await using shop = await openWorkshop()
  const id = shop.store.images
    .byName('docker.io/library/base:latest')
    ?.id.slice('sha256:'.length, 'sha256:'.length + 12)
  const built = await shop.build(shop.context({ Dockerfile: `FROM ${id}\nRUN echo by-id\n` }))
  expect(built.output).toBe('by-id\n')
})
