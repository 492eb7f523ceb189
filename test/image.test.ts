/** The image that a build gives: documents, dates, digests, history. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import Ajv from 'ajv-draft-04'
import type { ValidateFunction } from 'ajv'
import { buildIn, openWorkshop, type Workshop } from './support/build.ts'

let shop: Workshop
beforeAll(async () => {
  shop = await openWorkshop()
})
afterAll(async () => shop[Symbol.asyncDispose]())

const SCHEMAS = join(import.meta.dirname, '../fixtures/schemas/image-spec')

/** The image-spec's schemas. Nested `id`s are dropped: each file is known by its own name. */
function validator(name: string): ValidateFunction {
  const ajv = new Ajv.default({ strict: false, validateFormats: false })
  for (const file of readdirSync(SCHEMAS)) {
    const schema = JSON.parse(readFileSync(join(SCHEMAS, file), 'utf8'), (key, value: unknown) =>
      key === 'id' ? undefined : value,
    ) as Record<string, unknown>
    ajv.addSchema({ ...schema, id: file }, file)
  }
  const found = ajv.getSchema(name)
  if (found === undefined) throw new Error(`no schema ${name}`)
  return found
}

const everything = `FROM base
MAINTAINER somebody
ARG VERSION=1
ENV A=1 B="two words"
LABEL org.example.a=b
WORKDIR /work
RUN echo $VERSION > version
COPY file ./
USER ann
EXPOSE 80 53/udp 8000-8002
VOLUME /data
SHELL ["/bin/sh", "-ec"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
ENTRYPOINT ["cat"]
CMD ["version"]
`

test('config and manifest are valid against the OCI schemas', async () => {
  const built = await shop.build(shop.context({ Dockerfile: everything, file: 'x' }))
  const image = shop.image(built)
  const manifest = validator('image-manifest-schema.json')
  expect([manifest(image.manifest), manifest.errors]).toEqual([true, null])
  const config = validator('config-schema.json')
  expect([config(image.config), config.errors]).toEqual([true, null])
})

test('the config says what the instructions said', async () => {
  const built = await shop.build(shop.context({ Dockerfile: everything, file: 'x' }))
  const { config, author } = shop.image(built).config
  expect(author).toBe('somebody')
  expect(config).toEqual({
    Cmd: ['version'],
    ArgsEscaped: true,
    Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'A=1', 'B=two words'],
    Labels: { 'org.example.a': 'b' },
    WorkingDir: '/work',
    User: 'ann',
    ExposedPorts: { '80/tcp': {}, '53/udp': {}, '8000/tcp': {}, '8001/tcp': {}, '8002/tcp': {} },
    Volumes: { '/data': {} },
    Shell: ['/bin/sh', '-ec'],
    StopSignal: 'SIGINT',
    Healthcheck: { Test: ['CMD-SHELL', 'true'], Interval: 5_000_000_000, Retries: 2 },
    Entrypoint: ['cat'],
  })
})

test('history has an entry for every instruction; those without a layer say so', async () => {
  const built = await shop.build(shop.context({ Dockerfile: everything, file: 'x' }))
  const { config } = shop.image(built)
  const history = config.history ?? []
  expect(history.filter(({ empty_layer }) => empty_layer !== true)).toHaveLength(
    config.rootfs.diff_ids.length,
  )
  expect(
    history.map(({ created_by, empty_layer }) => `${empty_layer === true ? '-' : '+'} ${created_by ?? ''}`),
  ).toEqual([
    '+ ',
    '- MAINTAINER somebody',
    '- ARG VERSION=1',
    '- ENV A=1 B=two words',
    '- LABEL org.example.a=b',
    '+ WORKDIR /work',
    '+ RUN |1 VERSION=1 /bin/sh -c echo $VERSION > version',
    '+ COPY file ./',
    '- USER ann',
    '- EXPOSE [80/tcp 53/udp 8000/tcp 8001/tcp 8002/tcp]',
    '- VOLUME [/data]',
    '- SHELL [/bin/sh -ec]',
    '- STOPSIGNAL SIGINT',
    '- HEALTHCHECK {"Test":["CMD-SHELL","true"],"Interval":5000000000,"Retries":2}',
    '- ENTRYPOINT ["cat"]',
    '- CMD ["version"]',
  ])
  for (const { created } of history.slice(1)) expect(created).toMatch(/^\d{4}-\d\d-\d\dT/)
})

