import { afterAll, beforeAll, expect, test } from '@jest/globals'
import { openWorkshop, type Workshop } from '../test/support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => {
  await shop[Symbol.asyncDispose]()
})

test('warnings come when the image is done, with their frames', async () => {
  const files = { Dockerfile: 'FROM base AS Unused\nRUN true\nMAINTAINER me\nFROM base\nCMD true\n' }
  const { events } = await shop.build(shop.context(files))
  const warnings = events.filter(({ kind }) => kind === 'warning')
  expect(warnings).toEqual([
    {
      kind: 'warning',
      message: expect.stringMatching(/^StageNameCasing: .*\(line 1\)$/),
      frame: expect.any(String),
    },
    { kind: 'warning', message: expect.stringMatching(/^MaintainerDeprecated: /), frame: expect.any(String) },
    {
      kind: 'warning',
      message: expect.stringMatching(/^JSONArgsRecommended: /),
      frame: expect.stringContaining('^'),
    },
  ])
  expect(events.at(-1)?.kind).toBe('warning')
})

test('a base image with a shell of its own, or a variable, is known to the checks', async () => {
  await shop.build(shop.context({ Dockerfile: 'FROM base\nENV KNOWN=1\n' }), {
    tags: ['docker.io/library/known:latest'],
  })
  const { events } = await shop.build(shop.context({ Dockerfile: 'FROM known\nLABEL a=$KNOWN b=$UNKNOWN\n' }))
  const messages = events.flatMap((event) => (event.kind === 'warning' ? [event.message] : []))
  expect(messages).toEqual([expect.stringMatching(/^UndefinedVar: .*\$UNKNOWN/)])
})

test('error=true stops the build before anything runs; the build argument goes before the file', async () => {
  const context = shop.context({ Dockerfile: '# check=error=true\nFROM base\nRUN echo ran\nCMD true\n' })
  await expect(shop.build(context)).rejects.toMatchObject({ code: 'CHECKS_FAILED', source: { line: 4 } })
  const skip = new Map([['BUILDKIT_DOCKERFILE_CHECK', 'skip=all']])
  // It had not run before, else it were cached.
  expect((await shop.build(context, { buildArgs: skip })).output).toBe('ran\n')
  const wrong = new Map([['BUILDKIT_DOCKERFILE_CHECK', 'skap=all']])
  await expect(shop.build(context, { buildArgs: wrong })).rejects.toMatchObject({
    code: 'INVALID_CHECK_OPTION',
  })
})
