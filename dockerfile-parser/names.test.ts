/** Names of images, platforms and ports, and the variables that every build has. */
import { describe, expect, test } from '@jest/globals'
import {
  formatPlatform,
  globalScope,
  isBuildkitArg,
  isCompatibleSyntax,
  isProxyArg,
  isSignal,
  parse,
  parseImageName,
  parsePlatform,
  parsePortSpec,
  platformArgs,
  portsOf,
  findStage,
  stagesOf,
} from './index.ts'

const digest = `sha256:${'a'.repeat(64)}`
const amd64 = { os: 'linux', architecture: 'amd64', variant: '' }

describe('images', () => {
  test.each([
    ['debian', { name: 'docker.io/library/debian', tag: undefined }],
    ['a/b:1', { name: 'docker.io/a/b', tag: '1' }],
    ['index.docker.io/a', { name: 'docker.io/library/a' }],
    ['localhost/a', { name: 'localhost/a' }],
    ['Host/a', { name: 'Host/a' }],
    ['h.example:5000/a/b__c-d.e:x@' + digest, { name: 'h.example:5000/a/b__c-d.e', tag: 'x', digest }],
    ['[::1]:5000/a', { name: '[::1]:5000/a' }],
  ])('%s', (text, expected) => {
    expect(parseImageName(text)).toMatchObject(expected)
  })

  test.each([
    '',
    'a:',
    'A',
    'a//b',
    '/a',
    'a/',
    '-a',
    'a..b',
    'a@',
    'a@sha256:1',
    'a:b c',
    'a'.repeat(64),
    'x'.repeat(300),
    'é',
  ])('%j is none', (text) => {
    expect(typeof parseImageName(text)).toBe('string')
  })
})

describe('platforms', () => {
  test.each([
    ['linux/amd64', 'linux/amd64'],
    ['linux', 'linux/amd64'],
    ['arm64', 'linux/arm64'],
    ['LINUX/x86_64', 'linux/amd64'],
    ['linux/arm64/v8', 'linux/arm64'],
    ['linux/arm/6', 'linux/arm/v6'],
    ['armhf', 'linux/arm/v7'],
    ['macos/aarch64', 'darwin/arm64'],
    ['windows(10.0.17763)/amd64', 'windows/amd64'],
    ['made-up/cpu', 'made-up/cpu'],
  ])('%s is %s', (text, expected) => {
    expect(formatPlatform(parsePlatform(text, amd64)!)).toBe(expected)
  })

  test.each(['', 'nonsense', 'linux/', 'a/b/c/d', 'linux/*', 'linux /amd64'])('%j is none', (text) => {
    expect(parsePlatform(text, amd64)).toBeUndefined()
  })
})

describe('ports', () => {
  test.each([
    ['80', ['80/tcp'], false],
    ['53/UDP', ['53/udp'], false],
    ['80/', ['80/tcp'], false],
    ['8000-8002/sctp', ['8000/sctp', '8001/sctp', '8002/sctp'], false],
    ['5-5', ['5/tcp'], false],
    ['8080:80', ['80/tcp'], true],
    ['127.0.0.1:8080-8081:80-81', ['80/tcp', '81/tcp'], true],
    ['8080-8090:80', ['80/tcp'], true],
    ['[2001:4860:0:2001::68]::333', ['333/tcp'], true],
    ['::1:80:80', ['80/tcp'], true],
    ['::::80', ['80/tcp'], true],
    ['0', ['0/tcp'], false],
  ])('%s', (text, ports, mapped) => {
    const spec = parsePortSpec(text)
    if (typeof spec === 'string') throw new Error(spec)
    expect([portsOf(spec), spec.mapped]).toEqual([ports, mapped])
  })

  test.each([
    '',
    '/tcp',
    '80/http',
    '65536',
    '-1',
    '8-7',
    '1-2-3',
    'a',
    'host:1:2',
    '1.2.3.256:1:2',
    '1-2:1-3',
    ':::',
    '1::2::3:80:80',
  ])('%j is none', (text) => {
    expect(typeof parsePortSpec(text)).toBe('string')
  })
})

test('signals', () => {
  for (const text of ['SIGTERM', 'term', '9', '-1', '100', 'SIGRTMIN+15', 'rtmax-14'])
    expect([text, isSignal(text)]).toEqual([text, true])
  for (const text of ['', '0', 'SIG', 'FOO', 'RTMIN+16', 'RTMAX-15', '9x'])
    expect([text, isSignal(text)]).toEqual([text, false])
})

describe('variables of a build', () => {
  const tree = parse('ARG A=1 B=$A$TARGETARCH\nARG C\nARG D=${X:?no}\nFROM a')
  const { globalArgs } = stagesOf(tree)
  const platform = platformArgs(amd64, { os: 'linux', architecture: 'arm', variant: 'v7' }, undefined)

  test('platform arguments', () => {
    expect(Object.fromEntries(platform)).toEqual({
      BUILDPLATFORM: 'linux/amd64',
      BUILDOS: 'linux',
      BUILDOSVERSION: '',
      BUILDARCH: 'amd64',
      BUILDVARIANT: '',
      TARGETPLATFORM: 'linux/arm/v7',
      TARGETOS: 'linux',
      TARGETOSVERSION: '',
      TARGETARCH: 'arm',
      TARGETVARIANT: 'v7',
      TARGETSTAGE: 'default',
    })
    expect(platformArgs(amd64, amd64, 'app').get('TARGETSTAGE')).toBe('app')
  })

  test('defaults see what came before; a build argument goes before both, and its default is not expanded', () => {
    const given = new Map([
      ['D', 'd'],
      ['TARGETARCH', 'mine'],
      ['UNDECLARED', 'x'],
    ])
    const { values, declared } = globalScope(tree, globalArgs, platform, given)
    expect(['A', 'B', 'C', 'D', 'TARGETARCH', 'UNDECLARED'].map((name) => values.get(name))).toEqual([
      '1',
      '1mine',
      undefined,
      'd',
      'mine',
      undefined,
    ])
    expect(declared.has('C')).toBe(true)
    expect(() => globalScope(tree, globalArgs, platform, new Map())).toThrow('X: no')
  })

  test('names with a meaning of their own', () => {
    expect(['HTTPS_PROXY', 'no_proxy', 'proxy'].map(isProxyArg)).toEqual([true, true, false])
    expect(['BUILDKIT_SYNTAX', 'SYNTAX'].map(isBuildkitArg)).toEqual([true, false])
  })
})

test.each([
  ['docker/dockerfile:1', true],
  ['docker/dockerfile', true],
  ['docker.io/docker/dockerfile:1.7-labs -- x', true],
  ['docker/dockerfile-upstream:master', true],
  [`mirror.example/docker/dockerfile:1@${digest}`, true],
  ['docker/dockerfile:2', false],
  ['example/frontend', false],
  ['', false],
])('# syntax=%s', (value, expected) => {
  expect(isCompatibleSyntax(value)).toBe(expected)
})

test('a stage is found by its number, in any way to write it, or by the last of its name', () => {
  const { stages } = stagesOf(parse('FROM a AS x\nFROM b AS X\nFROM c'))
  expect(['X', '0', '+1', '02', '3', 'y', '-1'].map((text) => findStage(stages, text)?.index)).toEqual([
    1,
    0,
    1,
    2,
    undefined,
    undefined,
    undefined,
  ])
})
