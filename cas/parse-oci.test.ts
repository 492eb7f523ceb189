import { describe, expect, test } from '@jest/globals'
import { assert, constantFrom, json as anyJson, property } from 'fast-check'
import { TbuildError } from '../errors.ts'
import { MEDIA } from './oci.ts'
import { assertSameLayers, MAX_CONFIG_BYTES, parseConfig, parseIndex, parseManifest } from './parse-oci.ts'

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

const layer = { mediaType: MEDIA.layerGzip, digest: digest('1'), size: 12 }
const manifest = {
  schemaVersion: 2,
  mediaType: MEDIA.manifest,
  config: { mediaType: MEDIA.config, digest: digest('a'), size: 7 },
  layers: [layer],
}
const config = {
  architecture: 'amd64',
  os: 'linux',
  rootfs: { type: 'layers', diff_ids: [digest('b')] },
}

/** The error that a change of one field gives. */
function wrong(parse: (bytes: Uint8Array) => unknown, value: unknown): { code: string; message: string } {
  try {
    parse(bytes(value))
  } catch (error) {
    if (error instanceof TbuildError) return { code: error.code, message: error.message }
    throw error
  }
  throw new Error('it was accepted')
}

describe('manifest', () => {
  test('OCI and docker schema 2; unknown fields are left out', () => {
    expect(parseManifest(bytes({ ...manifest, subject: null, extra: [1] }))).toEqual(manifest)
    const docker = {
      schemaVersion: 2,
      mediaType: MEDIA.dockerManifest,
      config: { mediaType: MEDIA.dockerConfig, digest: digest('a'), size: 7 },
      layers: [{ mediaType: MEDIA.dockerLayerGzip, digest: digest('1'), size: 12 }],
    }
    expect(parseManifest(bytes(docker))).toEqual(docker)
  })

  test.each([
    ['schemaVersion', { ...manifest, schemaVersion: 1 }],
    ['mediaType', { ...manifest, mediaType: MEDIA.index }],
    ['config', { ...manifest, config: undefined }],
    ['config.digest', { ...manifest, config: { ...manifest.config, digest: 'sha512:00' } }],
    ['layers', { ...manifest, layers: {} }],
    ['layers[0].size', { ...manifest, layers: [{ ...layer, size: -1 }] }],
    ['layers[0].size', { ...manifest, layers: [{ ...layer, size: 2 ** 60 }] }],
    ['layers[0].digest', { ...manifest, layers: [{ ...layer, digest: digest('A') }] }],
    ['layers[0].urls[0]', { ...manifest, layers: [{ ...layer, urls: [1] }] }],
    ['layers[0].annotations.x', { ...manifest, layers: [{ ...layer, annotations: { x: 1 } }] }],
    ['manifests', { ...manifest, manifests: [] }],
  ])('names %s', (field, value) => {
    const { code, message } = wrong(parseManifest, value)
    expect(code).toBe('MANIFEST_INVALID')
    expect(message).toContain(`the image manifest: ${field} `)
  })

  test('not JSON, not UTF-8, not an object, too large', () => {
    for (const text of ['', '{', '[]', 'null', '"x"', '\ufeff{}'])
      expect(() => parseManifest(Buffer.from(text))).toThrow(TbuildError)
    expect(() => parseManifest(Buffer.from([0x7b, 0xff, 0x7d]))).toThrow('is not JSON')
    expect(() => parseManifest(Buffer.alloc(4 * 1024 * 1024 + 1, ' '))).toThrow('at most')
    expect(() => parseConfig(Buffer.alloc(MAX_CONFIG_BYTES + 1, ' '))).toThrow('at most')
  })

  test('nested more deeply than anything is', () => {
    const deep = (depth: number): Buffer =>
      Buffer.from(
        JSON.stringify(config).replace(/^\{/, `{"x":${'['.repeat(depth)}${']'.repeat(depth)},"y":"\\"[",`),
      )
    expect(parseConfig(deep(9000))).toEqual(parseConfig(Buffer.from(JSON.stringify(config))))
    for (const depth of [11_000, 4_000_000])
      expect(() => parseConfig(deep(depth))).toThrow('the image config: it is not JSON')
  })

  test('a message holds no control characters', () => {
    const { message } = wrong(parseManifest, { ...manifest, mediaType: '\u001b[31m\u202e\u009b' })
    expect(message).not.toMatch(/[\p{Cc}\p{Cf}]/u)
  })
})

describe('index', () => {
  const one = { mediaType: MEDIA.manifest, digest: digest('c'), size: 3 }
  test('platforms', () => {
    const index = {
      schemaVersion: 2,
      manifests: [one, { ...one, platform: { os: 'linux', architecture: 'arm', variant: 'v7' } }],
    }
    expect(parseIndex(bytes(index))).toEqual(index)
  })
  test.each([
    ['manifests', { schemaVersion: 2 }],
    [
      'manifests[0].platform.os',
      { schemaVersion: 2, manifests: [{ ...one, platform: { architecture: 'x' } }] },
    ],
    ['layers', { schemaVersion: 2, manifests: [], layers: [] }],
  ])('names %s', (field, value) => {
    expect(wrong(parseIndex, value).message).toContain(`the image index: ${field} `)
  })
})

describe('config', () => {
  test("as docker writes it: nulls are absent, a string is a list, sets' values do not count", () => {
    const parsed = parseConfig(
      bytes({
        ...config,
        container: 'x',
        config: {
          Cmd: 'sh',
          Entrypoint: null,
          Env: ['A=b'],
          Volumes: { '/v': null },
          ExposedPorts: { '80/tcp': {} },
          Labels: { __proto__x: '1' },
          Healthcheck: { Test: ['NONE'], Interval: 30_000_000_000 },
          OnBuild: null,
        },
        history: [{ created_by: 'x', empty_layer: true }, { comment: 'y' }],
      }),
    )
    expect(parsed).toEqual({
      ...config,
      config: {
        Cmd: ['sh'],
        Env: ['A=b'],
        Volumes: { '/v': {} },
        ExposedPorts: { '80/tcp': {} },
        Labels: { __proto__x: '1' },
        Healthcheck: { Test: ['NONE'], Interval: 30_000_000_000 },
      },
      history: [{ created_by: 'x', empty_layer: true }, { comment: 'y' }],
    })
  })

  test('a key called __proto__ is a key', () => {
    const text = JSON.stringify({ ...config, config: { Labels: {} } }).replace(
      '"Labels":{}',
      '"Labels":{"__proto__":"x"}',
    )
    const labels = parseConfig(Buffer.from(text)).config?.Labels ?? {}
    expect(Object.entries(labels)).toEqual([['__proto__', 'x']])
    expect(({} as { polluted?: string }).polluted).toBeUndefined()
  })

  test.each([
    ['os', { ...config, os: undefined }],
    ['rootfs', { ...config, rootfs: undefined }],
    ['rootfs.type', { ...config, rootfs: { type: 'x', diff_ids: [] } }],
    ['rootfs.diff_ids[1]', { ...config, rootfs: { type: 'layers', diff_ids: [digest('b'), 'x'] } }],
    ['config.Env[0]', { ...config, config: { Env: [null] } }],
    ['config.Healthcheck.Retries', { ...config, config: { Healthcheck: { Retries: 1.5 } } }],
    ['history[0].empty_layer', { ...config, history: [{ empty_layer: 'no' }] }],
  ])('names %s', (field, value) => {
    const { code, message } = wrong(parseConfig, value)
    expect(code).toBe('CONFIG_INVALID')
    expect(message).toContain(`the image config: ${field} `)
  })

  test('as many diff ids as layers', () => {
    const ours = parseManifest(bytes(manifest))
    expect(() => assertSameLayers(ours, parseConfig(bytes(config)))).not.toThrow()
    const none = parseConfig(bytes({ ...config, rootfs: { type: 'layers', diff_ids: null } }))
    expect(() => assertSameLayers(ours, none)).toThrow('rootfs.diff_ids has 0 entries')
  })
})

test('whatever JSON comes, there is a value or an error of ours', () => {
  const documents = property(
    anyJson({ maxDepth: 4 }),
    constantFrom('config', 'layers', 'rootfs', 'manifests'),
    (json, key) => {
      const inner = JSON.parse(json) as unknown
      for (const parse of [parseManifest, parseIndex, parseConfig]) {
        for (const value of [{ ...manifest, ...config, [key]: inner }, inner]) {
          try {
            parse(bytes(value))
          } catch (error) {
            if (!(error instanceof TbuildError)) throw error
          }
        }
      }
    },
  )
  expect(() => assert(documents)).not.toThrow()
})