describe('with SOURCE_DATE_EPOCH', () => {
  const files = {
    Dockerfile: `FROM base AS build
WORKDIR /src
COPY . .
RUN mkdir -p a/b && echo made > a/b/c && ln -s c a/b/d && mkfifo a/b/e
RUN ls -lR --full-time /src > /listing
FROM base
COPY --from=build /src/a /a
COPY --from=build /listing /listing
ADD x /added/
RUN touch /now && rm /bin/wget && ls -lR --full-time /a /added > /listing2
LABEL a=b
`,
    x: 'x',
    'y/z': 'z',
  }
  const epoch = { sourceDateEpoch: 1_600_000_000 }

  test('two builds from nothing in two stores give the same image', async () => {
    const one = await shop.build(shop.context(files), epoch)
    await using other = await openWorkshop()
    const two = await other.build(other.context(files), epoch)
    expect(two.manifestDigest).toBe(one.manifestDigest)
    expect(two.imageId).toBe(one.imageId)
  })

  test('again without the cache, and again on layers that were unpacked', async () => {
    const context = shop.context(files)
    const one = await shop.build(context, epoch)
    const two = await shop.build(context, { ...epoch, noCache: true })
    expect(two.manifestDigest).toBe(one.manifestDigest)
  })

  test('every date is that one, no file is newer', async () => {
    const built = await shop.build(shop.context(files), epoch)
    const { config } = shop.image(built)
    expect(config.created).toBe('2020-09-13T12:26:40.000Z')
    for (const { created } of (config.history ?? []).slice(1))
      expect(created).toBe('2020-09-13T12:26:40.000Z')
    const layers = config.rootfs.diff_ids.map((diffId) => shop.store.layers.open(diffId))
    await using root = await shop.store.layers.mount(layers)
    const listing = readFileSync(`/proc/self/fd/${root.fd}/listing2`, 'utf8')
    expect(listing).toContain('2020-09-13')
  })

  test('it is part of the keys: layers of another date are not taken', async () => {
    const context = shop.context({ Dockerfile: 'FROM base\nRUN echo epoch > /f\n' })
    await shop.build(context, epoch)
    expect((await shop.build(context, { sourceDateEpoch: 1_500_000_000 })).ran).toHaveLength(1)
  })
})

test('a name moves from the image that had it', async () => {
  const first = await shop.build(shop.context({ Dockerfile: 'FROM base\nLABEL v=1\n' }))
  await shop.build(shop.context({ Dockerfile: 'FROM base\nLABEL v=2\n' }))
  expect(shop.image(first).names).toEqual([])
})

test('labels of the request are added', async () => {
  const context = shop.context({ Dockerfile: 'FROM base\nLABEL a=1 b=2\n' })
  const built = await buildIn(shop.store, context, { labels: new Map([['b', '3']]) })
  expect(shop.image(built).config.config?.Labels).toEqual({ a: '1', b: '3' })
})

test('arguments: globals reach FROM, stages see what they declare, proxies stay hidden', async () => {
  const context = shop.context({
    Dockerfile: `ARG TAG=latest
ARG SHARED=global
FROM base:\${TAG} AS parent
ARG SHARED
ARG OWN=\${SHARED}-own
RUN echo "[$SHARED|$OWN|$TARGETARCH|$http_proxy]"
FROM parent
ARG TARGETARCH
RUN echo "[$SHARED|$OWN|\${TARGETARCH:+arch}]"
`,
  })
  const built = await buildIn(shop.store, context, { buildArgs: new Map([['http_proxy', 'http://secret']]) })
  expect(built.output).toBe('[global|global-own||http://secret]\n[global|global-own|arch]\n')
  expect(JSON.stringify(shop.image(built).config)).not.toContain('secret')
})

test('ONBUILD is kept for the images built on this one, and runs there before their own instructions, once', async () => {
  const first = await shop.build(
    shop.context({
      Dockerfile: 'FROM base\nONBUILD COPY in /in\nONBUILD RUN cat /in > /from-trigger\nRUN true\n',
    }),
    { tags: ['docker.io/library/parent:latest'] },
  )
  expect(shop.image(first).config.config?.OnBuild).toEqual(['COPY in /in', 'RUN cat /in > /from-trigger'])
  const child = await shop.build(
    shop.context({ Dockerfile: 'FROM parent\nRUN cat /from-trigger\n', in: 'given\n' }),
  )
  expect(child.output).toBe('given\n')
  expect(child.ran).toEqual([
    '[2/4] COPY in /in',
    '[3/4] RUN cat /in > /from-trigger',
    '[4/4] RUN cat /from-trigger',
  ])
  expect(shop.image(child).config.config?.OnBuild).toBeUndefined()
})

test('an error in a trigger shows the trigger', async () => {
  await shop.build(shop.context({ Dockerfile: 'FROM base\nONBUILD COPY missing /\n' }), {
    tags: ['docker.io/library/bad:latest'],
  })
  await expect(shop.build(shop.context({ Dockerfile: 'FROM bad\n' }))).rejects.toMatchObject({
    code: 'COPY_NOT_FOUND',
    source: { file: 'ONBUILD of bad', frame: expect.stringContaining('COPY missing /') },
  })
})
